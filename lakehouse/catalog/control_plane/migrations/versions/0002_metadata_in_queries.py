"""What queries look for in user metadata, as indexed rows; indexes on names and tags"""

import json
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic import op

from lakehouse.catalog.control_plane.metadata_index import index_sequence_metadata, index_topic_metadata

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ROWS_AT_ONCE = 500


def upgrade() -> None:
    row_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    by_code_point = sa.Text(collation="C").with_variant(sa.Text(), "sqlite")
    op.create_table(
        "metadata_paths",
        sa.Column("id", row_id, autoincrement=True, nullable=False),
        sa.Column("key_path", by_code_point, nullable=False),
        sa.Column("path", by_code_point, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_metadata_paths")),
        sa.UniqueConstraint("path", name=op.f("uq_metadata_paths_path")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_metadata_paths_key_path"), "metadata_paths", ["key_path"])
    for name, owner in (("sequence_metadata", "sequences"), ("topic_metadata", "topics")):
        op.create_table(
            name,
            sa.Column("owner_id", row_id, nullable=False),
            sa.Column("path_id", row_id, nullable=False),
            sa.Column("value", sa.LargeBinary(), nullable=True),
            sa.Column("is_cut", sa.Boolean(), nullable=False),
            sa.ForeignKeyConstraint(
                ["owner_id"], [f"{owner}.id"], name=op.f(f"fk_{name}_owner_id_{owner}"), ondelete="CASCADE"
            ),
            sa.ForeignKeyConstraint(["path_id"], ["metadata_paths.id"], name=op.f(f"fk_{name}_path_id_metadata_paths")),
            sa.PrimaryKeyConstraint("owner_id", "path_id", name=op.f(f"pk_{name}")),
        )
        op.create_index(f"ix_{name}_path_id_value", name, ["path_id", "value", "owner_id"])
    op.create_index("ix_topics_ontology_tag", "topics", ["ontology_tag"])
    op.create_index("ix_topics_path", "topics", ["path"])
    if op.get_bind().dialect.name == "postgresql":
        # The indexes above sort by the database's own collation, prefixes are looked for by code point.
        op.create_index("ix_sequences_name_c", "sequences", [sa.text('name COLLATE "C"')])
        op.create_index("ix_topics_path_c", "topics", [sa.text('path COLLATE "C"')])
    _fill("sequences", index_sequence_metadata)
    _fill("topics", index_topic_metadata)


def _fill(owner: str, index: Callable[[sa.Connection, int, dict[str, Any]], None]) -> None:
    connection = op.get_bind()
    table = sa.table(owner, sa.column("id", sa.BigInteger), sa.column("user_metadata", sa.Text))
    last = 0
    while rows := connection.execute(
        sa.select(table).where(table.c.id > last).order_by(table.c.id).limit(_ROWS_AT_ONCE)
    ).all():
        for row in rows:
            index(connection, row.id, json.loads(row.user_metadata))
        last = rows[-1].id


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.drop_index("ix_topics_path_c", "topics")
        op.drop_index("ix_sequences_name_c", "sequences")
    op.drop_index("ix_topics_path", "topics")
    op.drop_index("ix_topics_ontology_tag", "topics")
    for name in ("topic_metadata", "sequence_metadata"):
        op.drop_table(name)
    op.drop_table("metadata_paths")
