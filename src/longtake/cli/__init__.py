"""Floor 7: the only place that prints, reads the environment or exits."""
