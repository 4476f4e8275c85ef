"""Where searches are kept: Optuna's tables beside the shop's database.

Optuna has an `alembic_version` table of its own, which must not meet ours. So SQLite shops keep searches in a file of
their own, `tuning.db` beside the log, and PostgreSQL shops in a schema of its own, `tuning`, of the same database.
"""

from __future__ import annotations

import fcntl
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from sqlalchemy import Connection, Engine, event, inspect
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.schema import CreateSchema

from features.database.engine import DatabaseError, open_database
from features.locks import advisory_lock
from features.outage import words

SCHEMA = "tuning"
HEARTBEAT_S = 10
GRACE_S = 60
"""A running trial without a heartbeat for so long counts as killed: it is failed and tried again."""
RETRIES = 1
"""A trial that kills its worker each time, for want of memory say, must not go round for ever."""


@contextmanager
def opened_storage(log_url: str) -> Iterator[RDBStorage]:
    """Optuna's storage beside the shop's database, created where it is missing; its connections are closed at the end.

    Raises:
        DatabaseError: the database cannot be reached, may not be written to, or was made by another Optuna.
    """
    try:
        engine = open_database(log_url)
        storage = _postgresql(engine) if engine.dialect.name == "postgresql" else _sqlite(engine)
    except (OperationalError, ProgrammingError) as error:
        raise DatabaseError(
            f"BRAID_DATABASE_URL: {words(error)}; searches need a database that answers and lets schema {SCHEMA!r} be "
            "made"
        ) from None
    except RuntimeError as error:  # how Optuna says that its tables are of another version
        raise DatabaseError(f"the tables of the searches do not fit: {error}") from None
    engine.dispose()
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def open_study(storage: RDBStorage, name: str, exam: dict[str, Any], first: dict[str, Any]) -> optuna.Study:
    """The study of that name, as it stands, or a new one.

    Args:
        exam: what makes its figures comparable: the data window and the epochs.
        first: settings of a new study's first trial, so that the best is never worse than they are.

    Raises:
        ValueError: the study of that name sat another exam.
    """
    study = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
    sat = study.user_attrs.get("exam", exam)
    for field, value in exam.items():
        if sat.get(field) != value:
            raise ValueError(
                f"study {name!r} was made with {field}={sat.get(field)!r}, not {value!r}: "
                "figures would not compare; name another with --study"
            )
    study.set_user_attr("exam", exam)
    study.enqueue_trial(first, skip_if_exists=True)
    return study


def _sqlite(engine: Engine) -> RDBStorage:
    path = Path(str(engine.url.database)).with_name("tuning.db")
    with path.with_suffix(".lock").open("w") as file:  # two that start together must not both create the tables
        fcntl.flock(file, fcntl.LOCK_EX)
        storage = _storage(f"sqlite:///{path}", {"timeout": 30, "isolation_level": None})
        with storage.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    event.listen(storage.engine, "begin", _take_write_lock)
    return storage


def _take_write_lock(connection: Connection) -> None:
    """Optuna reads a trial's state, then changes it; SQLite has no FOR UPDATE, so two workers could take one trial."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _postgresql(engine: Engine) -> RDBStorage:
    with (
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        advisory_lock(connection, "searches"),  # two that start together must not both create the tables
    ):
        if not inspect(connection).has_schema(SCHEMA):
            connection.execute(CreateSchema(SCHEMA))
        given = engine.url.query.get("options", "")
        url = engine.url.render_as_string(hide_password=False)
        return _storage(url, {"options": f"{given} -csearch_path={SCHEMA}".strip()})


def _storage(url: str, connect_args: dict[str, Any]) -> RDBStorage:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # heartbeats, since 2.9
        return RDBStorage(
            url,
            engine_kwargs={"connect_args": connect_args},
            heartbeat_interval=HEARTBEAT_S,
            grace_period=GRACE_S,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=RETRIES),
        )
