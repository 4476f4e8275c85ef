"""Step three: from scores to the page: what is allowed, in which order, and why."""
