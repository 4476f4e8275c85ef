"""Fits the fusion model: epochs over the moments before the split, early stopping on the moments just before it.

The same seed and the same number of threads give the same model, resumed or not: an epoch draws from its own seed.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from features.content import ContentVocabulary, content_codes, fit_vocabulary
from training.batches import BatchMaker
from training.config import Config
from training.cooccurrence import cooccurrence_vectors
from training.dataset import Log
from training.evaluate import Protocol, TestSet, make_test_set, measure, rank_with_model
from training.fusion import FusionModel
from training.item_tower import ItemTower
from training.losses import softmax_loss
from training.moments import DAY_MS, Moments, popularity_scores
from training.scoring import score_batch

WARM_UP_STEPS = 50
LAST_RATE = 0.1
POPULARITY_DAYS = 30.0
"""Half-life of the popularity from which item biases start."""
VALIDATION = Protocol(sample=1500, seed=11)


@dataclass(slots=True, kw_only=True)
class Fitted:
    """A model and what belongs to it."""

    model: FusionModel
    config: Config
    content: ContentVocabulary
    history: list[dict[str, float]] = field(default_factory=list)


def build_model(log: Log, moments: Moments, config: Config) -> tuple[FusionModel, ContentVocabulary]:
    """A fresh model for a catalogue; items without any event in `moments` or the log's past are known by content."""
    vocabulary = fit_vocabulary(log.catalogue)
    content = content_codes(log.catalogue, vocabulary)
    return new_model(log, moments, config, content, vocabulary), vocabulary


def new_model(
    log: Log, moments: Moments, config: Config, content: np.ndarray[Any, Any], vocabulary: ContentVocabulary
) -> FusionModel:
    """A model with weights drawn from the configured seed."""
    torch.manual_seed(config.fit.seed)
    known = log.items[(log.items >= 0) & (log.times_ms <= moments.times_ms.max(initial=0))]
    seen = np.bincount(known, minlength=log.item_count) > 0
    start = cooccurrence_vectors(log, int(moments.times_ms.max(initial=0)), config.model.dim)
    tower = ItemTower(torch.from_numpy(content), torch.from_numpy(seen), vocabulary.size, config.model.dim)
    popularity = np.log1p(popularity_scores(moments, log.item_count, POPULARITY_DAYS))
    tower.start_from(torch.from_numpy(start), torch.from_numpy(popularity.astype(np.float32)))
    return FusionModel(config.model, tower, log.vocabularies)


def fit(
    log: Log,
    moments: Moments,
    config: Config,
    *,
    validation_from_ms: int,
    test_from_ms: int,
    folder: Path,
    resume: bool = False,
) -> Fitted:
    """Fits on the moments before `validation_from_ms`, stops on those up to `test_from_ms`, then sees both once more.

    Args:
        folder: gets `checkpoint.pt` after every epoch and TensorBoard's log.
        resume: go on from `folder/checkpoint.pt`.
    """
    options = config.fit
    train, recent = moments.between(0, validation_from_ms), moments.between(0, test_from_ms)
    model, vocabulary = build_model(log, recent, config)
    run = _Run(model=model, optimizer=_optimizer(model, config), config=config, folder=folder)
    if resume:
        run.load()
    maker = BatchMaker(log, train)
    test, checker = _validation(log, moments, validation_from_ms, test_from_ms)
    deadline = time.monotonic() + options.max_minutes * 60
    with SummaryWriter(log_dir=str(folder / "tensorboard")) as board:
        while run.epoch < options.epochs and not run.stopped and (not run.epoch or time.monotonic() < deadline):
            loss = run.train_epoch(maker)
            figures = measure(test, rank_with_model(model, checker, test.allowed)) if len(test.moments) else {}
            run.note(loss, figures, board)
            run.save()
        run.restore_best()
        if options.final_epochs:
            everything = BatchMaker(log, recent)
            run.epoch = options.epochs
            for _ in range(options.final_epochs):
                run.train_epoch(everything)
    model.eval()
    return Fitted(model=model, config=config, content=vocabulary, history=run.history)


def _validation(log: Log, moments: Moments, from_ms: int, to_ms: int) -> tuple[TestSet, BatchMaker]:
    test = make_test_set(log, moments, from_ms, to_ms, VALIDATION)
    return test, BatchMaker(log, test.moments)


def _optimizer(model: FusionModel, config: Config) -> torch.optim.Optimizer:
    decayed = [weight for weight in model.parameters() if weight.ndim > 1]
    rest = [weight for weight in model.parameters() if weight.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": config.fit.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.fit.learning_rate, betas=(0.9, 0.98), fused=True)


@dataclass(slots=True, kw_only=True)
class _Run:
    """What an interrupted run needs to go on."""

    model: FusionModel
    optimizer: torch.optim.Optimizer
    config: Config
    folder: Path
    epoch: int = 0
    step: int = 0
    stopped: bool = False
    best: float = -1.0
    best_state: dict[str, Any] = field(default_factory=dict)
    since_best: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    def train_epoch(self, maker: BatchMaker) -> float:
        """One pass; the mean loss."""
        options = self.config.fit
        torch.manual_seed(options.seed * 1_000_003 + self.epoch)
        rng = np.random.default_rng([options.seed, self.epoch])
        moments = maker.moments
        ages_days = (moments.times_ms.max(initial=0) - moments.times_ms) / DAY_MS
        weights = np.power(0.5, ages_days / options.half_life_days).astype(np.float32)
        self.model.train()
        total, seen = 0.0, 0
        batches = list_batches(maker, options, rng, weights)
        progress = tqdm(batches, desc=f"epoch {self.epoch + 1}", unit="batch", leave=False, mininterval=0.5)
        for at, batch in enumerate(progress):
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate(at / len(batches))
            scores = score_batch(self.model, batch, options)
            loss = softmax_loss(scores.logits, batch.target_row, batch.target_item, batch.weight)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
            self.optimizer.step()
            self.step += 1
            total, seen = total + float(loss.detach()) * len(batch.rows), seen + len(batch.rows)
            progress.set_postfix(loss=f"{total / seen:.3f}", best=f"{max(self.best, 0):.4f}")
        self.epoch += 1
        return total / max(seen, 1)

    def learning_rate(self, part: float) -> float:
        """Warm-up, then a cosine over the configured epochs; `part` of the current one is done."""
        options = self.config.fit
        progress = min((self.epoch + part) / options.epochs, 1.0)
        share = LAST_RATE + (1.0 - LAST_RATE) * 0.5 * (1.0 + math.cos(math.pi * progress))
        return options.learning_rate * share * min(1.0, (self.step + 1) / WARM_UP_STEPS)

    def note(self, loss: float, figures: dict[str, float], board: SummaryWriter) -> None:
        """Records an epoch and decides whether to stop."""
        figure = figures.get("ndcg@10", -loss)
        self.history.append({"epoch": self.epoch, "loss": loss, **figures})
        board.add_scalar("loss/train", loss, self.epoch)
        for name, value in figures.items():
            board.add_scalar(f"validation/{name}", value, self.epoch)
        validation = f", validation NDCG@10 {figures['ndcg@10']:.4f}" if "ndcg@10" in figures else ""
        tqdm.write(f"epoch {self.epoch}: loss {loss:.3f}{validation}")
        if figure > self.best or not self.best_state:
            self.best, self.since_best = figure, 0
            self.best_state = {name: value.clone() for name, value in self.model.state_dict().items()}
        else:
            self.since_best += 1
            self.stopped = self.since_best >= self.config.fit.patience

    def restore_best(self) -> None:
        if self.best_state:
            self.model.load_state_dict(self.best_state)

    def save(self) -> None:
        """Writes the checkpoint beside and renames it into place."""
        state = {name: getattr(self, name) for name in _RESUMED}
        state |= {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        beside = self.folder / "checkpoint.pt.part"
        torch.save(state | {"config": self.config.to_dict()}, beside)
        beside.replace(self.folder / "checkpoint.pt")

    def load(self) -> None:
        """Goes on from the checkpoint."""
        state = torch.load(self.folder / "checkpoint.pt", weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name in _RESUMED:
            setattr(self, name, state[name])


_RESUMED = ("epoch", "step", "stopped", "best", "best_state", "since_best", "history")


def list_batches(maker: BatchMaker, options: Any, rng: np.random.Generator, weights: Any) -> list[Any]:
    return list(
        maker.batches(
            batch_examples=options.batch_examples,
            rng=rng,
            late_share=options.late_materialization,
            segment_examples=options.segment_examples,
            weights=weights,
            label_items=options.label_items,
        )
    )
