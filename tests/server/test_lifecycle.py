"""Start, drain, overload and what happens when a part below is gone."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from braid.v1 import catalog_pb2, event_pb2
from braid.v1 import recommendation_pb2 as rec
from features.database.engine import open_database
from features.log.event_log import lock_writers
from features.releases.release import MANIFEST_FILE
from features.releases.release_table import ReleaseTable
from features.settings import ROOT, Settings
from tests.conditions import eventually
from tests.conftest import NewSettings
from tests.processes import environment, running
from tests.server.client import NOT_SERVING, SERVING, Client, RunningGateway, gateway, new_event, refusal
from tests.server.conftest import copy_of
from tests.server.prebuilt import copy_release

VIEW = event_pb2.EVENT_TYPE_VIEW


@contextmanager
def triton(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """A Triton of our own, to be killed."""
    command = [sys.executable, "-m", "deploy.embedded.triton"]
    with running(command, settings.logs / "triton.log", env=environment(settings)) as process:
        yield process


def visit() -> list[event_pb2.Event]:
    return [new_event(VIEW, "music-01")]


@pytest.fixture
def hangs_up() -> Iterator[None]:
    """Programs that are started have SIGHUP's default, also where `nohup` has these tests ignore it."""
    before = signal.signal(signal.SIGHUP, lambda *_: None)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangs_up")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_end_says_so_first_finishes_what_is_under_way_and_exits_cleanly(
    new_settings: NewSettings, number: signal.Signals
) -> None:
    with gateway(new_settings()) as under_test:
        client = under_test.client
        codes: list[object] = []
        stop = threading.Event()

        def write() -> None:
            while not stop.is_set():
                try:
                    codes.extend(client.write(new_event(VIEW, "i", user_id="u")))
                except grpc.RpcError as error:
                    codes.append(error.code())

        writers = [threading.Thread(target=write) for _ in range(4)]
        for writer in writers:
            writer.start()
        eventually(lambda: len(codes) > 20, what="some writes")
        under_test.process.send_signal(number)
        assert under_test.process.wait(15) == 0
        stop.set()
        for writer in writers:
            writer.join()
        stored = event_pb2.EventStatus.CODE_STORED
        not_begun = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
        assert set(codes) <= {stored} | not_begun
        from features.log.event_log import EventLog

        engine = open_database(under_test.settings.log_url)
        assert EventLog(engine).last_position() >= codes.count(stored)
        engine.dispose()
        messages = [json.loads(line)["message"] for line in under_test.log.splitlines()]
        assert any(message.startswith("draining") for message in messages) and messages[-1] == "stopped"


def test_a_taken_port_and_a_wrong_setting_are_one_line(new_settings: NewSettings) -> None:
    settings = new_settings()

    def failure(**variables: str) -> str:
        command = [sys.executable, "-m", "server"]
        env = environment(settings, **variables)
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode != 0
        return done.stderr.strip().splitlines()[-1]

    with gateway(settings):
        assert "BRAID_GATEWAY_ADDRESS" in failure()
    for calls in ("0", "1" + 20 * "0"):
        assert failure(BRAID_GATEWAY_MAX_CALLS=calls).startswith("BRAID_GATEWAY_MAX_CALLS: Input should be")
    for address in ("GATEWAY_ADDRESS", "TRITON_ADDRESS", "GATEWAY_TRACE_ADDRESS"):
        message = failure(**{f"BRAID_{address}": "127.0.0.1:99999"})
        assert message.startswith(f"BRAID_{address}: Value error, has a port above 65535")
    for unusable in ("missing/socket", "long" * 30):
        message = failure(BRAID_GATEWAY_LOCAL_SOCKET=str(settings.home / unusable))
        assert message.startswith(f"BRAID_GATEWAY_LOCAL_SOCKET={settings.home / unusable}: cannot listen there")
    assert "BRAID_DATABASE_URL" in failure(BRAID_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")


def test_two_processes_share_a_port_and_one_may_go(new_settings: NewSettings) -> None:
    settings = new_settings()
    with gateway(settings, share_port="true"):
        with gateway(settings, share_port="true") as second:
            eventually(lambda: second.log.count('"serving"') == 2, within_s=60, what="both processes")
            second.process.send_signal(signal.SIGTERM)
            assert second.process.wait(15) == 0
        client = Client(settings.gateway_address)
        with client.channel:
            assert client.health() == SERVING
            assert client.write(new_event(VIEW, "i", user_id="u")) == [event_pb2.EventStatus.CODE_STORED]


def test_too_many_events_are_told_when_to_come_back(new_settings: NewSettings) -> None:
    settings = new_settings()
    events = [new_event(VIEW, "i", user_id="u") for _ in range(11)]
    with gateway(settings, max_queued_events="10") as under_test:
        engine = open_database(settings.log_url)
        with engine.begin() as connection:
            lock_writers(connection)
            request = event_pb2.WriteEventsRequest(events=events)
            waiting = under_test.client.events.WriteEvents.future(request, timeout=30)
            refused = eventually(lambda: too_many(under_test.client), what="the refusal")
        retry = error_details_pb2.RetryInfo()
        assert rpc_status.from_call(refused).details[0].Unpack(retry)
        assert retry.retry_delay.ToMilliseconds() > 0
        assert [status.code for status in waiting.result().statuses] == [event_pb2.EventStatus.CODE_STORED] * 11
        engine.dispose()


def too_many(client: Client) -> grpc.RpcError | None:
    """How a call with an event is refused because others wait; None where it waits with them."""
    request = event_pb2.WriteEventsRequest(events=[new_event(VIEW, "i", user_id="u")])
    with pytest.raises(grpc.RpcError) as refused:
        client.events.WriteEvents(request, timeout=0.5)
    return refused.value if refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED else None


def test_logs_are_json_lines_with_the_callers_request_id_and_no_user(new_settings: NewSettings) -> None:
    with gateway(new_settings(), log_level="DEBUG") as under_test:
        request = rec.RecommendRequest(user_id="personal-user", page_size=1000)
        metadata = [("x-request-id", "request-77")]
        refusal(lambda: under_test.client.recommendations.Recommend(request, metadata=metadata))
        under_test.client.recommend("personal-user")
        lines = [json.loads(line) for line in under_test.log.splitlines()]
        assert "request-77" in {line.get("request_id") for line in lines}
        assert "personal-user" not in under_test.log


def test_without_triton_it_answers_from_what_is_popular_and_is_not_ready_until_the_release_is_warm(
    trained_shop: Settings, new_settings: NewSettings
) -> None:
    settings = copy_of(trained_shop, new_settings)
    with gateway(settings, wait=False) as under_test:
        client = under_test.client
        eventually(lambda: client.recommend("user-3").results, what="the catalogue")
        assert client.recommend("user-3").tier in (rec.TIER_SEGMENT, rec.TIER_POPULAR)
        assert client.health() == NOT_SERVING
        with triton(settings) as process:
            eventually(lambda: client.health() == SERVING, within_s=60, what="a warm release")
            assert client.recommend("user-3").tier == rec.TIER_FULL
            process.kill()
            process.wait()
            eventually(lambda: client.recommend("user-3").release == 0, what="the lower tier")
            for _ in range(20):
                answer = client.recommendations.Recommend(
                    rec.RecommendRequest(user_id="user-3", recent_events=visit()), timeout=2
                )
                assert answer.release == 0 and len(answer.results) == 10
            assert client.health() == SERVING
        with triton(settings):
            eventually(lambda: client.recommend("user-3").tier == rec.TIER_FULL, within_s=60, what="the release again")


def test_a_release_that_is_not_whole_is_refused_and_the_old_one_stays(
    trained_shop: Settings, new_settings: NewSettings
) -> None:
    settings = copy_of(trained_shop, new_settings)
    fusion = settings.model_repository / "fusion"
    table = ReleaseTable(open_database(settings.log_url))
    with triton(settings), gateway(settings) as under_test:
        import shutil

        shutil.copytree(fusion / "1", fusion / "2")
        manifest = json.loads((fusion / "2" / MANIFEST_FILE).read_text())
        manifest |= {"release": 2, "schema_hash": "0" * 64}
        (fusion / "2" / MANIFEST_FILE).write_text(json.dumps(manifest))
        from features.releases.release import Manifest

        table.record(2, Manifest(**manifest), "test", "refused")
        table.change_state(2, "live", "test", "refused")
        eventually(lambda: "release=2 is refused" in under_test.log, what="the refusal")
        answer = under_test.client.recommend("user-3")
        assert answer.release == 1 and answer.tier == rec.TIER_FULL
        assert under_test.client.health() == SERVING
        eventually(lambda: table.of(2).state == "failed", what="the record of it")
        assert table.live() == 1 and "made under schema 000000000000" in table.changes(2)[-1].why


def test_the_next_release_is_switched_to_without_a_failed_or_degraded_answer(
    trained_shop: Settings, new_settings: NewSettings
) -> None:
    settings = copy_of(trained_shop, new_settings)
    with triton(settings), gateway(settings) as under_test:
        seen: list[tuple[int, int]] = []
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                answer = under_test.client.recommend("user-3")
                seen.append((answer.release, answer.tier))

        asking = threading.Thread(target=ask)
        asking.start()
        command = [sys.executable, "-m", "training", "publish"]
        done = subprocess.run(command, cwd=ROOT, env=environment(settings), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        eventually(lambda: seen and seen[-1][0] == 2, within_s=60, what="release 2")
        stop.set()
        asking.join()
        assert set(seen) == {(1, rec.TIER_FULL), (2, rec.TIER_FULL)}
        assert [release for release, _ in seen] == sorted(release for release, _ in seen)
        before = under_test.log.count("loaded model=fusion")
        roll_back(settings)
        eventually(lambda: under_test.client.recommend("user-3").release == 1, within_s=60, what="the rollback")
        alone = "loaded model=fusion versions=(1,)"
        eventually(lambda: under_test.log.count(alone) == 2, within_s=60, what="the end of the failed release")
        assert under_test.log.count("loaded model=fusion") == before + 1, "what was live before stayed loaded"


def test_a_rollback_after_tritons_restart_and_the_gateways(trained_shop: Settings, new_settings: NewSettings) -> None:
    settings = copy_of(trained_shop, new_settings)
    copy_release(settings, 2).change_state(2, "live", "test", "the next one")
    with gateway(settings, wait=False) as under_test:
        with triton(settings):
            loaded = "loaded model=fusion versions=(1, 2)"
            eventually(lambda: loaded in under_test.log, within_s=60, what="both releases in the new Triton")
            eventually(lambda: under_test.client.recommend("user-3").release == 2, within_s=60, what="its answers")
        roll_back(settings)
        with triton(settings):
            eventually(lambda: under_test.client.recommend("user-3").release == 1, within_s=60, what="the rollback")


def test_a_switch_that_a_crash_cut_short_is_resumed_or_taken_back(
    trained_shop: Settings, new_settings: NewSettings
) -> None:
    settings = copy_of(trained_shop, new_settings)
    table = copy_release(settings, 2, 3, 4)
    with triton(settings):
        with gateway(settings) as under_test:
            crash(under_test)
        table.change_state(2, "live", "test", "a switch")
        already = len(under_test.log)
        with gateway(settings, wait=False) as under_test:
            eventually(lambda: under_test.client.recommend("user-3").release == 2, within_s=60, what="the end of it")
            log = under_test.log[already:]
            assert log.index("release=1 is in service") < log.index("release=2 is in service")
            crash_half_way_to(3, under_test, table)
        with gateway(settings, wait=False) as under_test:
            eventually(lambda: under_test.client.recommend("user-3").release == 3, within_s=60, what="the end of it")
            crash_half_way_to(4, under_test, table)
        assert table.rollback("test", "taken back") == (3, 4)
        with gateway(settings) as under_test:
            assert under_test.client.recommend("user-3").release == 3
            assert "release=4 is in service" not in under_test.log


def crash_half_way_to(release: int, shop: RunningGateway, table: ReleaseTable) -> None:
    """The gateway is killed when Triton has loaded one of the release's two models."""
    begun = re.compile(rf"loaded model=fusion versions=.*\b{release}\)")
    table.change_state(release, "live", "test", "a switch")
    eventually(lambda: begun.search(shop.log), within_s=60, what="half of the switch")
    crash(shop)
    assert f"release={release} is in service" not in shop.log


def crash(shop: RunningGateway) -> None:
    """The gateway is killed."""
    shop.process.kill()
    shop.process.wait()


def roll_back(settings: Settings) -> None:
    command = [sys.executable, "-m", "training", "release", "rollback", "--why", "a test"]
    done = subprocess.run(command, cwd=ROOT, env=environment(settings), capture_output=True, text=True)
    assert done.returncode == 0 and "is live again" in done.stdout, done.stdout + done.stderr


def test_without_a_database_answers_go_on_and_writes_say_so(new_settings: NewSettings, postgres_url: str) -> None:
    import psycopg

    settings = new_settings(database_url=postgres_url)
    with gateway(settings) as under_test:
        client = under_test.client
        client.catalog.UpsertItems(
            catalog_pb2.UpsertItemsRequest(items=[catalog_pb2.Item(item_id="a"), catalog_pb2.Item(item_id="b")])
        )
        name = postgres_url.rsplit("/", 1)[1]
        with psycopg.connect(postgres_url.rsplit("/", 1)[0] + "/postgres", autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            for call in (
                lambda: client.write(new_event(VIEW, "a", user_id="u")),
                lambda: client.catalog.UpsertItems(
                    catalog_pb2.UpsertItemsRequest(items=[catalog_pb2.Item(item_id="c")])
                ),
                lambda: client.catalog.GetItem(catalog_pb2.GetItemRequest(item_id="a")),
            ):
                assert refusal(call)[0] == grpc.StatusCode.UNAVAILABLE
            assert len(client.recommend("u").results) == 2
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        eventually(lambda: client.write(new_event(VIEW, "a", user_id="u")), what="writes again")
