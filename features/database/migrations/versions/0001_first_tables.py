"""The first tables: event log, catalogue, users, item statistics, counters, releases."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

position = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _event_log()
    _catalogue_and_users()
    _releases()


def _event_log() -> None:
    op.create_table(
        "events",
        sa.Column("position", position, autoincrement=True, nullable=False),
        sa.Column("event_id", sa.String(128), nullable=False),
        sa.Column("shopper", sa.String(130), nullable=False),
        sa.Column("session_id", sa.String(128)),
        sa.Column("item_id", sa.String(128)),
        sa.Column("event_type", sa.Integer(), nullable=False),
        sa.Column("event_time_ms", sa.BigInteger(), nullable=False),
        sa.Column("arrival_time_ms", sa.BigInteger(), nullable=False),
        sa.Column("order_id", sa.String(128)),
        sa.Column("quantity", sa.Double()),
        sa.Column("price", sa.Double()),
        sa.Column("query", sa.Text()),
        sa.Column("attribution_token", sa.String(256)),
        sa.PrimaryKeyConstraint("position"),
        sa.UniqueConstraint("event_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("events_by_shopper", "events", ["shopper", "event_time_ms", "position"])
    op.create_table(
        "counters",
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )


def _catalogue_and_users() -> None:
    op.create_table(
        "items",
        sa.Column("item_id", sa.String(128), nullable=False),
        sa.Column("title", sa.Text()),
        sa.Column("category_path", sa.JSON(), nullable=False),
        sa.Column("brand", sa.String(1000)),
        sa.Column("price", sa.Double()),
        sa.Column("stock", sa.BigInteger()),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.Column("variant_group", sa.String(128)),
        sa.Column("age_restricted", sa.Boolean(), nullable=False),
        sa.Column("launch_time_ms", sa.BigInteger()),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("item_id"),
    )
    op.create_index("ix_items_revision", "items", ["revision"])
    op.create_table(
        "users",
        sa.Column("user_id", sa.String(128), nullable=False),
        sa.Column("age", sa.Integer()),
        sa.Column("gender", sa.String(64)),
        sa.Column("country", sa.String(64)),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.Column("updated_time_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user_id"),
    )
    op.create_index("ix_users_updated_time_ms", "users", ["updated_time_ms"])
    op.create_table(
        "item_statistics",
        sa.Column("item_id", sa.String(128), nullable=False),
        sa.Column("segment", sa.String(128), nullable=False),
        sa.Column("views", sa.BigInteger(), nullable=False),
        sa.Column("carts", sa.BigInteger(), nullable=False),
        sa.Column("purchases", sa.BigInteger(), nullable=False),
        sa.Column("popularity", sa.Double(), nullable=False),
        sa.Column("computed_time_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("item_id", "segment"),
    )


def _releases() -> None:
    op.create_table(
        "releases",
        sa.Column("release", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("manifest", sa.JSON(), nullable=False),
        sa.Column("created_time_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("release"),
    )
    op.create_table(
        "release_changes",
        sa.Column("change", position, autoincrement=True, nullable=False),
        sa.Column("release", sa.Integer(), nullable=False),
        sa.Column("from_state", sa.String(16)),
        sa.Column("to_state", sa.String(16), nullable=False),
        sa.Column("changed_time_ms", sa.BigInteger(), nullable=False),
        sa.Column("who", sa.String(128), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("change"),
    )


def downgrade() -> None:
    for table in ("release_changes", "releases", "counters", "item_statistics", "users", "items", "events"):
        op.drop_table(table)
