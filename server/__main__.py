"""Starts one gateway process: `python -m server`. Configured by `BRAID_…` and `BRAID_GATEWAY_…`; SIGTERM drains it."""

from __future__ import annotations

import asyncio
import signal
import sys

import uvloop
from sqlalchemy.exc import SQLAlchemyError
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from features.database.engine import DatabaseError
from features.settings import Settings, load_settings
from server.gateway import AddressTaken, Gateway
from server.logs import start_logs
from server.settings import GatewaySettings, load_gateway_settings


async def serve(settings: Settings, own: GatewaySettings) -> None:
    """Serves until SIGTERM or SIGINT."""
    gateway = Gateway(settings, own)
    end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end.set)
    await gateway.start()
    await end.wait()
    await gateway.stop()


def main() -> None:
    """The process."""
    settings, own = load_settings(), load_gateway_settings()
    start_logs(own.log_level)
    threadpool_limits(1, "blas")  # a process has one core: more threads wait for each other, milliseconds at a time
    try:
        uvloop.run(serve(settings, own))
    except (DatabaseError, AddressTaken) as error:
        sys.exit(str(error))
    except SQLAlchemyError as error:
        sys.exit(f"BRAID_DATABASE_URL: the database cannot be opened: {str(error).splitlines()[0]}")


if __name__ == "__main__":
    main()
