"""Floor 0: nouns, plug points, strict configurations and the tree of errors."""
