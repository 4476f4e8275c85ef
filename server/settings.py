"""What only the gateway needs to know, read from the environment (`BRAID_GATEWAY_…`), validated at start-up."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from features.misspelt import tell_of_misspelt
from features.settings import Settings, host_and_port, variables


class GatewaySettings(BaseSettings):
    """Budgets and bounds of one gateway process. Variables are the field names in capitals behind `BRAID_GATEWAY_`."""

    model_config = SettingsConfigDict(
        env_prefix="BRAID_GATEWAY_", env_ignore_empty=True, frozen=True, extra="forbid", allow_inf_nan=False
    )

    feature_budget_ms: float = Field(
        default=250, gt=0, description="longest wait for the feature store, and for what a filter asks the database"
    )
    model_budget_ms: float = Field(default=500, gt=0, description="longest wait for Triton")
    write_budget_ms: float = Field(default=20_000, gt=0, description="longest wait for a commit")
    notice_s: float = Field(
        default=1, ge=0, description="how long calls are still taken after SIGTERM, once health has said so"
    )
    drain_s: float = Field(default=10, ge=0, description="how long calls under way may then finish")
    target_delay_ms: float = Field(
        default=100, gt=0, description="mean delay of a call by the others; calls that would make it longer are refused"
    )
    max_calls: int = Field(
        default=4_000, gt=0, le=1_000_000, description="calls in flight, of every kind, that memory is for"
    )
    max_streams: int = Field(
        default=1_000, gt=0, description="open streams of callers, and as many again that watch health"
    )
    max_connections: int = Field(default=4_000, gt=0, description="connections; more are closed at once")
    max_queued_events: int = Field(default=50_000, gt=0, description="events awaiting their commit")
    max_queued_answers: int = Field(default=5_000, gt=0, description="answers awaiting their record; more are dropped")
    answer_retention_days: float = Field(default=30, gt=0, description="recorded answers that are older are deleted")
    exploration_rate: float = Field(
        default=0.02, ge=0, le=1, description="share of pages that give a place to an item that has hardly been seen"
    )
    metrics_address: str = Field(default="", description="host:port of this process's counters over HTTP; empty: none")
    trace_address: str = Field(default="", description="host:port of an OTLP collector over gRPC; empty: no traces")
    trace_rate: float = Field(
        default=0.01, ge=0, le=1, description="share of calls that are traced where their caller does not say"
    )
    tls_certificate: Path | None = Field(default=None, description="PEM file: the certificate and its chain")
    tls_key: Path | None = Field(default=None, description="PEM file: the certificate's key, without a password")
    tls_client_ca: Path | None = Field(
        default=None, description="PEM file: only clients with a certificate of this authority are let in"
    )
    allow_plaintext: bool = Field(default=False, description="listen beyond loopback without TLS")
    allow_anonymous: bool = Field(default=False, description="listen beyond loopback while there is no API key")
    local_socket: Path | None = Field(
        default=None,
        description="unix socket that takes calls without TLS, one for each process, in a folder that is closed to "
        "others; default one in a temporary folder",
    )
    share_port: bool = Field(default=False, description="SO_REUSEPORT: several processes on one address")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="DEBUG has a line for every call"
    )

    @field_validator("metrics_address", "trace_address")
    @classmethod
    def _host_and_port(cls, address: str) -> str:
        return address and host_and_port(address)


def load_gateway_settings() -> GatewaySettings:
    """Settings from the environment; a variable whose name is misspelt is a warning in the log.

    Raises:
        SystemExit: a value is wrong; the message names the variable, one line each.
    """
    tell_of_misspelt([*variables(Settings), *variables(GatewaySettings)])
    try:
        return GatewaySettings()
    except ValidationError as error:
        lines = [f"BRAID_GATEWAY_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()]
        raise SystemExit("\n".join(lines)) from None
