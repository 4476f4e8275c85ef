"""The alarms: when Prometheus calls a person. What each means and what to do stands in docs/operations.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deploy.promql import highest, increase, quantile, rate, series
from server import metrics

FAILURES = 'code=~"INTERNAL|UNAVAILABLE|DEADLINE_EXCEEDED|UNKNOWN"'
RECOMMEND = 'method="Recommend"'
REFUSED = 'status="refused"'
TOO_MANY = 'reason=~"delay|memory"'
"""The other reasons are a key's: more processes would not help."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """`page` wakes somebody; the others can wait for the morning."""

    name: str
    expression: str
    lasting: str
    summary: str
    page: bool = False


ALARMS = (
    Alarm("GatewayDown", 'up{job="gateway"} == 0', "1m", "A gateway process does not answer Prometheus", page=True),
    Alarm(
        "NotServing",
        f"{series(metrics.SERVING)} == 0",
        "5m",
        "A gateway process waits for something before it serves",
        page=True,
    ),
    Alarm("TritonDown", 'up{job="triton"} == 0', "1m", "Triton does not answer Prometheus", page=True),
    Alarm(
        "CallsFail",
        f"{rate(metrics.CALLS, where=FAILURES, window='5m')} > 0.001 * {rate(metrics.CALLS, window='5m')}",
        "5m",
        "More than one call in a thousand fails",
        page=True,
    ),
    Alarm(
        "CallsSlow",
        f"{quantile(0.99, metrics.CALL_SECONDS, where=RECOMMEND, window='5m')} > 0.25",
        "10m",
        "The slowest hundredth of Recommend takes more than a quarter of a second",
    ),
    Alarm(
        "CallsRefused",
        f"{rate(metrics.CALLS_REFUSED, where=TOO_MANY, window='5m')} > 0.01 * {rate(metrics.CALLS, window='5m')}",
        "5m",
        "More than one call in a hundred is refused for there are too many",
    ),
    Alarm(
        "PartGone",
        f"{highest(metrics.BREAKER_OPEN, by='part')} == 1",
        "1m",
        "Answers are made without {{ $labels.part }}",
        page=True,
    ),
    Alarm(
        "NoRelease", f"min({series(metrics.LIVE_RELEASE)}) == 0", "10m", "A gateway answers without a model", page=True
    ),
    Alarm(
        "ReleasesDiffer",
        f"max({series(metrics.LIVE_RELEASE)}) != min({series(metrics.LIVE_RELEASE)})",
        "2m",
        "Gateways serve different live releases",
    ),
    Alarm(
        "StreamBehind",
        f"{highest(metrics.STREAM_LAG_SECONDS)} > 10",
        "2m",
        "What shoppers do reaches the answers more than ten seconds late",
        page=True,
    ),
    Alarm(
        "VectorsBehind",
        f"{highest(metrics.VECTOR_LAG_SECONDS)} > 36 * 3600",
        "10m",
        "Long-term vectors lack events of more than a day and a half ago",
    ),
    Alarm(
        "CatalogueOld",
        f"time() - min({series(metrics.CATALOGUE_READ_TIME_SECONDS)}) > 60",
        "1m",
        "A gateway's catalogue is more than a minute old: prices and stock may be wrong",
    ),
    Alarm(
        "AnswersDropped",
        f"{increase(metrics.ANSWERS_DROPPED, '10m')} > 0",
        "1m",
        "Answers are not recorded: reports and the skew check lack them",
    ),
    Alarm(
        "EventsRefused",
        f"{rate(metrics.EVENTS, where=REFUSED, window='10m')} > 0.01 * {rate(metrics.EVENTS, window='10m')}",
        "10m",
        "More than one event in a hundred is refused: the storefront sends what the contract does not allow",
    ),
    Alarm(
        "DescriptorsShort",
        'process_open_fds{job="gateway"} > 0.8 * process_max_fds{job="gateway"}',
        "5m",
        "A gateway is about to run out of file descriptors",
    ),
)


def rules() -> dict[str, Any]:
    """The file that Prometheus reads."""
    return {
        "groups": [
            {
                "name": "braid",
                "rules": [
                    {
                        "alert": alarm.name,
                        "expr": alarm.expression,
                        "for": alarm.lasting,
                        "labels": {"severity": "page" if alarm.page else "ticket"},
                        "annotations": {"summary": alarm.summary, "runbook": "docs/operations.md"},
                    }
                    for alarm in ALARMS
                ],
            }
        ]
    }
