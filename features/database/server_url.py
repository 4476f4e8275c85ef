"""How the shop's database is reached: by which driver, and how soon a server that has vanished is given up."""

from __future__ import annotations

from sqlalchemy import URL, make_url

PATIENCE = {
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
"""Of libpq. A host that goes without a word, as in a failover, is given up after ten seconds; by itself Linux waits for
two minutes for a connection, for a quarter of an hour for what was sent, and for two hours where nothing was."""


def sqlalchemy_url(url: str) -> str:
    """A shop's `log_url` for SQLAlchemy; what it says of `PATIENCE` itself stays.

    Raises:
        ArgumentError, ValueError: it cannot be read.
    """
    found = make_url(url.replace("postgresql://", "postgresql+psycopg://", 1))
    if found.get_backend_name() != "postgresql":
        return url
    return found.set(query=PATIENCE | dict(found.query)).render_as_string(hide_password=False)


def without_secrets(url: str | URL) -> str:
    """A URL as it is told: its password hidden; its options, which may hold one as well (`?password=…`), left out."""
    return make_url(url).set(query={}).render_as_string()
