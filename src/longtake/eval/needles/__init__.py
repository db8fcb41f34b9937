"""Needles in a video haystack: drawn ones, and those of the released annotations; on a grid of depths and lengths."""
