"""SimilarItems against the release's own vectors, worked out by hand; and items that the release does not know."""

from __future__ import annotations

import random
from uuid import uuid4

import grpc
import numpy as np
import numpy.typing as npt
import pytest

from braid.v1 import catalog_pb2
from braid.v1 import recommendation_pb2 as rec
from features.releases.release import ReleaseFiles, read_release
from features.schema import FUSION_MODEL
from server.similar import _nearest
from tests.conditions import eventually
from tests.server.client import Client, RunningGateway, ids, refusal
from tests.server.shop import TASTES, item
from tests.server.test_recommend import CATALOGUE, may_be_shown, random_filter


@pytest.fixture(scope="module")
def release(released_shop: RunningGateway) -> ReleaseFiles:
    return read_release(released_shop.settings.model_repository / FUSION_MODEL / "1")


def similar(client: Client, item_id: str, **fields: object) -> rec.SimilarItemsResponse:
    request = rec.SimilarItemsRequest(item_id=item_id, **fields)  # type: ignore[arg-type]
    return client.recommendations.SimilarItems(request, timeout=10)


def cosines(release: ReleaseFiles, item_id: str) -> dict[str, float]:
    units = release.item_vectors / np.linalg.norm(release.item_vectors, axis=1, keepdims=True)
    item_ids = release.items["item_id"].to_list()
    return dict(zip(item_ids, (units @ units[item_ids.index(item_id)]).tolist(), strict=True))


def test_they_are_the_nearest_vectors_that_the_filter_allows_at_any_selectivity(
    client: Client, release: ReleaseFiles
) -> None:
    draw = random.Random(7)
    for _ in range(60):
        asked, wanted = draw.choice(sorted(CATALOGUE)), random_filter(draw)
        own_group = CATALOGUE[asked].variant_group
        near = cosines(release, asked)
        allowed = {
            item_id
            for item_id, known in CATALOGUE.items()
            if may_be_shown(known, wanted) and item_id != asked and not (own_group and known.variant_group == own_group)
        }
        expected, groups = [], set()
        for item_id in sorted(allowed, key=lambda item_id: -near[item_id]):
            group = CATALOGUE[item_id].variant_group
            if group is None or group not in groups:
                expected.append(item_id)
                groups.add(group)
        size = draw.choice([3, 10, 100])
        answer = similar(client, asked, filter=wanted, page_size=size)
        found = [result.item_id for result in answer.results if result.item_id in CATALOGUE]
        assert asked not in found and len(found) == min(size, len(expected))
        given = [result.similarity for result in answer.results if result.item_id in CATALOGUE]
        assert given == pytest.approx([near[item_id] for item_id in expected[:size]], abs=1e-5)  # equals may swap


def new_item(item_id: str, **fields: object) -> catalog_pb2.Item:
    """An item with the content of a thing of Music."""
    known = item("Music", 4)
    values: dict[str, object] = {
        "title": known.title,
        "category_path": known.category_path,
        "brand": known.brand,
        "price": known.price,
        "attributes": known.attributes,
    }
    return catalog_pb2.Item(item_id=item_id, **(values | fields))  # type: ignore[arg-type]


def upsert(client: Client, *items: catalog_pb2.Item) -> None:
    client.catalog.UpsertItems(catalog_pb2.UpsertItemsRequest(items=items))


def test_an_item_that_the_release_does_not_know_has_similar_ones_at_once(client: Client) -> None:
    new = new_item(f"new-{uuid4().hex}")
    upsert(client, new)
    for _ in range(20):  # by categories and brand at first, by its vector a moment later
        found = ids(similar(client, new.item_id, page_size=5).results)
        assert new.item_id not in found and len(found) == 5
        assert sum(one.startswith("music") for one in found) >= 3
    eventually(lambda: new.item_id in ids(similar(client, "music-04", page_size=60).results), what="its vector")
    client.catalog.DeleteItems(catalog_pb2.DeleteItemsRequest(item_ids=[new.item_id]))
    assert new.item_id not in ids(similar(client, "music-04", page_size=100).results)
    code, _ = refusal(lambda: similar(client, new.item_id))
    assert code == grpc.StatusCode.NOT_FOUND  # neither the catalogue nor the release has it


def test_a_deleted_item_that_the_release_knows_is_answered_and_never_shown(client: Client) -> None:
    known = item("Garden", 9)
    client.catalog.DeleteItems(catalog_pb2.DeleteItemsRequest(item_ids=[known.item_id]))
    try:
        answer = similar(client, known.item_id, page_size=5)
        assert len(answer.results) == 5 and known.item_id not in ids(answer.results)
        assert known.item_id not in ids(similar(client, "garden-08", page_size=100).results)
    finally:
        upsert(client, new_item(**_whole(known)))  # type: ignore[arg-type]


def _whole(known: object) -> dict[str, object]:
    names = ("item_id", "title", "category_path", "brand", "price", "stock", "attributes")
    return {name: getattr(known, name) for name in names}


def test_variants_are_one_item_and_those_of_the_asked_item_none(client: Client) -> None:
    group = f"group-{uuid4().hex}"
    variants = [new_item(f"variant-{number}-{uuid4().hex}", variant_group=group) for number in range(4)]
    upsert(client, *variants)
    own = {variant.item_id for variant in variants}
    eventually(lambda: own & set(ids(similar(client, "music-04", page_size=100).results)), what="a vector")
    for of in TASTES:
        assert len(own & set(ids(similar(client, f"{of.lower()}-04", page_size=100).results))) == 1
    for asked in own:
        assert not own & set(ids(similar(client, asked, page_size=100).results))
    client.catalog.DeleteItems(catalog_pb2.DeleteItemsRequest(item_ids=sorted(own)))


def test_a_short_look_finds_what_a_full_sort_would() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        size, count = int(rng.integers(0, 300)), int(rng.integers(1, 20))
        similarity: npt.NDArray[np.float32] = (rng.integers(0, 40, size) / 40).astype(np.float32)  # many are equal
        groups = (rng.integers(0, 6, size) * (rng.random(size) < 0.8)).astype(np.int32)
        expected, seen = [], set()
        for place in sorted(range(size), key=lambda place: (-similarity[place], place)):
            if groups[place] == 0 or groups[place] not in seen:
                expected.append(place)
                seen.add(groups[place])
        assert _nearest(similarity, groups, count).tolist() == expected[:count]
