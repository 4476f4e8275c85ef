"""A release takes its place beside the catalogue in memory: which rows are its items, and which it has to learn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import polars as pl
import pytest
from tritonclient.grpc import service_pb2

from features.database.engine import open_database
from features.inputs.codes import CodeVocabularies
from features.inputs.content import ContentVocabulary
from features.inputs.probabilities import Probabilities
from features.releases.release import ITEM_COLUMNS, Manifest, ReleaseFiles
from features.schema import ITEM_TOWER_OUTPUTS, output_name, schema_hash
from features.settings import Settings
from features.shop.catalogue import Catalogue, CatalogueItem
from server.catalogue import catalogue_follower
from server.catalogue.catalogue_follower import CHUNK, CatalogueFollower
from server.catalogue.catalogue_index import CatalogueIndex
from server.following import Counters
from server.infer.triton import Triton
from server.releases.loaded_release import LoadedRelease
from tests.conditions import eventually_async

DIM = 2
SILENT, LIVE = 1, 2


@asynccontextmanager
async def followed(
    settings: Settings, triton_address: str = "127.0.0.1:1", call_timeout_s: float = 0.1
) -> AsyncIterator[tuple[CatalogueFollower, CatalogueIndex]]:
    """The catalogue of a shop in memory; without an address there is no Triton to ask for vectors."""
    engine, index = open_database(settings.log_url), CatalogueIndex()
    triton = Triton(triton_address, Path(), call_timeout_s=call_timeout_s)
    with ThreadPoolExecutor(1) as threads:
        follower = CatalogueFollower(engine, index, triton, Counters(engine, threads), threads)
        await follower.refresh()
        yield follower, index
    await triton.close()
    engine.dispose()


def of_a_release(*item_ids: str) -> pl.DataFrame:
    """Items as a release's files have them."""
    items = [{"item_id": item_id, "category_path": ["Old"], "price": 2.0} for item_id in item_ids]
    return pl.DataFrame(items, schema=ITEM_COLUMNS)


def test_items_that_the_catalogue_lacks_are_taken_as_the_release_knew_them_and_others_as_they_are(
    settings: Settings,
) -> None:
    engine = open_database(settings.log_url)
    Catalogue(engine).upsert([CatalogueItem(item_id="kept", category_path=["New"], price=1.0)])
    engine.dispose()

    async def take() -> None:
        async with followed(settings) as (follower, index):
            rows = await follower.rows_of(of_a_release("gone", "kept"))
            assert [index.item_ids[row] for row in rows] == ["gone", "kept"]
            assert index.columns.price[rows].tolist() == [2.0, 1.0]
            assert index.in_category(("Old",))[rows].tolist() == [True, False]

    asyncio.run(take())


def test_calls_go_on_while_a_large_release_takes_its_place(settings: Settings) -> None:
    release = of_a_release(*(f"item-{number}" for number in range(20 * CHUNK + 1)))

    async def take() -> int:
        async with followed(settings) as (follower, index):
            turns = await turns_beside(follower.rows_of(release))
            assert len(index) == release.height
            return turns

    assert asyncio.run(take()) >= 20


async def test_an_item_that_cannot_be_read_is_logged_once_and_taken_in_once_it_can_be(
    settings: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue_follower, "AGAIN_S", 0.01)
    engine = open_database(settings.log_url)
    Catalogue(engine).upsert([CatalogueItem(item_id="item", category_path=["New"])])

    def store(category_path: str) -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql("UPDATE items SET category_path = ?", (category_path,))

    async def told() -> bool:
        return "the catalogue in memory stays as it is for now" in caplog.text

    async def taken_in() -> bool:
        return follower.loaded.is_set()

    with ThreadPoolExecutor(1) as threads:
        index, triton = CatalogueIndex(), Triton("127.0.0.1:1", Path(), call_timeout_s=1)
        follower = CatalogueFollower(engine, index, triton, Counters(engine, threads), threads)
        store("no JSON")
        task = asyncio.ensure_future(follower.follow())
        await eventually_async(told, what="the error in the log")
        store('["New"]')
        await eventually_async(taken_in, what="the item")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert index.item_ids == ["item"] and len(caplog.records) == 1
    await triton.close()
    engine.dispose()


@asynccontextmanager
async def item_towers() -> AsyncIterator[str]:
    """The address of a server that gives vectors as Triton does, but for one release, whose calls hang."""

    async def infer(message: bytes, _context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        request = service_pb2.ModelInferRequest.FromString(message)
        if request.model_version == str(SILENT):
            await asyncio.Event().wait()
        response = service_pb2.ModelInferResponse()
        count = request.inputs[0].shape[0]
        for number, (tensor, width) in enumerate(zip(ITEM_TOWER_OUTPUTS, (DIM, 1), strict=True)):
            response.outputs.add(name=output_name(number, tensor), datatype=tensor.dtype, shape=(count, width))
            response.raw_output_contents.append(np.ones((count, width), np.float32).tobytes())
        return response.SerializeToString()

    server = grpc.aio.server()
    method = {"ModelInfer": grpc.unary_unary_rpc_method_handler(infer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("inference.GRPCInferenceService", method),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


def release_of_nothing(number: int) -> LoadedRelease:
    """A release from before the shop had any item."""
    manifest: dict[str, Any] = dict.fromkeys(Manifest.__dataclass_fields__, "")
    manifest |= {"release": number, "schema_hash": schema_hash(), "interest_dim": DIM, "item_count": 0}
    files = ReleaseFiles(
        folder=Path(),
        manifest=Manifest(**manifest),
        items=pl.DataFrame(schema=ITEM_COLUMNS | {"bias": pl.Float32, "popularity": pl.Float32}),
        item_vectors=np.zeros((0, DIM), np.float32),
        content=ContentVocabulary(codes={}, price_edges=[]),
        codes=CodeVocabularies(gender={}, country={}, device={}),
        probabilities=Probabilities(),
    )
    return LoadedRelease(files, np.zeros(0, np.int32))


async def test_a_spare_that_hangs_keeps_no_other_release_from_the_vectors_of_new_items(settings: Settings) -> None:
    async with item_towers() as address, followed(settings, address) as (follower, index):
        spare, live = release_of_nothing(SILENT), release_of_nothing(LIVE)
        for release in (spare, live):
            await follower.prepare(release)
        engine = open_database(settings.log_url)
        Catalogue(engine).upsert([CatalogueItem(item_id="new")])
        engine.dispose()
        following = asyncio.ensure_future(follower.follow())

        async def learned() -> bool:
            return live.new.rows.tolist() == [index.row_of["new"]]

        await eventually_async(learned, what="the vector of the new item")
        assert list(spare.awaiting_vectors) == ["new"] and not live.awaiting_vectors
        following.cancel()


async def test_a_release_learns_all_that_is_sold_before_it_comes_and_nothing_once_it_has_left(
    settings: Settings,
) -> None:
    engine = open_database(settings.log_url)
    catalogue, item_ids = Catalogue(engine), [f"i{number}" for number in range(CHUNK + 2)]
    catalogue.upsert([CatalogueItem(item_id=item_id) for item_id in ("deleted", *item_ids)])
    catalogue.delete(["deleted"])
    async with item_towers() as address, followed(settings, address, call_timeout_s=10) as (follower, index):
        first, second = release_of_nothing(LIVE), release_of_nothing(LIVE + 1)
        for release in (first, second):
            await follower.prepare(release)
            assert sorted(release.new.rows.tolist()) == sorted(index.rows(item_ids).tolist())
            assert not release.awaiting_vectors
        follower.drop(first)
        catalogue.upsert([CatalogueItem(item_id="new")])
        await follower.refresh()
        assert (list(first.awaiting_vectors), list(second.awaiting_vectors)) == ([], ["new"])
        catalogue.delete(["i0"])
        await follower.refresh()
        assert list(second.awaiting_vectors) == ["new"]
    engine.dispose()


async def turns_beside(work: Coroutine[Any, Any, object]) -> int:
    """How often others had their turn while something was done."""
    task, turns = asyncio.ensure_future(work), 0
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
    await task
    return turns
