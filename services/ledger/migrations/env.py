"""Alembic's way into the migrations: on the connection that it is given, or as SQL text when it is given a dialect's name."""

from alembic import context

given = context.config.attributes
if context.is_offline_mode():
    context.configure(dialect_name=given["dialect"], literal_binds=True, transactional_ddl=True)
else:
    # Whoever gave the connection has begun a transaction on it and ends it. Both stores undo tables, too.
    context.configure(connection=given["connection"], transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
