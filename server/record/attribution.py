"""The token that names one answer; it comes back in the events that follow from it."""

from __future__ import annotations

import base64
import os

from features.schema import Tier


def new_token(release: int, tier: Tier) -> str:
    """`<release>-<tier>-<96 random bits>`, letters, digits, `-` and `_`."""
    return f"{release}-{int(tier)}-{base64.urlsafe_b64encode(os.urandom(12)).decode()}"
