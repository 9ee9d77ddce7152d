"""Alembic's entry: runs on the connection that `storage.sql.schema` gives."""

from alembic import context

from registry_service.storage.sql.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
