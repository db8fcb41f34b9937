"""Fewer visual tokens between language-model layers."""
