"""Bring the control-plane database to the schema of this version (Alembic), one process at a time."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from pyiceberg.catalog.sql import SqlCatalogBaseTable
from sqlalchemy import Connection, text

from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.errors import ConfigurationError
from lakehouse.catalog.settings import Settings

# Not Alembic's default name: Dagster may keep its own storage, also migrated by Alembic, in the same database.
VERSION_TABLE = "lakehouse_schema_version"
_MIGRATION_LOCK = 0x6D6F7361  # any constant that nobody else uses for a PostgreSQL advisory lock


def open_database(settings: Settings) -> Database:
    """Connect to the database of the settings and bring it to this version; the caller closes it.

    Raises:
        ConfigurationError: If a setting is wrong or the database was written by a newer version.
        StorageError: If it cannot be reached.
    """
    database = Database(settings.database_url, settings.max_db_connections)
    try:
        migrate(database)
    except BaseException:
        database.close()
        raise
    return database


def migrate(database: Database) -> None:
    """Create or upgrade all tables, the Iceberg catalog's own two included.

    Raises:
        ConfigurationError: If the database was written by a newer version.
        StorageError: If it cannot be reached.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    script = ScriptDirectory.from_config(config)
    known = {revision.revision for revision in script.walk_revisions()}
    with database.transaction() as connection:
        if not database.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        current = _current_revision(connection)
        if current is not None and current not in known:
            raise ConfigurationError(
                f"the database schema is at revision {current!r}, which this version does not know: "
                "it was written by a newer version of the lakehouse; upgrade this installation"
            )
        if current != script.get_current_head():
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
        SqlCatalogBaseTable.metadata.create_all(connection)


def _current_revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()
