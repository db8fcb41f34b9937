"""Floor 1: pure tensor functions."""
