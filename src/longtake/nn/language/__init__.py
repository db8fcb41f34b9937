"""The layer walk over a language model."""
