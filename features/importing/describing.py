"""Items and users as SQL: from files of their own, wide or long, or out of the event file.

Every SELECT made here gives `file`, `row`, `id`, the columns `ITEM_FIELDS` or `USER_FIELDS` as text and `attributes`
as a JSON object.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import duckdb

from features.importing.cleaning import id_text, single_time_ms, text_ms, time_ms
from features.importing.mapping import IdColumn, ItemsMapping, LongFormat, TimeColumn, UsersMapping
from features.importing.numbers import DecimalMark, number_of_text
from features.importing.source import ROW, Source, identifier, literal
from features.schema import MAX_ID_CHARS

ITEM_FIELDS: Final = (
    "title",
    "category",
    "brand",
    "variant_group",
    "price",
    "stock",
    "launch_time",
    "age_restricted",
)
_BEFORE_ALL_MS: Final = -(2**62)
"""Of a property without a time: any with one is newer."""
USER_FIELDS: Final = ("age", "gender", "country")
UNREADABLE: Final = "?"
"""In place of a launch time that is none."""
_NUMBERS: Final = ("price", "stock", "age")

ID_RULES: Final[dict[str, str]] = {
    "unreadable_line": "the line cannot be taken apart into columns",
    "missing_id": "no id",
    "too_long": f"an id over {MAX_ID_CHARS} characters",
    "nul_character": "an id holds the character NUL",
    "overwritten": "another row with the same id comes later",
    "erased": "of a person who was erased",
}
"""Every reason for which an item or a user is rejected, in the order in which they are tried."""

Fields = tuple[str, ...]


def rows_of_files(
    connection: duckdb.DuckDBPyConnection, sources: Sequence[Source], mapping: ItemsMapping | UsersMapping
) -> str:
    """SELECT over files with a row for each item or user, or with `long` a row for each property of an item.

    Raises:
        ImportFailed: a column is missing, or its type cannot serve.
    """
    if isinstance(mapping, ItemsMapping) and mapping.long is not None:
        return _long(connection, sources, mapping, mapping.long)
    return " UNION ALL ".join(
        f"SELECT {number} AS file, * FROM ({_wide(source, mapping)})" for number, source in enumerate(sources)
    )


def rows_of_events(source: Source, mapping: ItemsMapping | UsersMapping) -> str:
    """SELECT out of the event file (table `staged`): the most frequent of each text, the median of prices.

    For items, rows of unknown shoppers count too; rows that break another rule never do.
    """
    items = isinstance(mapping, ItemsMapping)
    owner, reason = ("item_id", "item_reason") if items else ("user_id", "reason")
    fields = fields_of(mapping)
    listed = ", ".join(f"{_text(source, mapping, name)} AS {name}" for name in fields)
    facts = (
        f"SELECT s.{owner} AS id, v.* EXCLUDE (n), count(*) AS rows FROM staged AS s JOIN ("
        f"SELECT {identifier(ROW)} AS n, {listed}, {_attributes(source, mapping)} AS attributes FROM {source.relation}"
        f") AS v ON v.n = s.row WHERE s.{reason} IS NULL AND s.{owner} IS NOT NULL GROUP BY ALL"
    )
    queries, chosen, joins = [f"facts AS MATERIALIZED ({facts})"], [], []
    for name in (*fields, "attributes"):
        value = "TRY_CAST(price AS DOUBLE)" if name == "price" else name
        counted = f"SELECT id, {value} AS value, sum(rows) AS rows FROM facts WHERE trim({name}) <> '' GROUP BY ALL"
        best = f"SELECT id, arg_max(value, (rows, value)) AS value FROM ({counted}) GROUP BY id"
        if name == "price":
            ranked = (
                "SELECT id, value, sum(rows) OVER (PARTITION BY id ORDER BY value) AS below, "
                f"sum(rows) OVER (PARTITION BY id) AS all_rows FROM ({counted}) WHERE value > 0"
            )
            median = "CAST(min(value) AS VARCHAR) AS value"
            best = f"SELECT id, {median} FROM ({ranked}) WHERE 2 * below >= all_rows GROUP BY id"
        queries.append(f"best_{name} AS ({best})")
        chosen.append(f"best_{name}.value AS {name}")
        joins.append(f"LEFT JOIN best_{name} USING (id)")
    return (
        f"WITH {', '.join(queries)} SELECT 0 AS file, 0 AS row, id, {', '.join(chosen)} "
        f"FROM (SELECT DISTINCT id FROM facts) {' '.join(joins)}"
    )


def fields_of(mapping: ItemsMapping | UsersMapping) -> Fields:
    """The names of the mapping's columns, attributes apart."""
    return ITEM_FIELDS if isinstance(mapping, ItemsMapping) else USER_FIELDS


def _wide(source: Source, mapping: ItemsMapping | UsersMapping) -> str:
    section = _section(mapping)
    listed = [f"{_text(source, mapping, name)} AS {name}" for name in fields_of(mapping)]
    return (
        f"SELECT {identifier(ROW)} AS row, {id_text(source, mapping.id, f'{section}.id')} AS id, {', '.join(listed)}, "
        f"{_attributes(source, mapping)} AS attributes FROM {source.relation}"
    )


def _long(
    connection: duckdb.DuckDBPyConnection, sources: Sequence[Source], mapping: ItemsMapping, long: LongFormat
) -> str:
    """One row an item of the newest value of each property, whichever of the files it stands in."""
    parts = []
    for number, source in enumerate(sources):
        pair = [
            source.column(source.find(names, f"items.long.{field}") or "")
            for names, field in ((long.property, "property"), (long.value, "value"))
        ]
        moment = "0"
        if long.time:
            time, *_ = time_ms(connection, source, TimeColumn(column=long.time), "items.long.time")
            moment = f"coalesce({time}, {_BEFORE_ALL_MS})"
        parts.append(
            f"SELECT {number} AS file, {identifier(ROW)} AS row, {id_text(source, mapping.id, 'items.id')} AS id, "
            f"{pair[0]} AS property, CAST({pair[1]} AS VARCHAR) AS value, {moment} AS moment "
            f"FROM {source.relation}"
        )
    wanted = {name: [given.removesuffix("?") for given in _names(mapping, name)] for name in ITEM_FIELDS}
    known = [*(given for names in wanted.values() for given in names), *mapping.attributes]
    newest = (
        "SELECT id, property, arg_max(value, (moment, file, row)) AS value, max(file) AS file, max(row) AS row "
        f"FROM ({' UNION ALL '.join(parts)}) WHERE property IN ({', '.join(map(literal, known)) or 'NULL'}) "
        "GROUP BY ALL"
    )
    chosen = ", ".join(
        f"{_typed_property(mapping, name, names) if names else 'CAST(NULL AS VARCHAR)'} AS {name}"
        for name, names in wanted.items()
    )
    pairs = ", ".join(f"{literal(name)}, {_property([name])}" for name in mapping.attributes)
    attributes = f"CAST(json_object({pairs}) AS VARCHAR)" if pairs else "CAST(NULL AS VARCHAR)"
    columns = f"max(file) AS file, max(row) AS row, id, {chosen}, {attributes} AS attributes"
    return f"SELECT {columns} FROM ({newest}) GROUP BY id"


def _typed_property(mapping: ItemsMapping, name: str, names: Sequence[str]) -> str:
    value = _property(names)
    if name == "launch_time" and mapping.launch_time:
        return _time_or_mark(text_ms(value, mapping.launch_time), value)
    return _number_or_text(value, mapping.decimal) if name in _NUMBERS else value


def _property(names: Sequence[str]) -> str:
    return f"max(value) FILTER (property IN ({', '.join(map(literal, names))}))"


def _text(source: Source, mapping: ItemsMapping | UsersMapping, name: str) -> str:
    """A field's value as text; a list becomes a JSON array."""
    column = source.find(_names(mapping, name), f"{_section(mapping)}.{name}")
    if column is None:
        return "CAST(NULL AS VARCHAR)"
    if name == "variant_group":
        return id_text(source, IdColumn(column=(column,)), "items.variant_group")
    value = source.column(column)
    if isinstance(mapping, ItemsMapping) and name == "launch_time" and mapping.launch_time:
        return _time_or_mark(single_time_ms(source, mapping.launch_time, "items.launch_time"), value)
    if name in _NUMBERS and source.types[column] == "VARCHAR":
        return _number_or_text(value, source.decimal)
    return f"CAST({f'to_json({value})' if source.types[column].endswith('[]') else value} AS VARCHAR)"


def _names(mapping: ItemsMapping | UsersMapping, name: str) -> Sequence[str]:
    given = getattr(mapping, name)
    return given.column if isinstance(given, TimeColumn) else given or ()


def _time_or_mark(time: str, sql: str) -> str:
    """A time in ms as text, or `UNREADABLE` for what is none: that is counted when it is stored."""
    mark = f"CASE WHEN trim(CAST({sql} AS VARCHAR)) <> '' THEN {literal(UNREADABLE)} END"
    return f"coalesce(CAST({time} AS VARCHAR), {mark})"


def _number_or_text(sql: str, decimal: DecimalMark) -> str:
    """A text's number as text, or the text itself where it holds none: that is counted when it is stored."""
    return f"coalesce(CAST({number_of_text(sql, decimal)} AS VARCHAR), {sql})"


def _attributes(source: Source, mapping: ItemsMapping | UsersMapping) -> str:
    """A JSON object of the free attributes; `attr_*` stands for every column that starts so, without that start."""
    pairs: list[tuple[str, str]] = []
    for pattern in mapping.attributes:
        if pattern.endswith("*"):
            start = pattern[:-1]
            pairs += [(name[len(start) :], name) for name in source.types if name.startswith(start) and name != start]
        elif column := source.find((pattern,), f"{_section(mapping)}.attributes"):
            pairs.append((column, column))
    listed = ", ".join(f"{literal(label)}, CAST({source.column(name)} AS VARCHAR)" for label, name in pairs)
    return f"CAST(json_object({listed}) AS VARCHAR)" if pairs else "CAST(NULL AS VARCHAR)"


def _section(mapping: ItemsMapping | UsersMapping) -> str:
    return "items" if isinstance(mapping, ItemsMapping) else "users"
