"""The Feast repository: project, entities, sources, views, services. `cd features && feast apply`.

Every release that training published (`generated/vN.json`) adds a view of its long-term vectors and the service that
it reads, so that `feast apply` never drops a release that is still served.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from feast import Entity, FeatureService, FeatureView, Field, FileSource, Project, PushSource, ValueType
from feast.types import Array, FeastType, Float32, Float64, Int32, Int64, String

from features import schema
from features.settings import Settings, load_settings

RECENT_TTL = timedelta(days=90)
PURCHASES_TTL = timedelta(days=3 * 365)
PROFILE_TTL = timedelta(days=10 * 365)
ITEM_STATISTICS_TTL = timedelta(days=30)
INTEREST_TTL = timedelta(days=3 * 365)
"""For point-in-time joins. Feast's online read returns older rows too; the reader judges by the times in the row."""

EVENT_TIMESTAMP = "event_timestamp"


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedRelease:
    """What training writes to `generated/vN.json` when it publishes release N."""

    release: int
    interest_dim: int


def generated_file(folder: Path, release: int) -> Path:
    """Where the release is declared."""
    return folder / f"v{release}.json"


def write_generated(folder: Path, release: GeneratedRelease) -> None:
    """Declares a release, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = generated_file(folder, release.release)
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(asdict(release)))
    beside.replace(path)


def generated_releases(folder: Path) -> list[GeneratedRelease]:
    """The releases of `folder`, oldest first.

    Raises:
        ValueError: a file is no such release; the message names it.
    """
    releases = []
    for path in folder.glob("v*.json"):
        try:
            content = json.loads(path.read_text())
            releases.append(GeneratedRelease(release=content["release"], interest_dim=content["interest_dim"]))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}: expected an object with release and interest_dim ({error!r}); publish the release again"
            ) from None
    return sorted(releases, key=lambda release: release.release)


project = Project(name="braid", description="Recommendations that braid long-term and momentary interest")
shopper = Entity(
    name=schema.SHOPPER,
    join_keys=[schema.SHOPPER],
    value_type=ValueType.STRING,
    description="u:<user id> or s:<session id>",
)
item = Entity(name=schema.ITEM, join_keys=["item_id"], value_type=ValueType.STRING, description="one thing on sale")


def base_views(offline: Path) -> list[FeatureView]:
    """The views that outlive any release, over the Parquet files of `offline`."""
    recent = _view(
        schema.RECENT_VIEW,
        shopper,
        RECENT_TTL,
        PushSource(name=schema.RECENT_PUSH_SOURCE, batch_source=_source(offline, schema.RECENT_VIEW)),
        {
            "event_ids": Array(String),
            "item_ids": Array(String),
            "event_types": Array(Int32),
            "event_times_ms": Array(Int64),
            "log_position": Int64,
        },
    )
    purchases = _view(
        schema.PURCHASES_VIEW,
        shopper,
        PURCHASES_TTL,
        PushSource(name=schema.PURCHASES_PUSH_SOURCE, batch_source=_source(offline, schema.PURCHASES_VIEW)),
        {
            "item_ids": Array(String),
            "counts": Array(Int32),
            "first_times_ms": Array(Int64),
            "last_times_ms": Array(Int64),
            "basket_count": Int64,
        },
    )
    profile = _view(
        schema.PROFILE_VIEW,
        shopper,
        PROFILE_TTL,
        _source(offline, schema.PROFILE_VIEW),
        {"age": Int64, "gender": String, "country": String},
    )
    statistics = _view(
        schema.ITEM_STATISTICS_VIEW,
        item,
        ITEM_STATISTICS_TTL,
        _source(offline, schema.ITEM_STATISTICS_VIEW),
        {"views": Int64, "carts": Int64, "purchases": Int64, "popularity": Float64},
    )
    return [recent, purchases, profile, statistics]


def interest_view(offline: Path, release: GeneratedRelease) -> FeatureView:
    """The long-term vectors that a release's own encoder made."""
    name = schema.interest_view(release.release)
    return _view(
        name,
        shopper,
        INTEREST_TTL,
        _source(offline, name),
        {"vector": Array(Float32), "encoded_through_ms": Int64, "encoded_position": Int64},
        tags={"release": str(release.release), "interest_dim": str(release.interest_dim)},
    )


def declare(settings: Settings) -> list[Any]:
    """Everything that a shop's registry holds: the project, entities, views and services."""
    views = base_views(settings.offline)
    by_name = {view.name: view for view in views}
    declared: list[Any] = [project, shopper, item, *views]
    for release in generated_releases(settings.generated):
        interest = interest_view(settings.offline, release)
        service = FeatureService(
            name=schema.feature_service(release.release),
            features=[
                interest,
                *(by_name[name] for name in (schema.RECENT_VIEW, schema.PURCHASES_VIEW, schema.PROFILE_VIEW)),
            ],
        )
        declared += [interest, service]
    return declared


def _source(offline: Path, view: str) -> FileSource:
    return FileSource(
        name=f"{view}_rows", path=str(schema.offline_file(offline, view).absolute()), timestamp_field=EVENT_TIMESTAMP
    )


def _view(
    name: str,
    entity: Entity,
    ttl: timedelta,
    source: FileSource | PushSource,
    features: dict[str, FeastType],
    tags: dict[str, str] | None = None,
) -> FeatureView:
    columns = {entity.join_key: String, **features}
    return FeatureView(
        name=name,
        entities=[entity],
        ttl=ttl,
        schema=[Field(name=column, dtype=kind) for column, kind in columns.items()],
        source=source,
        online=True,
        tags=tags,
    )


if __name__ == "definitions":  # imported by Feast's own commands, which look for objects among a module's names
    globals().update({f"declared_{number}": part for number, part in enumerate(declare(load_settings()))})
