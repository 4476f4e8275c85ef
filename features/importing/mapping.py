"""The mapping: which columns of a shop's files are what, and which cleaning rules hold; a typed YAML file.

A column is named as it stands in the file. A list of names means the first of them that the file has; a name that ends
in `?` may be missing altogether.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from features.importing.errors import ImportFailed
from features.importing.numbers import DecimalMark
from features.schema import EVENT_NAMES

MAPPINGS: Final = Path(__file__).parent / "mappings"
"""Ready mappings for public files, `<name>.yaml`."""

Names = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Reading(_Strict):
    """How a file is read: options of `source.open_source`."""

    separator: str | None = Field(default=None, max_length=4, description="of CSV; found in the first line if not said")
    columns: tuple[str, ...] = Field(default=(), description="names, in order, of a CSV file without a header line")
    encoding: Literal["utf-8", "latin-1"] | None = Field(default=None, description="of CSV; Latin-1 if it is no UTF-8")
    decimal: DecimalMark = Field(default=".", description="decimal mark of numbers; the other one groups thousands")
    nulls: tuple[str, ...] = Field(default=(), description='texts that say that nothing is there: "NULL", "\\N"')
    files: tuple[str, ...] = Field(default=(), description="taken from beside the event file when none are given")

    @property
    def options(self) -> dict[str, Any]:
        """Arguments for `open_source`."""
        return self.model_dump(include={"separator", "columns", "encoding", "decimal", "nulls"})

    @field_validator("nulls", mode="before")
    @classmethod
    def _quoted(cls, value: Any) -> Any:
        if value is None or (isinstance(value, list) and None in value):
            raise ValueError('YAML takes NULL without quotation marks for nothing; write nulls: ["NULL"]')
        return value


def _column(value: Any) -> Any:
    """The mapping of a column that is given by its name alone."""
    return {"column": value} if isinstance(value, str | list | tuple) else value


class TypeColumn(_Strict):
    """The event's type: a column and what its values mean, or one type for every row."""

    column: Names = ()
    values: dict[str, str] = Field(default_factory=lambda: {name: name for name in EVENT_NAMES})
    constant: str | None = None

    @model_validator(mode="after")
    def _one_way(self) -> TypeColumn:
        if bool(self.column) == bool(self.constant):
            raise ValueError("give either column (with values) or constant")
        unknown = {name for name in (*self.values.values(), self.constant) if name and name not in EVENT_NAMES}
        if unknown:
            raise ValueError(f"{', '.join(sorted(unknown))}: no event type; known are {', '.join(EVENT_NAMES)}")
        return self


class TimeColumn(_Strict):
    """When it happened. Text is read by `formats`, else as ISO 8601; numbers are counted in `unit` since 1970, UTC."""

    column: Names
    unit: Literal["auto", "s", "ms", "us"] = Field(default="auto", description="auto: by the number's size")
    formats: tuple[str, ...] = Field(
        default=(),
        description="strptime patterns beside ISO 8601; the one that reads the most rows is taken for the whole file",
    )
    timezone: str | None = Field(default=None, description="of times without an offset; UTC if not said")

    @field_validator("timezone")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        try:
            return value and ZoneInfo(value).key
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError(f"{value!r} is no time zone; example: Europe/London") from None


class IdColumn(_Strict):
    """An id. `whole_number` undoes what spreadsheets do to numbers: 17850.0 is 17850."""

    column: Names
    whole_number: bool = False


Id = Annotated[IdColumn, BeforeValidator(_column)]
Time = Annotated[TimeColumn, BeforeValidator(_column)]


class EventsMapping(Reading):
    """The event file."""

    type: Annotated[TypeColumn, BeforeValidator(_column)]
    item: Id
    time: Time
    user: Id | None = None
    session: Id | None = None
    event_id: Id | None = None
    order: Id | None = None
    quantity: Names = ()
    price: Names = ()
    query: Names = ()
    attribution_token: Names = ()

    @model_validator(mode="after")
    def _has_shopper(self) -> EventsMapping:
        if self.user is None and self.session is None:
            raise ValueError("names no user column; add `user: COLUMN` (or `session: COLUMN` for anonymous visits)")
        return self


class Bursts(_Strict):
    """More acts of one shopper in one clock minute or hour than a person does; null switches a limit off.

    Acts are views, clicks, carts, favourites and searches: impressions are the shop's, and an order of many lines is
    one act.
    """

    per_minute: int | None = Field(default=60, ge=1)
    per_hour: int | None = Field(default=1_200, ge=1)


class CancelledOrders(_Strict):
    """Rows whose value in `column` starts with `prefix` undo an order."""

    column: Names
    prefix: str = Field(min_length=1)


class Rules(_Strict):
    """Which rows are rejected beyond those that cannot be read."""

    cancelled_orders: CancelledOrders | None = None
    service_codes: tuple[str, ...] = Field(default=(), description="item ids that are postage, fees and the like")
    minimum: dict[str, float] = Field(default_factory=dict, description="column: least value, such as rating: 4")
    positive_quantity: bool = Field(default=False, description="reject carts and purchases of quantity 0")
    positive_price: bool = Field(default=False, description="reject carts and purchases at price 0")
    duplicates: bool = Field(
        default=True,
        description="reject an event that is the same in everything as another; false: each counts, unless they share "
        "an id of the file's own",
    )
    bursts: Bursts = Bursts()
    earliest: date = date(1990, 1, 1)
    latest: date | None = Field(default=None, description="tomorrow if not said")


class LongFormat(_Strict):
    """Items as rows of (item, property, value, time); the newest value of a property holds."""

    property: Names
    value: Names
    time: Names = ()


class ItemsMapping(Reading):
    """Items: from files of their own, or (`source: events`) out of the event file's rows.

    Out of events the most frequent title, category and brand, and the median price are taken. With `long` the other
    names are names of properties.
    """

    source: Literal["file", "events"] = "file"
    id: Id
    title: Names = ()
    category: Names = ()
    category_separator: str | None = Field(default=None, min_length=1, description="between levels; null: one level")
    brand: Names = ()
    price: Names = ()
    stock: Names = ()
    launch_time: Time | None = Field(default=None, description="without an offset, in the time zone of events.time")
    variant_group: Names = ()
    age_restricted: Names = ()
    attributes: tuple[str, ...] = Field(default=(), description="columns; `attr_*` takes all that start with attr_")
    long: LongFormat | None = None

    @field_validator("launch_time")
    @classmethod
    def _plain(cls, value: TimeColumn | None) -> TimeColumn | None:
        if value and value.timezone:
            raise ValueError("names a timezone; say it at events.time: it holds for items as well")
        if value and len(value.formats) > 1:
            raise ValueError("has several formats; give the one in which the file is written")
        return value


class UsersMapping(Reading):
    """Users: from a file of their own, or out of the event file's rows (the most frequent value)."""

    source: Literal["file", "events"] = "file"
    id: Id
    age: Names = ()
    gender: Names = ()
    gender_values: dict[str, str] = Field(default_factory=dict)
    country: Names = ()
    attributes: tuple[str, ...] = ()


class Mapping(_Strict):
    """A whole mapping; `name` is the ready mapping's name or the file's."""

    name: str = ""
    events: EventsMapping
    items: ItemsMapping | None = None
    users: UsersMapping | None = None
    rules: Rules = Rules()


def ready_names() -> list[str]:
    """The names of the ready mappings."""
    return sorted(path.stem for path in MAPPINGS.glob("*.yaml"))


def load(name: str) -> Mapping:
    """A ready mapping by its name, or one from a YAML file.

    Raises:
        ImportFailed: there is none, or it is wrong; the message names the field.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else MAPPINGS / f"{name}.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise ImportFailed(
            f"mapping {name!r} is neither a ready one ({', '.join(ready_names())}) nor an existing .yaml file"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError, PermissionError) as error:
        raise ImportFailed(f"mapping {name} cannot be read as YAML: {' '.join(str(error).split())}") from None
    try:
        return Mapping.model_validate((content or {}) | {"name": path.stem} if isinstance(content, dict) else content)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {_plain(fault['msg'])}" for fault in error.errors())
        raise ImportFailed(f"mapping {name}: {faults}") from None


def _plain(message: str) -> str:
    return message.removeprefix("Value error, ")
