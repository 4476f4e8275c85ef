"""Splits of the traffic, read from requests and written into answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from braid.v1 import release_pb2 as pb
from features.schema import MAX_NAME_CHARS
from features.traffic.split import MAX_ARMS, MAX_EXPERIMENT_CHARS, MAX_STEPS, Arm, CanaryPlan, Guardrails, Split, Wanted
from features.traffic.traffic_table import NotedChange
from server.services.fields import Fields
from server.services.timestamps import timestamp


def read_split(fields: Fields, split: pb.Split) -> Wanted:
    """What a request asks for; what goes beyond single fields is checked where it is stored."""
    placement = fields.text("placement", split.placement, MAX_NAME_CHARS)
    ends = not (split.arms or split.HasField("canary") or split.HasField("shadow_release"))
    experiment = fields.text("experiment", split.experiment, MAX_EXPERIMENT_CHARS, required=not ends)
    arms: tuple[Arm, ...] = ()
    if fields.count("arms", split.arms, MAX_ARMS):
        arms = tuple(Arm(arm.release, arm.weight) for arm in split.arms)
    plan = None
    if split.HasField("canary"):
        canary = split.canary
        fields.within("canary").count("steps", canary.steps, MAX_STEPS)
        rails = {field.name: value for field, value in canary.guardrails.ListFields()}
        chosen: dict[str, object] = {"steps": tuple(canary.steps)} if canary.steps else {}
        if canary.HasField("step_minutes"):
            chosen["step_minutes"] = canary.step_minutes
        plan = CanaryPlan(release=canary.release, guardrails=Guardrails(**rails), **chosen)  # type: ignore[arg-type]
    shadow = split.shadow_release if split.HasField("shadow_release") else None
    return Wanted(placement=placement, experiment=experiment, arms=arms, canary=plan, shadow=shadow)


def split_message(split: Split) -> pb.Split:
    """A split as it holds."""
    message = pb.Split(
        placement=split.placement,
        experiment=split.experiment,
        arms=_arms(split.arms),
        shadow_release=split.shadow,
        start_time=timestamp(split.since_ms),
        stage_start_time=timestamp(split.stage_since_ms),
    )
    if split.canary is not None:
        message.canary.CopyFrom(pb.Split.Canary(**asdict(split.canary)))
    return message


def change_message(change: NotedChange) -> pb.GetTrafficResponse.Change:
    """One change of a split."""
    return pb.GetTrafficResponse.Change(
        placement=change.placement,
        experiment=change.experiment,
        outcome=change.outcome,
        arms=_arms(change.arms),
        change_time=timestamp(change.changed_time_ms),
        who=change.who,
        why=change.why,
    )


def _arms(arms: Sequence[Arm]) -> list[pb.Split.Arm]:
    return [pb.Split.Arm(release=arm.release, weight=arm.weight) for arm in arms]
