"""Schemas of topics by tag and table; indexes on creation times and open sessions"""

import hashlib

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_ROWS_AT_ONCE = 500


def upgrade() -> None:
    op.add_column("topics", sa.Column("arrow_schema_digest", sa.String(length=32), nullable=False, server_default=""))
    _fill()
    op.create_index("ix_topics_tag_table_schema", "topics", ["ontology_tag", "table_identifier", "arrow_schema_digest"])
    op.drop_index("ix_topics_ontology_tag", "topics")
    op.create_index("ix_topics_created_at_ns", "topics", ["created_at_ns"])
    op.create_index(op.f("ix_sequences_created_at_ns"), "sequences", ["created_at_ns"])
    op.create_index(op.f("ix_sessions_state"), "sessions", ["state"])


def _fill() -> None:
    connection = op.get_bind()
    columns = (sa.column("id", sa.BigInteger), sa.column("arrow_schema", sa.LargeBinary))
    topics = sa.table("topics", *columns, sa.column("arrow_schema_digest", sa.String))
    change = (
        sa.update(topics)
        .where(topics.c.id == sa.bindparam("topic_id"))
        .values(arrow_schema_digest=sa.bindparam("digest"))
    )
    last = 0
    while rows := connection.execute(
        sa.select(topics.c.id, topics.c.arrow_schema)
        .where(topics.c.id > last, topics.c.arrow_schema.is_not(None))
        .order_by(topics.c.id)
        .limit(_ROWS_AT_ONCE)
    ).all():
        digests = [
            {"topic_id": row.id, "digest": hashlib.sha256(bytes(row.arrow_schema)).hexdigest()[:32]} for row in rows
        ]
        connection.execute(change, digests)
        last = rows[-1].id


def downgrade() -> None:
    op.drop_index(op.f("ix_sessions_state"), "sessions")
    op.drop_index(op.f("ix_sequences_created_at_ns"), "sequences")
    op.drop_index("ix_topics_created_at_ns", "topics")
    op.create_index("ix_topics_ontology_tag", "topics", ["ontology_tag"])
    op.drop_index("ix_topics_tag_table_schema", "topics")
    op.drop_column("topics", "arrow_schema_digest")
