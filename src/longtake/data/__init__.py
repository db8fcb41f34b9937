"""Floor 2: training samples, labels and annotation files."""
