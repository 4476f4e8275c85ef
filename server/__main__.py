"""Starts one gateway process: `python -m server`. Configured by `BRAID_…` and `BRAID_GATEWAY_…`; SIGTERM drains it.

`python -m server keys` makes, lists and revokes the API keys of those who may call it.
"""

from __future__ import annotations

import asyncio
import signal
import sys

import typer
import uvloop
from sqlalchemy.exc import SQLAlchemyError
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from features.database.engine import DatabaseError
from features.outage import words
from features.settings import Settings, load_settings
from server.access.exposure import Exposed
from server.access.key_commands import keys
from server.access.tls import TlsError
from server.gateway import AddressTaken, Gateway
from server.logs import start_logs
from server.overload.connections import allow_descriptors
from server.settings import GatewaySettings, load_gateway_settings

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.add_typer(keys, name="keys")


async def serve(settings: Settings, own: GatewaySettings) -> None:
    """Serves until SIGTERM, SIGINT or SIGHUP, the end of its terminal."""
    gateway = Gateway(settings, own)
    end = asyncio.Event()
    hangs_up = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN  # nohup ignores it
    for number in (signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if hangs_up else [])):
        asyncio.get_running_loop().add_signal_handler(number, end.set)
    try:
        await gateway.start()
    except BaseException:
        gateway.forget_server()
        raise
    await end.wait()
    await gateway.stop()


@app.callback(invoke_without_command=True, help=__doc__)
def main(context: typer.Context) -> None:
    """The process."""
    if context.invoked_subcommand is not None:
        return
    start_logs("INFO")  # what is said of the settings is a line of the log
    settings, own = load_settings(), load_gateway_settings()
    start_logs(own.log_level)
    allow_descriptors()
    threadpool_limits(1, "blas")  # a process has one core: more threads wait for each other, milliseconds at a time
    try:
        uvloop.run(serve(settings, own))
    except (AddressTaken, DatabaseError, Exposed, TlsError) as error:
        sys.exit(str(error))
    except SQLAlchemyError as error:
        sys.exit(f"BRAID_DATABASE_URL: the database cannot be opened: {words(error)}")


if __name__ == "__main__":
    app()
