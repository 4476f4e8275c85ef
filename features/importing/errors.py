"""The one error of an import, and the reasons of others in it."""

from __future__ import annotations


class ImportFailed(Exception):
    """The files or the mapping cannot be used; the message names file, field and remedy in a line."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
