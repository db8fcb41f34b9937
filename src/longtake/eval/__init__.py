"""Floor 6: what a model is worth: needles, benchmarks, baselines, intervals and what it all cost."""
