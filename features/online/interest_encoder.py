"""A release's encoder, in a process of its own: this package knows no torch, which loads while the caller goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

from features.database.engine import DatabaseError
from features.settings import ROOT

_LAST_BYTES: Final = 4_096


class MaterializeError(DatabaseError):
    """The vectors cannot be made; the message says what to do."""


class InterestEncoder:
    """`python -m training.encode`, from its making until `close`."""

    def __init__(self, files: Path) -> None:
        """`files` is the folder of the release's fusion model."""
        self._files = files
        self._command = [sys.executable, "-m", "training.encode", str(files)]
        self._errors = TemporaryFile("w+b")  # noqa: SIM115 - open as long as the process writes
        self._process = subprocess.Popen(
            self._command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )

    def encode(self, histories: Path, vectors: Path) -> None:
        """Reads `histories` (as `features.online.materialize.write_histories` makes) and writes shopper and vector.

        Raises:
            MaterializeError: the process failed.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps([str(histories), str(vectors)]) + "\n")
            self._process.stdin.flush()
        if not self._process.stdout.readline():
            status = self._process.wait()
            raise MaterializeError(
                f"the encoder of {self._files} failed ({status}): {self._last_line()}; run: {' '.join(self._command)}"
            )

    @property
    def running(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def _last_line(self) -> str:
        size = self._errors.seek(0, 2)
        self._errors.seek(max(0, size - _LAST_BYTES))
        return (self._errors.read().decode(errors="replace").strip() or "no message").splitlines()[-1]


class Encoders:
    """The process of the last release that was encoded for, kept from run to run."""

    def __init__(self) -> None:
        self._encoder: InterestEncoder | None = None
        self._whose: tuple[Path, str] | None = None

    def of(self, files: Path, checksum: str) -> InterestEncoder:
        """The encoder of a release's folder, `checksum` that of its file."""
        if self._encoder is None or self._whose != (files, checksum) or not self._encoder.running:
            self.close()
            self._encoder, self._whose = InterestEncoder(files), (files, checksum)
        return self._encoder

    def close(self) -> None:
        """Ends the process."""
        if self._encoder is not None:
            self._encoder.close()
            self._encoder = None
