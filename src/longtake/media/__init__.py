"""Floor 1: a file becomes frames with presentation times."""
