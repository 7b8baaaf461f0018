"""What Alembic runs for each migration: one transaction a revision, on the connection it was given."""

from alembic import context

from shared import models_access, models_customers  # noqa: F401 - their tables join the others' metadata
from shared.models import Table

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Table.metadata,
    transaction_per_migration=True,
    compare_server_default=False,
)
with context.begin_transaction():
    context.run_migrations()
connection.commit()
