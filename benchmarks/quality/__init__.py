"""How good the recommendations are: every method on the same public data sets, under one protocol for each.

The command is `python -m benchmarks.quality --data <folder>`; see `benchmarks.quality.__main__`.
"""
