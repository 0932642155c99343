"""Which rules of data contracts fail now. Filled as sequences are judged, all of them within a night"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_ROW_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "failing_rules",
        sa.Column("id", _ROW_ID, autoincrement=True, nullable=False),
        sa.Column("sequence_id", _ROW_ID, nullable=False),
        sa.Column("session_id", _ROW_ID),
        sa.Column("topic_id", _ROW_ID),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("contract", sa.Text, nullable=False),
        sa.Column("expected", sa.Text, nullable=False),
        sa.Column("observed", sa.Text, nullable=False),
        sa.Column("start_ns", sa.BigInteger),
        sa.Column("end_ns", sa.BigInteger),
        sa.Column("since_ns", sa.BigInteger, nullable=False),
        sa.Column("accepted_at_ns", sa.BigInteger),
        *(
            sa.ForeignKeyConstraint(
                [f"{owner}_id"],
                [f"{owner}s.id"],
                name=op.f(f"fk_failing_rules_{owner}_id_{owner}s"),
                ondelete="CASCADE",
            )
            for owner in ("sequence", "session", "topic")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_failing_rules")),
        sqlite_autoincrement=True,
    )
    for owner in ("sequence", "session", "topic"):
        op.create_index(op.f(f"ix_failing_rules_{owner}_id"), "failing_rules", [f"{owner}_id"])


def downgrade() -> None:
    op.drop_table("failing_rules")
