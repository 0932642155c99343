"""Alembic's entry: always runs on the connection it is handed, in that connection's transaction."""

from alembic import context

from lakehouse.catalog.control_plane.migrate import VERSION_TABLE
from lakehouse.catalog.control_plane.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
)
context.run_migrations()
