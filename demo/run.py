"""The whole demo: build what is not built, tell the story, say how to go on."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import grpc
from rich.console import Console

from demo import figures, protagonist
from demo.pipeline import DemoError, Shop, State, build, live_release, open_shop
from demo.storefront import Storefront
from demo.story import tell

LATENCY_USERS = 300

PYTHON_CALL = """\
.venv/bin/python - <<'END'
import grpc
from braid.v1.recommendation_pb2 import RecommendRequest
from braid.v1.recommendation_pb2_grpc import RecommendationServiceStub

with grpc.insecure_channel("{address}") as channel:
    braid = RecommendationServiceStub(channel)
    print(braid.Recommend(RecommendRequest(user_id={user!r}, page_size=3)))
END
"""
GRPCURL_CALL = """\
grpcurl -plaintext -d {request} \\
    {address} braid.v1.RecommendationService/Recommend
"""


def run(console: Console, data: Path | None, mapping: str | None, items: Path | None = None) -> None:
    """Raw data to live recommendations, with the story at the end.

    Args:
        data: a file of events; the simulated shop if None.
        mapping: a ready mapping's name or a YAML file; guessed from the columns if None.
        items: a file of items; those that the mapping expects beside `data` if None.

    Raises:
        DemoError: a step ended badly; the message says what to do.
    """
    shop = open_shop(data, mapping, items)
    build(console, shop)
    state = State.of(shop.settings)
    past = protagonist.choose(shop.settings.offline, state.told)
    if past is None:
        raise DemoError("the log holds no shopper with an id and an event, so there is no story to tell")
    address = shop.settings.gateway_address
    try:
        with Storefront(address) as storefront:
            console.print()
            tell(console, storefront, past)
            console.print()
            console.rule("[bold]How fast, how good[/bold]")
            figures.latency(console, storefront, protagonist.users(shop.settings.offline, LATENCY_USERS))
            if (release := live_release(shop.settings)) is not None:
                figures.evaluation(console, shop.settings, release, shop.truth)
    except grpc.RpcError as error:
        raise DemoError(
            f"the gateway at {address} answered {error.code().name}: {error.details()}; "
            f"its log is in {shop.settings.logs}"
        ) from None
    state.told.append(past.user_id)
    state.save()
    _how_to_go_on(console, shop, past.user_id)


def _how_to_go_on(console: Console, shop: Shop, user_id: str) -> None:
    address = shop.settings.gateway_address
    console.print()
    console.rule("[bold]It is running: call it[/bold]")
    request = shlex.quote(json.dumps({"user_id": user_id, "page_size": 3}))
    for call in (PYTHON_CALL, GRPCURL_CALL):
        text = call.format(address=address, user=user_id, request=request)
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    prefix = shop.prefix
    commands = {"State and memory": "status", "Stop": "down", "Start again": "up"}
    for what, command in commands.items():
        console.print(f"{what}: [bold]{prefix}make {command}[/bold]", highlight=False, soft_wrap=True)
    console.print(f"Logs: {shop.settings.logs}", highlight=False, soft_wrap=True)
