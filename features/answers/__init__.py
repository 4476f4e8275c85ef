"""Recorded answers, and what can be told from them."""
