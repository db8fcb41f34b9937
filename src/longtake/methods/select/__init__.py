"""Which parts of a video matter for a question: the only question-aware stage."""
