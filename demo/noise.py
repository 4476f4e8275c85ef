"""What a real log holds beside shoppers: robots, rows that came twice, broken rows."""

from __future__ import annotations

import numpy as np
import polars as pl

from demo.visits import DAY_MS

BOT_EVENTS = 900
"""Views of one robot's burst, two a second."""


def bots(seed: int, count: int, items: int, days: int, start_ms: int) -> pl.DataFrame:
    """`count` robots that walk the catalogue in one burst each, without a user id."""
    rng = np.random.default_rng([seed, 5])
    robot = np.repeat(np.arange(count), BOT_EVENTS)
    step = np.tile(np.arange(BOT_EVENTS), count)
    begin = start_ms + rng.integers(0, days * DAY_MS - DAY_MS // 2, count)
    return pl.DataFrame(
        {
            "event_type": pl.repeat("view", robot.size, eager=True),
            "item": (rng.integers(0, items, count)[robot] + step) % items,
            "time_ms": begin[robot] + step * 500,
            "session_id": pl.Series(robot).cast(pl.String).str.replace("^", "robot-"),
        }
    ).with_columns(event_id=pl.format("{}-{}", "session_id", pl.Series(step)))


def spoil(rng: np.random.Generator, rows: pl.DataFrame) -> pl.DataFrame:
    """Repeats one row in 500, and adds as copies under other ids one broken row in 2,000: the good rows all stay."""
    again = rows.filter(pl.Series(rng.random(rows.height) < 0.002))
    broken = rows.filter(pl.Series(rng.random(rows.height) < 0.0005) & pl.col("item_id").is_not_null())
    kind = pl.Series(rng.integers(0, 3, broken.height))
    broken = broken.with_columns(
        event_id=pl.format("broken-{}", "event_id"),
        user_id=pl.when(kind != 0).then("user_id"),
        session_id=pl.when(kind != 0).then("session_id"),
        item_id=pl.when(kind != 1).then("item_id"),
        price=pl.when(kind == 2).then(-1.0).otherwise("price"),
    )
    return pl.concat([rows, again, broken])
