"""The files of one release, read and verified: what training publishes and the gateway serves.

`model_repository/fusion/<release>/` holds `release.json` (the manifest), `items.parquet` (row i is item index i),
`items.npy` (its vector), `vocabulary.json`, `probabilities.json`, `model.pt`, `encoder.pt` and `weights.pt`;
`model_repository/item_tower/<release>/` a smaller manifest and `model.pt`. Names are in `features.schema`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from features.inputs.codes import CodeVocabularies
from features.inputs.content import ContentVocabulary
from features.inputs.probabilities import Probabilities
from features.schema import (
    CONTENT_TOKENS,
    ENCODER_FILE,
    FUSION_MODEL,
    ITEM_TOWER_MODEL,
    ITEMS_FILE,
    MANIFEST_FILE,
    MODULE_FILE,
    PROBABILITIES_FILE,
    VECTORS_FILE,
    VOCABULARY_FILE,
    schema_hash,
)

RELEASE_FILES: Final = (MODULE_FILE, ENCODER_FILE, ITEMS_FILE, VECTORS_FILE, VOCABULARY_FILE, PROBABILITIES_FILE)
"""What serving needs. The manifest holds the sha256 of each, and of `weights.pt`, with which training goes on."""

ITEM_COLUMNS: Final[dict[str, pl.DataType]] = {
    "item_id": pl.String(),
    "title": pl.String(),
    "category_path": pl.List(pl.String()),
    "brand": pl.String(),
    "price": pl.Float64(),
    "bias": pl.Float32(),
    "popularity": pl.Float64(),
    "content": pl.List(pl.Int32()),
}
"""Columns of `items.parquet`. `bias` is added to an item's score; `content` has `CONTENT_TOKENS` codes."""


class ReleaseError(Exception):
    """A release cannot be used; the message names the file and what is wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """`release.json`."""

    release: int
    created_time: str
    """ISO 8601, UTC."""
    schema_hash: str
    interest_dim: int
    """D: size of item, interest and long-term vectors."""
    item_count: int
    config: Mapping[str, Any]
    data_window: Mapping[str, Any]
    metrics: Mapping[str, Any]
    baselines: Mapping[str, Any]
    feature_service: str
    feature_view: str
    torch_version: str
    files: Mapping[str, str]
    """File name to sha256."""

    def to_json(self) -> dict[str, Any]:
        """The content of `release.json`."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseFiles:
    """A verified release.

    items: columns `ITEM_COLUMNS`, row i is item index i.
    item_vectors: float32 (item_count, interest_dim).
    """

    folder: Path
    manifest: Manifest
    items: pl.DataFrame
    item_vectors: npt.NDArray[np.float32]
    content: ContentVocabulary
    codes: CodeVocabularies
    probabilities: Probabilities


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a release folder, its tensor contract checked.

    Raises:
        ReleaseError: it is missing, is no manifest, or was made under another `schema.schema_hash`.
    """
    path = folder / MANIFEST_FILE
    try:
        document = json.loads(path.read_text())
        newer = sorted(document.keys() - {field.name for field in fields(Manifest)})
        if newer:
            raise ReleaseError(
                f"{path} was made by a newer version, which also says {', '.join(newer)}; update this one, or publish "
                "with it"
            )
        manifest = Manifest(**document)
    except FileNotFoundError:
        raise ReleaseError(f"{path} is missing; publish the release again") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise ReleaseError(f"{path} is no release manifest: {error}") from None
    if manifest.schema_hash != schema_hash():
        raise ReleaseError(
            f"{path}: made under schema {manifest.schema_hash[:12]}, this version has {schema_hash()[:12]}; "
            "train and publish with this version"
        )
    return manifest


def has_manifest(folder: Path, content: Mapping[str, Any]) -> bool:
    """Whether a release folder is there, and is that of the release of which the table keeps this manifest."""
    try:
        found: object = json.loads((folder / MANIFEST_FILE).read_text())
    except (FileNotFoundError, ValueError):
        return False
    return found == content


def read_release(folder: Path) -> ReleaseFiles:
    """Reads a release and verifies the sha256 of every file.

    Raises:
        ReleaseError: a file is missing, changed, or does not fit the manifest.
    """
    manifest = read_manifest(folder)
    for name in {*RELEASE_FILES, *manifest.files}:
        verify_file(folder, manifest.files, name)
    items = pl.read_parquet(folder / ITEMS_FILE)
    vectors = np.load(folder / VECTORS_FILE, allow_pickle=False)
    content, codes = read_vocabulary(folder / VOCABULARY_FILE)
    missing = [name for name in ITEM_COLUMNS if name not in items.columns]
    if missing:
        raise ReleaseError(f"{folder / ITEMS_FILE} lacks the columns {', '.join(missing)}")
    if items.height != manifest.item_count or vectors.shape != (manifest.item_count, manifest.interest_dim):
        raise ReleaseError(
            f"{folder}: {items.height} items and vectors {vectors.shape}, the manifest says "
            f"({manifest.item_count}, {manifest.interest_dim})"
        )
    return ReleaseFiles(
        folder=folder,
        manifest=manifest,
        items=items,
        item_vectors=vectors.astype(np.float32, copy=False),
        content=content,
        codes=codes,
        probabilities=read_probabilities(folder / PROBABILITIES_FILE),
    )


def read_placed(repository: Path, release: int) -> ReleaseFiles:
    """Reads a release from a model repository, as `read_release`, and verifies its item tower as well.

    Raises:
        ReleaseError: a file of either is missing, changed, or does not fit the manifest.
    """
    files = read_release(repository / FUSION_MODEL / str(release))
    tower = repository / ITEM_TOWER_MODEL / str(release)
    path = tower / MANIFEST_FILE
    try:
        document = json.loads(path.read_text())
        of, sums = document["release"], dict(document["files"])
    except FileNotFoundError:
        raise ReleaseError(f"{path} is missing; publish the release again") from None
    except (ValueError, TypeError, KeyError) as error:
        raise ReleaseError(f"{path} is no manifest of an item tower: {error!r}") from None
    if of != files.manifest.release:
        raise ReleaseError(f"{path} is of release {of}, not {files.manifest.release}; publish the release again")
    for name in {MODULE_FILE, *sums}:
        verify_file(tower, sums, name)
    return files


def verify_file(folder: Path, files: Mapping[str, str], name: str) -> None:
    """Compares a file of a release with the sha256 that its manifest's `files` say.

    Raises:
        ReleaseError: it is missing, changed, or not in the manifest.
    """
    if name not in files:
        raise ReleaseError(f"{folder / MANIFEST_FILE} has no checksum of {name}; publish the release again")
    if file_sha256(folder / name) != files[name]:
        raise ReleaseError(f"{folder / name} is not the file that was published (sha256 differs)")


def content_matrix(items: pl.DataFrame) -> npt.NDArray[np.int32]:
    """int32 (n, CONTENT_TOKENS): the `content` column of a release's items."""
    return np.array(items["content"].explode().to_numpy(), np.int32).reshape(items.height, CONTENT_TOKENS)


def write_vocabulary(path: Path, content: ContentVocabulary, codes: CodeVocabularies) -> None:
    """Writes `vocabulary.json`."""
    document = {
        "content": {"codes": dict(content.codes), "price_edges": list(content.price_edges)},
        "gender": dict(codes.gender),
        "country": dict(codes.country),
        "device": dict(codes.device),
    }
    path.write_text(json.dumps(document, ensure_ascii=False))


def read_vocabulary(path: Path) -> tuple[ContentVocabulary, CodeVocabularies]:
    """Reads `vocabulary.json`.

    Raises:
        ReleaseError: it is no such document.
    """
    try:
        document = json.loads(path.read_text())
        content = ContentVocabulary(codes=document["content"]["codes"], price_edges=document["content"]["price_edges"])
        codes = CodeVocabularies(gender=document["gender"], country=document["country"], device=document["device"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReleaseError(f"{path} is no vocabulary: {error!r}") from None
    return content, codes


def read_probabilities(path: Path) -> Probabilities:
    """Reads `probabilities.json`.

    Raises:
        ReleaseError: it is no such document.
    """
    try:
        return Probabilities.from_json(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReleaseError(f"{path} holds no probabilities: {error!r}") from None


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file.

    Raises:
        ReleaseError: there is none.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while chunk := file.read(1 << 20):
                digest.update(chunk)
            return digest.hexdigest()
    except FileNotFoundError:
        raise ReleaseError(f"{path} is missing; publish the release again") from None
