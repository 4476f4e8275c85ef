"""Which release answers whom, and how its answers compare."""
