"""What a filter costs, whatever it keeps: the median of a filtered Recommend over the unfiltered one.

    python -m benchmarks.filters [--calls 300] [ITEMS ...]

For each size of the catalogue (100,000 if not given): a shop with a release of random weights, a gateway and Triton.
One client calls, one request at a time, each kind once a round in an order drawn anew: whatever else the machine does,
and what the call before left behind, falls on all of them.
Every filter is measured twice: sent the same each time, as a category page sends it, and never the same twice, so that
nothing the gateway remembers helps. Prints medians and ratios, and the memory of gateway and Triton; keeps them as JSON
in benchmarks/results/.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Any
from uuid import uuid4

import grpc
import numpy as np
import psutil
import typer
from rich.table import Table

from benchmarks import record
from benchmarks.footprint import MIB, footprint
from benchmarks.live_shop import LiveShop, fresh_shop
from benchmarks.random_release import HIGHEST_PRICE, fill_and_publish, made_up_items
from braid.v1 import event_pb2, placement_pb2, placement_pb2_grpc, recommendation_pb2_grpc
from braid.v1 import recommendation_pb2 as pb
from features import store
from features.shop.catalogue import CatalogueItem
from features.terminal import console

TARGET_RATIO = 1.5
EVENTS = 20
WARM_UP_CALLS = 20
MODEL_BUDGET_MS = 10_000
"""A million items on a processor take longer than a shop would wait."""
BOOSTED = "two boosts"
PLACEMENT_WITH_BOOSTS = "boosted"

FILTERS: dict[str, dict[str, Any]] = {
    "90%": {"drop_categories": ["top 0"]},
    "50%": {"max_price": HIGHEST_PRICE / 2},
    "10%": {"keep_categories": ["top 1"]},
    "1%": {"keep_categories": ["top 2/sub 3"]},
    "0.05%": {"keep_categories": ["top 2/sub 3"], "max_price": HIGHEST_PRICE / 20, "in_stock_only": True},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One kind of request at one size of the catalogue; `ratio` is over the unfiltered one."""

    kind: str
    keeps: float
    """Share of the catalogue."""
    median_ms: float
    p95_ms: float
    ratio: float


def main(
    items: Annotated[list[int] | None, typer.Argument(min=1_000, help="Sizes of the catalogue.")] = None,
    calls: Annotated[int, typer.Option(min=10, help="Calls of each kind, after warming up.")] = 300,
) -> None:
    """The table, for each size."""
    figures: dict[str, Any] = {}
    curve = Table("items", "Recommend ms", "gateway MiB", "Triton MiB")
    for size in items or [100_000]:
        with fresh_shop({}) as shop:
            costs, memory = measured(shop, size, calls)
        show(size, costs)
        curve.add_row(
            f"{size:,}", f"{costs[0].median_ms:.2f}", *(f"{memory[name] / MIB:,.0f}" for name in ("gateway", "Triton"))
        )
        figures[str(size)] = {"costs": [asdict(cost) for cost in costs], "pss_bytes": memory}
    console.print(curve)
    console.print(f"{record.write('filters', {'calls': calls, 'sizes': figures})}")


def measured(shop: LiveShop, size: int, calls: int) -> tuple[list[Cost], dict[str, int]]:
    """Costs of each kind, the unfiltered one first, and bytes of each program."""
    store.apply(shop.settings)
    fill_and_publish(shop.settings, size)
    triton = shop.start_triton()
    gateway = shop.start_gateway(model_budget_ms=str(MODEL_BUDGET_MS))
    with grpc.insecure_channel(shop.settings.gateway_address) as channel:
        put_boosts(channel)
        recommend = recommendation_pb2_grpc.RecommendationServiceStub(channel).Recommend
        kinds = requests(size)
        seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
        order, draw = list(kinds), random.Random(0)
        for number in range(WARM_UP_CALLS + calls):
            draw.shuffle(order)
            for kind in order:
                request = next(kinds[kind])
                begin_s = time.perf_counter()
                answer = recommend(request, timeout=60)
                if number >= WARM_UP_CALLS:
                    seconds[kind].append(time.perf_counter() - begin_s)
                assert answer.release == 1, "the gateway answered without the model"
    memory = {
        name: footprint(name, psutil.Process(process.pid)).pss_bytes
        for name, process in (("gateway", gateway), ("Triton", triton))
    }
    shares = {name: share_kept(pb.Filter(**fields), size) for name, fields in FILTERS.items()}
    base = float(np.median(next(iter(seconds.values()))))
    costs = [
        Cost(
            kind=kind,
            keeps=shares.get(kind.split(",")[0], 1.0),
            median_ms=1000 * float(np.median(times)),
            p95_ms=1000 * float(np.percentile(times, 95)),
            ratio=float(np.median(times)) / base,
        )
        for kind, times in seconds.items()
    ]
    return costs, memory


def requests(size: int) -> dict[str, Iterator[pb.RecommendRequest]]:
    """Endless requests by kind, the unfiltered one first."""
    kinds = {"no filter": endless(size)}
    for name, fields in FILTERS.items():
        kinds[f"{name}, the same"] = endless(size, **fields)
        kinds[f"{name}, another"] = endless(size, another=True, **fields)
    kinds["1,000 items left out"] = endless(size, left_out=1_000)
    kinds["shown today left out"] = endless(size, exclude_shown_today=True)
    kinds[BOOSTED] = endless(size, placement=PLACEMENT_WITH_BOOSTS)
    return kinds


def endless(
    size: int, *, another: bool = False, left_out: int = 0, placement: str = "", **fields: Any
) -> Iterator[pb.RecommendRequest]:
    """Requests of shoppers who looked at random items just now.

    Args:
        another: whether no two have the same filter.
        left_out: items, drawn for each request.
        fields: of the filter.
    """
    draw = random.Random(0)
    while True:
        wanted = pb.Filter(**fields)
        if another:
            wanted.min_price = draw.random() / size
        wanted.exclude_item_ids.extend(f"item-{draw.randrange(size)}" for _ in range(left_out))
        request = pb.RecommendRequest(user_id=f"user-{draw.randrange(1_000)}", filter=wanted, placement=placement)
        for _ in range(EVENTS):
            event = request.recent_events.add(event_id=uuid4().hex, type=event_pb2.EVENT_TYPE_VIEW)
            event.item_id = f"item-{draw.randrange(size)}"
            event.event_time.GetCurrentTime()
        yield request


def put_boosts(channel: grpc.Channel) -> None:
    """Two boosts whose items overlap: three sums beside none."""
    items = {
        "category": (placement_pb2.ItemSelector(categories=["top 1"]), 0.5),
        "brand": (placement_pb2.ItemSelector(brands=["brand 1", "brand 2"]), -0.7),
    }
    rules = [
        placement_pb2.Rule(
            rule_id=rule_id,
            placement=PLACEMENT_WITH_BOOSTS,
            boost=placement_pb2.Rule.Boost(items=selector, amount=amount),
        )
        for rule_id, (selector, amount) in items.items()
    ]
    placement_pb2_grpc.PlacementServiceStub(channel).UpsertRules(placement_pb2.UpsertRulesRequest(rules=rules))


def share_kept(wanted: pb.Filter, size: int) -> float:
    """Share of the catalogue that a filter keeps."""

    def kept(item: CatalogueItem) -> bool:
        paths = {item.category_path[0], "/".join(item.category_path)}
        return (
            (not wanted.keep_categories or bool(paths & set(wanted.keep_categories)))
            and not paths & set(wanted.drop_categories)
            and (not wanted.HasField("max_price") or (item.price or 0.0) <= wanted.max_price)
        )

    return sum(map(kept, made_up_items(size))) / size


def show(size: int, costs: list[Cost]) -> None:
    """The table of one size."""
    table = Table(f"{size:,} items", "keeps", "p50 ms", "p95 ms", "p50 / no filter")
    for cost in costs:
        table.add_row(
            cost.kind, f"{cost.keeps:.2%}", f"{cost.median_ms:.2f}", f"{cost.p95_ms:.2f}", f"{cost.ratio:.2f}"
        )
    console.print(table)
    worst = max((cost for cost in costs[1:] if cost.kind != BOOSTED), key=lambda cost: cost.ratio)
    verdict = "within" if worst.ratio <= TARGET_RATIO else "above"
    console.print(f"The dearest filter, {worst.kind}, is {verdict} the target of {TARGET_RATIO}: {worst.ratio:.2f}.")


if __name__ == "__main__":
    typer.run(main)
