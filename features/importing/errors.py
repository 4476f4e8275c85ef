"""The one error of an import."""

from __future__ import annotations


class ImportFailed(Exception):
    """The files or the mapping cannot be used; the message is one line that names the file, the field and the remedy."""
