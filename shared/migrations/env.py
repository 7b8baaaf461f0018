"""What Alembic runs for each migration: one transaction a revision, on the connection it was given."""

import importlib
import pkgutil

from alembic import context

import shared
from shared.models import Table

for module in pkgutil.iter_modules(shared.__path__):
    if module.name.startswith("models_"):
        importlib.import_module(f"shared.{module.name}")  # its tables join the others' metadata

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
