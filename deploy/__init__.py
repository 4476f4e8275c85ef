"""How Braid is put on machines: `embedded` runs the whole stack on one, without a container."""
