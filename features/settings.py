"""Where a Braid shop lives and which stores it uses; read from the environment (`BRAID_…`) once, validated.

The defaults are the embedded profile: everything under `var/` in this checkout, SQLite and Parquet, loopback.
"""

from __future__ import annotations

import os
import re
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from features.misspelt import tell_of_misspelt

ROOT = Path(__file__).resolve().parent.parent
LEAST_KEY_CHARS = 32
MAX_PORT = 65535


class Settings(BaseSettings):
    """One shop. Environment variables are the field names in capitals behind `BRAID_`."""

    model_config = SettingsConfigDict(env_prefix="BRAID_", env_ignore_empty=True, frozen=True, extra="forbid")

    home: Path = Field(default=ROOT / "var", description="folder of the databases, Parquet files, logs and sockets")
    database_url: str = Field(default="", description="SQLAlchemy URL of log and catalogue; default SQLite in home")
    online_store: Literal["sqlite", "redis"] = "sqlite"
    redis_url: str = Field(default="localhost:6379", description="Feast's connection string: host:port[,option=…]")
    model_repository: Path = Field(default=ROOT / "model_repository", description="what Triton serves")
    gateway_address: str = "127.0.0.1:50051"
    triton_address: str = Field(default="127.0.0.1:8001", description="Triton's gRPC endpoint")

    erasure_key: SecretStr = Field(
        default=SecretStr(""), description="secret behind the hashes of erased persons; default a file in home"
    )

    @field_validator("database_url")
    @classmethod
    def _sqlite_or_postgresql(cls, url: str) -> str:
        if url and not re.match(r"postgresql(\+psycopg)?://|sqlite(\+pysqlite)?:///(?!:memory:).", url):
            raise ValueError(
                "is no URL of a SQLite file or of PostgreSQL such as sqlite:////srv/braid/braid.db or "
                "postgresql://user@host/braid; correct it, or unset it for SQLite in BRAID_HOME"
            )
        return url

    @field_validator("home", "model_repository")
    @classmethod
    def _can_be_a_folder(cls, path: Path) -> Path:
        nearest = next((parent for parent in [path, *path.parents] if os.path.exists(parent)), path)
        if os.path.exists(nearest) and not os.path.isdir(nearest):
            raise ValueError(f"{nearest} is a file; name a folder")
        return path

    @field_validator("redis_url")
    @classmethod
    def _host_and_port(cls, url: str) -> str:
        if not re.match(r"[^:,\s]+:\d+(,|$)", url):
            raise ValueError("is not host:port, with options behind commas, such as redis.internal:6379,ssl=true")
        return url

    @field_validator("gateway_address", "triton_address")
    @classmethod
    def _address(cls, address: str) -> str:
        return host_and_port(address)

    @field_validator("erasure_key")
    @classmethod
    def _long_enough(cls, key: SecretStr) -> SecretStr:
        if 0 < len(key.get_secret_value()) < LEAST_KEY_CHARS:
            raise ValueError(f"has fewer than {LEAST_KEY_CHARS} characters; make one with: openssl rand -hex 32")
        return key

    @cached_property
    def log_url(self) -> str:
        """The SQLAlchemy URL in force."""
        return self.database_url or f"sqlite:///{self.home / 'braid.db'}"

    @property
    def offline(self) -> Path:
        """Folder of the Parquet files that `features build` writes."""
        return self.home / "offline"

    @property
    def generated(self) -> Path:
        """Folder of the `vN.json` files that training writes, one for each release."""
        return self.home / "generated"

    @property
    def logs(self) -> Path:
        """The one place of every process's log."""
        return self.home / "logs"


def host_and_port(address: str) -> str:
    """The address, where it is one.

    Raises:
        ValueError: it is no host with a port. gRPC takes 127.0.0.1:99999, and listens at 34463.
    """
    if not re.fullmatch(r"\S+:\d+", address):
        raise ValueError("is not host:port, such as 127.0.0.1:9464; correct it, or unset it")
    if int(address.rpartition(":")[2]) > MAX_PORT:
        raise ValueError(f"has a port above {MAX_PORT}; correct it, or unset it")
    return address


def variables(settings: type[BaseSettings]) -> list[str]:
    """Names of the variables that a class of settings reads."""
    return [f"{settings.model_config['env_prefix']}{name}".upper() for name in settings.model_fields]


def load_settings() -> Settings:
    """Settings from the environment; a variable whose name is misspelt is a warning in the log.

    Raises:
        SystemExit: a value is wrong; the message names the variable, one line each.
    """
    tell_of_misspelt(variables(Settings), leave="BRAID_GATEWAY_")
    try:
        return Settings()
    except ValidationError as error:
        lines = [f"BRAID_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()]
        raise SystemExit("\n".join(lines)) from None
