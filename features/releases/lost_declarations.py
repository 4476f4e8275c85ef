"""Declares the releases again whose `generated/vN.json` is lost, as in a shop restored from its database and models."""

from __future__ import annotations

from features.database.engine import open_database
from features.definitions import GeneratedRelease, generated_file, write_generated
from features.releases.release import has_manifest
from features.releases.release_table import ReleaseTable
from features.schema import FUSION_MODEL
from features.settings import Settings


def declare_lost(settings: Settings) -> list[int]:
    """Writes the file of each release that the table knows and the repository holds; returns those that lacked it.

    Raises:
        DatabaseError, SQLAlchemyError: the database cannot be opened.
    """
    engine = open_database(settings.log_url)
    try:
        rows = ReleaseTable(engine).all()
    finally:
        engine.dispose()
    lost = [
        GeneratedRelease(release=row.release, interest_dim=row.manifest["interest_dim"])
        for row in rows
        if row.state != "removed"
        and not generated_file(settings.generated, row.release).exists()
        and has_manifest(settings.model_repository / FUSION_MODEL / str(row.release), row.manifest)
    ]
    for release in lost:
        write_generated(settings.generated, release)
    return [release.release for release in lost]
