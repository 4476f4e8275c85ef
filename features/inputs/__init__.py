"""From features to what a model reads: one transform for training and the gateway."""
