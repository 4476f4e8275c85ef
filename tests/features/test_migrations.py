"""Migrations make the tables that the models describe, on both databases, whoever starts first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from features.database.engine import DatabaseError, open_database
from features.database.models import Base
from features.settings import ROOT

OPEN = "import sys; from features.database.engine import open_database; open_database(sys.argv[1])"


def test_migrated_tables_are_those_of_the_models(database_url: str) -> None:
    engine = open_database(database_url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    engine.dispose()


def test_opening_again_changes_nothing(database_url: str) -> None:
    open_database(database_url).dispose()
    engine = open_database(database_url)
    with engine.connect() as connection:
        assert MigrationContext.configure(connection).get_current_revision() is not None
    engine.dispose()


def test_processes_that_start_together_agree(database_url: str) -> None:
    starts = [
        subprocess.Popen([sys.executable, "-c", OPEN, database_url], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    outcomes = [(start.communicate()[1], start.returncode) for start in starts]
    assert [code for _, code in outcomes] == [0, 0, 0], outcomes


def test_sqlite_keeps_an_acknowledged_event_through_a_power_loss(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'deep' / 'braid.db'}")
    with engine.connect() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "secure_delete")
        }
    engine.dispose()
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "secure_delete": 1}


@pytest.mark.parametrize(
    "url", ["not a url", "mysql://x/y", "sqlite://x/y", "postgresql://x@y:z/w", "sqlite:////proc/no/dir/x.db"]
)
def test_a_wrong_url_is_a_clear_error(url: str) -> None:
    with pytest.raises(DatabaseError, match="BRAID_DATABASE_URL"):
        open_database(url)


def test_a_file_that_is_no_database_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("what,who,thing,when\n" * 1000)
    with pytest.raises(DatabaseError, match=r"^BRAID_DATABASE_URL: sqlite:.*text\.db cannot be opened: file is not a"):
        open_database(f"sqlite:///{tmp_path}/text.db")


def test_an_index_that_a_killed_import_left_out_is_made_when_the_database_is_opened(database_url: str) -> None:
    engine = open_database(database_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP INDEX events_by_shopper")
    engine.dispose()
    engine = open_database(database_url)
    assert "events_by_shopper" in {index["name"] for index in inspect(engine).get_indexes("events")}
    engine.dispose()
