"""The gateway's errors.

    GatewayError
    ├── InvalidRequest        INVALID_ARGUMENT with google.rpc.BadRequest
    ├── NotFound              NOT_FOUND
    ├── NotPossible           FAILED_PRECONDITION
    ├── Unauthenticated       UNAUTHENTICATED
    ├── PermissionDenied      PERMISSION_DENIED
    ├── Overloaded            RESOURCE_EXHAUSTED with google.rpc.RetryInfo
    ├── DeadlinePassed        DEADLINE_EXCEEDED
    └── Unavailable           UNAVAILABLE
        ├── FeaturesUnavailable   the feature store; answered from a lower tier
        ├── HistoryUnavailable    what a shopper has done, in the database; answered without it
        └── ModelUnavailable      Triton or the release; answered from a lower tier

`server.services.statuses` turns them into gRPC statuses, and nothing else does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


class GatewayError(Exception):
    """Anything that a caller is told."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One bad field: its path in the request, and its limit or expectation."""

    field: str
    description: str


class InvalidRequest(GatewayError):
    """The caller sent what the contract does not allow; sending it again fails again."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in violations))
        self.violations = tuple(violations)


class NotFound(GatewayError):
    """What the request names does not exist."""


class NotPossible(GatewayError):
    """The shop is not in a state for it; trying again helps once that has changed."""


class Unauthenticated(GatewayError):
    """The call brings no API key that is in force."""


class PermissionDenied(GatewayError):
    """The API key is not for this method."""


class Overloaded(GatewayError):
    """More than this process takes; try again after `retry_after_s`."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlinePassed(GatewayError):
    """The caller has stopped waiting."""


class Unavailable(GatewayError):
    """A part below is gone for now; trying again may help."""


class FeaturesUnavailable(Unavailable):
    """The feature store failed or was too slow."""


class HistoryUnavailable(Unavailable):
    """The database does not say, or not in time, what a shopper has done."""


Reason = Literal["gone", "slow", "failed"]
"""gone: nobody listens. slow: no answer in time. failed: an answer that says no."""


class ModelUnavailable(Unavailable):
    """No model answered in time."""

    def __init__(self, message: str, *, reason: Reason = "failed") -> None:
        super().__init__(message)
        self.reason = reason
