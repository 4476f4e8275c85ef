"""Step two: the release's models, asked in Triton."""
