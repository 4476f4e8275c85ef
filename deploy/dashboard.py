"""Grafana's dashboard and Prometheus' alarms, written from the metrics of `server.metrics`.

    python -m deploy.dashboard

Writes grafana/dashboards/braid.json and prometheus/alarms.yaml in deploy/container/; both are committed, and a test
says when they have to be written again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deploy.alarms import rules
from deploy.promql import DASHBOARD_WINDOW, highest, mean, quantile, rate, series
from server import metrics

CONTAINER = Path(__file__).parent / "container"
DASHBOARD = CONTAINER / "grafana" / "dashboards" / "braid.json"
ALARMS = CONTAINER / "prometheus" / "alarms.yaml"
COLUMNS, WIDTH, HEIGHT = 3, 8, 8
FAILED = 'code!="OK"'
SHARE = "percentunit"


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph: its lines are pairs of a query and a legend; `unit` is Grafana's name of it."""

    title: str
    lines: tuple[tuple[str, str], ...]
    unit: str = "short"


ROWS: dict[str, tuple[Panel, ...]] = {
    "Calls": (
        Panel("Calls", ((rate(metrics.CALLS, "method"), "{{method}}"),), "reqps"),
        Panel(
            "Share that does not end with OK",
            ((f"{rate(metrics.CALLS, 'code', FAILED)} / ignoring(code) group_left {rate(metrics.CALLS)}", "{{code}}"),),
            SHARE,
        ),
        Panel(
            "Duration",
            tuple(
                (quantile(part, metrics.CALL_SECONDS, "method"), f"p{100 * part:g} {{{{method}}}}")
                for part in (0.5, 0.99)
            ),
            "s",
        ),
        Panel(
            "Under way, and how many may be",
            (
                (f"sum({series(metrics.CALLS_UNDER_WAY)})", "under way"),
                (f"sum({series(metrics.ADMISSION_LIMIT)})", "may recommend"),
            ),
        ),
        Panel("Refused", ((rate(metrics.CALLS_REFUSED, "reason"), "{{reason}}"),), "reqps"),
        Panel("Time to refuse", ((quantile(0.99, metrics.REFUSAL_SECONDS), "p99"),), "s"),
    ),
    "Answers": (
        Panel("By tier", ((rate(metrics.ANSWERS, "tier"), "{{tier}}"),), "reqps"),
        Panel("By release", ((rate(metrics.ANSWERS, "release"), "release {{release}}"),), "reqps"),
        Panel("Serves", ((series(metrics.SERVING), "{{instance}}"),)),
        Panel("Live release", ((series(metrics.LIVE_RELEASE), "{{instance}}"),)),
        Panel("Parts that count as gone", ((highest(metrics.BREAKER_OPEN, "part"), "{{part}}"),)),
    ),
    "Where the time goes": (
        Panel(
            "Stages",
            tuple(
                (quantile(part, metrics.STAGE_SECONDS, "stage"), f"p{100 * part:g} {{{{stage}}}}")
                for part in (0.5, 0.99)
            ),
            "s",
        ),
        Panel(
            "Wait in line, p99",
            (
                (quantile(0.99, metrics.WAIT_SECONDS, "line"), "{{line}}"),
                (highest(metrics.UNSEEN_SECONDS), "to be seen, at its longest"),
            ),
            "s",
        ),
        Panel("A batch's call, p99", ((quantile(0.99, metrics.BATCH_SECONDS, "line"), "{{line}}"),), "s"),
        Panel("Requests in a batch, mean", ((mean(metrics.BATCH_SIZE, "line"), "{{line}}"),)),
    ),
    "Freshness": (
        Panel("Recent features behind the log", ((highest(metrics.STREAM_LAG_SECONDS), "oldest event"),), "s"),
        Panel("Long-term vectors behind the log", ((highest(metrics.VECTOR_LAG_SECONDS), "oldest event"),), "s"),
        Panel(
            "Age of the catalogue in memory",
            ((f"time() - {series(metrics.CATALOGUE_READ_TIME_SECONDS)}", "{{instance}}"),),
            "s",
        ),
        Panel("Stale vectors left out", ((rate(metrics.STALE_INTERESTS), "answers"),), "reqps"),
    ),
    "Shadows": (
        Panel("Copies", ((rate(metrics.SHADOW_COPIES, "outcome"), "{{outcome}}"),), "reqps"),
        Panel("Share of the page in both, mean", ((mean(metrics.SHADOW_OVERLAP), "overlap"),), SHARE),
        Panel("Time of a shadow, p99", ((quantile(0.99, metrics.SHADOW_SECONDS), "p99"),), "s"),
    ),
    "Records": (
        Panel("Events", ((rate(metrics.EVENTS, "status"), "{{status}}"),), "cps"),
        Panel(
            "Answers",
            (
                (rate(metrics.ANSWERS_RECORDED), "recorded"),
                (rate(metrics.ANSWERS_DROPPED, "reason"), "lost: {{reason}}"),
            ),
            "cps",
        ),
    ),
    "Processes": (
        Panel("Memory of a gateway", (('process_resident_memory_bytes{job="gateway"}', "{{instance}}"),), "bytes"),
        Panel(
            "Processor time of a gateway",
            ((f'rate(process_cpu_seconds_total{{job="gateway"}}[{DASHBOARD_WINDOW}])', "{{instance}}"),),
            SHARE,
        ),
        Panel("Open descriptors of a gateway", (('process_open_fds{job="gateway"}', "{{instance}}"),)),
        Panel(
            "Triton: inferences that fail",
            ((f"sum by (model) (rate(nv_inference_request_failure[{DASHBOARD_WINDOW}]))", "{{model}}"),),
            "reqps",
        ),
        Panel(
            "Triton: a call's parts, mean",
            tuple(
                (
                    f"sum by (model) (rate(nv_inference_{part}_duration_us[{DASHBOARD_WINDOW}])) / "
                    f"sum by (model) (rate(nv_inference_request_success[{DASHBOARD_WINDOW}]))",
                    f"{part} {{{{model}}}}",
                )
                for part in ("queue", "compute_infer", "request")
            ),
            "µs",
        ),
    ),
}


def dashboard() -> dict[str, Any]:
    """The file that Grafana reads."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS.items():
        panels.append(_placed({"type": "row", "title": title, "collapsed": False}, len(panels), 0, top, 24, 1))
        top += 1
        for number, panel in enumerate(row):
            place = divmod(number, COLUMNS)
            panels.append(_graph(panel, len(panels), place[1] * WIDTH, top + place[0] * HEIGHT))
        top += HEIGHT * -(-len(row) // COLUMNS)
    return {
        "uid": "braid",
        "title": "Braid",
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "panels": panels,
    }


def _graph(panel: Panel, number: int, left: int, top: int) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "prometheus"}
    graph = {
        "type": "timeseries",
        "title": panel.title,
        "datasource": source,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + at), "datasource": source, "expr": query, "legendFormat": legend}
            for at, (query, legend) in enumerate(panel.lines)
        ],
    }
    return _placed(graph, number, left, top, WIDTH, HEIGHT)


def _placed(panel: dict[str, Any], number: int, left: int, top: int, width: int, height: int) -> dict[str, Any]:
    return {"id": number + 1, **panel, "gridPos": {"x": left, "y": top, "w": width, "h": height}}


def files() -> dict[Path, str]:
    """What is written, and where."""
    return {
        DASHBOARD: json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n",
        ALARMS: yaml.safe_dump(rules(), sort_keys=False, width=1_000, allow_unicode=True),
    }


def main() -> None:
    """Writes both files."""
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(path)


if __name__ == "__main__":
    main()
