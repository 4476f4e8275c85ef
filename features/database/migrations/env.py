"""Alembic's entry: runs the migrations on the connection that `features.database.engine.migrate` hands over.

SQLite would give each table a transaction of its own and let two processes that start together collide, so the whole
migration runs under the write lock; a database that is up to date is left without taking it.
"""

from alembic import context
from alembic.runtime.migration import MigrationContext

from features.database.models import Base

connection = context.config.attributes["connection"]


def current() -> bool:
    """Whether the database has this version's tables."""
    return MigrationContext.configure(connection).get_current_revision() == context.get_head_revision()


if not current():
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
    context.run_migrations()
