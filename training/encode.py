"""Long-term vectors of many shoppers, by the encoder of one release.

`features.online.interest_encoder` runs it as a process:

    echo '["in.parquet", "out.parquet"]' | python -m training.encode model_repository/fusion/3

Each line of the input names the histories to read and the vectors to write; a line of the output says that they are
written, and how many.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from features.releases.release import ReleaseError, read_manifest, verify_file
from features.schema import ENCODER_FILE, HISTORY_EVENTS, ITEMS_FILE, UNKNOWN
from training.export import load_module

BATCH = 64
_OUT = pa.schema([("shopper", pa.string()), ("vector", pa.list_(pa.float32()))])


class Encoder:
    """A release's encoder and its items.

    Raises:
        ReleaseError: the release is unusable.
    """

    def __init__(self, release_dir: Path) -> None:
        manifest = read_manifest(release_dir)
        for name in (ENCODER_FILE, ITEMS_FILE):
            verify_file(release_dir, manifest.files, name)
        self._module = load_module(release_dir / ENCODER_FILE)
        self._index = pl.read_parquet(release_dir / ITEMS_FILE, columns=["item_id"]).with_columns(
            item=pl.int_range(pl.len(), dtype=pl.Int32)
        )

    def encode(self, histories: Path, vectors: Path, *, chunk_rows: int = 10_000) -> int:
        """Reads histories and writes their vectors; shoppers without events get none.

        Args:
            histories: Parquet with shopper, item_ids list<str>, event_types list<i32>, event_times_ms list<i64>,
                ascending.
            vectors: Parquet that is written, with shopper and vector list<f32>.

        Returns:
            Number of vectors.

        Raises:
            ReleaseError: the histories lack a column.
        """
        file = pq.ParquetFile(histories)
        columns = ["shopper", "item_ids", "event_types", "event_times_ms"]
        if missing := [name for name in columns if name not in file.schema_arrow.names]:
            raise ReleaseError(f"{histories} lacks the columns {', '.join(missing)}")
        written = 0
        with pq.ParquetWriter(vectors, _OUT) as writer:
            for chunk in file.iter_batches(batch_size=chunk_rows, columns=columns):
                frame = pl.DataFrame(pl.from_arrow(chunk)).filter(pl.col("item_ids").list.len() > 0)
                found = _encode_chunk(self._module, frame, self._index)
                flat = pa.array(found.reshape(-1))
                offsets = pa.array(np.arange(0, flat.__len__() + 1, found.shape[1], dtype=np.int32))
                lists = pa.ListArray.from_arrays(offsets, flat)
                writer.write_table(pa.table([frame["shopper"].to_arrow().cast(pa.string()), lists], schema=_OUT))
                written += frame.height
        return written


def _encode_chunk(encoder: torch.jit.ScriptModule, frame: pl.DataFrame, index: pl.DataFrame) -> np.ndarray:
    """float32 (n, D) for n histories."""
    newest = [pl.col(name).list.tail(HISTORY_EVENTS) for name in ("item_ids", "event_types", "event_times_ms")]
    frame = frame.select(*newest)
    lengths = frame["item_ids"].list.len().to_numpy().astype(np.int64)
    flat = frame.explode("item_ids", "event_types", "event_times_ms").join(
        index, left_on="item_ids", right_on="item_id", how="left", maintain_order="left"
    )
    items = flat["item"].fill_null(UNKNOWN).to_numpy()
    types = flat["event_types"].to_numpy()
    times_ms = flat["event_times_ms"].to_numpy().astype(np.int64)
    starts = np.cumsum(lengths) - lengths
    gaps = np.maximum(np.diff(times_ms, prepend=times_ms[:1]) / 1000.0, 0.0)
    gaps[starts] = 0.0
    parts: list[np.ndarray] = []
    order = np.argsort(lengths, kind="stable")
    with torch.inference_mode():
        for at in range(0, len(order), BATCH):
            rows = order[at : at + BATCH]
            columns = np.arange(lengths[rows].max())
            present = columns[None, :] < lengths[rows][:, None]
            cells = np.where(present, starts[rows][:, None] + columns[None, :], 0)
            parts.append(
                encoder(
                    torch.from_numpy(np.where(present, items[cells], -1).astype(np.int32)),
                    torch.from_numpy(np.where(present, types[cells], 0).astype(np.int32)),
                    torch.from_numpy(np.where(present, gaps[cells], 0).astype(np.float32)),
                    torch.from_numpy(lengths[rows]),
                ).numpy()
            )
    if not parts:
        return np.zeros((0, 1), np.float32)
    vectors = np.concatenate(parts)
    restored = np.empty_like(vectors)
    restored[order] = vectors
    return restored


def main() -> None:
    """Answers each line of the input; an error ends it, the last line on stderr saying why."""
    try:
        encoder = Encoder(Path(sys.argv[1]))
        for line in sys.stdin:
            print(encoder.encode(*map(Path, json.loads(line))), flush=True)
    except ReleaseError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
