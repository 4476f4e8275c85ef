"""One exam: a set of data, what is learned from it and what is asked, and how the answers are summed up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import polars as pl

from training.dataset import DataError, Log
from training.evaluate import Stage

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Two stages over one log: settings are chosen on the first, figures come from the second.

    name: of the set and its protocol; the folder of its results.
    headline: names of the two figures that are compared with published ones, the second decides.
    mean_of_shoppers: figures are means over shoppers of the means over their moments, else over all moments.
    files: what the task was read from.
    """

    name: str
    tuning: Stage
    final: Stage
    headline: tuple[str, str]
    mean_of_shoppers: bool
    files: tuple[Path, ...]

    @property
    def log(self) -> Log:
        """The log of both stages."""
        return self.final.log

    def sizes(self) -> dict[str, int]:
        """Counts that tell whether the files are the expected ones."""
        return {
            "shoppers": len(self.log.shopper_ids),
            "items": self.log.item_count,
            "events": len(self.log.items),
            "learned moments": len(self.final.moments),
            "validation moments": len(self.tuning.test.moments),
            "test moments": len(self.final.test.moments),
        }


def read(path: Path, reader: Callable[[Path], T]) -> T:
    """What a reader makes of a file.

    Raises:
        DataError: the file is missing or damaged.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing; it belongs to this set, download it again")
    try:
        return reader(path)
    except (OSError, EOFError, ValueError, KeyError, TypeError, IndexError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} is damaged ({reason}); download it again") from None
