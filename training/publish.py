"""Makes a release of a trained model: candidate, gates, features, vectors, and only then the place that Triton reads.

Until the last step nothing is visible: a failure leaves no version directory and no feature view. A candidate that a
gate refused is recorded as failed, with the reason; any other failure leaves no table row.
"""

from __future__ import annotations

import errno
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import polars as pl
import torch
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from features.database.engine import DatabaseError, open_database
from features.definitions import GeneratedRelease, generated_file, write_generated
from features.locks import LockTaken, locked
from features.online.materialize import materialize, work_folder
from features.releases.housekeeping import remove_old_releases
from features.releases.release import RELEASE_FILES, Manifest, ReleaseError, file_sha256, write_vocabulary
from features.releases.release_table import ReleaseTable, who
from features.schema import (
    ENCODER_FILE,
    FUSION_MODEL,
    ITEM_TOWER_MODEL,
    ITEMS_FILE,
    MANIFEST_FILE,
    MODULE_FILE,
    PROBABILITIES_FILE,
    VECTORS_FILE,
    VOCABULARY_FILE,
    WEIGHTS_FILE,
    feature_service,
    interest_view,
    schema_hash,
)
from features.settings import ROOT, Settings
from features.store import apply
from training.export import EncoderServing, FusionServing, TowerServing, save_module
from training.gate import GateError, check_candidate
from training.release_gate import check_quality, check_vectors
from training.trained import TrainedModel

CONFIG_FILE = "config.pbtxt"


def publish(
    settings: Settings, trained: TrainedModel, *, why: str, note: Callable[[str], None], although_worse: str = ""
) -> int:
    """Publishes a trained model as the next release and makes it live.

    Args:
        why: kept with the change in the release table.
        note: told of each step.
        although_worse: why it is to serve without having been measured beside the live release and the baselines;
            kept in the table as well.

    Returns:
        The release's number.

    Raises:
        GateError: the candidate does not pass; it is recorded as failed.
        ReleaseError: another publisher is at work, or the model repository cannot be written.
        OSError: the disk is full, or something else is wrong with it.
    """
    check_repository(settings.model_repository)
    engine = open_database(settings.log_url)
    table = ReleaseTable(engine)
    why = f"{why} (not measured: {although_worse})" if although_worse else why
    with _one_publisher(settings, engine):
        number = max(table.next_number(), _highest_version(settings.model_repository) + 1)
        candidate = settings.home / "candidates" / str(number)
        shutil.rmtree(candidate, ignore_errors=True)
        try:
            manifest = write_candidate(trained, number, candidate)
            try:
                _pass_gates(settings, trained, candidate, note, measured=not although_worse)
                _make_features(settings, manifest, candidate / FUSION_MODEL, note)
            except GateError as error:
                table.record(number, manifest, who(), why)
                table.change_state(number, "failed", who(), str(error))
                raise
            for model in (FUSION_MODEL, ITEM_TOWER_MODEL):
                _place(candidate / model, settings.model_repository / model / str(number))
            table.record(number, manifest, who(), why)
        except BaseException:
            _take_back(settings, number)
            raise
        finally:
            shutil.rmtree(candidate, ignore_errors=True)
        table.change_state(number, "live", who(), why)
        note(f"release {number} is live")
    engine.dispose()
    try:
        remove_old_releases(settings, note=note)
    except (OSError, DatabaseError, OperationalError) as error:
        note(f"old releases stay until the next publish, or `python -m training release clean`: {error}")
    return number


def check_repository(repository: Path) -> None:
    """Sees that releases can be placed in a model repository, before anything is made.

    Raises:
        ReleaseError: it cannot be made or written.
    """
    try:
        repository.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=repository):
            pass
    except OSError as error:
        raise ReleaseError(
            f"BRAID_MODEL_REPOSITORY={repository} cannot be written ({error.strerror}); make it writable for this "
            "user, or name another folder"
        ) from None


def _pass_gates(
    settings: Settings, trained: TrainedModel, candidate: Path, note: Callable[[str], None], *, measured: bool
) -> None:
    worst = check_candidate(trained, candidate / FUSION_MODEL, candidate / ITEM_TOWER_MODEL)
    note(f"files and modules are whole: TorchScript differs by at most {worst:.1e}")
    if measured:
        check_quality(settings, candidate / FUSION_MODEL, note)


def _make_features(settings: Settings, manifest: Manifest, fusion: Path, note: Callable[[str], None]) -> None:
    declared = GeneratedRelease(release=manifest.release, interest_dim=manifest.interest_dim)
    write_generated(settings.generated, declared)
    apply(settings)
    note(f"materialising {manifest.feature_view}")
    materialize(settings, manifest.release, fusion)
    check_vectors(settings, manifest.release)


def _take_back(settings: Settings, number: int) -> None:
    """Removes what a release that came to nothing has left where others see it, and how far its vectors had come."""
    shutil.rmtree(work_folder(settings, number), ignore_errors=True)  # first: without the view nothing of it is true
    for model in (FUSION_MODEL, ITEM_TOWER_MODEL):
        shutil.rmtree(settings.model_repository / model / str(number), ignore_errors=True)
    generated = generated_file(settings.generated, number)
    if generated.exists():
        generated.unlink()
        apply(settings)


def write_candidate(trained: TrainedModel, number: int, folder: Path) -> Manifest:
    """Writes `folder/fusion` and `folder/item_tower`, complete with manifest and checksums."""
    fusion, item_tower = folder / FUSION_MODEL, folder / ITEM_TOWER_MODEL
    fusion.mkdir(parents=True)
    item_tower.mkdir()
    save_module(FusionServing(trained.model), fusion / MODULE_FILE)
    save_module(EncoderServing(trained.model), fusion / ENCODER_FILE)
    save_module(TowerServing(trained.model), item_tower / MODULE_FILE)
    with torch.inference_mode():
        vectors, bias = trained.model.tower()
    np.save(fusion / VECTORS_FILE, vectors.numpy().astype(np.float32))
    trained.items.with_columns(bias=pl.Series(bias.numpy(), dtype=pl.Float32)).write_parquet(fusion / ITEMS_FILE)
    write_vocabulary(fusion / VOCABULARY_FILE, trained.content, trained.codes)
    (fusion / PROBABILITIES_FILE).write_text(json.dumps(trained.probabilities.to_json()))
    trained.save_weights(fusion / WEIGHTS_FILE)
    manifest = Manifest(
        release=number,
        created_time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        schema_hash=schema_hash(),
        interest_dim=vectors.shape[1],
        item_count=vectors.shape[0],
        config=trained.config.to_dict(),
        data_window=trained.report.get("data_window", {}),
        metrics=trained.report.get("metrics", {}),
        baselines=trained.report.get("baselines", {}),
        feature_service=feature_service(number),
        feature_view=interest_view(number),
        torch_version=torch.__version__,
        files={name: file_sha256(fusion / name) for name in (*RELEASE_FILES, WEIGHTS_FILE)},
    )
    (fusion / MANIFEST_FILE).write_text(json.dumps(manifest.to_json(), indent=2))
    tower_files = {MODULE_FILE: file_sha256(item_tower / MODULE_FILE)}
    (item_tower / MANIFEST_FILE).write_text(json.dumps({"release": number, "files": tower_files}, indent=2))
    return manifest


def _place(source: Path, place: Path) -> None:
    """Renames a version directory into the repository; across file systems it is copied beside it first."""
    place.parent.mkdir(parents=True, exist_ok=True)
    config = place.parent / CONFIG_FILE
    if not config.exists():
        shutil.copyfile(ROOT / "model_repository" / place.parent.name / CONFIG_FILE, config)
    try:
        source.rename(place)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside = place.parent.parent / f".incoming-{place.parent.name}-{place.name}"
        shutil.copytree(source, beside, dirs_exist_ok=True)
        beside.rename(place)


def _highest_version(repository: Path) -> int:
    folders = (repository / FUSION_MODEL).glob("[0-9]*")
    return max((int(folder.name) for folder in folders if folder.name.isdigit()), default=0)


@contextmanager
def _one_publisher(settings: Settings, engine: Engine) -> Iterator[None]:
    with ExitStack() as held:
        try:
            held.enter_context(locked(settings, "publish", engine=engine, wait=False))
        except LockTaken:
            raise ReleaseError(
                "another publisher is at work in this shop; publish when it has ended, if it is still wanted then"
            ) from None
        yield
