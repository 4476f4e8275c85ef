"""Checks of single fields: each returns the value and notes a violation that names field and limit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence, Sized
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from features.schema import MAX_ATTRIBUTES, MAX_CATEGORY_LEVELS, MAX_ID_CHARS, MAX_TIME_S, MIN_TIME_S
from server.errors import InvalidRequest, Violation

Number = TypeVar("Number", int, float)

MAX_DURATION_S = 315_576_000_000
_NANOS = 1_000_000_000


class Fields:
    """The violations of one message; `prefix` goes before each field's name."""

    def __init__(self, prefix: str = "", violations: list[Violation] | None = None) -> None:
        self._prefix = prefix
        self.violations: list[Violation] = [] if violations is None else violations

    def within(self, name: str) -> Fields:
        """The fields of a message inside this one."""
        return Fields(f"{self._prefix}{name}.", self.violations)

    def refuse(self, name: str, description: str) -> None:
        """Notes a violation."""
        self.violations.append(Violation(self._prefix + name, description))

    def done(self) -> None:
        """Ends the checks.

        Raises:
            InvalidRequest: something was wrong.
        """
        if self.violations:
            raise InvalidRequest(self.violations)

    def text(self, name: str, value: str, limit: int = MAX_ID_CHARS, *, required: bool = False) -> str:
        """A string of at most `limit` characters."""
        if len(value) > limit:
            self.refuse(name, f"has {len(value)} characters, at most {limit} are allowed")
        elif "\0" in value:
            self.refuse(name, "must not contain the character NUL")
        elif required and not value:
            self.refuse(name, "is required")
        return value

    def texts(self, name: str, values: Sequence[str], most: int, limit: int = MAX_ID_CHARS) -> tuple[str, ...]:
        """At most `most` strings, none empty."""
        if self.count(name, values, most):
            for number, value in enumerate(values):
                if not 0 < len(value) <= limit or "\0" in value:
                    self.text(f"{name}[{number}]", value, limit, required=True)
        return tuple(values)

    def count(self, name: str, values: Sized, most: int, least: int = 0) -> bool:
        """Whether a list has an allowed length; a long one need not be looked at further."""
        if least <= len(values) <= most:
            return True
        self.refuse(name, f"has {len(values)} entries, {least} to {most} are allowed")
        return False

    def once(self, name: str, field: str, values: Iterable[str]) -> None:
        """Each of the strings at most once."""
        seen: dict[str, int] = {}
        for number, value in enumerate(values):
            if value in seen:
                self.refuse(
                    f"{name}[{number}].{field}", f"is the same as in {name}[{seen[value]}]; each is allowed once"
                )
            seen.setdefault(value, number)

    def number(self, name: str, value: Number, least: Number, most: Number) -> Number:
        """A finite number in a range, both ends included."""
        if not math.isfinite(value) or not least <= value <= most:
            self.refuse(
                name, f"is {value:.15g}, {least:g} to {most:,} is allowed" if value == value else "is not a number"
            )
        return value

    def shopper(self, user_id: str, session_id: str) -> None:
        """Ids of a person, a session, or both."""
        self.text("user_id", user_id)
        self.text("session_id", session_id)
        if not (user_id or session_id):
            self.refuse("user_id", "user_id and session_id are both empty; give at least one")

    def category(self, name: str, path: Sequence[str]) -> tuple[str, ...]:
        """A category path from the root down."""
        return self.texts(name, path, MAX_CATEGORY_LEVELS)

    def attributes(self, values: dict[str, str]) -> dict[str, str]:
        """Free attributes; names are not empty."""
        if self.count("attributes", values, MAX_ATTRIBUTES):
            for key, value in values.items():
                self.text("attributes.key", key, required=True)
                self.text(f"attributes[{key[:MAX_ID_CHARS]}]", value)
        return values

    def time_ms(self, name: str, value: Timestamp, latest_ms: int | None = None) -> int:
        """Milliseconds since the epoch of a timestamp that is set, at most `latest_ms`."""
        if not MIN_TIME_S <= value.seconds <= MAX_TIME_S or not 0 <= value.nanos < _NANOS:
            self.refuse(name, "is not a time between the years 1 and 9999")
            return 0
        time_ms = value.seconds * 1000 + value.nanos // 1_000_000
        if latest_ms is not None and time_ms > latest_ms:
            self.refuse(name, "is more than 300 seconds ahead of the server's clock")
        return time_ms

    def duration_ms(self, name: str, value: Duration) -> int:
        """Milliseconds of a duration that is not negative."""
        if not 0 <= value.seconds <= MAX_DURATION_S or not 0 <= value.nanos < _NANOS:
            self.refuse(name, f"must be 0 to {MAX_DURATION_S:,} seconds")
            return 0
        return value.seconds * 1000 + value.nanos // 1_000_000
