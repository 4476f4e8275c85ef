"""A configuration as a JSON file: `python -m training tune` writes one, `python -m training train` takes one."""

from __future__ import annotations

import json
from pathlib import Path

from training.config import Config


def write_configuration(path: Path, config: Config) -> None:
    """Writes the file beside and renames it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps(config.to_dict(), indent=2) + "\n")
    beside.replace(path)


def read_configuration(path: Path) -> Config:
    """The inverse of `write_configuration`.

    Raises:
        ValueError: the file cannot be read, or a field is unknown, missing, of another type or out of range; the
            message names both.
    """
    try:
        values = json.loads(path.read_text())
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}; `python -m training tune` writes one") from None
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}; `python -m training tune` writes one") from None
    try:
        return Config.from_dict(values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
