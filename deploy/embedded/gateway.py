"""What the gateway needs before anything is started: settings that it will take, and addresses of its own."""

from __future__ import annotations

import socket

from deploy.embedded import checks, triton
from features.database.engine import DatabaseError, open_database
from features.settings import Settings
from server.access.exposure import Exposed, check_exposure
from server.access.key_table import KeyTable
from server.access.tls import TlsError, TlsFiles
from server.settings import GatewaySettings, load_gateway_settings

Door = tuple[str, int]
WILDCARDS = {"0.0.0.0", "::"}


def requirements(settings: Settings) -> list[checks.Check]:
    """What the gateway needs of this machine.

    Raises:
        SystemExit: it would not start with these settings; a line for each that is wrong.
    """
    own = load_gateway_settings()
    mine = doors(settings, own)
    try:
        check_exposure(settings.gateway_address, own, any_key=True)  # `check_database` sees which keys there are
        if (tls := TlsFiles.of(own)) is not None:
            tls.credentials()
    except (Exposed, TlsError) as error:
        raise SystemExit(str(error)) from None
    return [
        *(
            checks.port("gateway" if variable == "BRAID_GATEWAY_ADDRESS" else "counters", f"{host}:{number}", variable)
            for variable, (host, number) in mine.items()
        ),
        *overlaps(mine, triton.ports(settings)),
    ]


def check_database(settings: Settings) -> None:
    """Opens the shop's database once, as the gateway will in a moment, and looks whether it knows who may call.

    Raises:
        SystemExit: it cannot be opened, or everybody could call from beyond loopback.
    """
    try:
        engine = open_database(settings.log_url)
        any_key = bool(KeyTable(engine).all())
        engine.dispose()
        check_exposure(settings.gateway_address, load_gateway_settings(), any_key=any_key)
    except (DatabaseError, Exposed) as error:
        raise SystemExit(str(error)) from None


def doors(settings: Settings, own: GatewaySettings) -> dict[str, Door]:
    """Host and port of what the gateway listens on, by the variable.

    Raises:
        SystemExit: an address cannot be read.
    """
    addresses = {"BRAID_GATEWAY_ADDRESS": settings.gateway_address}
    if own.metrics_address:
        addresses["BRAID_GATEWAY_METRICS_ADDRESS"] = own.metrics_address
    return {variable: checks.door(variable, address, "127.0.0.1:50051") for variable, address in addresses.items()}


def overlaps(mine: dict[str, Door], tritons: dict[str, Door]) -> list[checks.Check]:
    """A failed check for each door that is wanted twice: by gateway and Triton, or twice by the gateway."""
    wanted = [("BRAID_TRITON_ADDRESS", f"Triton's {name} port", door) for name, door in tritons.items()]
    found = []
    for variable, (host, number) in mine.items():
        for other, name, (other_host, other_number) in wanted:
            if number == other_number and _meet(host, other_host):
                remedy = f"Set {variable} or {other} to another port"
                if other == "BRAID_TRITON_ADDRESS":
                    remedy += "; Triton takes the one below and the one above its own, too"
                found.append(checks.Check(f"{variable} {host}:{number}", False, f"is {name} as well", remedy))
        wanted.append((variable, f"the port of {variable}", (host, number)))
    return found


def _meet(one: str, other: str) -> bool:
    """Whether two hosts have an address in common."""
    here, there = _addresses(one), _addresses(other)
    return bool(here & there or (here | there) & WILDCARDS)


def _addresses(host: str) -> set[str]:
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(host.strip("[]"), None)}
    except (OSError, UnicodeError):  # its port's check says so
        return {host}
