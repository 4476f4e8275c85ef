"""Which release serves: loaded, warmed up, switched, kept to be rolled back to."""
