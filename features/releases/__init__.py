"""Releases: their files, their table, and which are no longer needed."""
