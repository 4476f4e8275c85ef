"""Items and users into the catalogue and the table of users, checked against the contract's limits.

A value beyond a limit is cut or left out and counted; only an id that is missing, over-long or holds the
character NUL costs the row. What is stored already is left alone, so that an import that is run again makes no new
revision.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, TypeVar

from features.importing.describing import UNREADABLE
from features.importing.mapping import ItemsMapping, UsersMapping
from features.schema import (
    MAX_AGE,
    MAX_ATTRIBUTES,
    MAX_CATEGORY_LEVELS,
    MAX_ID_CHARS,
    MAX_NAME_CHARS,
    MAX_PRICE,
    MAX_STOCK,
    MAX_TEXT_CHARS,
    MAX_TIME_S,
    MIN_TIME_S,
)
from features.shop.catalogue import Catalogue, CatalogueItem
from features.shop.users import UserProfile, Users

_BATCH = 10_000
_YES = ("true", "t", "yes", "y", "on")
_NO = ("", "false", "f", "no", "n", "off", "nan")
"""`nan` is how a column of numbers has no value."""

Row = dict[str, Any]
Known = TypeVar("Known", CatalogueItem, UserProfile)


@dataclass(slots=True)
class Stored:
    """What became of the items or the users."""

    new: int = 0
    changed: int = 0
    unchanged: int = 0
    erased: int = 0
    """Of persons who were erased: passed over."""
    adjusted: Counter[str] = field(default_factory=Counter)
    """Values that were cut or left out, by what was wrong."""


def store_items(catalogue: Catalogue, rows: Iterable[Row], mapping: ItemsMapping) -> Stored:
    """Writes items, each id once; fields that the mapping does not name keep what the catalogue holds."""
    names = [
        name
        for name in ("title", "brand", "price", "stock", "variant_group", "age_restricted")
        if getattr(mapping, name)
    ]
    names += ["category_path"] if mapping.category else []
    names += ["launch_time_ms"] if mapping.launch_time else []
    names += ["attributes"] if mapping.attributes else []
    stored = Stored()
    for batch in _batches(rows):
        items = [_item(row, mapping, stored.adjusted) for row in batch]
        present = catalogue.of([item.item_id for item in items])
        changes = _changes([(present.get(item.item_id), item) for item in items], names, stored)
        catalogue.upsert(changes, names)  # by field: whole, they would undo what others have changed since `of`
    return stored


def store_users(users: Users, rows: Iterable[Row], mapping: UsersMapping) -> Stored:
    """Writes users, each id once; fields that the mapping does not name keep what is known."""
    names = [name for name in ("age", "gender", "country", "attributes") if getattr(mapping, name)]
    stored = Stored()
    for batch in _batches(rows):
        erased = users.erased([row["id"] for row in batch])
        stored.erased += len(erased)
        batch = [row for row in batch if row["id"] not in erased]
        profiles = [_user(row, mapping, stored.adjusted) for row in batch]
        present = users.of([profile.user_id for profile in profiles])
        changes = _changes([(present.get(profile.user_id), profile) for profile in profiles], names, stored)
        users.upsert(changes, fields=names)
    return stored


def _changes(pairs: Iterable[tuple[Known | None, Known]], names: Sequence[str], stored: Stored) -> list[Known]:
    """What is to be written of (known, imported) pairs: of what is known, only the fields `names`; counts all."""
    changes: list[Known] = []
    for old, new in pairs:
        merged = replace(old, **{name: getattr(new, name) for name in names}) if old else new
        if old is None:
            stored.new += 1
        elif merged == old:
            stored.unchanged += 1
            continue
        else:
            stored.changed += 1
        changes.append(merged)
    return changes


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, _BATCH)):
        yield batch


def _item(row: Row, mapping: ItemsMapping, adjusted: Counter[str]) -> CatalogueItem:
    return CatalogueItem(
        item_id=row["id"],
        title=_cut(row["title"], MAX_TEXT_CHARS, "title", adjusted),
        category_path=_levels(row["category"], mapping.category_separator, adjusted),
        brand=_cut(row["brand"], MAX_ID_CHARS, "brand", adjusted),
        price=_number(row["price"], "price", adjusted, MAX_PRICE),
        stock=_stock(row["stock"], adjusted),
        attributes=_attributes(row["attributes"], adjusted),
        variant_group=_cut(row["variant_group"], MAX_ID_CHARS, "variant_group", adjusted),
        age_restricted=_restricted(row["age_restricted"], adjusted),
        launch_time_ms=_launch_ms(row["launch_time"], adjusted),
    )


def _user(row: Row, mapping: UsersMapping, adjusted: Counter[str]) -> UserProfile:
    age = _number(row["age"], "age", adjusted, MAX_AGE)
    gender = _cut(row["gender"], MAX_NAME_CHARS, "gender", adjusted)
    return UserProfile(
        user_id=row["id"],
        age=None if age is None else int(age),
        gender=mapping.gender_values.get(gender, gender) if gender else None,
        country=_cut(row["country"], MAX_NAME_CHARS, "country", adjusted),
        attributes=_attributes(row["attributes"], adjusted),
    )


def _cut(value: str | None, limit: int, name: str, adjusted: Counter[str]) -> str | None:
    text = (value or "").replace("\x00", "").strip()
    if len(text) > limit:
        adjusted[f"{name} cut to {limit} characters"] += 1
    return text[:limit] or None


def _number(value: str | None, name: str, adjusted: Counter[str], most: int) -> float | None:
    """The number of a text; None and counted if it is none from 0 to `most`."""
    if not (value or "").strip():
        return None
    try:
        number = float(value or "")
    except ValueError:
        number = math.nan
    if not 0 <= number <= most:
        adjusted[f"{name} unreadable, negative or beyond {most:,}: left out"] += 1
        return None
    return number


def _stock(value: str | None, adjusted: Counter[str]) -> int | None:
    """Pieces, a part of one as one; none where more were sold than there were."""
    if re.fullmatch(r"-[\d.]+", (value or "").strip()):
        adjusted["stock below 0: taken as 0"] += 1
        return 0
    number = _number(value, "stock", adjusted, MAX_STOCK)
    return None if number is None else math.ceil(number)


def _restricted(value: str | None, adjusted: Counter[str]) -> bool:
    """Whether only grown-ups may see it; a number, such as an age, says so where it is not 0."""
    text = (value or "").strip().lower()
    if text in _YES or text in _NO:
        return text in _YES
    try:
        return float(text) != 0
    except ValueError:
        adjusted["age_restricted neither yes nor no: taken as restricted"] += 1
        return True


def _launch_ms(value: str | None, adjusted: Counter[str]) -> int | None:
    if not value:
        return None
    if value == UNREADABLE or not MIN_TIME_S <= int(value) // 1000 <= MAX_TIME_S:
        adjusted["launch_time unreadable, see items.launch_time.formats, or beyond year 9999: left out"] += 1
        return None
    return int(value)


def _levels(value: str | None, separator: str | None, adjusted: Counter[str]) -> list[str]:
    """The levels of a category path: split at `separator`, or the strings of a JSON array."""
    text = (value or "").replace("\x00", "").strip()
    parts: list[Any] = text.split(separator) if separator else [text]
    if text.startswith("["):
        try:
            parts = json.loads(text)
        except json.JSONDecodeError:
            adjusted["category that begins like a JSON array and is none: taken as one level"] += 1
        while parts and isinstance(parts[0], list):  # several paths: the first
            parts = parts[0]
    levels = [level for part in parts if (level := str(part).strip())]
    if len(levels) > MAX_CATEGORY_LEVELS:
        adjusted[f"category cut to {MAX_CATEGORY_LEVELS} levels"] += 1
    return [cut for level in levels[:MAX_CATEGORY_LEVELS] if (cut := _cut(level, MAX_ID_CHARS, "category", adjusted))]


def _attributes(value: str | None, adjusted: Counter[str]) -> dict[str, str]:
    given = {name: text for name, text in json.loads(value or "{}").items() if text not in (None, "")}
    if len(given) > MAX_ATTRIBUTES:
        adjusted[f"attributes beyond {MAX_ATTRIBUTES}: left out"] += 1
    pairs = list(given.items())[:MAX_ATTRIBUTES]
    return {
        name[:MAX_ID_CHARS]: cut
        for name, text in pairs
        if (cut := _cut(str(text), MAX_ID_CHARS, "attribute", adjusted))
    }
