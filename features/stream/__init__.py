"""The worker that keeps the online rows current, event by event."""
