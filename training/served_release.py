"""A release asked as it is served: its own modules, vocabulary and encoder, at moments of the log."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from features.releases.release import read_release
from features.schema import ENCODER_FILE, FUSION_INPUTS, FUSION_OUTPUTS, MODULE_FILE
from training.batches import Batch, BatchMaker
from training.config import Config
from training.dataset import Log, read_log
from training.evaluate import RANKED
from training.export import REFUSED_SCORE, load_module
from training.gate import GateError
from training.moments import Ints, Moments
from training.samples import request_inputs

MOMENTS_AT_ONCE = 64
_OUTPUTS = {tensor.name: place for place, tensor in enumerate(FUSION_OUTPUTS)}


class ServedRelease:
    """The files of a release, verified, and their modules.

    Raises:
        ReleaseError: they are not whole.
    """

    def __init__(self, folder: Path) -> None:
        self.files = read_release(folder)
        self.items: pl.Series = self.files.items["item_id"]
        config = Config.from_dict(dict(self.files.manifest.config)).model
        self._overlap = config.overlap or not config.long
        self._module = load_module(folder / MODULE_FILE)
        self._encoder = load_module(folder / ENCODER_FILE)

    def read_log(self, offline: Path) -> tuple[Log, Moments]:
        """The offline files with the items and codes of the release.

        Raises:
            DataError: a file is missing, or there are no events.
        """
        return read_log(offline, self.files.codes, self.files.items)

    def rank(self, log: Log, moments: Moments, allowed: pl.Series) -> Ints:
        """The best `RANKED` items at each moment, int32 (E, RANKED), as places in `allowed`; -1 where there are fewer.

        Args:
            log: as `read_log` gives it, of the offline files that the moments' shoppers are numbered by.
            allowed: item ids that may be ranked; one that the release does not know never is.

        Raises:
            GateError: a score is not finite, or fewer items come back than are allowed.
        """
        place_of = dict(zip(allowed.to_list(), range(len(allowed)), strict=True))
        places = np.array([place_of.get(item_id, -1) for item_id in self.items], np.int32)
        bits = np.packbits(np.append(places >= 0, np.zeros(8, np.bool_)), bitorder="little")  # at least two bytes
        expected = min(RANKED, int((places >= 0).sum()))
        maker = BatchMaker(log, overlap=self._overlap)
        ranked = np.full((len(moments), RANKED), -1, np.int32)
        for batch in maker.batches(maker.ask(_without_targets(moments)), batch_examples=MOMENTS_AT_ONCE):
            best, scores = self._best(batch, bits)
            if not np.isfinite(scores).all():
                raise GateError(f"release {self.files.manifest.release}: scores of real requests are not finite")
            if (best[:, :expected] < 0).any():
                raise GateError(
                    f"release {self.files.manifest.release}: fewer than {expected} items came back where "
                    f"{len(allowed)} are allowed"
                )
            ranked[batch.rows] = np.where(best >= 0, places[best], -1)
        return ranked

    def _best(self, batch: Batch, bits: npt.NDArray[np.uint8]) -> tuple[Ints, npt.NDArray[np.float32]]:
        """Items (B, RANKED) and scores of `top_items`; the scores of places that no item fills are 0."""
        history = batch.history
        with torch.inference_mode():
            long = self._encoder(
                history.items[history.row].int(),
                history.types[history.row].int(),
                history.gaps[history.row],
                history.last + 1,
            )
            inputs = request_inputs(batch, (long * batch.long_mask).numpy())
            inputs["allowed"] = np.tile(bits, (len(batch.rows), 1))
            outputs = self._module(*(torch.from_numpy(inputs[tensor.name]) for tensor in FUSION_INPUTS))
        items = outputs[_OUTPUTS["top_items"]][:, :RANKED].numpy()
        scores = outputs[_OUTPUTS["top_scores"]][:, :RANKED].numpy()
        return items, np.where(scores == REFUSED_SCORE, 0, scores)


def _without_targets(moments: Moments) -> Moments:
    """The same questions, whatever the answers: another release numbers its items otherwise."""
    return Moments(
        shoppers=moments.shoppers,
        times_ms=moments.times_ms,
        targets=np.zeros(0, np.int32),
        offsets=np.zeros(len(moments) + 1, np.int64),
    )
