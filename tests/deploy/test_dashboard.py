"""Dashboard and alarms are those of the metrics, all of them, and each alarm is explained."""

from __future__ import annotations

import json
import re

import yaml
from prometheus_client.metrics import MetricWrapperBase

from deploy.alarms import ALARMS
from deploy.dashboard import ALARMS as ALARMS_FILE
from deploy.dashboard import DASHBOARD, files
from deploy.promql import series
from features.settings import ROOT
from server import metrics

DECLARED = {series(metric) for metric in vars(metrics).values() if isinstance(metric, MetricWrapperBase)}
SUFFIXES = re.compile(r"_(bucket|sum|count)$")


def named_in(text: str) -> set[str]:
    """Our metrics that a file of queries names; a histogram's parts count as the histogram."""
    found = set(re.findall(r"\bbraid_\w+", text))
    return {name if name in DECLARED else SUFFIXES.sub("", name) for name in found}


def test_the_committed_files_are_what_the_metrics_give() -> None:
    for path, text in files().items():
        assert path.read_text() == text, f"{path} is not up to date: python -m deploy.dashboard"


def test_every_metric_is_drawn_and_nothing_else_is() -> None:
    drawn = named_in(DASHBOARD.read_text())
    assert len(DECLARED) > 15
    assert drawn == DECLARED


def test_alarms_watch_metrics_that_exist() -> None:
    watched = named_in(ALARMS_FILE.read_text())
    assert watched and watched <= DECLARED


def test_calls_that_a_key_does_not_allow_are_no_alarm_of_too_many() -> None:
    (alarm,) = (alarm for alarm in ALARMS if alarm.name == "CallsRefused")
    counted = re.search(r'braid_calls_refused_total\{reason=~"([^"]+)"\}', alarm.expression)
    assert counted is not None
    reasons = {sample.labels["reason"] for family in metrics.CALLS_REFUSED.collect() for sample in family.samples}
    assert {reason for reason in reasons if re.fullmatch(counted[1], reason)} == {"delay", "memory"}


def test_what_happens_once_is_an_alarm_while_its_window_has_it() -> None:
    minutes = re.compile(r"(\d+)m")
    counted = {alarm: re.search(r"increase\(.*\[(\d+m)\]", alarm.expression) for alarm in ALARMS}
    windows = {alarm: found[1] for alarm, found in counted.items() if found}
    assert windows
    for alarm, window in windows.items():
        lasting, within = (minutes.fullmatch(text) for text in (alarm.lasting, window))
        assert lasting and within and int(lasting[1]) < int(within[1]), alarm.name


def test_panels_lie_beside_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        taken |= cells
    assert max(x for x, _ in taken) == 23, "as wide as Grafana's grid"


def test_the_operations_page_says_of_every_alarm_what_to_do() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| ")
    ]
    explained = {row[0] for row in rows if row[0] not in ("alarm", "---")}
    assert explained == {alarm.name for alarm in ALARMS}
    assert all(len(row) == 3 and all(row) for row in rows)
    written = {rule["alert"] for group in yaml.safe_load(ALARMS_FILE.read_text())["groups"] for rule in group["rules"]}
    assert written == explained
