"""TLS of the gateway's port: certificate, key and the authority behind its clients' certificates, as PEM files.

A certificate that is renewed on disk is taken in at the next handshake; connections that stand go on as they are.
"""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import grpc

from server.settings import GatewaySettings

LOG = logging.getLogger(__name__)

Stamp: TypeAlias = "list[tuple[int, int] | None]"


class TlsError(Exception):
    """TLS cannot be had with these files; the message names setting, file and reason."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What the settings name. With `client_ca`, a client without a certificate of that authority is not let in."""

    certificate: Path
    key: Path
    client_ca: Path | None

    @classmethod
    def of(cls, own: GatewaySettings) -> TlsFiles | None:
        """The files, or None where TLS is off.

        Raises:
            TlsError: only a part of them is named.
        """
        if own.tls_certificate is None and own.tls_key is None and own.tls_client_ca is None:
            return None
        for name, file in (("CERTIFICATE", own.tls_certificate), ("KEY", own.tls_key)):
            if file is None:
                raise TlsError(
                    f"BRAID_GATEWAY_TLS_{name} is missing; TLS needs BRAID_GATEWAY_TLS_CERTIFICATE and …_KEY"
                )
        assert own.tls_certificate is not None and own.tls_key is not None
        return cls(own.tls_certificate, own.tls_key, own.tls_client_ca)

    def credentials(self) -> grpc.ServerCredentials:
        """What gRPC serves with.

        Raises:
            TlsError: a file is missing, unreadable or no PEM, or the key is another certificate's.
        """
        renewals = Renewals(self)
        credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
            renewals.first,
            renewals,  # type: ignore[arg-type]  # may be None, as gRPC's own documentation says
            require_client_authentication=self.client_ca is not None,
        )
        return credentials

    def stamp(self) -> Stamp:
        """What changes with the files; None for one that cannot be looked at."""
        return [_stamp(file) for file in (self.certificate, self.key, self.client_ca) if file is not None]

    def read(self) -> grpc.ServerCertificateConfiguration:
        """What they hold now.

        Raises:
            TlsError: as `credentials`.
        """
        certificate = _bytes("CERTIFICATE", self.certificate)
        key = _bytes("KEY", self.key)
        authority = _bytes("CLIENT_CA", self.client_ca) if self.client_ca is not None else None
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate, self.key, password="")
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise TlsError(
                    f"BRAID_GATEWAY_TLS_KEY={self.key}: is not the key of the certificate {self.certificate}"
                ) from None
            raise TlsError(
                f"BRAID_GATEWAY_TLS_CERTIFICATE={self.certificate}, BRAID_GATEWAY_TLS_KEY={self.key}: not a "
                "certificate and its key as PEM without a password"
            ) from None
        except OSError as error:
            raise _unreadable("CERTIFICATE", self.certificate, error) from None
        if self.client_ca is not None:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(self.client_ca)
            except ssl.SSLError:
                raise TlsError(f"BRAID_GATEWAY_TLS_CLIENT_CA={self.client_ca}: holds no certificate as PEM") from None
            except OSError as error:
                raise _unreadable("CLIENT_CA", self.client_ca, error) from None
        configuration: grpc.ServerCertificateConfiguration = grpc.ssl_server_certificate_configuration(
            [(key, certificate)], root_certificates=authority
        )
        return configuration


class Renewals:
    """What gRPC asks at each handshake: the files anew once they have changed, and again until they can be read."""

    def __init__(self, files: TlsFiles) -> None:
        """Reads the files.

        Raises:
            TlsError: as `TlsFiles.credentials`.
        """
        self._files = files
        self._known = files.stamp()
        self._problem = ""
        self.first = files.read()

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        """What was renewed; None: nothing was, or it cannot be read yet, which is logged once."""
        stamp = self._files.stamp()  # before the reading: what changes meanwhile is read at the next handshake
        if stamp == self._known:
            return None
        try:
            found = self._files.read()
        except TlsError as error:
            if str(error) != self._problem:
                LOG.warning("TLS goes on with the certificate from before: %s", error)
            self._problem = str(error)
            return None
        self._known, self._problem = stamp, ""
        LOG.info("took in the renewed certificate %s", self._files.certificate)
        return found


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ctime_ns, found.st_ino


def _bytes(name: str, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise _unreadable(name, file, error) from None


def _unreadable(name: str, file: Path, error: OSError) -> TlsError:
    return TlsError(f"BRAID_GATEWAY_TLS_{name}={file}: cannot be read: {error.strerror}")
