"""Shops beside one, such as those that `make demo DATA=…` makes: where they are, and which of them holds its ports."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil

from deploy.embedded import gateway, processes, triton
from features.settings import ROOT, Settings
from server.settings import load_gateway_settings


def shops_beside(settings: Settings, file: str) -> Iterator[Settings]:
    """Shops whose homes lie in `var/`, in this shop's home or beside it, and hold a file of that name."""
    around = {ROOT / "var", settings.home, settings.home.parent}
    homes = around | {inside for folder in around for inside in folder.glob("*")}
    own = settings.home.resolve()
    for home in sorted({home.resolve() for home in homes} - {own}):
        if os.path.exists(home / file):
            yield settings.model_copy(update={"home": home})


def holding_ports(settings: Settings) -> list[Settings]:
    """Those beside it whose stack is up and listens on a port that this shop's stack is to have.

    Raises:
        SystemExit: a setting of the gateway or an address is wrong.
    """
    doors = [*gateway.doors(settings, load_gateway_settings()).values(), *triton.ports(settings).values()]
    wanted = {number for _, number in doors}
    beside = shops_beside(settings, "run/supervisord.pid")
    return [other for other in beside if wanted & _listening(processes.of(other))]


def told(settings: Settings) -> list[str]:
    """A line for each shop that holds this one's ports: where it is, and how it is stopped."""
    lines = []
    for other in holding_ports(settings):
        home = short(other.home)
        lines.append(f"The shop in {home} is up and holds the ports; stop it with: BRAID_HOME={home} make down")
    return lines


def short(path: Path) -> str:
    """A path relative to the checkout where it lies inside."""
    resolved = path.resolve()
    return str(resolved.relative_to(ROOT)) if resolved.is_relative_to(ROOT) else str(resolved)


def _listening(processes: list[psutil.Process]) -> set[int]:
    """Ports on which they listen."""
    ports = set()
    for process in processes:
        try:
            connections = process.net_connections(kind="tcp")
        except psutil.Error:  # it has just ended, or is another user's
            continue
        ports |= {connection.laddr.port for connection in connections if connection.status == psutil.CONN_LISTEN}
    return ports
