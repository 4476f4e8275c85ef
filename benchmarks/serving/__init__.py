"""The gateway's speed beside what it is made of, and beside other ways to serve the same model."""
