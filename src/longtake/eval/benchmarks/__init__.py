"""Published benchmarks, one file each: schema, prompts, readers. Annotations and videos come from the user's folder."""
