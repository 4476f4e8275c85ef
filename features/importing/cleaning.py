"""A mapping's columns and rules as SQL: the canonical event of each row, and the first rule that the row breaks.

Every rule looks at one row alone; those that look at many (duplicates, bursts) are in `features.importing.events`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Final

import duckdb

from features.importing.errors import ImportFailed
from features.importing.mapping import IdColumn, Mapping, TimeColumn, TypeColumn
from features.importing.source import LINE, ROW, Source, identifier, literal
from features.schema import (
    EVENT_NAMES,
    MAX_ID_CHARS,
    MAX_PRICE,
    MAX_QUANTITY,
    MAX_TEXT_CHARS,
    MAX_TOKEN_CHARS,
    EventType,
)

RULES: Final[dict[str, str]] = {
    "unreadable_line": "the line cannot be taken apart into columns",
    "missing_user": "neither a user nor a session",
    "missing_item": "no item",
    "missing_time": "no time",
    "missing_type": "no event type",
    "missing_query": "a search without a query",
    "unknown_type": "an event type that the mapping does not know",
    "unreadable_time": "the time cannot be read",
    "unreadable_number": "quantity, price or a column with a minimum is no number",
    "too_long": f"an id over {MAX_ID_CHARS} or a text over {MAX_TEXT_CHARS} characters",
    "nul_character": "an id or a text holds the character NUL",
    "cancelled_order": "undoes an order",
    "service_code": "postage, a fee or the like, not an item",
    "below_minimum": "below the mapping's minimum",
    "absurd_time": "before the mapping's earliest or after its latest day",
    "impossible_quantity": "quantity not above 0, or over a million",
    "impossible_price": "price not above 0 where it must be, or over a billion",
    "duplicate": "the same event as another row",
    "burst": "more acts of one shopper in a minute or an hour than a person does",
    "erased": "of a person who was erased",
}
"""Every reason for which an event is rejected, in the order in which they are tried."""

EVENT_FIELDS: Final = (
    "event_type",
    "user_id",
    "session_id",
    "item_id",
    "event_time_ms",
    "order_id",
    "quantity",
    "price",
    "query",
    "attribution_token",
)
"""The canonical event's columns, its id apart."""

_SAMPLE_ROWS = 2_000
_SEPARATOR = "chr(31)"
_OFFSET = r"\d:\d\d.*([+-]\d\d(:?\d\d)?|Z| ?UTC| ?GMT)$"
_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")


def canonical_rows(connection: duckdb.DuckDBPyConnection, source: Source, mapping: Mapping) -> str:
    """SELECT of one row a source row: the event's columns, `reason` (null if none) and `item_reason`.

    `item_reason` leaves out whether the shopper is known: a row without one still tells about its item. `zoned` says
    whether the time's text carries an offset (null where that makes no difference), `own_id` whether the id is the
    file's.

    Raises:
        ImportFailed: a column is missing or of a type that cannot serve.
    """
    events = mapping.events
    kind, raw_kind = _type(source, events.type)
    time, raw_time, zoned = time_ms(connection, source, events.time)
    columns = {
        "event_id": _optional_id(source, events.event_id, "events.event_id"),
        "event_type": kind,
        "user_id": _optional_id(source, events.user, "events.user"),
        "session_id": _optional_id(source, events.session, "events.session"),
        "item_id": id_text(source, events.item, "events.item"),
        "event_time_ms": time,
        "order_id": _optional_id(source, events.order, "events.order"),
        "quantity": number(source, events.quantity, "events.quantity"),
        "price": number(source, events.price, "events.price"),
        "query": text(source, events.query, "events.query"),
        "attribution_token": text(source, events.attribution_token, "events.attribution_token"),
        "raw_type": raw_kind,
        "raw_time": raw_time,
        "zoned": zoned,
        "bad_number": _bad_numbers(source, mapping),
        "cancelled": _cancelled(source, mapping),
        "low": _below_minimum(source, mapping),
        "unreadable": f"{identifier(LINE)} IS NULL" if source.kind == "json" else "false",
    }
    listed = ", ".join(f"{sql} AS {name}" for name, sql in columns.items())
    conditions = _conditions(mapping)
    reason = _first(conditions)
    item_reason = _first({name: sql for name, sql in conditions.items() if name != "missing_user"})
    return (
        f"SELECT row, {', '.join(EVENT_FIELDS)}, reason, "
        "CASE WHEN event_time_ms IS NOT NULL THEN zoned END AS zoned, "
        "CASE WHEN reason IN ('unreadable_time', 'absurd_time') THEN raw_time "
        "WHEN reason = 'unknown_type' THEN raw_type WHEN reason = 'unreadable_number' THEN bad_number END AS example, "
        f"CASE WHEN reason = 'missing_user' THEN {item_reason} ELSE reason END AS item_reason, "
        "event_id IS NOT NULL AS own_id, "
        f"CASE WHEN reason IS NULL THEN {_event_id(mapping)} END AS event_id FROM ("
        f"SELECT *, {reason} AS reason FROM ("
        f"SELECT {identifier(ROW)} AS row, {listed} FROM {source.relation}))"
    )


def _conditions(mapping: Mapping) -> dict[str, str]:
    """Rule to the SQL that is true where a row breaks it, over the columns of `canonical_rows`."""
    rules = mapping.rules
    search, cart, purchase = int(EventType.SEARCH), int(EventType.CART), int(EventType.PURCHASE)
    latest = rules.latest or (datetime.now(timezone.utc) + timedelta(days=1)).date()
    traded = f"event_type IN ({cart}, {purchase})"
    ids = ("event_id", "user_id", "session_id", "item_id", "order_id")
    lengths = [f"length({name}) > {MAX_ID_CHARS}" for name in ids]
    texts = (*ids, "query", "attribution_token")
    lengths += [f"length(query) > {MAX_TEXT_CHARS}", f"length(attribution_token) > {MAX_TOKEN_CHARS}"]
    codes = ", ".join(literal(code.upper()) for code in rules.service_codes) or "NULL"
    return {
        "unreadable_line": "unreadable",
        "missing_user": "user_id IS NULL AND session_id IS NULL",
        "missing_type": "event_type IS NULL AND raw_type IS NULL",
        "unknown_type": "event_type IS NULL",
        "missing_item": f"item_id IS NULL AND event_type <> {search}",
        "missing_query": f"query IS NULL AND event_type = {search}",
        "missing_time": "event_time_ms IS NULL AND raw_time IS NULL",
        "unreadable_time": "event_time_ms IS NULL",
        "unreadable_number": "bad_number IS NOT NULL",
        "too_long": " OR ".join(lengths),
        "nul_character": " OR ".join(f"contains({name}, chr(0))" for name in texts),
        "cancelled_order": "cancelled",
        "service_code": f"upper(trim(item_id)) IN ({codes})",
        "below_minimum": "low",
        "absurd_time": f"event_time_ms < epoch_ms(TIMESTAMP {literal(str(rules.earliest))}) "
        f"OR event_time_ms >= epoch_ms(TIMESTAMP {literal(str(latest))}) + 86400000",
        "impossible_quantity": f"quantity < 0 OR quantity > {MAX_QUANTITY} OR NOT isfinite(quantity) "
        f"OR ({str(rules.positive_quantity).lower()} AND quantity = 0 AND {traded})",
        "impossible_price": f"price < 0 OR price > {MAX_PRICE} OR NOT isfinite(price) "
        f"OR ({str(rules.positive_price).lower()} AND price = 0 AND {traded})",
    }


def _first(conditions: dict[str, str]) -> str:
    return f"CASE {' '.join(f'WHEN {sql} THEN {literal(name)}' for name, sql in conditions.items())} END"


def _event_id(mapping: Mapping) -> str:
    """The file's own id, or one made of the row's content: the same row has the same id in every import.

    It starts with the time, so that rows that are sorted by time go into one end of the unique index.
    """
    content = ["event_type", "coalesce('u:' || user_id, 's:' || session_id)"]
    content += [f"coalesce({name}, '')" for name in ("session_id", "item_id", "order_id", "query")]
    content += [f"coalesce(CAST(CAST({name} * 10000 AS BIGINT) AS VARCHAR), '')" for name in ("quantity", "price")]
    made = f"lower(to_hex(event_time_ms)) || '-' || left(md5(concat_ws({_SEPARATOR}, {', '.join(content)})), 16)"
    return f"coalesce(event_id, {made})" if mapping.events.event_id else made


def id_text(source: Source, column: IdColumn, field: str) -> str:
    """An id as text, exactly as it stands; null if it is empty or only white space, or an object or array of JSON.

    Raises:
        ImportFailed: the column is missing or no id.
    """
    name = source.find(column.column, field)
    if name is None:
        return "CAST(NULL AS VARCHAR)"
    sql, kind = source.column(name), source.types[name]
    if _is_real(kind):
        whole = f"{sql} = floor({sql}) AND abs({sql}) < 1e18"
        return f"CASE WHEN {whole} THEN CAST(CAST({sql} AS BIGINT) AS VARCHAR) ELSE CAST({sql} AS VARCHAR) END"
    if kind in (*_NUMBERS, "UUID"):
        return f"CAST({sql} AS VARCHAR)"
    if kind != "VARCHAR" and not kind.startswith("ENUM("):
        raise ImportFailed(_wrong_type(source, name, field, "text or whole numbers"))
    value = f"regexp_replace({sql}, '\\.0+$', '')" if column.whole_number else f"CAST({sql} AS VARCHAR)"
    return f"CASE WHEN trim({sql}) <> '' AND {source.is_single(name)} THEN {value} END"


def text(source: Source, names: Sequence[str], field: str) -> str:
    """Free text; null if it is empty."""
    name = source.find(names, field)
    return f"nullif(trim(CAST({source.column(name)} AS VARCHAR)), '')" if name else "CAST(NULL AS VARCHAR)"


def number(source: Source, names: Sequence[str], field: str) -> str:
    """A number, null where there is none or where it cannot be read."""
    name = source.find(names, field)
    if name is None:
        return "CAST(NULL AS DOUBLE)"
    kind = source.types[name]
    if kind != "VARCHAR" and kind not in _NUMBERS and not _is_real(kind):
        raise ImportFailed(_wrong_type(source, name, field, "numbers"))
    return source.number(name)


def time_ms(
    connection: duckdb.DuckDBPyConnection, source: Source, column: TimeColumn, field: str = "events.time"
) -> tuple[str, str, str]:
    """SQL of the time in ms, of the raw value as text, and of whether the text carries an offset.

    Times without an offset are in the connection's time zone, which `features.importing.events` sets.
    """
    name = source.find(column.column, f"{field}.column")
    if name is None:
        return "CAST(NULL AS BIGINT)", "CAST(NULL AS VARCHAR)", "CAST(NULL AS BOOLEAN)"
    sql, kind = source.column(name), source.types[name]
    raw, unknown = f"CAST({sql} AS VARCHAR)", "CAST(NULL AS BOOLEAN)"
    if kind != "VARCHAR":
        return _typed_ms(source, name, column, field), raw, unknown
    sample = f"SELECT {sql} AS value FROM {source.relation} WHERE {sql} <> '' LIMIT {_SAMPLE_ROWS}"
    query = f"SELECT bool_and(TRY_CAST(value AS DOUBLE) IS NOT NULL) FROM ({sample})"
    ((counted,),) = connection.execute(query).fetchall()
    if counted and not column.formats:
        return _counted(f"TRY_CAST({sql} AS DOUBLE)", column.unit), f"nullif({raw}, '')", unknown
    zoned = f"regexp_matches({sql}, {literal(_OFFSET)})"
    return _written_ms(sql, column), f"nullif(trim({raw}), '')", zoned


def single_time_ms(source: Source, column: TimeColumn, field: str) -> str:
    """SQL of a time in ms where texts of the column may be counts or dates, each for itself; null if it is neither."""
    name = source.find(column.column, f"{field}.column")
    if name is None:
        return "CAST(NULL AS BIGINT)"
    return (
        text_ms(source.column(name), column)
        if source.types[name] == "VARCHAR"
        else _typed_ms(source, name, column, field)
    )


def text_ms(sql: str, column: TimeColumn) -> str:
    """SQL of the time in ms that one text holds: a date, or a count."""
    return f"coalesce({_written_ms(sql, column)}, {_counted(f'TRY_CAST({sql} AS DOUBLE)', column.unit)})"


def _written_ms(sql: str, column: TimeColumn) -> str:
    forms = [f"CAST(try_strptime({sql}, {literal(form)}) AS TIMESTAMPTZ)" for form in column.formats]
    forms.append(f"TRY_CAST({sql} AS TIMESTAMPTZ)")  # last: of 27/11/26 it makes the year 27
    return f"epoch_ms(coalesce({', '.join(forms)}))"


def _typed_ms(source: Source, name: str, column: TimeColumn, field: str) -> str:
    sql, kind = source.column(name), source.types[name]
    if kind.startswith(("TIMESTAMP", "DATE")) and not kind.endswith("]"):
        return f"epoch_ms(CAST({sql} AS TIMESTAMPTZ))"
    if kind in _NUMBERS or _is_real(kind):
        return _counted(f"CAST({sql} AS DOUBLE)", column.unit)
    raise ImportFailed(_wrong_type(source, name, field, "times"))


def with_one_format(connection: duckdb.DuckDBPyConnection, source: Source, mapping: Mapping) -> Mapping:
    """The mapping with that one of its times' formats that reads the most rows of the file, the first of equals.

    A file is written in one format: were each row read by the first that fits, 03/12 of a day-first file would be the
    twelfth of March.
    """
    time = mapping.events.time
    name = source.find(time.column, "events.time.column")
    if name is None or source.types[name] != "VARCHAR" or len(time.formats) < 2:
        return mapping
    counts = ", ".join(f"count(try_strptime({source.column(name)}, {literal(form)}))" for form in time.formats)
    (read,) = connection.execute(f"SELECT {counts} FROM {source.relation}").fetchall()
    settled = time.model_copy(update={"formats": (time.formats[read.index(max(read))],)})
    return mapping.model_copy(update={"events": mapping.events.model_copy(update={"time": settled})})


def _counted(sql: str, unit: str) -> str:
    """Milliseconds from a count since 1970; `auto` takes the unit in which the number is a date of our times."""
    factors = {"s": "1000", "ms": "1", "us": "0.001"}
    factor = factors.get(unit) or f"CASE WHEN abs({sql}) < 1e11 THEN 1000 WHEN abs({sql}) < 1e14 THEN 1 ELSE 0.001 END"
    return f"TRY_CAST({sql} * {factor} AS BIGINT)"


def _type(source: Source, column: TypeColumn) -> tuple[str, str]:
    if column.constant:
        return str(int(EVENT_NAMES[column.constant])), "''"
    name = source.find(column.column, "events.type.column")
    if name is None:
        raise ImportFailed(f"{source.path.name}: events.type.column cannot be optional; use constant instead")
    raw = f"CAST({source.column(name)} AS VARCHAR)"
    cases = " ".join(
        f"WHEN {literal(value.lower())} THEN {int(EVENT_NAMES[kind])}" for value, kind in column.values.items()
    )
    return f"CASE lower(trim({raw})) {cases} END", f"nullif(trim({raw}), '')"


def _optional_id(source: Source, column: IdColumn | None, field: str) -> str:
    return id_text(source, column, field) if column else "CAST(NULL AS VARCHAR)"


def _bad_numbers(source: Source, mapping: Mapping) -> str:
    """The first text among quantity, price and minimums that is no number."""
    columns = [(mapping.events.quantity, "events.quantity"), (mapping.events.price, "events.price")]
    columns += [((name,), "rules.minimum") for name in mapping.rules.minimum]
    named = [name for names, field in columns if (name := source.find(names, field))]
    bad = [
        f"CASE WHEN trim({sql}) <> '' AND {source.number(name)} IS NULL THEN {sql} END"
        for name in named
        if source.types[name] == "VARCHAR" and (sql := source.column(name))
    ]
    return f"coalesce({', '.join([*bad, 'NULL'])})"


def _cancelled(source: Source, mapping: Mapping) -> str:
    rule = mapping.rules.cancelled_orders
    name = source.find(rule.column, "rules.cancelled_orders.column") if rule else None
    if rule is None or name is None:
        return "false"
    return f"starts_with(upper(trim(CAST({source.column(name)} AS VARCHAR))), {literal(rule.prefix.upper())})"


def _below_minimum(source: Source, mapping: Mapping) -> str:
    rules = [
        f"{source.number(found)} < {least}"
        for name, least in mapping.rules.minimum.items()
        if (found := source.find((name,), "rules.minimum"))
    ]
    return " OR ".join(rules) or "false"


def _is_real(kind: str) -> bool:
    return kind in ("FLOAT", "DOUBLE") or (kind.startswith("DECIMAL(") and kind.endswith(")"))


def _wrong_type(source: Source, name: str, field: str, wanted: str) -> str:
    return (
        f"{source.path.name}: column {name!r}, which the mapping's {field} names, is {source.types[name]}; "
        f"expected {wanted}. Correct the mapping or the file"
    )
