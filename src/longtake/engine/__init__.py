"""Floor 5: ingest, ask, plan and what each stage cost."""
