"""A text file as DuckDB reads it: UTF-8, with one kind of line end; of any other file a copy is made.

What is called Latin-1 is read as Windows-1252, which adds €, dashes and quotation marks to it and is what programs on
Windows write.
"""

from __future__ import annotations

import codecs
import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from features.importing.errors import ImportFailed

_BLOCK_BYTES: Final = 1 << 20
_LOOKED_AT_BYTES: Final = 4096
_CONTROLS: Final = bytes({*range(0x20), 0x7F} - set(b"\t\n\f\r"))
_MOST_CONTROLS: Final = 0.05
"""Share of control characters that a text with NUL may have; compressed bytes have 11%, UTF-16 half."""
_WINDOWS_1252: Final = "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in range(256))
"""The character of each byte; the five that Windows-1252 leaves open are those of Latin-1."""


@dataclass(slots=True)
class _Content:
    """What a file's bytes are made of: line ends by kind, and its characters beyond ASCII if it is read as UTF-8."""

    windows_ends: int = 0
    line_feeds: int = 0
    returns: int = 0
    letters: int = 0
    faults: int = 0

    def add(self, block: bytes, text: str) -> None:
        """Counts a block and its text, in which what is no UTF-8 is U+FFFD."""
        both = block.count(b"\r\n")
        self.windows_ends += both
        self.line_feeds += block.count(b"\n") - both
        self.returns += block.count(b"\r") - both
        if not text.isascii():
            faults = text.count("\ufffd")
            self.faults += faults
            self.letters += len(text) - len(text.encode("ascii", "ignore")) - faults

    @property
    def mixed(self) -> bool:
        """Whether there are several kinds of line ends."""
        return (self.windows_ends, self.line_feeds, self.returns).count(0) < 2

    @property
    def encoding(self) -> str:
        """UTF-8 also where it has faults: characters that were cut in two cost their own lines alone."""
        return "utf-8" if self.letters >= self.faults else "latin-1"


def as_duckdb_reads_it(path: Path, encoding: str | None, copy: Path, *, sample: bool) -> tuple[Path, str]:
    """The file itself, or a copy of it at `copy` where it is not UTF-8 or its line ends differ; and its head as text.

    Args:
        encoding: utf-8 or latin-1; found out if not given.
        sample: the first rows are enough: the copy holds those alone.

    Raises:
        ImportFailed: it cannot be read, or is no text.
    """
    try:
        content = _Content()
        for number, (block, text) in enumerate(_blocks(path)):
            if not number and _is_binary(block[:_LOOKED_AT_BYTES]):
                raise ImportFailed(
                    f"{path.name} is no text file (it holds zero bytes); expected CSV in UTF-8 or Latin-1"
                )
            content.add(block, text)
            if sample:
                break
        encoding = encoding or content.encoding
        if sample or encoding == "latin-1" or content.mixed:
            _write(path, encoding, content, copy, sample)
            path = copy
        return path, next(iter(_blocks(path)))[1].removeprefix("\ufeff")
    except (OSError, EOFError) as error:
        raise ImportFailed(f"{path.name} cannot be read ({error}); is it complete? Copy or export it again") from None


def _blocks(path: Path) -> Iterator[tuple[bytes, str]]:
    """The file in blocks that part no line end, each as bytes and as UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            while block.endswith(b"\r") and (following := file.read(1)):
                block += following
            yield block, decoder.decode(block)


def _write(path: Path, encoding: str, content: _Content, copy: Path, sample: bool) -> None:
    """The copy: UTF-8, every line end a line feed. A return within a line is white space."""
    returns_end_lines = content.returns > content.windows_ends + content.line_feeds
    with copy.open("wb") as file:
        for block, _ in _blocks(path):
            if encoding == "latin-1":
                block = codecs.charmap_decode(block, "strict", _WINDOWS_1252)[0].encode()
            if content.mixed:
                block = re.sub(rb"\r+\n", b"\n", block).replace(b"\r", b"\n" if returns_end_lines else b" ")
            file.write(block)
            if sample:
                break


def _is_binary(head: bytes) -> bool:
    """Whether zero bytes are no mishap of single rows, which are rejected each for itself."""
    return b"\x00" in head and len(head) - len(head.translate(None, _CONTROLS)) > _MOST_CONTROLS * len(head)
