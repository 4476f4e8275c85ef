"""The work that every peer does for a request: the gateway's, without what the gateway does besides.

One read of Feast's online store, the fusion model's tensors, the release's `model.pt` in torch, the best items. It is
made of the gateway's own parts, so the tensors are the gateway's to the byte; frameworks differ in how requests come in
and how they are gathered. No filter, rule, record or reason: a peer has less to do than the gateway.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from typing_extensions import TypedDict  # pydantic asks for it before Python 3.12

from features.database.engine import open_database
from features.inputs.shopper import Shopper, ShopperQuery, merge
from features.releases.release import read_release
from features.releases.release_table import ReleaseTable
from features.schema import FUSION_MODEL, MODULE_FILE
from features.settings import Settings
from server.catalogue.catalogue_index import CatalogueIndex
from server.hydrate.fusion_request import NO_CANDIDATES, FusionRequest, stacked_inputs
from server.hydrate.online_features import OnlineFeatures
from server.infer.triton import FusionAnswer
from server.releases.loaded_release import LoadedRelease, catalogue_rows
from server.select.selection import best_rows
from training.export import load_module

PAGE_SIZE = 10
MAX_BATCH = 64
"""Requests that go together, as in the model's config.pbtxt."""
LONGEST_READ_S = 2.0
EVERY_ITEM = b"\0"


class Page(TypedDict):
    """An answer as it goes out."""

    item_ids: list[str]
    scores: list[float]


class Recommender:
    """The live release of a shop. `read` belongs to one thread, the first that calls it; `infer` to any."""

    def __init__(self, settings: Settings) -> None:
        """Loads the release.

        Raises:
            SystemExit: the shop has no release.
            ReleaseError: its files are not whole.
        """
        engine = open_database(settings.log_url)
        number = ReleaseTable(engine).live()
        engine.dispose()
        if number is None:
            raise SystemExit("The shop has no live release: `make demo` trains and publishes one")
        files = read_release(settings.model_repository / FUSION_MODEL / str(number))
        self._module = load_module(files.folder / MODULE_FILE)
        self._index = CatalogueIndex()
        self._release = LoadedRelease(files, catalogue_rows(files.items, self._index))
        self._everything = np.ones(len(self._index), np.bool_)
        self._online = OnlineFeatures(settings, give_up_s=LONGEST_READ_S)
        self._online.read_registry()

    def recommend(self, users: Sequence[str]) -> list[Page]:
        """A page for each user, by one read and one call of the model."""
        return self.infer(self.read(users))

    def read(self, users: Sequence[str]) -> list[Shopper]:
        """What the store knows of each user, in one read."""
        if not self._online.opened:
            self._online.open()
        now_ms = time.time_ns() // 1_000_000
        queries = [ShopperQuery(user_id=user, session_id="", now_ms=now_ms) for user in users]
        rows = self._online.read([(query.keys, self._release.number) for query in queries])
        return [merge(of_one, query) for of_one, query in zip(rows, queries, strict=True)]

    def infer(self, shoppers: Sequence[Shopper]) -> list[Page]:
        """A page for each shopper, by one call of the model."""
        release, index = self._release, self._index
        requests = [
            FusionRequest(shopper, release, index, allowed=EVERY_ITEM, candidates=NO_CANDIDATES) for shopper in shoppers
        ]
        with torch.inference_mode():
            outputs = self._module(*map(torch.from_numpy, stacked_inputs(requests)))
        return [self._page(FusionAnswer(*row)) for row in zip(*(it.numpy() for it in outputs), strict=True)]

    def _page(self, answer: FusionAnswer) -> Page:
        rows, scores = best_rows(answer, self._release, self._everything)
        item_ids = [self._index.item_ids[row] for row in rows[:PAGE_SIZE]]
        return Page(item_ids=item_ids, scores=scores[:PAGE_SIZE].tolist())
