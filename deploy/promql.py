"""Prometheus queries made from the metrics that the gateway declares: a metric that is renamed takes its queries along.

Counters are summed over processes; a dashboard's window is Grafana's, an alarm's is its own.
"""

from __future__ import annotations

from typing import Final

from prometheus_client.metrics import MetricWrapperBase

DASHBOARD_WINDOW: Final = "$__rate_interval"


def series(metric: MetricWrapperBase) -> str:
    """The name under which a counter's or gauge's samples are exposed."""
    (family,) = metric.describe()
    return f"{family.name}_total" if family.type == "counter" else family.name


def rate(metric: MetricWrapperBase, by: str = "", where: str = "", window: str = DASHBOARD_WINDOW) -> str:
    """A counter's growth a second."""
    return f"{_sum(by)}(rate({series(metric)}{_braces(where)}[{window}]))"


def increase(metric: MetricWrapperBase, window: str) -> str:
    """A counter's growth in a window."""
    return f"sum(increase({series(metric)}[{window}]))"


def quantile(
    part: float, metric: MetricWrapperBase, by: str = "", where: str = "", window: str = DASHBOARD_WINDOW
) -> str:
    """A histogram's quantile."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({part:g}, {_sum(labels)}(rate({series(metric)}_bucket{_braces(where)}[{window}])))"


def mean(metric: MetricWrapperBase, by: str = "", window: str = DASHBOARD_WINDOW) -> str:
    """A histogram's mean."""
    total, count = (f"{_sum(by)}(rate({series(metric)}_{suffix}[{window}]))" for suffix in ("sum", "count"))
    return f"{total} / {count}"


def highest(metric: MetricWrapperBase, by: str = "") -> str:
    """A gauge's highest value of all processes."""
    return f"max by ({by}) ({series(metric)})" if by else f"max({series(metric)})"


def _sum(by: str) -> str:
    return f"sum by ({by}) " if by else "sum"


def _braces(where: str) -> str:
    return f"{{{where}}}" if where else ""
