"""The import leaves the same behind on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from copy import deepcopy
from datetime import datetime, timedelta, timezone
from pathlib import Path

import polars as pl
import pytest

from features.database.engine import open_database
from features.log.event_log import EventLog, NewEvent
from features.schema import EventType
from features.settings import ROOT, Settings
from tests.features.import_shop import PLAIN, Shop

EVERYTHING = {
    "events": PLAIN["events"]
    | {"session": "visit", "order": "order", "query": "words", "attribution_token": "token", "event_id": "id"},
    "items": {"source": "events", "id": "thing", "price": "price"},
    "users": {"source": "events", "id": "who"},
}


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    return Shop(Settings(home=tmp_path / "home", database_url=database_url), tmp_path)


def write_rows(shop: Shop, rows: int) -> Path:
    start = datetime(2024, 1, 1, tzinfo=timezone.utc)
    number = pl.int_range(rows, eager=True)
    file = shop.folder / "rows.parquet"
    pl.DataFrame(
        {
            "id": number.cast(pl.String) + " ü",
            "what": (number % 2).replace_strict({0: "view", 1: "purchase"}),
            "who": "shopper '" + (number % 97).cast(pl.String),
            "visit": pl.Series([None if i % 3 else f"v{i}" for i in range(rows)], dtype=pl.String),
            "thing": "item " + (number % 31).cast(pl.String),
            "when": [start + timedelta(seconds=(i * 7919) % 100_000) for i in range(rows)],
            "pieces": pl.Series([None if i % 2 == 0 else i % 5 + 1 for i in range(rows)], dtype=pl.Int64),
            "price": pl.Series([None if i % 2 == 0 else i % 9 + 0.5 for i in range(rows)], dtype=pl.Float64),
            "order": pl.Series([f"o{i}" if i % 2 else None for i in range(rows)], dtype=pl.String),
            "words": pl.Series([None] * rows, dtype=pl.String),
            "token": pl.Series([f"t{i}" if i % 5 == 0 else None for i in range(rows)], dtype=pl.String),
        }
    ).write_parquet(file)
    return file


def test_every_column_arrives_and_a_second_run_changes_nothing(shop: Shop) -> None:
    file = write_rows(shop, 3_000)
    first = shop.load(file, shop.mapping(EVERYTHING))
    assert [section.new for section in first.sections] == [3_000, 31, 97]
    stored = shop.events()
    assert stored["event_time_ms"].is_sorted()
    assert stored["position"].is_sorted()
    given = pl.read_parquet(file).sort("id")
    found = stored.sort("event_id")
    for ours, theirs in (("session_id", "visit"), ("item_id", "thing"), ("order_id", "order"), ("price", "price")):
        assert found[ours].to_list() == given[theirs].to_list()
    assert found["shopper"].to_list() == [f"u:{who}" for who in given["who"]]
    assert found["event_time_ms"].to_list() == given["when"].dt.epoch("ms").to_list()
    assert found["attribution_token"].to_list() == given["token"].to_list()
    assert found["query"].null_count() == 3_000

    again = shop.load(file, shop.mapping(EVERYTHING))
    assert [(section.new, section.changed) for section in again.sections] == [(0, 0)] * 3
    assert [section.already_stored for section in again.sections] == [3_000, 31, 97]
    assert shop.events().equals(stored)
    assert shop.revision() == 31


def test_an_id_with_the_character_nul_costs_its_row_and_no_other(shop: Shop) -> None:
    pot = {"id": "e0", "what": "view", "who": "ann", "visit": "v", "thing": "pot", "when": "2024-05-01T10:00:00Z"}
    named = ("id", "who", "visit", "thing", "order", "words", "token")
    rows = [pot, *(pot | {"id": f"e{at}"} | {name: "x\0y"} for at, name in enumerate(named, 1)), pot | {"id": "e9"}]
    lines = (json.dumps(dict.fromkeys(("pieces", "price", *named), None) | row) for row in rows)
    file = shop.write("rows.jsonl", "\n".join(lines) + "\n")
    items = shop.write("items.jsonl", '{"id": "cup"}\n{"id": "c\\u0000p"}\n')
    users = shop.write("users.jsonl", '{"id": "a\\u0000n"}\n{"id": "ann"}\n')
    mapping = deepcopy(EVERYTHING) | {"items": {"id": "id"}, "users": {"id": "id"}, "rules": {"duplicates": False}}
    sections = shop.load(file, shop.mapping(mapping), items=[items], users=users).sections
    assert [section.rejected for section in sections] == [{"nul_character": len(named)}, *[{"nul_character": 1}] * 2]
    assert sorted(shop.events()["event_id"]) == ["e0", "e9"]
    assert (shop.items()["item_id"].to_list(), shop.users()["user_id"].to_list()) == (["cup"], ["ann"])


def test_events_of_the_storefront_and_of_a_file_live_side_by_side(shop: Shop) -> None:
    engine = open_database(shop.settings.log_url)
    live = NewEvent(
        event_id="5 ü", event_type=EventType.VIEW, event_time_ms=1, user_id="ann", session_id=None, item_id="cup"
    )
    EventLog(engine).append([live], 1)
    engine.dispose()
    section = shop.load(write_rows(shop, 50), shop.mapping(EVERYTHING)).sections[0]
    assert (section.new, section.already_stored) == (49, 1)
    assert shop.events().filter(pl.col("event_id") == "5 ü")["shopper"].to_list() == ["u:ann"]


def test_what_an_import_that_was_killed_left_of_its_work_goes_with_the_next_one(shop: Shop) -> None:
    file, mapping = shop.write("rows.csv", "what,who,thing,when\nview,a,x,2026-03-01\n"), shop.mapping()
    killed = (
        "import os; from pathlib import Path; from features.importing import importer; "
        "from features.settings import load_settings; "
        "importer.load_events = lambda *given, **named: os.kill(os.getpid(), 9); "
        f"importer.import_files(load_settings(), Path({str(file)!r}), mapping={mapping!r})"
    )
    environment = os.environ | {"BRAID_HOME": str(shop.settings.home), "BRAID_DATABASE_URL": shop.settings.log_url}
    assert subprocess.run([sys.executable, "-c", killed], env=environment, cwd=ROOT).returncode == -signal.SIGKILL
    (left,) = shop.settings.home.glob("imports/*/work-*")
    assert any(left.iterdir())
    assert shop.load(file, mapping).sections[0].new == 1
    assert not list(shop.settings.home.glob("imports/*/work-*"))


READING = (
    "stage = importer.events.stage\n"
    "def interrupted(workspace, *given):\n"
    "    os.kill(os.getpid(), signal.SIGINT)\n"
    "    workspace.execute('SELECT count(*) FROM range(1000000000000)').fetchall()\n"
    "importer.events.stage = interrupted\n"
)
WRITING = (
    "load = importer.load_events\n"
    "importer.events.BATCH_ROWS = 10\n"
    "def interrupted(engine, tombstones, batches, written, **named):\n"
    "    def told(count):\n"
    "        os.kill(os.getpid(), signal.SIGINT)\n"
    "        while True:\n"
    "            written(0)\n"
    "    return load(engine, tombstones, batches, told, **named)\n"
    "importer.load_events = interrupted\n"
)


@pytest.mark.parametrize(("interrupted", "stored"), [(READING, 0), (WRITING, 10)])
def test_an_import_that_is_interrupted_says_so_and_goes_on_the_next_time(
    shop: Shop, interrupted: str, stored: int
) -> None:
    file, mapping = write_rows(shop, 30), shop.mapping(EVERYTHING)
    program = (
        "import os, signal, sys\nfrom features.__main__ import app\nfrom features.importing import importer\n"
        f"signal.signal(signal.SIGINT, signal.default_int_handler)\n{interrupted}"
        f"sys.argv = ['features', 'import', {str(file)!r}, '--mapping', {mapping!r}]\napp()\n"
    )
    environment = os.environ | {"BRAID_HOME": str(shop.settings.home), "BRAID_DATABASE_URL": shop.settings.log_url}
    done = subprocess.run([sys.executable, "-c", program], env=environment, cwd=ROOT, capture_output=True, text=True)
    said = done.stderr.splitlines()[0]  # DuckDB may tell at the end of what it still holds
    assert (done.returncode, said) == (130, "stopped; what was written stays, and the same command writes the rest")
    assert len(shop.events()) == stored
    assert shop.load(file, mapping).sections[0].new == 30 - stored
