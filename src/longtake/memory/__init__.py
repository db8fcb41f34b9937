"""Floor 2: a video's memory on disk: its bytes, its key, its writer and its reader."""
