"""Deletions that are still to reach the tables of another catalog"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "pending_deletions",
        sa.Column("ticket", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("sequence", sa.String(length=1024), nullable=False),
        sa.Column("tables", sa.Text, nullable=False),
        sa.Column("created_at_ns", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("ticket", name=op.f("pk_pending_deletions")),
    )
    op.create_index(op.f("ix_pending_deletions_sequence"), "pending_deletions", ["sequence"])


def downgrade() -> None:
    op.drop_table("pending_deletions")
