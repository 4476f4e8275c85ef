"""Parts below are killed, stopped and emptied under a small steady load: what is answered then, and after their return.

Soon after the fault every answer comes inside its deadline and says its tier; soon after the part's return the full
tier is back, in the same process. On an idle machine that is one second and five; a busy one is given more time here.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import grpc
import psutil
import pytest
import redis
import tritonclient.grpc as triton_client

from benchmarks.random_release import random_model
from braid.v1 import recommendation_pb2 as rec
from braid.v1.release_pb2 import GetReleaseRequest
from deploy.embedded.triton import clear_leftovers
from features.offline.build import build
from features.online.materialize import materialize
from features.schema import FUSION_MODEL, ITEM_TOWER_MODEL
from features.settings import Settings
from features.store import apply
from tests.conditions import eventually
from tests.conftest import NewSettings
from tests.parts import Part, held, stoppable, stoppable_postgresql
from tests.processes import environment, free_ports, required_binary
from tests.server.client import RunningGateway, gateway
from tests.server.conftest import copy_of
from tests.server.prebuilt import copy_release
from tests.server.shop import fill, items
from training.publish import publish

DEADLINE_S = 1.0
EVERY_S = 0.05
SETTLED_S = 2.0
WATCHED_S = 4.0
BACK_S = 30.0
FULL, OK = rec.TIER_FULL, grpc.StatusCode.OK
BELOW = {rec.TIER_SEGMENT, rec.TIER_POPULAR}


class Storefront:
    """Asks twenty times a second until its end, each time for another shopper that the shop knows."""

    def __init__(self, shop: RunningGateway) -> None:
        self.answers: list[tuple[float, grpc.StatusCode, int]] = []
        """When it was asked, the status, and the tier (0 where there is no answer)."""
        self._ask = shop.client.recommendations.Recommend
        self._end = threading.Event()

    def __enter__(self) -> Storefront:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def since(self, moment_s: float) -> list[tuple[float, grpc.StatusCode, int]]:
        """Answers to what was asked since."""
        return [answer for answer in self.answers if answer[0] >= moment_s]

    def all_full_since(self, moment_s: float, count: int = 10) -> bool:
        """Whether so many of the newest answers, all asked since, are in full."""
        newest = self.since(moment_s)[-count:]
        return len(newest) == count and all(answer[1:] == (OK, FULL) for answer in newest)

    def _run(self) -> None:
        with ThreadPoolExecutor(40) as calls:
            number = 0
            while not self._end.wait(EVERY_S):
                calls.submit(self._call, f"user-{number % 60}")
                number += 1

    def _call(self, user_id: str) -> None:
        asked_s, code, tier = time.monotonic(), OK, 0
        try:
            tier = self._ask(rec.RecommendRequest(user_id=user_id), timeout=DEADLINE_S).tier
        except grpc.RpcError as error:
            code = error.code()
        self.answers.append((asked_s, code, tier))


def endure(
    shop: RunningGateway, part: Part, fault: Callable[[], object], mend: Callable[[], object], tiers: set[int]
) -> None:
    """A fault under load, and its end; where the part ends by itself meanwhile, it is started again."""

    def full_since(moment_s: float) -> bool:
        part.revive()
        return both_models_ready(shop.settings) and storefront.all_full_since(moment_s)

    with Storefront(shop) as storefront:
        eventually(lambda: full_since(0.0), within_s=90, what="the full tier")
        fault()
        broken_s = time.monotonic()
        eventually(lambda: time.monotonic() > broken_s + WATCHED_S, what="the fault has been watched")
        meanwhile = [answer for answer in storefront.since(broken_s + SETTLED_S)]
        mend()
        back_s = time.monotonic()
        eventually(lambda: full_since(back_s), within_s=BACK_S, what="the full tier again")
    assert {code for _, code, _ in meanwhile} == {OK}, [answer for answer in meanwhile if answer[1] != OK]
    assert {tier for _, _, tier in meanwhile} <= tiers
    assert len(meanwhile) > 20
    assert shop.process.poll() is None


def both_models_ready(settings: Settings) -> bool:
    """Whether Triton has loaded what the gateway has it load after a fault; what answers most requests comes first."""
    with triton_client.InferenceServerClient(settings.triton_address) as client:
        return all(client.is_model_ready(model, "1") for model in (FUSION_MODEL, ITEM_TOWER_MODEL))


Shop = tuple[RunningGateway, Part]


def triton_of(parts: ExitStack, settings: Settings) -> Part:
    command = [sys.executable, "-m", "deploy.embedded.triton"]
    parts.callback(clear_leftovers, settings)
    return parts.enter_context(stoppable(Part(parts, command, settings.logs / "triton.log", environment(settings))))


@pytest.fixture(scope="module")
def with_triton(trained_shop: Settings, new_settings: NewSettings) -> Iterator[Shop]:
    """A gateway, and its Triton."""
    settings = copy_of(trained_shop, new_settings)
    with ExitStack() as parts:
        triton = triton_of(parts, settings)
        yield parts.enter_context(gateway(settings)), triton


@pytest.fixture(scope="module")
def with_redis(
    trained_shop: Settings, new_settings: NewSettings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Shop, int]]:
    """A gateway whose feature store is in Redis; that process, and its port. Redis starts with what it last saved."""
    binary, folder, port = (
        required_binary("redis-server", "redis-server"),
        tmp_path_factory.mktemp("redis"),
        free_ports(),
    )
    command = [binary, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
    with ExitStack() as parts:
        part = parts.enter_context(stoppable(Part(parts, command, folder / "redis.log")))
        with redis.Redis(port=port) as client:
            eventually(client.ping, what="Redis' first answer")
            settings = copy_of(trained_shop, new_settings, online_store="redis", redis_url=f"127.0.0.1:{port}")
            apply(settings)
            build(settings)
            materialize(settings, 1, settings.model_repository / FUSION_MODEL / "1")
            client.save()
        triton_of(parts, settings)
        yield (parts.enter_context(gateway(settings)), part), port


@contextmanager
def shop_on_postgresql(new_settings: NewSettings) -> Iterator[tuple[RunningGateway, Part, Part]]:
    """A gateway whose database is a PostgreSQL of its own, that, and its Triton."""
    with ExitStack() as parts:
        database, url = stoppable_postgresql(parts, durable=True)
        settings = new_settings(database_url=url)
        fill(settings)
        publish(settings, random_model(items()), why="a test", note=lambda _: None, although_worse="random weights")
        triton = triton_of(parts, settings)
        yield parts.enter_context(gateway(settings)), database, triton


@pytest.fixture(scope="module")
def with_postgresql(new_settings: NewSettings) -> Iterator[Shop]:
    """A gateway whose database is a PostgreSQL of its own, and that."""
    with shop_on_postgresql(new_settings) as (running, database, _triton):
        yield running, database


def listening(triton: Part, settings: Settings) -> None:
    """Started again where it has ended, and listening."""
    triton.revive()
    port = int(settings.triton_address.rpartition(":")[2])
    process = psutil.Process(triton.process.pid)
    eventually(
        lambda: any(it.status == psutil.CONN_LISTEN and it.laddr.port == port for it in process.net_connections()),
        within_s=30,
        what="Triton's return",
    )


def let_go_on(process: psutil.Process) -> None:
    """A stopped process hangs no longer, if it is still there."""
    with suppress(psutil.NoSuchProcess):
        process.resume()


def test_triton_is_killed(with_triton: Shop) -> None:
    shop, triton = with_triton
    endure(shop, triton, triton.kill, lambda: listening(triton, shop.settings), BELOW)


def test_triton_hangs(with_triton: Shop) -> None:
    shop, triton = with_triton
    endure(shop, triton, triton.stop, triton.go_on, BELOW)


def test_triton_is_slow(with_triton: Shop) -> None:
    shop, triton = with_triton
    slow = ExitStack()
    endure(shop, triton, lambda: slow.enter_context(triton.slowed(0.7, 0.02)), slow.close, BELOW | {FULL})


def test_the_models_processes_hang_behind_a_ready_face(with_triton: Shop) -> None:
    shop, triton = with_triton
    stubs: list[psutil.Process] = []

    def hang() -> None:
        stubs.extend(triton.stubs())
        assert stubs
        for stub in stubs:
            stub.suspend()

    def go_on() -> None:
        for stub in stubs:
            let_go_on(stub)
        listening(triton, shop.settings)  # Triton itself may end when such a process has hung

    tiers = BELOW | {FULL}  # Triton may take them for dead, and start new ones
    endure(shop, triton, hang, go_on, tiers)


def test_the_models_processes_are_killed_behind_a_ready_face(with_triton: Shop) -> None:
    shop, triton = with_triton
    endure(
        shop,
        triton,
        lambda: [stub.kill() for stub in triton.stubs()],
        lambda: listening(triton, shop.settings),
        BELOW | {FULL},  # the gateway has them loaded again by itself
    )


def test_the_feature_stores_file_is_gone_and_another_takes_its_place(with_triton: Shop, tmp_path: Path) -> None:
    shop, triton = with_triton
    files = list(shop.settings.home.glob("online.db*"))

    def gone() -> None:
        for file in files:
            file.rename(tmp_path / file.name)

    def another() -> None:
        for file in files:
            shutil.copy(tmp_path / file.name, file)

    endure(shop, triton, gone, another, BELOW)


def test_a_release_that_hangs_keeps_no_new_gateway_from_the_one_that_is_live(
    trained_shop: Settings, new_settings: NewSettings
) -> None:
    settings = copy_of(trained_shop, new_settings)
    with ExitStack() as parts:
        triton = triton_of(parts, settings)
        with gateway(settings) as shop:
            shop.process.kill()
            shop.process.wait()
        copy_release(settings, 2).change_state(2, "live", "test", "a switch")
        for stub in triton.stubs():
            parts.callback(let_go_on, stub)
            stub.suspend()
        with gateway(settings, wait=False) as shop:

            def answers_from_it() -> bool:
                triton.revive()  # it may end by itself when such a process has hung
                return shop.client.recommend("user-3").release == 2

            eventually(answers_from_it, within_s=60, what="the release that is live")


def test_a_spare_that_hangs_is_loaded_anew(trained_shop: Settings, new_settings: NewSettings) -> None:
    settings = copy_of(trained_shop, new_settings)
    table = copy_release(settings, 2)
    with ExitStack() as parts:
        triton = triton_of(parts, settings)
        with gateway(settings) as shop:
            table.load(2, "test", "a spare")
            eventually(lambda: holds(shop, 2), within_s=60, what="the spare")
            shop.process.kill()
            shop.process.wait()
        hung = [stub for stub in triton.stubs() if f"/{FUSION_MODEL}/2/" in " ".join(stub.cmdline())]
        assert hung
        for stub in hung:
            parts.callback(let_go_on, stub)
            stub.suspend()
        with gateway(settings) as shop:

            def back() -> bool:
                triton.revive()  # it may end by itself when such a process has hung
                return holds(shop, 2)

            eventually(back, within_s=90, what="the spare")
            assert "release=2 is held and does not answer, loading it anew" in shop.log
            assert shop.client.recommend("user-3").release == 1


def holds(shop: RunningGateway, release: int) -> bool:
    """Whether the gateway could answer from a release now."""
    return shop.client.releases.GetRelease(GetReleaseRequest(release=release)).release.loaded


def test_the_database_hangs(with_postgresql: Shop) -> None:
    shop, database = with_postgresql
    hanging = ExitStack()
    endure(shop, database, lambda: hanging.enter_context(held(database.family())), hanging.close, {FULL})


def test_the_database_is_killed(with_postgresql: Shop) -> None:
    shop, database = with_postgresql
    endure(shop, database, database.kill, database.start, {FULL})


def test_the_feature_store_hangs(with_redis: tuple[Shop, int]) -> None:
    (shop, part), _ = with_redis
    endure(shop, part, part.stop, part.go_on, BELOW)


def test_the_feature_store_is_killed(with_redis: tuple[Shop, int]) -> None:
    (shop, part), port = with_redis

    def start() -> None:
        part.start()
        with redis.Redis(port=port) as client:
            eventually(client.ping, what="Redis again")

    endure(shop, part, part.kill, start, BELOW)


def test_the_feature_store_is_emptied(with_redis: tuple[Shop, int]) -> None:
    (shop, part), port = with_redis
    with redis.Redis(port=port) as client:
        rows = {key: client.dump(key) for key in client.scan_iter()}
        endure(shop, part, client.flushall, lambda: [client.restore(key, 0, row) for key, row in rows.items()], BELOW)
