"""Features of any moment, cut from the whole log in files."""
