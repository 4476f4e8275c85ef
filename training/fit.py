"""Fits the fusion model: epochs over the moments of the tuning stage, early stopping on what it asks.

The same seed and the same number of threads give the same model, resumed or not: an epoch draws from its own seed.
"""

from __future__ import annotations

import copy
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from features.inputs.content import ContentVocabulary, content_codes, fit_vocabulary
from training.batches import Asked, Batch, BatchMaker
from training.config import Config
from training.cooccurrence import cooccurrence_vectors
from training.covisitation import BACKWARD
from training.dataset import DataError, Log
from training.evaluate import Stage, measure, rank
from training.fusion import FusionModel
from training.item_tower import ItemTower
from training.item_trend import ItemTrend
from training.losses import own_items_loss, sampled_loss, softmax_loss
from training.moments import DAY_MS, Moments, popularity_scores
from training.run_identity import run_identity
from training.scoring import ModelScorer, read_batch
from training.trained import CHECKPOINT_FILE
from training.transitions import Followers
from training.trust import learn_trust
from training.whole_file import write_whole

WARM_UP_STEPS = 50
LAST_RATE = 0.1
POPULARITY_DAYS = 30.0
"""Half-life of the popularity from which item biases start."""
MORE_EPOCHS = 4
"""Passes over what is new when a fitted model goes on; with one of them it follows a little more slowly."""
VALIDATION_MOMENTS = 4000
"""Moments of the tuning stage's test that an epoch is judged by."""

Watch = Callable[[int, float], None]
"""Told of every epoch's number and validation NDCG@10; may raise to end the run."""


@dataclass(slots=True, kw_only=True)
class Fitted:
    """A model and what belongs to it.

    held_out: as it was before it learned from the validation moments, to calibrate it on them.
    best: validation NDCG@10 of the epoch that was kept. seconds: spent fitting.
    """

    model: FusionModel
    held_out: FusionModel
    config: Config
    content: ContentVocabulary
    best: float
    seconds: float
    history: list[dict[str, float]] = field(default_factory=list)


def build_model(stage: Stage, config: Config) -> tuple[FusionModel, ContentVocabulary]:
    """A model with weights drawn from the configured seed; items without events to learn from are known by content."""
    log = stage.log
    vocabulary = fit_vocabulary(log.catalogue)
    model = empty_model(log, vocabulary, config)
    start = cooccurrence_vectors(log, stage.learn, config.model.dim)
    popularity = np.log1p(popularity_scores(stage.moments, log.item_count, POPULARITY_DAYS))
    model.tower.start_from(torch.from_numpy(start), torch.from_numpy(popularity.astype(np.float32)))
    take_note(model, stage)
    return model, vocabulary


def empty_model(log: Log, vocabulary: ContentVocabulary, config: Config) -> FusionModel:
    """A model over the catalogue of a log that knows nothing of its events, weights drawn from the seed."""
    torch.manual_seed(config.fit.seed)
    tower = ItemTower(
        torch.from_numpy(content_codes(log.catalogue, vocabulary)),
        torch.zeros(log.item_count),
        vocabulary.size,
        config.model.dim,
        config.model.content,
    )
    return FusionModel(config.model, tower, log.vocabularies)


def fit(
    tuning: Stage,
    final: Stage | None,
    config: Config,
    *,
    folder: Path,
    resume: bool = False,
    device: str = "cpu",
    watch: Watch | None = None,
) -> Fitted:
    """Fits on what the tuning stage may learn from, stops on what it asks, then sees what the final stage adds.

    Args:
        final: None, or one whose moments are no more than the tuning stage's: the best epoch is the model.
        folder: gets `checkpoint.pt` after every epoch and TensorBoard's log, in place of an earlier run's.
        resume: go on from `folder/checkpoint.pt`.
        device: "cpu", or "cuda" where encoders run in bfloat16.

    Raises:
        DataError: there is no checkpoint to go on from, or it is of other data or of another configuration.
    """
    options = config.fit
    folder.mkdir(parents=True, exist_ok=True)
    model, vocabulary = build_model(tuning, config)
    model = model.to(device)
    run = _Run.of(model, config, folder, device)
    run.identity = run_identity(model, tuning, vocabulary, config)
    if resume:
        run.load()
    else:
        (folder / CHECKPOINT_FILE).unlink(missing_ok=True)
        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    begin = time.monotonic()
    maker = BatchMaker.of(model, tuning.log)
    learned = maker.ask(tuning.moments, ItemTrend.of(tuning.moments, tuning.log.item_count))
    sample = replace(tuning, test=tuning.test.sample(VALIDATION_MOMENTS))
    scorer = ModelScorer(model, tuning.log, device=device, maker=maker)
    deadline = begin + options.max_minutes * 60
    with SummaryWriter(log_dir=str(folder / "tensorboard")) as board:
        while run.epoch < options.epochs and not run.stopped and (not run.epoch or time.monotonic() < deadline):
            loss = run.train_epoch(maker, learned, tuning.learn)
            model.eval()
            figures = measure(sample.test, rank(scorer, sample)) if len(sample.test.moments) else {}
            run.note(loss, figures, board)
            run.save()
            if watch is not None:
                watch(run.epoch, figures.get("ndcg@10", -loss))
        run.restore_best()
        if model.use_covisitation and len(tuning.test.moments):
            learn_trust(model, maker, tuning.test.moments, device)
        held_out = copy.deepcopy(model).eval()
        if final is not None and len(final.moments) > len(tuning.moments):
            if options.refit:
                model = run.anew(final)
            elif options.final_epochs:
                run.see(maker, final, final.moments, options.final_epochs)
    return Fitted(
        model=model.eval(),
        held_out=held_out,
        config=config,
        content=vocabulary,
        best=run.best,
        seconds=time.monotonic() - begin,
        history=run.history,
    )


def go_on(model: FusionModel, stage: Stage, since_ms: int, config: Config, *, folder: Path) -> FusionModel:
    """Goes on with a model that has learned what was known of the stage by a point in time, at the last learning rate.

    The model itself changes: it takes note of the whole stage, and learns the stage's other moments.
    """
    run = _Run.of(model, config, folder, "cpu")
    run.see(BatchMaker.of(model, stage.log), stage, stage.moments.unknown_by(since_ms), MORE_EPOCHS)
    return model.eval()


def take_note(model: FusionModel, stage: Stage) -> None:
    """What a stage lets the model know without fitting: items with events, their trends, and what followed what."""
    known = stage.log.items[(stage.log.items >= 0) & stage.learn]
    seen = np.bincount(known, minlength=stage.log.item_count) > 0
    model.tower.seen.copy_(torch.from_numpy(seen).unsqueeze(1))
    if model.use_repeat:
        model.repeat.trends.copy_(torch.from_numpy(ItemTrend.of(stage.moments, stage.log.item_count).newest()))
    if model.use_transitions:
        model.transitions.learn_from(Followers.of(stage.log, stage.learn))
    if model.use_covisitation:
        model.covisitation.learn_from(Followers.of(stage.log, stage.learn, BACKWARD))


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
    device: str
    identity: dict[str, str] = field(default_factory=dict)
    epoch: int = 0
    step: int = 0
    stopped: bool = False
    best: float = -1.0
    best_state: dict[str, Any] = field(default_factory=dict)
    since_best: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    @staticmethod
    def of(model: FusionModel, config: Config, folder: Path, device: str) -> _Run:
        """A run that has not begun."""
        return _Run(model=model, optimizer=_optimizer(model, config), config=config, folder=folder, device=device)

    def train_epoch(self, maker: BatchMaker, asked: Asked, learn: npt.NDArray[np.bool_]) -> float:
        """One pass over moments of a stage, whose events `learn` (n,) may be learned from; the mean loss."""
        options = self.config.fit
        torch.manual_seed(options.seed * 1_000_003 + self.epoch)
        moments = asked.moments
        ages_days = (moments.times_ms.max(initial=0) - moments.times_ms) / DAY_MS
        batches = maker.batches(
            asked,
            batch_examples=options.batch_examples,
            rng=np.random.default_rng([options.seed, self.epoch]),
            late_share=options.late_materialization,
            drop_long=options.drop_long,
            segment_examples=options.segment_examples,
            weights=np.power(0.5, ages_days / options.half_life_days).astype(np.float32),
            label_items=options.label_items,
            learn=learn,
        )
        chances = None
        if maker.log.item_count > options.full_softmax_items:
            popularity = popularity_scores(moments, maker.log.item_count, math.inf) + 1.0
            chances = torch.from_numpy((popularity / popularity.sum()).astype(np.float32)).to(self.device)
        self.model.train()
        total, seen = 0.0, 0
        progress = tqdm(batches, desc=f"epoch {self.epoch + 1}", unit="batch", leave=False, mininterval=0.5)
        for at, batch in enumerate(progress):
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate(at / len(batches))
            total, seen = total + self.step_on(batch.to(self.device), chances) * len(batch.rows), seen + len(batch.rows)
            progress.set_postfix(loss=f"{total / seen:.3f}", best=f"{max(self.best, 0):.4f}")
        self.epoch += 1
        return total / max(seen, 1)

    def see(self, maker: BatchMaker, stage: Stage, moments: Moments, epochs: int) -> None:
        """Takes note of a stage and learns some of its moments, at the last learning rate."""
        asked = maker.ask(moments, ItemTrend.of(stage.moments, stage.log.item_count))
        self.epoch = self.config.fit.epochs
        take_note(self.model, stage)
        for _ in range(epochs):
            self.train_epoch(maker, asked, stage.learn)

    def anew(self, stage: Stage) -> FusionModel:
        """A new model of the stage, after as many epochs as were best; its trust in companions is this run's."""
        model, _ = build_model(stage, self.config)
        counted = dict(model.covisitation.named_buffers())
        model.covisitation.load_state_dict(self.model.covisitation.state_dict() | counted)
        model = model.to(self.device)
        run = _Run.of(model, self.config, self.folder, self.device)
        maker = BatchMaker.of(model, stage.log)
        asked = maker.ask(stage.moments, ItemTrend.of(stage.moments, stage.log.item_count))
        while run.epoch < self.epoch - self.since_best:
            run.train_epoch(maker, asked, stage.learn)
        return model

    def step_on(self, batch: Batch, chances: torch.Tensor | None) -> float:
        """One step of the optimizer; the loss."""
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            reading = read_batch(self.model, batch, self.config.fit)
        wanted = (reading, batch.target_row, batch.target_item, batch.weight)
        loss = softmax_loss(*wanted) if chances is None else sampled_loss(*wanted, chances)
        if self.model.use_repeat and self.config.fit.own_items_loss:
            loss = loss + self.config.fit.own_items_loss * own_items_loss(*wanted)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        self.step += 1
        return float(loss.detach())

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
        """Writes the checkpoint."""
        state = {name: getattr(self, name) for name in _RESUMED}
        state |= {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        state |= {"config": self.config.to_dict(), "identity": self.identity}
        write_whole(self.folder / CHECKPOINT_FILE, lambda file: torch.save(state, file))

    def load(self) -> None:
        """Goes on from the checkpoint.

        Raises:
            DataError: there is none, or it is of another run than this one.
        """
        path = self.folder / CHECKPOINT_FILE
        if not path.exists():
            raise DataError(f"{path} is missing: no run was interrupted there; train without --resume")
        state = torch.load(path, weights_only=True)
        kept = state.get("identity", {})
        if changed := [part for part, digest in self.identity.items() if kept.get(part) != digest]:
            raise DataError(
                f"{path} is of another run: {', '.join(changed)} differ, as after `python -m features build` or with "
                "other options; train without --resume"
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name in _RESUMED:
            setattr(self, name, state[name])


_RESUMED = ("epoch", "step", "stopped", "best", "best_state", "since_best", "history")
