"""The event log: what shoppers did, in the order in which it was committed."""
