"""A simulated shop that knows its own truth, and the story that `make demo` tells."""
