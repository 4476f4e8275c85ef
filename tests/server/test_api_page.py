"""The calls on docs/api.md run as they stand there."""

from __future__ import annotations

import re

import pytest

from features.settings import ROOT
from tests.server.client import RunningGateway

PAGE = ROOT / "docs" / "api.md"
CALL = re.compile(r"```python\n(.*?)```", re.DOTALL)


def test_the_calls_of_the_page_run(released_shop: RunningGateway, capsys: pytest.CaptureFixture[str]) -> None:
    calls = CALL.findall(PAGE.read_text().replace("127.0.0.1:50051", released_shop.settings.gateway_address))
    assert len(calls) >= 9
    names: dict[str, object] = {}
    for number, call in enumerate(calls):
        exec(compile(call, f"{PAGE}, call {number + 1}", "exec"), names)  # noqa: S102
    printed = capsys.readouterr().out
    assert "filter.min_price" in printed and "back within 30 days" in printed
