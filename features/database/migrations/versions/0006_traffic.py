"""Traffic: splits, their changes, a shadow's figures; and an answer says which experiment and arm it belongs to."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "traffic_splits",
        sa.Column("placement", sa.String(64), nullable=False),
        sa.Column("experiment", sa.String(64), nullable=False),
        sa.Column("arms", sa.JSON(), nullable=False),
        sa.Column("canary", sa.JSON()),
        sa.Column("shadow", sa.Integer()),
        sa.Column("stage", sa.BigInteger(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("stage_since_ms", sa.BigInteger(), nullable=False),
        sa.Column("since_ms", sa.BigInteger(), nullable=False),
        sa.Column("start_position", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("placement"),
        sa.UniqueConstraint("experiment"),
    )
    op.create_table(
        "traffic_changes",
        sa.Column("stage", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("placement", sa.String(64), nullable=False),
        sa.Column("experiment", sa.String(64), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("arms", sa.JSON(), nullable=False),
        sa.Column("shadow", sa.Integer()),
        sa.Column("changed_time_ms", sa.BigInteger(), nullable=False),
        sa.Column("who", sa.String(128), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("stage"),
    )
    op.create_index("ix_traffic_changes_experiment", "traffic_changes", ["experiment"])
    counts = ("compared", "failed", "dropped", "correlated", "scored")
    sums = ("overlap", "correlation", "score_difference", "release_ms", "shadow_ms")
    op.create_table(
        "shadow_statistics",
        sa.Column("experiment", sa.String(64), nullable=False),
        sa.Column("shadow", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("release", sa.Integer(), nullable=False, autoincrement=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in counts),
        *(sa.Column(name, sa.Double(), nullable=False) for name in sums),
        sa.PrimaryKeyConstraint("experiment", "shadow", "release"),
    )
    op.add_column("answers", sa.Column("experiment", sa.String(64)))
    op.add_column("answers", sa.Column("stage", sa.BigInteger()))
    op.add_column("answers", sa.Column("arm", sa.Integer()))
    op.add_column("answers", sa.Column("model_failed", sa.Boolean()))
    op.add_column("answers", sa.Column("latency_ms", sa.Double()))
    in_an_experiment = sa.text("experiment IS NOT NULL")
    op.create_index(
        "answers_by_experiment",
        "answers",
        ["experiment", "answered_time_ms"],
        sqlite_where=in_an_experiment,
        postgresql_where=in_an_experiment,
    )


def downgrade() -> None:
    op.drop_index("answers_by_experiment", "answers")
    for column in ("experiment", "stage", "arm", "model_failed", "latency_ms"):
        op.drop_column("answers", column)
    for table in ("shadow_statistics", "traffic_changes", "traffic_splits"):
        op.drop_table(table)
