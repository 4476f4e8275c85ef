"""Where a gateway may listen: on loopback as it is, elsewhere with TLS and known callers, or by an express setting."""

from __future__ import annotations

import ipaddress

from server.settings import GatewaySettings


class Exposed(Exception):
    """The gateway would be open to others; the message names the settings that change it."""


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches an address of gRPC's; a name other than `localhost` may be anything."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(address: str, own: GatewaySettings, *, any_key: bool) -> None:
    """Compares the address with what protects it.

    Raises:
        Exposed: others would read along, or could call without a key.
    """
    if is_loopback(address):
        return
    if own.tls_certificate is None and not own.allow_plaintext:
        raise Exposed(
            f"BRAID_GATEWAY_ADDRESS={address} is not loopback and there is no TLS: set BRAID_GATEWAY_TLS_CERTIFICATE "
            "and BRAID_GATEWAY_TLS_KEY, or BRAID_GATEWAY_ALLOW_PLAINTEXT=true where nobody else is on the network"
        )
    if not any_key and own.tls_client_ca is None and not own.allow_anonymous:
        raise Exposed(
            f"BRAID_GATEWAY_ADDRESS={address} is not loopback and no API key exists: make one with `python -m server "
            "keys create`, set BRAID_GATEWAY_TLS_CLIENT_CA, or BRAID_GATEWAY_ALLOW_ANONYMOUS=true to let everybody call"
        )
