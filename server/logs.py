"""Structured logs: one JSON object a line on stderr, never with personal data (no user, session or event ids)."""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import datetime, timezone

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the call that is being worked on; in every line that it logs."""


class JsonLines(logging.Formatter):
    """time, level, module, message, and the request id and traceback where there are any."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, str] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "module": record.name,
            "message": record.getMessage(),
        }
        if request_id := REQUEST_ID.get():
            line["request_id"] = request_id
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class Once(logging.Filter):
    """Lets a message through once a process, whatever its traceback."""

    def __init__(self) -> None:
        super().__init__()
        self._told: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is new."""
        message = record.getMessage()
        told = message in self._told
        self._told.add(message)
        return not told


class NotOfLeaving(logging.Filter):
    """Keeps out gRPC's error with a traceback for an answer whose caller has gone: nothing has failed here."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is of anything else."""
        return not record.getMessage().startswith("ExecuteBatchError raised in core")


def start_logs(level: str) -> None:
    """Sends this process's logs to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("server").setLevel(level)
    of_grpc = logging.getLogger("grpc._cython.cygrpc")
    of_grpc.addFilter(NotOfLeaving())
    of_grpc.addFilter(Once())  # its line for a request that is no protobuf message has a traceback each time
