"""Trains RecTools' SASRec on an exchange folder and ranks what is asked. Runs inside .venv-peer, without our packages.

    .venv-peer/bin/python -I benchmarks/quality/peer/sasrec.py <folder>

`benchmarks.quality.peer.run` writes the folder and says what stands in it. Everything of the model but the settings is
RecTools' default; a test moment is a user of its own, made of its history, as RecTools recommends for users that it was
not trained on. The folder gets ranked.npy, int32 (E, 20), best first, -1 where there is nothing to recommend, and
report.json.
"""

from __future__ import annotations

import json
import logging
import math
import platform
import resource
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd  # type: ignore[import-untyped]
import torch
from pytorch_lightning import Trainer, seed_everything  # type: ignore[import-not-found]
from pytorch_lightning.callbacks import LambdaCallback  # type: ignore[import-not-found]
from rectools import Columns  # type: ignore[import-not-found]
from rectools.dataset import Dataset  # type: ignore[import-not-found]
from rectools.models import SASRecModel  # type: ignore[import-not-found]
from tqdm import tqdm

PLACES = 20
JUDGED = 10
"""Places of the NDCG that chooses the number of epochs."""

Ints = npt.NDArray[np.int32]


def interactions(user: Any, item: Any, order: Any) -> Dataset:
    """RecTools' dataset; it wants times, and an order within a user is time enough."""
    columns = {Columns.User: user, Columns.Item: item, Columns.Weight: 1.0}
    return Dataset.construct(pd.DataFrame(columns | {Columns.Datetime: pd.to_datetime(order, unit="s")}))


def asked_histories(ask: pd.DataFrame) -> Dataset:
    """The known events before each moment; the moment's number is the user."""
    flat = ask[["moment", "items"]].explode("items").dropna().astype("int64")
    return interactions(flat["moment"], flat["items"], flat.groupby("moment").cumcount())


def make_trainer(epochs: int, share: float, clock: list[tuple[float, float]], bar: Any) -> Trainer:
    """A CPU trainer that notes wall and CPU seconds where an epoch, or that share of it, begins and where it ends."""
    watch = LambdaCallback(
        on_train_epoch_start=lambda *_: clock.append((time.perf_counter(), time.process_time())),
        on_train_epoch_end=lambda *_: clock.append((time.perf_counter(), time.process_time())),
        on_train_batch_end=lambda *_: bar.update(),
    )
    return Trainer(
        max_epochs=epochs,
        min_epochs=epochs,
        accelerator="cpu",
        devices=1,
        limit_train_batches=share,
        callbacks=[watch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def make_model(settings: dict[str, Any], trainer: Trainer) -> SASRecModel:
    """SASRec of the settings."""
    return SASRecModel(
        n_factors=settings["dim"],
        n_blocks=settings["layers"],
        n_heads=settings["heads"],
        dropout_rate=settings["dropout"],
        session_max_len=settings["max_length"],
        batch_size=settings["batch"],
        lr=settings["learning_rate"],
        loss=settings["loss"],
        n_negatives=settings["negatives"],
        recommend_torch_device="cpu",
        get_trainer_func=lambda: trainer,
    )


def recommend(model: SASRecModel, asked: Dataset, count: int, allowed: Any, seen_masked: bool) -> Ints:
    """The best of all allowed items that the model knows, int32 (count, 20)."""
    table = model.recommend(
        users=asked.user_id_map.external_ids,
        dataset=asked,
        k=PLACES,
        filter_viewed=seen_masked,
        items_to_recommend=np.flatnonzero(allowed),
        on_unsupported_targets="ignore",
    )
    ranked = np.full((count, PLACES), -1, np.int32)
    ranked[table[Columns.User].to_numpy(), table[Columns.Rank].to_numpy() - 1] = table[Columns.Item]
    return ranked


def ndcg(ranked: Ints, targets: list[Any]) -> float:
    """The mean over moments of NDCG@10, as `training.metrics` has it."""
    discounts = 1.0 / np.log2(np.arange(2, JUDGED + 2))
    gains = [discounts[np.isin(row[:JUDGED], held)].sum() for row, held in zip(ranked, targets, strict=True)]
    ideals = [discounts[: len(held)].sum() for held in targets]
    return float(np.mean(np.divide(gains, ideals)))


def main(folder: Path) -> None:
    """Reads the folder, trains, ranks, writes the answers."""
    settings = json.loads((folder / "settings.json").read_text())
    torch.set_num_threads(settings["threads"])
    seed_everything(settings["seed"])
    train, ask = pd.read_parquet(folder / "train.parquet"), pd.read_parquet(folder / "ask.parquet")
    learned, asked = interactions(train["user"], train["item"], train["order"]), asked_histories(ask)
    epochs, choosing = settings["epochs"], "targets" in ask
    lengths = train["user"].value_counts()
    clock: list[tuple[float, float]] = []
    best, best_epoch, ranked = -1.0, 0, np.zeros(0, np.int32)
    batches = math.ceil(int((lengths > 1).sum()) / settings["batch"])
    total = epochs * int(batches * settings["share"])
    with tqdm(total=total, desc=f"RecTools SASRec, {epochs} epochs", unit="batch", mininterval=0.5) as bar:
        model = make_model(settings, make_trainer(epochs, settings["share"], clock, bar))
        step = 1 if choosing else epochs
        for epoch in range(step, epochs + 1, step):
            model.fit_partial(learned, min_epochs=step, max_epochs=step)
            found = recommend(model, asked, len(ask), np.load(folder / "allowed.npy"), settings["seen_masked"])
            figure = ndcg(found, list(ask["targets"])) if choosing else 0.0
            bar.set_postfix({"epoch": epoch} | ({"NDCG@10": f"{figure:.4f}"} if choosing else {}))
            if figure > best:
                best, best_epoch, ranked = figure, epoch, found
            elif epoch - best_epoch >= settings["patience"]:
                break
    np.save(folder / "ranked.npy", ranked)
    spent = np.diff(np.reshape(clock, (-1, 2, 2)), axis=1)[:, 0]  # (epochs, wall and CPU)
    report = {
        "epochs": best_epoch,
        "seconds_by_epoch": spent[:, 0].tolist(),
        "cpu_seconds_by_epoch": spent[:, 1].tolist(),
        "parameters": sum(weight.numel() for weight in model.torch_model.parameters()),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("rectools", "torch", "pytorch-lightning", "numpy")},
    }
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    warnings.filterwarnings("ignore", module="pytorch_lightning|rectools")
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    main(Path(sys.argv[1]))
