"""Features of now: the rows of the online store, and the long-term vectors."""
