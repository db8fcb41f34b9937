"""Floor 2: one file is one method is one paper. Never imports nn."""
