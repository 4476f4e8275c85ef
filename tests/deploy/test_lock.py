"""requirements.lock is exact and serves any package index, on each Python."""

from __future__ import annotations

import re

import pytest

from deploy import lock
from features.settings import ROOT

LINES = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
PIN = re.compile(r'^(?P<name>[a-z0-9-]+)==[0-9][0-9a-z.]*(?P<marker> ; python_version [<>=]=? "3\.\d+".*)?$')


def test_every_line_is_an_exact_pin_without_local_tag_hash_or_index() -> None:
    assert [line for line in LINES if not PIN.match(line)] == []


def test_every_direct_dependency_is_locked() -> None:
    locked = {line.split("==")[0] for line in LINES}
    direct = {re.split(r"[\[=<>~! ]", requirement)[0].lower() for requirement in lock.direct_requirements()}
    assert direct - locked == set()


def test_exact_versions_of_pyproject_are_those_of_the_lock() -> None:
    exact = [re.sub(r"\[.*\]", "", requirement) for requirement in lock.direct_requirements() if "==" in requirement]
    assert set(exact) - set(LINES) == set()


@pytest.mark.parametrize(
    ("minors", "marker"),
    [
        (["3.10", "3.11", "3.12", "3.13"], ""),
        (["3.10"], ' ; python_version == "3.10"'),
        (["3.11", "3.12", "3.13"], ' ; python_version >= "3.11"'),
        (["3.10", "3.11"], ' ; python_version <= "3.11"'),
        (["3.11", "3.12"], ' ; python_version >= "3.11" and python_version <= "3.12"'),
        (["3.10", "3.12"], ' ; python_version == "3.10" or python_version == "3.12"'),
    ],
)
def test_marker_names_the_pythons_of_a_version(minors: list[str], marker: str) -> None:
    assert lock.marker(minors) == marker
