"""Step four, and every write: answers, events, erasures, the shop's records, off the event loop."""
