"""A peer from outside on the same exam: SASRec as RecTools builds it, in a Python environment of its own."""
