"""The one error of an import."""

from __future__ import annotations


class ImportFailed(Exception):
    """The files or the mapping cannot be used; the message names file, field and remedy in a line."""
