"""The catalogue in memory: one row an item, as the database has it."""
