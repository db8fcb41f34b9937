"""Floor 2: modules with weights and no opinions. Never imports methods."""
