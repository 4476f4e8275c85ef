"""TLS of the gateway's port: certificate, key and the authority behind its clients' certificates, as PEM files.

A certificate that is renewed on disk is taken in at the next handshake; connections that stand go on as they are.
"""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from server.settings import GatewaySettings

LOG = logging.getLogger(__name__)


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
        known = self._stamp()
        configuration = self._read()

        def renewed() -> grpc.ServerCertificateConfiguration | None:  # gRPC asks at each handshake; None: no change
            nonlocal known
            stamp = self._stamp()
            if stamp == known:
                return None
            known = stamp
            try:
                found = self._read()
            except TlsError as error:
                LOG.warning("TLS goes on with the certificate from before: %s", error)
                return None
            LOG.info("took in the renewed certificate %s", self.certificate)
            return found

        credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
            configuration,
            renewed,  # type: ignore[arg-type]  # may be None, as gRPC's own documentation says
            require_client_authentication=self.client_ca is not None,
        )
        return credentials

    def _stamp(self) -> list[tuple[int, int] | None]:
        return [_stamp(file) for file in (self.certificate, self.key, self.client_ca) if file is not None]

    def _read(self) -> grpc.ServerCertificateConfiguration:
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
        if self.client_ca is not None:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(self.client_ca)
            except ssl.SSLError:
                raise TlsError(f"BRAID_GATEWAY_TLS_CLIENT_CA={self.client_ca}: holds no certificate as PEM") from None
        configuration: grpc.ServerCertificateConfiguration = grpc.ssl_server_certificate_configuration(
            [(key, certificate)], root_certificates=authority
        )
        return configuration


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


def _bytes(name: str, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise TlsError(f"BRAID_GATEWAY_TLS_{name}={file}: cannot be read: {error.strerror}") from None
