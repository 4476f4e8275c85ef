"""Removes the releases that nobody needs any more: after each publish, and `python -m training release clean`.

Kept are the live release, the one that a rollback brings back, every one that is neither retired nor failed (a canary,
a candidate, one that somebody wants held ready), and each that changed its state or answered anybody within the grace
time: a gateway that could not follow, or still has calls under way, goes on with what it has. Of the others the files,
the feature view with its rows, online and offline, and the traces in `home` go; their rows in the release table stay,
with the state `removed`.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sqlalchemy import Engine, delete

from features.database.engine import open_database
from features.database.models import Counter
from features.definitions import generated_file
from features.online.materialize import materialized_counter, work_folder
from features.releases.release import has_manifest
from features.releases.release_table import ReleaseRow, ReleaseTable, who
from features.schema import FUSION_MODEL, ITEM_TOWER_MODEL
from features.settings import Settings
from features.store import apply

GRACE_S = 600.0
"""A release that was in use within this time stays: gateways follow within a second, this is for those that hang."""


def remove_old_releases(settings: Settings, *, note: Callable[[str], None], grace_s: float = GRACE_S) -> list[int]:
    """Removes what the policy does not keep; what a removal before did not finish is finished.

    Args:
        note: told of what goes.

    Returns:
        The releases that were removed.

    Raises:
        StoreError: the feature store cannot be reached; the next call goes on.
    """
    engine = open_database(settings.log_url)
    try:
        table = ReleaseTable(engine)
        removed = table.remove_unused(int((time.time() - grace_s) * 1000), who(), "no longer needed")
        rows = [row for row in table.all() if row.state == "removed" and any(_traces(settings, row))]
        if rows:
            _delete(settings, engine, rows)
            note(f"removed old releases: {', '.join(str(row.release) for row in rows)}")
        return removed
    finally:
        engine.dispose()


def _delete(settings: Settings, engine: Engine, rows: Sequence[ReleaseRow]) -> None:
    for row in rows:
        generated_file(settings.generated, row.release).unlink(missing_ok=True)
    apply(settings)  # a view that is no longer declared goes with its rows
    with engine.begin() as connection:
        names = [materialized_counter(row.release) for row in rows]
        connection.execute(delete(Counter).where(Counter.name.in_(names)))
    for row in rows:
        for path in _traces(settings, row):
            shutil.rmtree(path)


def _traces(settings: Settings, row: ReleaseRow) -> list[Path]:
    """What there is of a release, the folder that tells whose it is last: a repository may be shared by shops."""
    number = str(row.release)
    work, generated = work_folder(settings, row.release), generated_file(settings.generated, row.release)
    found = [path for path in (generated, work) if path.exists()]
    fusion, tower = (settings.model_repository / model / number for model in (FUSION_MODEL, ITEM_TOWER_MODEL))
    if has_manifest(fusion, row.manifest):
        found += [path for path in (tower, fusion) if path.exists()]
    return found
