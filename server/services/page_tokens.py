"""Tokens of the methods that page through records by id."""

from __future__ import annotations

import base64
import binascii

from features.schema import MAX_ID_CHARS
from server.services.fields import Fields


def page_token(last_id: str) -> str:
    """The token of the page that begins after an id."""
    return base64.urlsafe_b64encode(last_id.encode()).decode()


def read_page_token(fields: Fields, token: str, method: str) -> str:
    """The id after which a page begins; empty for the first."""
    fields.text("page_token", token, 8 * MAX_ID_CHARS)
    try:
        after = base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        fields.refuse("page_token", f"is none that {method} gave; leave it empty for the first page")
        return ""
    return fields.text("page_token", after)
