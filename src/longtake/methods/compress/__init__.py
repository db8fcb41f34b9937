"""Fewer tokens for a clip, blind to the question."""
