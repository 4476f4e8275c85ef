"""What is told of an error: a line without anybody's id, whatever the error says."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from features.erasure.erase import _Left
from features.outage import words


def test_a_statements_error_is_told_without_the_statement_and_its_values() -> None:
    engine = create_engine("sqlite://")
    with engine.connect() as connection, pytest.raises(OperationalError) as failed:
        connection.execute(text("SELECT * FROM nowhere WHERE shopper = :shopper"), {"shopper": "u:anna"})
    engine.dispose()
    assert "u:anna" in str(failed.value)
    assert words(failed.value) == "no such table: nowhere"


def test_an_erasure_goes_on_and_says_what_is_left_though_the_error_says_nothing() -> None:
    told: list[str] = []
    left = _Left(told.append)
    with left.noting("the online store"):
        raise OSError
    assert told == ["the online store"]
    assert left.parts == ["the online store (OSError without a message)"]
