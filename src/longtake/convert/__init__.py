"""Floor 4: released checkpoints: key maps, configuration readers, the integrity gate."""
