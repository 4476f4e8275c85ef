"""Erasure of a person: from the log, the answers, the online store and the offline files, down to the last byte."""
