"""Variables of the environment that are set, and that no setting reads because their names are misspelt."""

from __future__ import annotations

import difflib
import logging
import os
import re
from collections.abc import Collection
from typing import Final

PREFIX: Final = "BRAID_"
_NEAR: Final = 0.82
"""Likeness of two names behind the prefix, as difflib measures it, from which one is taken for the other."""
_INJECTED: Final = re.compile(r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)")
"""What orchestrators set for each service: one named braid-gateway gives BRAID_GATEWAY_SERVICE_HOST."""
_INJECTED_ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://")
"""How the value of the same service's BRAID_GATEWAY_PORT begins."""
_told: set[str] = set()
logger = logging.getLogger(__name__)


def tell_of_misspelt(known: Collection[str], *, leave: str | None = None) -> None:
    """Logs a warning for each variable whose name is near a known one, once a process.

    Args:
        known: names of all settings that are known here, in capitals.
        leave: beginning of names that are another process's to know.
    """
    for name, value in os.environ.items():
        upper = name.upper()
        if not value or upper in known or not upper.startswith(PREFIX) or (leave and upper.startswith(leave)):
            continue
        if _INJECTED.fullmatch(upper) or _INJECTED_ADDRESS.match(value) or name in _told:
            continue
        if near := nearest(upper, known):
            _told.add(name)
            logger.warning("%s is set and no setting reads it: did you mean %s?", name, near)


def nearest(name: str, known: Collection[str]) -> str | None:
    """The known name that a name was probably meant to be; None where none is near."""
    end, ends = name.removeprefix(PREFIX), [other.removeprefix(PREFIX) for other in known]
    found = difflib.get_close_matches(end, ends, n=len(ends), cutoff=_NEAR)
    cut_short = [other for other in found if other.startswith(end)]
    return next((PREFIX + other for other in [*cut_short, *found]), None)
