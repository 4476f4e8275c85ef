"""Other ways to serve the same model from the same store, each a server in a Python environment of its own."""
