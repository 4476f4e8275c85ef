"""ReleaseService: requests checked, releases written as messages."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from braid.v1 import release_pb2 as pb
from braid.v1 import release_pb2_grpc
from features.releases.release_table import Change
from features.schema import MAX_TEXT_CHARS
from server.deadline import Deadline
from server.releases.release_control import ReleaseControl, ReleaseReport
from server.releases.traffic_control import TrafficControl
from server.services.calls import Limit, answers
from server.services.fields import Fields
from server.services.page_tokens import page_token, read_page_token
from server.services.shopper_fields import page_size
from server.services.timestamps import timestamp
from server.services.traffic_messages import change_message, read_split, split_message

DEFAULT_LIST_SIZE = 100
MAX_LIST_SIZE = 1_000
MAX_RELEASE = 2**31 - 1

STATES: Mapping[str | None, pb.ReleaseState] = {
    None: pb.RELEASE_STATE_UNSPECIFIED,
    "candidate": pb.RELEASE_STATE_CANDIDATE,
    "canary": pb.RELEASE_STATE_CANARY,
    "live": pb.RELEASE_STATE_LIVE,
    "retired": pb.RELEASE_STATE_RETIRED,
    "failed": pb.RELEASE_STATE_FAILED,
    "removed": pb.RELEASE_STATE_REMOVED,
}


class ReleaseService(release_pb2_grpc.ReleaseServiceServicer):
    """Which model answers."""

    def __init__(self, control: ReleaseControl, traffic: TrafficControl, limit: Limit) -> None:
        self._control = control
        self._traffic = traffic
        self.limit = limit

    @answers
    async def ListReleases(self, request: pb.ListReleasesRequest, deadline: Deadline) -> pb.ListReleasesResponse:
        """A page, newest first."""
        fields = Fields()
        size = page_size(fields, request.page_size, DEFAULT_LIST_SIZE, MAX_LIST_SIZE)
        after = read_page_token(fields, request.page_token, "ListReleases")
        if after and not after.isdecimal():
            fields.refuse("page_token", "is none that ListReleases gave; leave it empty for the first page")
        fields.done()
        reports = await self._control.page(min(int(after), MAX_RELEASE) if after else None, size + 1, deadline)
        token = page_token(str(reports[size - 1].row.release)) if len(reports) > size else ""
        return pb.ListReleasesResponse(releases=[_message(report) for report in reports[:size]], next_page_token=token)

    @answers
    async def GetRelease(self, request: pb.GetReleaseRequest, deadline: Deadline) -> pb.GetReleaseResponse:
        """One release."""
        fields = Fields()
        fields.number("release", request.release, 1, MAX_RELEASE)
        fields.done()
        return pb.GetReleaseResponse(release=_message(await self._control.get(request.release, deadline)))

    @answers
    async def LoadRelease(self, request: pb.LoadReleaseRequest, deadline: Deadline) -> pb.LoadReleaseResponse:
        """Beside the live one."""
        report = await self._control.load(*_asked(request), deadline)
        return pb.LoadReleaseResponse(release=_message(report))

    @answers
    async def PromoteRelease(self, request: pb.PromoteReleaseRequest, deadline: Deadline) -> pb.PromoteReleaseResponse:
        """Live."""
        report = await self._control.promote(*_asked(request), deadline)
        return pb.PromoteReleaseResponse(release=_message(report))

    @answers
    async def Rollback(self, request: pb.RollbackRequest, deadline: Deadline) -> pb.RollbackResponse:
        """To the release before."""
        fields = Fields()
        who, why = _reason(fields, request)
        fields.done()
        report, failed = await self._control.rollback(who, why, deadline)
        return pb.RollbackResponse(release=_message(report), failed_release=failed)

    @answers
    async def RetireRelease(self, request: pb.RetireReleaseRequest, deadline: Deadline) -> pb.RetireReleaseResponse:
        """Out of the running."""
        report = await self._control.retire(*_asked(request), deadline)
        return pb.RetireReleaseResponse(release=_message(report))

    @answers
    async def SetTraffic(self, request: pb.SetTrafficRequest, deadline: Deadline) -> pb.SetTrafficResponse:
        """For one placement."""
        fields = Fields()
        who, why = _reason(fields, request)
        if not request.HasField("split"):  # an empty one would end the split of all placements
            fields.refuse("split", "is required; one that names its placement alone ends what holds there")
        wanted = read_split(fields.within("split"), request.split)
        fields.done()
        if wanted.arms or wanted.canary or wanted.shadow is not None:
            split = await self._traffic.set(wanted, who, why, deadline)
        else:
            split = await self._traffic.end(wanted.placement, who, why, deadline)
        return pb.SetTrafficResponse(split=split_message(split))

    @answers
    async def GetTraffic(self, request: pb.GetTrafficRequest, deadline: Deadline) -> pb.GetTrafficResponse:
        """All splits."""
        splits, changes = await self._traffic.get(deadline)
        return pb.GetTrafficResponse(
            splits=[split_message(split) for split in splits], changes=[change_message(change) for change in changes]
        )


def _asked(request: pb.LoadReleaseRequest | pb.PromoteReleaseRequest | pb.RetireReleaseRequest) -> tuple[int, str, str]:
    """Which release, who, and why."""
    fields = Fields()
    number = fields.number("release", request.release, 1, MAX_RELEASE)
    who, why = _reason(fields, request)
    fields.done()
    return number, who, why


def _reason(
    fields: Fields,
    request: pb.LoadReleaseRequest
    | pb.PromoteReleaseRequest
    | pb.RetireReleaseRequest
    | pb.RollbackRequest
    | pb.SetTrafficRequest,
) -> tuple[str, str]:
    who = fields.text("who", request.who, required=True)
    return who, fields.text("why", request.why, MAX_TEXT_CHARS, required=True)


def _message(report: ReleaseReport) -> pb.Release:
    row, manifest = report.row, report.row.manifest
    window = manifest["data_window"]
    return pb.Release(
        release=row.release,
        state=STATES[row.state],
        create_time=timestamp(row.created_time_ms),
        data_start_time=_moment(window.get("from")),
        data_end_time=_moment(window.get("to")),
        item_count=manifest["item_count"],
        interest_dim=manifest["interest_dim"],
        schema_hash=manifest["schema_hash"],
        feature_service=manifest["feature_service"],
        metrics=_figures(manifest["metrics"]),
        baselines={name: _figures(figures) for name, figures in manifest["baselines"].items()},
        kept=row.kept or row.state == "canary",
        loaded=report.loaded,
        serving=report.serving,
        refusal=report.refusal,
        changes=[_change(change) for change in report.changes],
    )


def _change(change: Change) -> pb.Release.Change:
    return pb.Release.Change(
        from_state=STATES[change.from_state],
        to_state=STATES[change.to_state],
        change_time=timestamp(change.changed_time_ms),
        who=change.who,
        why=change.why,
    )


def _figures(values: Mapping[str, Any]) -> pb.Release.Figures:
    return pb.Release.Figures(values={name: float(value) for name, value in values.items()})


def _moment(text: str | None) -> Timestamp | None:
    """A time of the manifest, ISO 8601."""
    return None if text is None else timestamp(round(datetime.fromisoformat(text).timestamp() * 1000))
