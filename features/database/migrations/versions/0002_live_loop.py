"""The live loop: who signed in during which session, what was answered, who was erased."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "sign_ins",
        sa.Column("session_id", sa.String(128), nullable=False),
        sa.Column("shopper", sa.String(130), nullable=False),
        sa.Column("through_ms", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("session_id"),
    )
    op.create_index("ix_sign_ins_shopper", "sign_ins", ["shopper"])
    op.create_index("ix_sign_ins_position", "sign_ins", ["position"])
    op.create_table(
        "answers",
        sa.Column("attribution_token", sa.String(64), nullable=False),
        sa.Column("answered_time_ms", sa.BigInteger(), nullable=False),
        sa.Column("shopper", sa.String(130), nullable=False),
        sa.Column("session_id", sa.String(128)),
        sa.Column("placement", sa.String(64), nullable=False),
        sa.Column("release", sa.Integer(), nullable=False),
        sa.Column("tier", sa.Integer(), nullable=False),
        sa.Column("item_ids", sa.JSON(), nullable=False),
        sa.Column("request", sa.JSON(), nullable=False),
        sa.Column("features", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("attribution_token"),
    )
    for column in ("answered_time_ms", "shopper", "session_id"):
        op.create_index(f"ix_answers_{column}", "answers", [column])
    op.create_table(
        "tombstones",
        sa.Column("shopper_hash", sa.String(64), nullable=False),
        sa.Column("erased_time_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("shopper_hash"),
    )
