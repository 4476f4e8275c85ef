"""Placement rules; and what was shown to a shopper since a moment is found along an index."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "placement_rules",
        sa.Column("rule_id", sa.String(128), nullable=False),
        sa.Column("placement", sa.String(64), nullable=False),
        sa.Column("action", sa.String(8), nullable=False),
        sa.Column("items", sa.JSON(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("amount", sa.Double(), nullable=False),
        sa.Column("start_time_ms", sa.BigInteger()),
        sa.Column("end_time_ms", sa.BigInteger()),
        sa.PrimaryKeyConstraint("rule_id"),
    )
    for column, name in (("shopper", "answers_by_shopper"), ("session_id", "answers_by_session")):
        op.drop_index(f"ix_answers_{column}", "answers")
        op.create_index(name, "answers", [column, "answered_time_ms"])


def downgrade() -> None:
    op.drop_table("placement_rules")
    for column, name in (("shopper", "answers_by_shopper"), ("session_id", "answers_by_session")):
        op.drop_index(name, "answers")
        op.create_index(f"ix_answers_{column}", "answers", [column])
