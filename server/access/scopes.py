"""Which scope a method needs: the one place that says it.

`storefront` asks for recommendations. `ingest` writes what the shop knows: events, catalogue, users, placement rules.
`admin` may do everything, and is needed for whatever is not listed here: releases, and the erasure of a person.
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class Scope(str, Enum):
    """What a key is for."""

    STOREFRONT = "storefront"
    INGEST = "ingest"
    ADMIN = "admin"


_OF_SERVICE: Final = {
    "braid.v1.RecommendationService": Scope.STOREFRONT,
    "braid.v1.EventService": Scope.INGEST,
    "braid.v1.CatalogService": Scope.INGEST,
    "braid.v1.UserService": Scope.INGEST,
    "braid.v1.PlacementService": Scope.INGEST,
}
_OF_METHOD: Final = {"/braid.v1.EventService/DeleteUser": Scope.ADMIN}
_ANY_KEY: Final = "grpc.reflection.v1alpha.ServerReflection"
"""Tells what the protos tell; a key of any scope will do."""
_OPEN: Final = "grpc.health.v1.Health"
"""Balancers and supervisors ask it without a key."""


def is_open(method: str) -> bool:
    """Whether a method, `/package.Service/Method`, is answered without a key."""
    return _service(method) == _OPEN


def needed(method: str) -> Scope | None:
    """The scope that a method needs beside `ADMIN`, which may do everything; None: any."""
    service = _service(method)
    return None if service == _ANY_KEY else _OF_METHOD.get(method) or _OF_SERVICE.get(service, Scope.ADMIN)


def _service(method: str) -> str:
    return method[1:].partition("/")[0]
