"""Keeps the online rows current: `python -m features stream` follows the log and the users until SIGTERM.

Every few milliseconds it takes what is new in the log, reads the whole rows of the touched shoppers from the log and
writes them: a row that is written twice is the same row, so a restart repeats the last moments and loses nothing.
Several workers on PostgreSQL divide the shoppers between them (`features.stream.shares`). A database or store that
fails is waited for; its outage is logged when it begins and when it is over. `home/stream-<pid>.json` tells how a
worker is.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Final

from features import outage, store
from features.database.engine import open_database
from features.locks import LockTaken, locked
from features.online.shopper_rows import RowsToWrite
from features.settings import Settings
from features.stream.log_follower import LogFollower
from features.stream.profile_follower import ProfileFollower
from features.stream.shares import join
from features.stream.stream_positions import stream_position

POLL_S: Final = 0.005
IDLE_POLL_S: Final = 0.025
"""Between two looks where nothing happens for a while: a look costs a millisecond of a core."""
USERS_POLL_S: Final = 0.1
SHARES_S: Final = 0.5
"""Between two looks at how many workers there are."""
SAVE_S: Final = 0.25
"""A durable position costs the log's database a flush; what lies between is repeated after a crash."""
HEARTBEAT_S: Final = 1.0
SETTLED_S: Final = 1.0
"""An outage is over when everything has worked for so long."""
FIRST_WAIT_S: Final = 0.05
LONGEST_WAIT_S: Final = 2.0
FORGOTTEN_S: Final = 60.0
"""Heartbeats this old are those of workers that were killed."""
PROFILES_SHARE: Final = 0
"""Whoever has this share follows the users."""

logger = logging.getLogger(__name__)


def run(settings: Settings, stop: threading.Event) -> None:
    """Follows until `stop` is set. On SQLite a second worker waits for the first to end.

    An error of a database or the online store is waited out, with up to `LONGEST_WAIT_S` between two attempts.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    retries = Retries()
    unsure = RowsToWrite()
    waiting = False
    while not stop.is_set():
        try:
            worker = Worker(settings)
        except LockTaken:
            if not waiting:
                logger.info("another stream worker serves this shop; waiting for it to end")
                waiting = True
            stop.wait(0.5)
            continue
        except Exception as error:  # whatever a database or store raises: the worker outlives it
            stop.wait(retries.wait_s(error))
            continue
        try:
            worker.write_again(unsure)
            unsure = RowsToWrite()
            worker.follow(stop, retries)
        except Exception as error:
            unsure = unsure.joined(worker.log.in_hand)
            stop.wait(retries.wait_s(error))
        finally:
            with suppress(Exception):  # what is broken may not even close
                worker.close()
    logger.info("stopped")


class Retries:
    """Says once that something fails and once that it works again, and waits longer after each attempt in between."""

    def __init__(self) -> None:
        self._told = outage.Outage(
            logger,
            "cannot follow the log, trying again",
            "following the log again",
            ended_level=logging.INFO,
        )
        self._wait_s = FIRST_WAIT_S

    def wait_s(self, error: Exception) -> float:
        """Seconds until the next attempt."""
        self._told.begins(outage.cause(error))
        self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)
        return self._wait_s

    def end(self) -> None:
        """Everything works, and has for a while."""
        self._told.ends()
        self._wait_s = FIRST_WAIT_S


class Worker:
    """What one worker has open, from a start or an outage to the next."""

    def __init__(self, settings: Settings) -> None:
        """Opens everything.

        Raises:
            LockTaken: the shop has one worker at a time, and another is it.
            StoreError: the online store's file is gone, and with it the rows of what is done.
        """
        self._settings = settings
        with ExitStack() as undo:
            self._shares = join(settings)
            undo.callback(self._shares.close)
            # A statement is a transaction, and no round trip asks or ends anything: half of a pass was waiting.
            engine = open_database(settings.log_url, pre_ping=False)
            undo.callback(engine.dispose)
            self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
            if stream_position(self._engine):
                store.online_file(settings)
            store.apply(settings)
            self._store = store.open_store(settings)
            self._file = store.online_file(settings)
            undo.pop_all()
        self.log = LogFollower(self._engine, self._store, self._shares)
        self.profiles: ProfileFollower | None = None

    def write_again(self, work: RowsToWrite) -> None:
        """Writes rows that an error interrupted.

        Alone: where the connection to PostgreSQL broke, another worker had the shares when they were last written.
        """
        if work:
            with locked(self._settings, "online-rows", engine=self._engine):
                self.log.rows.write(work)

    def follow(self, stop: threading.Event, retries: Retries) -> None:
        """Follows until `stop` is set; raises what a database or store does."""
        self.share()
        logger.info("following the log from position %d", min(self.log.positions.values(), default=0))
        began_s = shared_s = time.monotonic()
        users_s = saved_s = beat_s = 0.0
        wait_s = POLL_S
        while not stop.is_set():
            events = self.log.follow()
            now_s = time.monotonic()
            if now_s - users_s >= USERS_POLL_S:
                if self.profiles is not None:
                    self.profiles.follow()
                users_s = now_s
            if now_s - saved_s >= SAVE_S:
                self.save()
                saved_s = now_s
            if now_s - shared_s >= SHARES_S:
                self.share()
                shared_s = now_s
            if now_s - beat_s >= HEARTBEAT_S:
                if store.online_file(self._settings) != self._file:
                    raise store.StoreError("the online store is another file now")
                self.write_heartbeat()
                beat_s = now_s
            if now_s - began_s >= SETTLED_S:
                retries.end()
            if events:
                wait_s = POLL_S
            else:
                stop.wait(wait_s)
                wait_s = min(1.1 * wait_s, IDLE_POLL_S)
        self.save()
        heartbeat_file(self._settings).unlink(missing_ok=True)

    def share(self) -> None:
        """Takes and gives up shares of the shoppers as workers come and go."""
        self.log.share()
        if PROFILES_SHARE not in self.log.positions:
            self.profiles = None
        elif self.profiles is None:
            self.profiles = ProfileFollower(self._engine, self._store, self._shares)

    def save(self) -> None:
        """Makes the places durable."""
        self.log.save()
        if self.profiles is not None:
            self.profiles.save()

    def write_heartbeat(self) -> None:
        """Writes `heartbeat_file`: process, shares, position, events still to do, rows left out, and when."""
        beat = {
            "pid": os.getpid(),
            "shares": sorted(self.log.positions),
            "position": min(self.log.positions.values(), default=None),
            "behind": self.log.behind(),
            "left_out": self.log.rows.left_out,
            "time_ms": int(time.time() * 1000),
        }
        path = heartbeat_file(self._settings)
        path.with_suffix(".new").write_text(json.dumps(beat))
        path.with_suffix(".new").replace(path)
        for other in path.parent.glob("stream-*.json"):
            if time.time() - _modified_s(other) > FORGOTTEN_S:
                other.unlink(missing_ok=True)

    def close(self) -> None:
        """Lets go of everything, the shares last."""
        with closing(self._shares):
            store.close(self._store)
            self._engine.dispose()


def heartbeat_file(settings: Settings, pid: int | None = None) -> Path:
    """Where a worker tells how it is; there while it runs."""
    return settings.home / f"stream-{os.getpid() if pid is None else pid}.json"


def _modified_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()
