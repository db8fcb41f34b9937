"""Floor 6: the server: many questions about many memories over HTTP, with the proof."""
