"""Releases published and rolled back while a gateway serves at half of what it can: does a caller notice?

    python -m benchmarks.publishing [--every 60] [--times 3] [--items 10000]

A shop of its own, gone at the end: a made-up catalogue, shoppers with events, and releases of random weights that are
made before anything is measured. A closed load finds what the gateway can do; then an open one, from a process of its
own, sends half of that without a pause. Meanwhile one release after the other is promoted, one `--every` seconds, and
rolled back again. A call belongs to a switch if it was due from the promotion until `SETTLED_S` after the first answer
of the new release: Triton loads, is warmed up, and drops the release that nobody needs any more. The calls before the
switch are those of as many seconds before the promotion as the switch took, at least `LEAST_BEFORE_S`. Prints failed
calls, both p99 and their ratio, the seconds from the promotion to the first answer, and what Triton and the gateway
take of memory before and after all switches; keeps them as JSON in benchmarks/results/. A p99 of some thousand calls
swings by itself: the same ratio of two stretches without a switch is the measure of that, and of all switches together
the p99 is steadier than of each. As many releases are held after the switches as before, where `--every` leaves time to
load the last spare. Nothing is trained meanwhile.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from uuid import uuid4

import grpc
import numpy as np
import psutil
import typer
from rich.table import Table

from benchmarks import record
from benchmarks.footprint import MIB, Footprint, footprint
from benchmarks.live_shop import LiveShop, fresh_shop
from benchmarks.offered_load import OK, Call, LoadError, LoadProcess, Plan, Target, put_load
from benchmarks.random_release import fill_and_publish
from braid.v1 import recommendation_pb2 as pb
from braid.v1 import recommendation_pb2_grpc
from features.database.engine import open_database
from features.log.event_log import EventLog, NewEvent
from features.offline.build import build
from features.releases.release_table import ReleaseTable
from features.schema import EventType
from features.settings import Settings
from features.terminal import console

USERS = 1_000
EVENTS_A_USER = 10
SATURATING = 32
DEADLINE_S = 1.0
SETTLED_S = 4.0
LEAST_BEFORE_S = 10.0
ASK_EVERY_S = 0.02
GIVE_UP_S = 120.0
LIMIT_RATIO, LIMIT_ROLLBACK_S = 1.5, 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """One change of the release in service; times are Unix seconds."""

    kind: str
    release: int
    began_s: float
    first_answer_s: float
    ended_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What callers saw of a switch. `degraded` are answers from a lower tier than recent events; `quiet_ratio` is that
    of the stretch before the switch to the one before that, in which there is none where `--every` is long enough."""

    kind: str
    release: int
    seconds_to_first_answer: float
    calls: int
    failed_before: int
    failed: int
    degraded: int
    p99_ms_before: float
    p99_ms: float
    quiet_ratio: float

    @property
    def ratio(self) -> float:
        """Of the slowest hundredth, during over before."""
        return self.p99_ms / self.p99_ms_before


def main(
    every: float = typer.Option(60.0, min=5.0, help="Seconds from one switch to the next."),
    times: int = typer.Option(3, min=1, help="Releases that are published; as many are rolled back."),
    items: int = typer.Option(10_000, min=1_000, help="Size of the catalogue."),
    saturation_seconds: float = typer.Option(10.0, "--saturation-seconds", min=1.0, help="Length of the closed load."),
) -> None:
    """The table, a line for each switch."""
    try:
        with fresh_shop({}) as shop:
            users = prebuild(shop.settings, items, releases=times + 2)  # the last two are held loaded at first
            triton, gateway = shop.start_triton(), shop.start_gateway()
            peak = saturation(shop, users, saturation_seconds)
            before = memory(triton, gateway)
            calls, switches = under_load(shop, users, peak / 2, every, times)
            after = memory(triton, gateway)
    except LoadError as error:
        sys.exit(str(error))
    effects = [effect(switch, calls) for switch in switches]
    failed = sum(call.code != OK for call in calls)
    before_all, during_all = ([call for it in switches for call in part(it, calls)] for part in (_before, _during))
    together = _p99_ms(during_all) / _p99_ms(before_all)
    show(effects, together, peak, len(calls), failed)
    for was, now in zip(before, after, strict=True):
        console.print(
            f"{now.program}: {was.processes} processes and {was.pss_bytes // MIB} MiB before {len(switches)} switches, "
            f"{now.processes} and {now.pss_bytes // MIB} MiB after them."
        )
    figures = {
        "items": items,
        "answers_a_second_at_saturation": peak,
        "calls": len(calls),
        "failed": failed,
        "codes": dict(Counter(call.code for call in calls)),
        "memory_before": [asdict(it) for it in before],
        "memory_after": [asdict(it) for it in after],
        "switches": [{**asdict(it), "p99_ratio": it.ratio} for it in effects],
        "p99_ratio_of_all": together,
    }
    console.print(str(record.write("publishing", figures)))


def prebuild(settings: Settings, items: int, releases: int) -> list[str]:
    """Catalogue, shoppers and releases 1 to `releases`, the last of them live; returns the shoppers."""
    draw = random.Random(0)
    users = [f"user-{number}" for number in range(USERS)]
    now_ms = time.time_ns() // 1_000_000
    events = [
        NewEvent(
            event_id=uuid4().hex,
            event_type=draw.choice((EventType.VIEW, EventType.VIEW, EventType.PURCHASE)),
            event_time_ms=now_ms - draw.randrange(30 * 86_400_000),
            user_id=user,
            session_id=None,
            item_id=f"item-{draw.randrange(items)}",
        )
        for user in users
        for _ in range(EVENTS_A_USER)
    ]
    engine = open_database(settings.log_url)
    EventLog(engine).append(events, now_ms)
    engine.dispose()
    build(settings)
    for seed in range(releases):
        fill_and_publish(settings, items, seed)
    return users


def saturation(shop: LiveShop, users: Sequence[str], seconds: float) -> float:
    """Answers a second under a closed load."""
    target = Target.recommend(shop.settings.gateway_address, users)

    def answered() -> int:
        calls = put_load(target, seconds=seconds, timeout_s=DEADLINE_S, concurrency=SATURATING)
        return sum(call.code == OK for call in calls)

    answered()  # warm
    return answered() / seconds


def memory(triton: subprocess.Popen[bytes], gateway: subprocess.Popen[bytes]) -> list[Footprint]:
    """What the two take now."""
    return [footprint(name, psutil.Process(it.pid)) for name, it in (("Triton", triton), ("The gateway", gateway))]


def under_load(
    shop: LiveShop, users: Sequence[str], rate: float, every_s: float, times: int
) -> tuple[list[Call], list[Switch]]:
    """Every call of the open load, and the switches that were made meanwhile."""
    table = ReleaseTable(open_database(shop.settings.log_url))
    plan = Plan(
        target=Target.recommend(shop.settings.gateway_address, users[1:]),
        seconds=every_s * (2 * times + 1),
        timeout_s=DEADLINE_S,
        rate=rate,
    )
    switches = []
    with (
        grpc.insecure_channel(shop.settings.gateway_address) as channel,
        LoadProcess(plan, shop.settings.home) as load,
    ):
        stub = recommendation_pb2_grpc.RecommendationServiceStub(channel)
        for number in range(2 * times):
            time.sleep(max(0.0, load.began_s + every_s * (number + 1) - time.time()))
            began_s = time.time()
            if number < times:
                kind, release = "promote", number + 1
                table.change_state(release, "live", "benchmark", "publishing under load")
            else:
                kind = "rollback"
                release, _ = table.rollback("benchmark", "rolling back under load")
            first_s = first_answer(stub, users[0], release)
            switches.append(
                Switch(kind=kind, release=release, began_s=began_s, first_answer_s=first_s, ended_s=first_s + SETTLED_S)
            )
        return load.calls(), switches


def first_answer(stub: recommendation_pb2_grpc.RecommendationServiceStub, user: str, release: int) -> float:
    """When the first answer of a release came."""
    give_up_s = time.time() + GIVE_UP_S
    while time.time() < give_up_s:
        with suppress(grpc.RpcError):  # refused, as any other call may be
            if stub.Recommend(pb.RecommendRequest(user_id=user), timeout=DEADLINE_S).release == release:
                return time.time()
        time.sleep(ASK_EVERY_S)
    sys.exit(f"release {release} did not answer within {GIVE_UP_S:.0f} s; the gateway's log says why")


def effect(switch: Switch, calls: Sequence[Call]) -> Effect:
    """What callers saw of a switch."""
    before, during = _before(switch, calls), _during(switch, calls)
    return Effect(
        kind=switch.kind,
        release=switch.release,
        seconds_to_first_answer=switch.first_answer_s - switch.began_s,
        calls=len(during),
        failed_before=sum(call.code != OK for call in before),
        failed=sum(call.code != OK for call in during),
        degraded=sum(call.code == OK and call.tier not in ("TIER_FULL", "TIER_RECENT") for call in during),
        p99_ms_before=_p99_ms(before),
        p99_ms=_p99_ms(during),
        quiet_ratio=_p99_ms(before) / _p99_ms(_before(switch, calls, stretches=2)),
    )


def _before(switch: Switch, calls: Sequence[Call], stretches: int = 1) -> list[Call]:
    span_s = max(LEAST_BEFORE_S, switch.ended_s - switch.began_s)
    from_s = switch.began_s - stretches * span_s
    return [call for call in calls if from_s <= call.due_s < from_s + span_s]


def _during(switch: Switch, calls: Sequence[Call]) -> list[Call]:
    return [call for call in calls if switch.began_s <= call.due_s < switch.ended_s]


def _p99_ms(calls: Sequence[Call]) -> float:
    seconds = [call.seconds for call in calls if call.code == OK]
    return 1000 * float(np.percentile(seconds, 99)) if seconds else float("nan")


def show(effects: Sequence[Effect], together: float, peak: float, calls: int, failed: int) -> None:
    """The table, and what was asked for."""
    table = Table(
        "switch", "to", "first answer s", "calls", "failed before", "failed", "degraded",
        "p99 before ms", "p99 ms", "ratio", "quiet ratio",
    )  # fmt: skip
    for it in effects:
        table.add_row(
            it.kind,
            str(it.release),
            f"{it.seconds_to_first_answer:.2f}",
            str(it.calls),
            str(it.failed_before),
            str(it.failed),
            str(it.degraded),
            f"{it.p99_ms_before:.1f}",
            f"{it.p99_ms:.1f}",
            f"{it.ratio:.2f}",
            f"{it.quiet_ratio:.2f}",
        )
    console.print(table)
    slowest_s = max(it.seconds_to_first_answer for it in effects if it.kind == "rollback")
    console.print(
        f"Saturation {peak:.0f} answers/s; {calls} calls at half of it, {failed} failed, "
        f"{sum(it.failed for it in effects)} of them in a switch (0 is asked for). "
        f"p99 in all switches {together:.2f} of that before them, highest ratio {max(it.ratio for it in effects):.2f} "
        f"(at most {LIMIT_RATIO}), without a switch {max(it.quiet_ratio for it in effects):.2f}; "
        f"slowest rollback {slowest_s:.2f} s (under {LIMIT_ROLLBACK_S:g})."
    )


if __name__ == "__main__":
    typer.run(main)
