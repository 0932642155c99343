"""The relational schema of the control plane, on SQLite and PostgreSQL alike.

The Iceberg SQL catalog keeps its two tables (`iceberg_tables`, `iceberg_namespace_properties`) in the same database, so
that one transaction can move table pointers and these rows together.

Times are Unix nanoseconds. JSON is kept as text: it must come back value-identical, key order included.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from lakehouse.catalog.locators import MAX_NAME_LENGTH

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite gives automatic row ids only to INTEGER primary keys.
RowId = BigInteger().with_variant(Integer, "sqlite")
# Text that sorts by code point on every database.
CodePointText = Text(collation="C").with_variant(Text(), "sqlite")

sequences = Table(
    "sequences",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("name", String(MAX_NAME_LENGTH), nullable=False, unique=True),
    Column("user_metadata", Text, nullable=False),
    Column("created_at_ns", BigInteger, nullable=False, index=True),
    sqlite_autoincrement=True,
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("sequence_id", RowId, ForeignKey("sequences.id", ondelete="CASCADE"), nullable=False, index=True),
    # The capability to write; never shown again after creation.
    Column("uuid", String(36), nullable=False, unique=True),
    # The public identity used by clients of older generations in place of the locator.
    Column("public_uuid", String(36), nullable=False, unique=True),
    Column("ulid", String(26), nullable=False, unique=True),
    Column("state", String(16), nullable=False, index=True),
    Column("created_at_ns", BigInteger, nullable=False),
    Column("completed_at_ns", BigInteger),
    # Of a session that is kept from being committed.
    Column("quarantine_reason", Text),
    Column("quarantined_at_ns", BigInteger),
    sqlite_autoincrement=True,
)

topics = Table(
    "topics",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("sequence_id", RowId, ForeignKey("sequences.id", ondelete="CASCADE"), nullable=False),
    Column("session_id", RowId, ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("uuid", String(36), nullable=False, unique=True),
    Column("path", String(MAX_NAME_LENGTH), nullable=False),
    Column("ontology_tag", Text, nullable=False),
    Column("serialization_format", String(16), nullable=False),
    Column("user_metadata", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("created_at_ns", BigInteger, nullable=False),
    Column("completed_at_ns", BigInteger),
    # Known once the upload began: the exact Arrow schema (IPC bytes) and the Iceberg table ("namespace.table").
    Column("arrow_schema", LargeBinary),
    Column("table_identifier", Text),
    # Names the schema: equal schemas have equal digests. Empty before the upload began.
    Column("arrow_schema_digest", String(32), nullable=False, server_default=""),
    # Known once the upload ended.
    Column("row_count", BigInteger, nullable=False, server_default="0"),
    Column("total_bytes", BigInteger, nullable=False, server_default="0"),
    Column("chunk_count", BigInteger, nullable=False, server_default="0"),
    Column("start_ns", BigInteger),
    Column("end_ns", BigInteger),
    UniqueConstraint("sequence_id", "path"),
    Index("ix_topics_table_identifier", "table_identifier"),
    # Jumps from one table and schema of a tag to the next.
    Index("ix_topics_tag_table_schema", "ontology_tag", "table_identifier", "arrow_schema_digest"),
    Index("ix_topics_created_at_ns", "created_at_ns"),
    Index("ix_topics_path", "path"),
    sqlite_autoincrement=True,
)

# What queries look for in user metadata, in a form that one index serves: every distinct path once, and for each
# sequence and topic one row per value. Written with the metadata, in the same transaction (metadata_index.py).
metadata_paths = Table(
    "metadata_paths",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    # Object keys with dots between, array positions left out: `logs.id`.
    Column("key_path", CodePointText, nullable=False, index=True),
    # With array positions: `logs[3].id`.
    Column("path", CodePointText, nullable=False, unique=True),
    sqlite_autoincrement=True,
)


def _metadata_values(name: str, owner: str) -> Table:
    return Table(
        name,
        metadata,
        Column("owner_id", RowId, ForeignKey(f"{owner}.id", ondelete="CASCADE"), primary_key=True),
        Column("path_id", RowId, ForeignKey("metadata_paths.id"), primary_key=True),
        # See value_keys.py; null for what cannot be compared: null, arrays, objects.
        Column("value", LargeBinary),
        # Whether `value` is only the beginning.
        Column("is_cut", Boolean, nullable=False),
        Index(f"ix_{name}_path_id_value", "path_id", "value", "owner_id"),
    )


sequence_metadata = _metadata_values("sequence_metadata", "sequences")
topic_metadata = _metadata_values("topic_metadata", "topics")

# Data files of topics whose session is still open. Finalizing moves them into Iceberg manifests and removes the rows.
data_files = Table(
    "data_files",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("topic_id", RowId, ForeignKey("topics.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("ordinal", BigInteger, nullable=False),
    Column("entry", LargeBinary, nullable=False),
    UniqueConstraint("topic_id", "ordinal"),
    sqlite_autoincrement=True,
)

# What fails by the latest judgement of its sequence; see `lakehouse.catalog.failing_rules`.
failing_rules = Table(
    "failing_rules",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("sequence_id", RowId, ForeignKey("sequences.id", ondelete="CASCADE"), nullable=False, index=True),
    # Judged before its commit: of no interest when that session is gone.
    Column("session_id", RowId, ForeignKey("sessions.id", ondelete="CASCADE"), index=True),
    # Null for a rule about the sequence as a whole.
    Column("topic_id", RowId, ForeignKey("topics.id", ondelete="CASCADE"), index=True),
    Column("rule", Text, nullable=False),
    Column("contract", Text, nullable=False),
    Column("expected", Text, nullable=False),
    Column("observed", Text, nullable=False),
    # The first place where rows fail, both ends included.
    Column("start_ns", BigInteger),
    Column("end_ns", BigInteger),
    Column("since_ns", BigInteger, nullable=False),
    # When an operator committed the session in spite of it.
    Column("accepted_at_ns", BigInteger),
    sqlite_autoincrement=True,
)

# Deletions whose rows here are gone while tables of another catalog may not have followed yet.
pending_deletions = Table(
    "pending_deletions",
    metadata,
    Column("ticket", String(36), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("name", Text, nullable=False),
    Column("sequence", String(MAX_NAME_LENGTH), nullable=False, index=True),
    # Identifiers of the tables that hold, or held, its rows: a JSON array.
    Column("tables", Text, nullable=False),
    Column("created_at_ns", BigInteger, nullable=False),
)

notifications = Table(
    "notifications",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("sequence_id", RowId, ForeignKey("sequences.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("topic_id", RowId, ForeignKey("topics.id", ondelete="CASCADE"), index=True),
    Column("notification_type", String(16), nullable=False),
    Column("message", Text, nullable=False),
    Column("created_at_ns", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("at_ns", BigInteger, nullable=False, index=True),
    Column("operation", String(64), nullable=False),
    Column("resource", Text, nullable=False),
    # See `lakehouse.catalog.actor.Actor`.
    Column("actor", Text, nullable=False),
    Column("details", Text, nullable=False, server_default="{}"),
    Column("door", Text, nullable=False, server_default=""),
    Column("origin", Text, nullable=False, server_default=""),
    sqlite_autoincrement=True,
)

# One row: how far the audit log is published, and, while a purge runs, which entries the triggers let go.
audit_publication = Table(
    "audit_publication",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("published_through", BigInteger, nullable=False),
    Column("purge_before_ns", BigInteger, nullable=False),
)

# Who may call the gateway. The secret of a key is nowhere: only its salted hash.
api_keys = Table(
    "api_keys",
    metadata,
    Column("fingerprint", String(8), primary_key=True),
    Column("salt", LargeBinary, nullable=False),
    Column("payload_hash", LargeBinary, nullable=False),
    Column("permissions", String(64), nullable=False),
    Column("description", Text, nullable=False),
    Column("created_at_ns", BigInteger, nullable=False),
    Column("expires_at_ns", BigInteger),
)

# Named leases: one owner at a time for work that must not run twice, taken over when the owner stops renewing.
leases = Table(
    "leases",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("expires_at_ns", BigInteger, nullable=False),
)

# Files that no snapshot, topic or upload refers to any more, waiting for their retention to end.
orphan_files = Table(
    "orphan_files",
    metadata,
    Column("path", Text, primary_key=True),
    Column("marked_at_ns", BigInteger, nullable=False),
)
