"""Numbers as shops write them: `12.50`, `1,234.50`, `€ 12.50`, `12.50 USD`; with a decimal comma `1.234,50 €`."""

from __future__ import annotations

from typing import Final, Literal

DecimalMark = Literal[".", ","]

_SPACES: Final = r"\s\x{a0}\x{202f}"
_BEFORE: Final = rf"(?:[^\d.,+-]*\p{{L}}\.[{_SPACES}]+|[^\d.,+-]*)"
_BEHIND: Final = rf"[{_SPACES}]*\p{{Sc}}?\p{{L}}{{0,3}}\.?"


def number_of_text(sql: str, decimal: DecimalMark) -> str:
    """SQL of a text's number, null where it holds none.

    A word or a sign may stand before it, a currency behind it, and thousands may be grouped by blanks, apostrophes or
    whichever of point and comma is not the decimal mark.
    """
    groups = rf"[{_SPACES}\x{{27}}’{'.' if decimal == ',' else ','}]"
    figures = rf"[+-]?(?:\d{{1,3}}(?:{groups}\d{{3}})+|\d*)(?:\{decimal}\d*)?"
    pattern = rf"^{_BEFORE}({figures}){_BEHIND}[{_SPACES}]*$"
    plain = f"regexp_replace(regexp_extract({sql}, '{pattern}', 1), '{groups}', '', 'g')"
    written = f"TRY_CAST({sql} AS DOUBLE)"
    if decimal == ",":  # 1.234 is over a thousand, 12.50 can only be a price with a point
        return f"coalesce(TRY_CAST(replace({plain}, ',', '.') AS DOUBLE), {written})"
    return f"coalesce({written}, TRY_CAST({plain} AS DOUBLE))"
