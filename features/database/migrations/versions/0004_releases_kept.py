"""Releases that are held ready beside the live one."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("releases", sa.Column("kept", sa.Boolean(), nullable=False, server_default=sa.false()))
