"""The import as a whole: files in, event log, catalogue, users and a report out.

Run it with `python -m features import FILE`. What it leaves behind is in a folder of its own under `imports/` in the
shop's home: `report.json`, and the rejected rows as Parquet.
"""

from __future__ import annotations

import resource
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeVar

import adbc_driver_manager
import duckdb
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text
from sqlalchemy import Engine

from features.database.engine import open_database
from features.erasure.tombstones import Tombstones
from features.importing import events
from features.importing.descriptions import Description
from features.importing.errors import ImportFailed
from features.importing.loading import load_events
from features.importing.mapping import ItemsMapping, Mapping, UsersMapping, load
from features.importing.recognition import fitting
from features.importing.report import Report, Section
from features.importing.source import Source, open_source
from features.importing.storing import Row, Stored, store_items, store_users
from features.locks import locked
from features.settings import Settings
from features.shop.catalogue import Catalogue
from features.shop.users import Users

Result = TypeVar("Result")
_POLL_S = 0.1
_FEW = 0.01
"""Share of the events on unknown items that is not worth a word."""
_SAMPLE_ITEMS = 100
"""Unknown items that are looked for in the catalogue: it may hold more than the files of this import."""


def import_files(
    settings: Settings,
    file: Path,
    *,
    mapping: str | None = None,
    items: Sequence[Path] = (),
    users: Path | None = None,
    report: Path | None = None,
    console: Console | None = None,
) -> Report:
    """Reads a shop's files into its databases; run again, it changes nothing.

    Args:
        mapping: a ready mapping's name or a YAML file; guessed from the columns if not given.
        items, users: files of their own; if not given, those that the mapping expects beside `file`.
        report: where the report is written as JSON; by default into the import's own folder.

    Raises:
        ImportFailed: a file or the mapping cannot be used. Batches that were committed before stay.
        KeyboardInterrupt: likewise.
    """
    chosen = load(mapping) if mapping else fitting(file)
    started = datetime.now(timezone.utc)
    folder = settings.home / "imports" / f"{started:%Y%m%dT%H%M%S.%f}-{file.name.split('.')[0]}"
    engine = open_database(settings.log_url)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(settings, "import"), _work_folder(folder) as work, _progress(console) as progress:
            job = _Job(engine, Tombstones(settings), chosen, folder, Path(work), progress)
            sections = job.run(file, items, users)
    except (duckdb.Error, adbc_driver_manager.Error, OSError) as error:
        raise ImportFailed(
            f"the import stopped: {' '.join(str(error).split())}; free disk space or see the file, then run it again"
        ) from None
    finally:
        engine.dispose()
    seconds = (datetime.now(timezone.utc) - started).total_seconds()
    result = Report(
        mapping=chosen.name,
        started_time=started.isoformat(timespec="seconds"),
        seconds=round(seconds, 3),
        rows_per_second=round(sections[0].rows / job.event_seconds, 1),
        peak_memory_bytes=_peak_memory_bytes(),
        sections=sections,
        notes=job.notes,
    )
    result.write(report or folder / "report.json")
    return result


@contextmanager
def _work_folder(folder: Path) -> Iterator[str]:
    """A folder for an import's working files in its own; what imports that were killed left of theirs goes."""
    for left in folder.parent.glob("*/work-*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="work-") as work:
        yield work


class _Job:
    """One import under way."""

    def __init__(
        self, engine: Engine, tombstones: Tombstones, mapping: Mapping, folder: Path, work: Path, progress: Progress
    ) -> None:
        self._engine = engine
        self._tombstones = tombstones
        self._mapping = mapping
        self._folder = folder
        self._work = work
        self._progress = progress
        self._workspace = events.open_workspace(work, mapping.events.time.timezone)
        self._stopped = threading.Event()
        self.event_seconds = 0.0
        self.notes: list[str] = []

    def run(self, file: Path, items: Sequence[Path], users: Path | None) -> list[Section]:
        """Events, then items, then users; every file is opened before the first row is written."""
        try:
            return self._run(file, items, users)
        finally:
            self._workspace.close()

    def _run(self, file: Path, items: Sequence[Path], users: Path | None) -> list[Section]:
        started = time.perf_counter()
        source = self._watch(
            f"opening {file.name}",
            lambda: open_source(self._workspace, file, self._work, **self._mapping.events.options),
        )
        self._note_left_out(source)
        described = [
            self._description(self._mapping.items, file, source, list(items), "items"),
            self._description(self._mapping.users, file, source, [users] if users else [], "users"),
        ]
        section, source = self._events(source)
        self.event_seconds = time.perf_counter() - started
        return [section, *(self._store(description, source) for description in described if description)]

    def _events(self, source: Source) -> tuple[Section, Source]:
        """The events' section of the report, and their file as `events.stage` returns it."""
        staged = self._watch(
            f"reading {source.path.name}", lambda: events.stage(self._workspace, source, self._mapping)
        )
        rows, rejected = events.counts(self._workspace, staged)
        section = Section(what="events", files=[source.path.name], rows=rows, rejected=rejected)
        if rejected:
            target = self._folder / "rejected.parquet"
            self._watch("keeping rejected rows", lambda: events.write_rejected(self._workspace, staged, target))
            section.rejected_file = str(target)
        good = rows - sum(rejected.values())
        task = self._progress.add_task("writing events", total=good)
        join = events.sessions_join(self._workspace)

        def written(count: int) -> None:
            self._progress.advance(task, count)
            if self._stopped.is_set():
                raise KeyboardInterrupt

        batches = events.rows_for_log(self._workspace)
        loaded = self._aside(
            lambda: load_events(self._engine, self._tombstones, batches, written, sessions_join=join), lambda: None
        )
        section.new = loaded.new
        section.already_stored = good - loaded.new - loaded.erased
        if loaded.erased:
            section.rejected["erased"] = loaded.erased
        return section, staged

    def _description(
        self,
        mapping: ItemsMapping | UsersMapping | None,
        file: Path,
        events_source: Source,
        given: list[Path],
        what: str,
    ) -> Description | None:
        """The items or users to be read; None where there is nothing to read."""
        if mapping is None:
            if given:
                raise ImportFailed(f"--{what} is given, but the mapping {self._mapping.name} has no section `{what}`")
            return None
        files = given
        if mapping.source == "file" and not given:
            files = [path for name in mapping.files if (path := file.parent / name).is_file()]
            self._note_absent(mapping, file, what)
            if not files:
                return None
        sources = [open_source(self._workspace, path, self._work, **mapping.options) for path in files]
        for source in sources:
            self._note_left_out(source)
        description = Description(what=what, mapping=mapping, sources=sources)
        description.query(self._workspace, events_source, description.sources)
        return description

    def _note_left_out(self, source: Source) -> None:
        if source.left_out:
            names = ", ".join(map(repr, source.left_out))
            self.notes.append(
                f"{source.path.name}: only its first sheet and those with the same columns were read, not {names}; to "
                "import one of them, save it as a file of its own"
            )

    def _note_unknown_items(self) -> None:
        share, items = self._watch("comparing ids", lambda: events.without_item(self._workspace, _SAMPLE_ITEMS))
        if share > _FEW and not Catalogue(self._engine).of(items):
            self.notes.append(
                f"{share:.1%} of the events are on items that the catalogue does not hold, for example {items[0]!r}: "
                "they are not learned from. Import these items too, with the ids that the events have"
            )

    def _note_absent(self, mapping: ItemsMapping | UsersMapping, file: Path, what: str) -> None:
        """Notes the files of the mapping that are not beside the event file, or that it names none."""
        absent = [name for name in mapping.files if not (file.parent / name).is_file()]
        if absent:
            reason = f"{', '.join(absent)} of the mapping's {what}.files is not beside {file.name}"
        elif not mapping.files:
            reason = f"the mapping's section {what} names no files"
        else:
            return
        lost = "nothing of it was read" if 0 < len(absent) < len(mapping.files) else f"no {what} were read"
        self.notes.append(f"{reason}: {lost}; give a file with --{what} FILE")

    def _store(self, description: Description, events_source: Source) -> Section:
        """Writes items or users; gives their section of the report."""
        what, mapping = description.what, description.mapping
        self._watch(f"reading {what}", lambda: description.stage(self._workspace, events_source))
        rows, rejected = description.counts(self._workspace)
        files = [source.path.name for source in description.sources or [events_source]]
        section = Section(what=what, files=files, rows=rows, rejected=rejected)
        if rejected:
            target = self._folder / f"rejected_{what}.parquet"
            description.write_rejected(self._workspace, target)
            section.rejected_file = str(target)
        good = self._rows(description, rows - sum(rejected.values()))
        if isinstance(mapping, ItemsMapping):
            stored = store_items(Catalogue(self._engine), good, mapping)
            self._note_unknown_items()
        else:
            stored = store_users(Users(self._engine, self._tombstones), good, mapping)
        _record(section, stored)
        return section

    def _rows(self, description: Description, total: int) -> Iterator[Row]:
        task = self._progress.add_task(f"writing {description.what}", total=total)
        for batch in description.good_rows(self._workspace):
            yield from batch.to_pylist()
            self._progress.advance(task, batch.num_rows)

    def _watch(self, what: str, work: Callable[[], Result]) -> Result:
        """What a query's work returns; shows how far DuckDB says it is."""
        task = self._progress.add_task(what, total=100.0)

        def look() -> None:
            self._progress.update(task, completed=max(0.0, self._workspace.query_progress()))

        result = self._aside(work, look)
        self._progress.update(task, completed=100.0)
        return result

    def _aside(self, work: Callable[[], Result], look: Callable[[], None]) -> Result:
        """What work returns in a thread of its own; Ctrl-C ends the query under way, and the writing with its batch."""
        outcome: Future[Result] = Future()

        def body() -> None:
            try:
                outcome.set_result(work())
            except BaseException as error:  # handed to the caller's thread
                outcome.set_exception(error)

        thread = threading.Thread(target=body, daemon=True)
        try:
            thread.start()
            while thread.is_alive():
                thread.join(_POLL_S)
                look()
        except KeyboardInterrupt:
            self._stopped.set()
            while thread.is_alive():
                self._workspace.interrupt()
                thread.join(_POLL_S)
            raise
        return outcome.result()


def _record(section: Section, stored: Stored) -> None:
    section.new, section.changed, section.already_stored = stored.new, stored.changed, stored.unchanged
    section.adjusted = dict(stored.adjusted)
    if stored.erased:
        section.rejected["erased"] = stored.erased


class _Speed(ProgressColumn):
    """Rows a second, where the task counts rows."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} rows/s" if task.speed and task.description.startswith("writing") else "")


def _progress(console: Console | None) -> Progress:
    return Progress(
        TextColumn("{task.description:<28}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>4.0f} %"),
        _Speed(),
        TimeElapsedColumn(),
        console=console or Console(quiet=True),
        transient=False,
    )


def _peak_memory_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
