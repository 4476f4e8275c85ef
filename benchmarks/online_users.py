"""What a request costs as the shoppers in the online store grow: CPU of the gateway, over the smallest store's.

    python -m benchmarks.online_users [--seconds 4] [--rounds 4] [USERS ...]

For each number of shoppers (10,000, 100,000 and a million if not given) a shop of its own on SQLite, with the same
release of random weights and one Triton for all. Every shopper has a full row in every view. The gateways are asked in
turns by a closed load, those whose turn it is not stand still, and each call is for another shopper, drawn evenly: what
else the machine does falls on all of them. Prints CPU per answer, latency and the file's size, and keeps them as JSON
in benchmarks/results/.
"""

from __future__ import annotations

import random
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from statistics import median
from typing import Annotated

import numpy as np
import polars as pl
import psutil
import typer
from rich.progress import track
from rich.table import Table

from benchmarks import record
from benchmarks.live_shop import LiveShop, fresh_shop, gateway_on
from benchmarks.offered_load import OK, Target, put_load
from benchmarks.random_release import fill_and_publish
from features import schema, store
from features.online.entity_keys import encoded
from features.online.rows import INTEREST_ROWS, PROFILE_ROWS, PURCHASE_ROWS, RECENT_ROWS
from features.settings import Settings
from features.terminal import console
from tests.processes import free_ports
from training.config import Config

USERS = (10_000, 100_000, 1_000_000)
ITEMS = 2_000
PATTERNS = 250
"""Shoppers whose rows are made; the others' are copies under their own keys."""
OWN_ITEMS = 20
CONCURRENCY = 8
CALLS_A_ROUND = 4_000
WARM_UP_S = 2.0
COPIED_AT_ONCE = 10_000
NEVER_REFUSES_MS = "10000"
TARGET_RATIO = 1.1
HOMES = "homes"
MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One turn of one gateway."""

    cpu_ms: float
    """Of the gateway, per answer."""
    p50_ms: float
    p99_ms: float
    rate: float


def main(
    users: Annotated[list[int] | None, typer.Argument(min=PATTERNS, help="Shoppers in the store.")] = None,
    seconds: Annotated[float, typer.Option(min=1.0, help="Length of a turn.")] = 4.0,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each gateway.")] = 4,
) -> None:
    """The table."""
    sizes = users or list(USERS)
    with fresh_shop({}) as shop, ExitStack() as gateways:
        store.apply(shop.settings)
        fill_and_publish(shop.settings, ITEMS)
        write_patterns(shop.settings, ITEMS)
        homes = {size: grown(shop, size) for size in sizes}
        shop.start_triton()
        asked: dict[int, subprocess.Popen[bytes]] = {}
        for size in sizes:
            if asked:  # the first has the shop's own address; Triton has taken its ports since
                homes[size] = homes[size].model_copy(update={"gateway_address": f"127.0.0.1:{free_ports()}"})
            asked[size] = gateways.enter_context(standing_still(homes[size]))
        found: dict[int, list[Round]] = {size: [] for size in sizes}
        for number in range(rounds):
            for size in sizes:
                found[size].append(turn(homes[size], asked[size], size, number, seconds))
        files = {size: (homes[size].home / "online.db").stat().st_size for size in sizes}
    show(found, files)
    figures = {str(size): {"file_bytes": files[size], "rounds": [asdict(it) for it in found[size]]} for size in sizes}
    console.print(str(record.write("online_users", figures)))


def write_patterns(settings: Settings, item_count: int) -> None:
    """Rows of the shoppers that the others are copies of: full windows, own items, a profile, a vector."""
    draw = np.random.default_rng(0)
    now = datetime.now(timezone.utc)
    now_ms = int(1000 * now.timestamp())
    shoppers = [schema.shopper_key(name(number), None) for number in range(PATTERNS)]

    def items(count: int) -> list[list[str]]:
        return [[f"item-{item}" for item in draw.choice(item_count, count, replace=False)] for _ in shoppers]

    def same(count: int, value: int) -> list[list[int]]:
        return [[value] * count for _ in shoppers]

    every = {"shopper": shoppers, "event_timestamp": [now] * PATTERNS}
    recent = schema.RECENT_EVENTS
    rows = every | {
        "event_ids": [[f"{shopper}-{place}" for place in range(recent)] for shopper in shoppers],
        "item_ids": items(recent),
        "event_types": same(recent, int(schema.EventType.VIEW)),
        "event_times_ms": [[now_ms - 60_000 * (recent - place) for place in range(recent)] for _ in shoppers],
        "log_position": [0] * PATTERNS,
    }
    purchases = every | {
        "item_ids": items(OWN_ITEMS),
        "counts": same(OWN_ITEMS, 2),
        "first_times_ms": same(OWN_ITEMS, now_ms - 90 * 86_400_000),
        "last_times_ms": same(OWN_ITEMS, now_ms - 30 * 86_400_000),
        "basket_count": [OWN_ITEMS] * PATTERNS,
    }
    profiles = every | {"age": [40] * PATTERNS, "gender": ["f"] * PATTERNS, "country": ["GB"] * PATTERNS}
    with store.opened(settings) as feast:
        vectors = every | {
            "vector": draw.standard_normal((PATTERNS, Config().model.dim)).tolist(),
            "encoded_through_ms": [now_ms] * PATTERNS,
            "encoded_position": [0] * PATTERNS,
        }
        store.write_recent(feast, pl.DataFrame(rows, schema=RECENT_ROWS))
        store.write_purchases(feast, pl.DataFrame(purchases, schema=PURCHASE_ROWS))
        store.write_profiles(feast, pl.DataFrame(profiles, schema=PROFILE_ROWS))
        store.write_interest(feast, 1, pl.DataFrame(vectors, schema=INTEREST_ROWS))


def name(number: int) -> str:
    """A shopper's user id."""
    return f"user-{number}"


def grown(shop: LiveShop, size: int) -> Settings:
    """The same shop in a home of its own, with so many shoppers online."""
    home = shop.settings.home / HOMES / str(size)
    shutil.copytree(shop.settings.home, home, ignore=shutil.ignore_patterns("logs", "model_repository", HOMES))
    settings = shop.settings.model_copy(update={"home": home})
    keys = [encoded(schema.shopper_key(name(number), None)) for number in range(size)]
    with closing(sqlite3.connect(home / "online.db", isolation_level=None)) as online:
        tables = [row[0] for row in online.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        copying = [_copying(online, table) for table in tables]
        parts = range(PATTERNS, size, COPIED_AT_ONCE)
        for start in track(parts, f"{size:,} shoppers", console=console, transient=True):
            copies = [
                (keys[number], keys[number % PATTERNS]) for number in range(start, min(size, start + COPIED_AT_ONCE))
            ]
            online.execute("BEGIN")
            for statement in copying:
                online.executemany(statement, copies)
            online.execute("COMMIT")
    return settings


def _copying(online: sqlite3.Connection, table: str) -> str:
    """Copies a shopper's row; takes the new key and that of the pattern."""
    columns = [row[1] for row in online.execute(f'PRAGMA table_info("{table}")')]
    rest = ", ".join(column for column in columns if column != "entity_key")
    return f'INSERT INTO "{table}" (entity_key, {rest}) SELECT ?, {rest} FROM "{table}" WHERE entity_key = ?'


@contextmanager
def standing_still(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """A gateway that has served once and waits for its turn."""
    with gateway_on(settings, target_delay_ms=NEVER_REFUSES_MS) as process:
        process.send_signal(signal.SIGSTOP)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGCONT)


def turn(settings: Settings, gateway: subprocess.Popen[bytes], size: int, number: int, seconds: float) -> Round:
    """Lets a gateway answer for a while."""
    draw = random.Random(number)
    target = Target.recommend(settings.gateway_address, [name(draw.randrange(size)) for _ in range(CALLS_A_ROUND)])
    gateway.send_signal(signal.SIGCONT)
    process = psutil.Process(gateway.pid)
    put_load(target, seconds=WARM_UP_S, timeout_s=10.0, concurrency=CONCURRENCY)
    before = process.cpu_times()
    calls = put_load(target, seconds=seconds, timeout_s=10.0, concurrency=CONCURRENCY)
    after = process.cpu_times()
    gateway.send_signal(signal.SIGSTOP)
    assert all(call.code == OK and call.tier == "TIER_FULL" for call in calls), "a call was not answered in full"
    taken_ms = [1000 * call.seconds for call in calls]
    return Round(
        cpu_ms=1000 * (after.user + after.system - before.user - before.system) / len(calls),
        p50_ms=float(np.percentile(taken_ms, 50)),
        p99_ms=float(np.percentile(taken_ms, 99)),
        rate=len(calls) / seconds,
    )


def show(found: dict[int, list[Round]], files: dict[int, int]) -> None:
    """The table; ratios are medians over the rounds of a round's own ratio."""
    table = Table(
        "shoppers", "online.db MiB", "gateway's CPU ms", "of the smallest", "p50 ms", "of the smallest", "p99 ms"
    )
    base = next(iter(found.values()))

    def ratio(rounds: list[Round], what: str) -> float:
        return float(median(getattr(it, what) / getattr(first, what) for it, first in zip(rounds, base, strict=True)))

    for size, rounds in found.items():
        table.add_row(
            f"{size:,}",
            f"{files[size] / MIB:,.0f}",
            f"{median(it.cpu_ms for it in rounds):.2f}",
            f"{ratio(rounds, 'cpu_ms'):.2f}",
            f"{median(it.p50_ms for it in rounds):.1f}",
            f"{ratio(rounds, 'p50_ms'):.2f}",
            f"{median(it.p99_ms for it in rounds):.1f}",
        )
    console.print(table)
    worst = max(ratio(rounds, "cpu_ms") for rounds in found.values())
    verdict = "within" if worst <= TARGET_RATIO else "above"
    console.print(f"CPU per answer stays {verdict} {TARGET_RATIO} times the smallest store's: {worst:.2f}.")


if __name__ == "__main__":
    typer.run(main)
