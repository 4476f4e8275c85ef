"""What the gateway needs before anything is started: settings that it will take, and addresses of its own."""

from __future__ import annotations

from deploy.embedded import checks
from features.settings import Settings
from server.access.exposure import Exposed, check_exposure
from server.access.tls import TlsError, TlsFiles
from server.settings import GatewaySettings, load_gateway_settings

Door = tuple[str, int]


def requirements(settings: Settings) -> list[checks.Check]:
    """What the gateway needs of this machine.

    Raises:
        SystemExit: it would not start with these settings; a line for each that is wrong.
    """
    own = load_gateway_settings()
    mine = doors(settings, own)
    try:
        check_exposure(settings.gateway_address, own, any_key=True)  # the gateway itself sees which keys there are
        if (tls := TlsFiles.of(own)) is not None:
            tls.credentials()
    except (Exposed, TlsError) as error:
        raise SystemExit(str(error)) from None
    return [
        *(
            checks.port("gateway" if variable == "BRAID_GATEWAY_ADDRESS" else "counters", f"{host}:{number}", variable)
            for variable, (host, number) in mine.items()
        ),
    ]


def doors(settings: Settings, own: GatewaySettings) -> dict[str, Door]:
    """Host and port of what the gateway listens on, by the variable.

    Raises:
        SystemExit: an address cannot be read.
    """
    addresses = {"BRAID_GATEWAY_ADDRESS": settings.gateway_address}
    if own.metrics_address:
        addresses["BRAID_GATEWAY_METRICS_ADDRESS"] = own.metrics_address
    return {variable: checks.door(variable, address, "127.0.0.1:50051") for variable, address in addresses.items()}
