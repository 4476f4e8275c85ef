"""ReleaseService on a real gateway and a real Triton: what is asked of a release, and what becomes of it."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import tritonclient.grpc as triton_client
from sqlalchemy import select

from braid.v1 import catalog_pb2
from braid.v1 import recommendation_pb2 as rec
from braid.v1 import release_pb2 as pb
from features.answers.answers import recent_requests
from features.database.engine import open_database
from features.database.models import Answer
from features.releases.release import MANIFEST_FILE, file_sha256
from features.releases.release_table import ReleaseTable
from features.schema import FUSION_MODEL, ITEM_TOWER_MODEL, MODULE_FILE
from features.settings import Settings
from tests.conditions import eventually
from tests.conftest import NewSettings, StartTriton
from tests.server.client import RunningGateway, assert_refused, gateway, letters, refusal
from tests.server.conftest import copy_of
from tests.server.prebuilt import copy_release
from tests.server.shop import items

PERSON: dict[str, Any] = {"who": "a person", "why": "a test"}
RELEASES = 13
MODELS = (FUSION_MODEL, ITEM_TOWER_MODEL)


@pytest.fixture(scope="module")
def shop(trained_shop: Settings, new_settings: NewSettings, start_triton: StartTriton) -> Iterator[RunningGateway]:
    """A gateway on a shop with release 1 live and copies of it as candidates; the tests go through them in order."""
    settings = copy_of(trained_shop, new_settings)
    copy_release(settings, *range(2, RELEASES + 1))
    start_triton(settings)
    with gateway(settings) as on_it:
        yield on_it


def get(shop: RunningGateway, release: int) -> pb.Release:
    return shop.client.releases.GetRelease(pb.GetReleaseRequest(release=release)).release


def promote(shop: RunningGateway, release: int, timeout_s: float = 60) -> pb.Release:
    request = pb.PromoteReleaseRequest(release=release, **PERSON)
    return shop.client.releases.PromoteRelease(request, timeout=timeout_s).release


def problem(call: Any) -> str:
    """What a call says that is not possible as things stand."""
    with pytest.raises(grpc.RpcError) as refused:
        call()
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION, refused.value
    return str(refused.value.details())


def test_a_release_is_told_with_its_figures_its_state_and_its_changes(shop: RunningGateway) -> None:
    live = get(shop, 1)
    assert (live.state, live.loaded, live.serving, live.refusal) == (pb.RELEASE_STATE_LIVE, True, True, "")
    assert live.item_count == 60 and live.data_start_time.seconds < live.data_end_time.seconds
    assert 0 < live.metrics.values["ndcg@10"] <= 1 and "popularity" in live.baselines
    assert [(change.from_state, change.to_state, change.why) for change in live.changes] == [
        (pb.RELEASE_STATE_UNSPECIFIED, pb.RELEASE_STATE_CANDIDATE, "a test"),
        (pb.RELEASE_STATE_CANDIDATE, pb.RELEASE_STATE_LIVE, "a test"),
    ]
    other = get(shop, 2)
    assert (other.state, other.loaded, other.serving, other.kept) == (pb.RELEASE_STATE_CANDIDATE, False, False, False)


def test_pages_list_the_newest_first(shop: RunningGateway) -> None:
    first = shop.client.releases.ListReleases(pb.ListReleasesRequest(page_size=RELEASES - 1))
    assert [release.release for release in first.releases] == list(range(RELEASES, 1, -1))
    rest = shop.client.releases.ListReleases(pb.ListReleasesRequest(page_token=first.next_page_token))
    assert [release.release for release in rest.releases] == [1] and not rest.next_page_token


def test_bad_fields_are_named_and_unknown_releases_are_not_found(shop: RunningGateway) -> None:
    releases = shop.client.releases
    assert_refused(lambda: releases.ListReleases(pb.ListReleasesRequest(page_size=1_001)), "page_size")
    for token in ("?", "eA=="):
        assert_refused(
            lambda token=token: releases.ListReleases(pb.ListReleasesRequest(page_token=token)), "page_token"
        )
    assert_refused(lambda: releases.GetRelease(pb.GetReleaseRequest()), "release")
    for method, request in (
        (releases.LoadRelease, pb.LoadReleaseRequest),
        (releases.PromoteRelease, pb.PromoteReleaseRequest),
        (releases.RetireRelease, pb.RetireReleaseRequest),
    ):
        assert_refused(lambda method=method, request=request: method(request(release=-1, **PERSON)), "release")
        assert_refused(lambda method=method, request=request: method(request(release=1, why="x")), "who")
        long = {"who": letters(129), "why": letters(1_001)}
        code, fields = refusal(lambda method=method, request=request, long=long: method(request(release=1, **long)))
        assert code == grpc.StatusCode.INVALID_ARGUMENT and set(fields) == {"who", "why"}
        code, _ = refusal(lambda method=method, request=request: method(request(release=77, **PERSON)))
        assert code == grpc.StatusCode.NOT_FOUND
    assert_refused(lambda: releases.Rollback(pb.RollbackRequest(who="somebody")), "why")
    assert refusal(lambda: releases.GetRelease(pb.GetReleaseRequest(release=77)))[0] == grpc.StatusCode.NOT_FOUND


def test_a_rollback_with_nothing_before_and_the_retirement_of_the_live_one_say_why_not(shop: RunningGateway) -> None:
    releases = shop.client.releases
    assert "no release was live before 1" in problem(lambda: releases.Rollback(pb.RollbackRequest(**PERSON)))
    retire = pb.RetireReleaseRequest(release=1, **PERSON)
    assert "release 1 is live" in problem(lambda: releases.RetireRelease(retire))
    assert get(shop, 1).state == pb.RELEASE_STATE_LIVE


def test_a_release_that_is_loaded_is_held_ready_and_its_promotion_and_rollback_load_nothing(
    shop: RunningGateway,
) -> None:
    request = pb.LoadReleaseRequest(release=2, **PERSON)
    held = shop.client.releases.LoadRelease(request, timeout=60).release
    assert (held.state, held.kept, held.loaded, held.serving) == (pb.RELEASE_STATE_CANDIDATE, True, True, False)
    assert held.changes[-1].why == "to be held ready: a test" and held.changes[-1].who == "a person"
    loads = shop.log.count("loaded model=fusion")
    live = promote(shop, 2, timeout_s=5)
    assert (live.state, live.serving, live.kept) == (pb.RELEASE_STATE_LIVE, True, False)
    assert shop.client.recommend("user-3").release == 2
    back = shop.client.releases.Rollback(pb.RollbackRequest(**PERSON), timeout=5)
    assert (back.release.release, back.failed_release) == (1, 2)
    assert shop.client.recommend("user-3").release == 1
    assert shop.log.count("loaded model=fusion") == loads
    assert get(shop, 2).state == pb.RELEASE_STATE_FAILED
    eventually(lambda: not get(shop, 2).loaded, what="the end of the failed release")


def test_a_release_that_was_not_loaded_is_promoted_with_one_call(shop: RunningGateway) -> None:
    assert promote(shop, 3).serving
    assert shop.client.recommend("user-3").release == 3
    assert get(shop, 1).state == pb.RELEASE_STATE_RETIRED


def test_a_release_is_warmed_up_with_what_was_asked_before(shop: RunningGateway) -> None:
    client = shop.client
    tokens = {client.recommend(f"user-{number}").attribution_token for number in range(3)}
    ranking = client.recommendations.Rank(rec.RankRequest(user_id="user-1", item_ids=["garden-01"]), timeout=10)
    engine = open_database(shop.settings.log_url)

    def recorded() -> bool:
        with engine.connect() as connection:
            return tokens | {ranking.attribution_token} <= set(connection.scalars(select(Answer.attribution_token)))

    eventually(recorded, what="the record of the answers")
    asked = recent_requests(engine, 4)
    assert sorted(request.query.user_id for request in asked) == ["user-0", "user-1", "user-1", "user-2"]
    assert [request.ranked_item_ids for request in asked if request.ranked_item_ids] == [("garden-01",)]
    engine.dispose()
    shop.client.releases.LoadRelease(pb.LoadReleaseRequest(release=5, **PERSON), timeout=60)
    warmed = [int(count) for count in re.findall(r"answered (\d+) recorded requests", shop.log)]
    assert warmed[0] == 0 and warmed[-1] >= 4


def test_a_retired_release_is_let_go(shop: RunningGateway) -> None:
    shop.client.releases.LoadRelease(pb.LoadReleaseRequest(release=4, **PERSON), timeout=60)
    retired = shop.client.releases.RetireRelease(pb.RetireReleaseRequest(release=4, **PERSON)).release
    assert (retired.state, retired.kept) == (pb.RELEASE_STATE_RETIRED, False)
    eventually(lambda: not get(shop, 4).loaded, what="the end of the retired release")
    assert get(shop, shop.client.recommend("user-3").release).serving


def half_copy(folder: Path) -> None:
    (folder / MODULE_FILE).unlink()


def change_a_byte(folder: Path) -> None:
    path = folder / MODULE_FILE
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def say_more(folder: Path) -> None:
    path = folder / MANIFEST_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantisation": "int8"}))


@pytest.mark.parametrize(
    ("release", "model", "damage", "message"),
    [
        (6, FUSION_MODEL, half_copy, "fusion/6/model.pt is missing"),
        (7, FUSION_MODEL, change_a_byte, "fusion/7/model.pt is not the file that was published"),
        (8, FUSION_MODEL, say_more, "made by a newer version, which also says quantisation"),
        (11, ITEM_TOWER_MODEL, half_copy, "item_tower/11/model.pt is missing"),
        (12, ITEM_TOWER_MODEL, change_a_byte, "item_tower/12/model.pt is not the file that was published"),
        (13, ITEM_TOWER_MODEL, shutil.rmtree, "item_tower/13/release.json is missing"),
    ],
)
def test_a_release_that_is_not_whole_is_refused_and_nothing_has_changed(
    shop: RunningGateway, release: int, model: str, damage: Callable[[Path], None], message: str
) -> None:
    serving = shop.client.recommend("user-3").release
    damage(shop.settings.model_repository / model / str(release))
    load = pb.LoadReleaseRequest(release=release, **PERSON)
    assert message in problem(lambda: promote(shop, release))
    assert message in problem(lambda: shop.client.releases.LoadRelease(load, timeout=60))
    assert get(shop, release).state == pb.RELEASE_STATE_CANDIDATE
    assert shop.client.recommend("user-3").release == serving


@pytest.mark.parametrize(("release", "blamed"), [(9, FUSION_MODEL), (10, ITEM_TOWER_MODEL)])
def test_a_release_that_triton_cannot_serve_has_failed_and_the_old_one_never_stopped_answering(
    shop: RunningGateway, release: int, blamed: str
) -> None:
    serving = shop.client.recommend("user-3").release
    folder = shop.settings.model_repository / blamed / str(release)
    (folder / MODULE_FILE).write_bytes(b"no TorchScript")
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    manifest["files"][MODULE_FILE] = file_sha256(folder / MODULE_FILE)
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))
    answered: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            answered.append(shop.client.recommend("user-3").release)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        message = problem(lambda: promote(shop, release))
    finally:
        stop.set()
        asking.join()
    assert f"what served before goes on: Triton, {blamed} {release}" in message
    assert set(answered) == {serving}
    failed = get(shop, release)
    assert (failed.state, failed.changes[-1].who) == (pb.RELEASE_STATE_FAILED, "gateway")
    assert get(shop, serving).state == pb.RELEASE_STATE_LIVE


def test_after_all_this_triton_holds_what_serves_and_what_is_to_be_held_ready_and_nothing_else(
    shop: RunningGateway,
) -> None:
    standing = ReleaseTable(open_database(shop.settings.log_url)).standing()
    assert standing.live is not None and standing.spares
    wanted = {(model, number) for model in MODELS for number in (standing.live, *standing.spares)}
    with triton_client.InferenceServerClient(shop.settings.triton_address) as client:

        def ready() -> set[tuple[str, int]]:
            models = client.get_model_repository_index().models
            return {(it.name, int(it.version)) for it in models if it.state == "READY" and it.name in MODELS}

        eventually(lambda: ready() == wanted, within_s=60, what="what Triton is to hold")


def test_a_release_whose_categories_have_vanished_from_the_catalogue_serves_what_is_left(shop: RunningGateway) -> None:
    garden = [item for item in items() if item.category_path[0] == "Garden"]
    kitchen = [item.item_id for item in items() if item.category_path[0] == "Kitchen"]
    moved = [catalog_pb2.Item(item_id=item.item_id, category_path=["Outdoors"], stock=5) for item in garden]
    shop.client.catalog.UpsertItems(catalog_pb2.UpsertItemsRequest(items=moved))
    shop.client.catalog.DeleteItems(catalog_pb2.DeleteItemsRequest(item_ids=kitchen))
    assert promote(shop, 2).serving
    for shopper in range(3):  # one of each taste
        answer = shop.client.recommend(f"user-{shopper}", page_size=30)
        assert answer.release == 2 and len(answer.results) == 30
        assert not {result.item_id for result in answer.results} & set(kitchen)
        gone = shop.client.recommend(f"user-{shopper}", filter=rec.Filter(keep_categories=["Garden", "Kitchen"]))
        assert not gone.results
        interests = shop.client.recommendations.GetInterests(rec.GetInterestsRequest(user_id=f"user-{shopper}"))
        assert interests.release == 2
