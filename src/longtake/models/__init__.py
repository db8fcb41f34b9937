"""Floor 3: a model is an encoder, a compressor, a projector, a language model and a reducer."""
