"""Reads a shop's files into the event log, the catalogue and the users: see `features.importing.importer`."""
