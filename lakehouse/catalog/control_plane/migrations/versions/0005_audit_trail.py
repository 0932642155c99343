"""Audit log: through which door and from where; append-only by the database's own triggers

A later migration that rebuilds `audit_log` (batch mode on SQLite) has to create the triggers again.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_MAY_GO = (
    "EXISTS (SELECT 1 FROM audit_publication"
    " WHERE OLD.at_ns < audit_publication.purge_before_ns AND OLD.id <= audit_publication.published_through)"
)
_TEXT = "the audit log is append-only"


def upgrade() -> None:
    op.add_column("audit_log", sa.Column("door", sa.Text(), nullable=False, server_default=""))
    op.add_column("audit_log", sa.Column("origin", sa.Text(), nullable=False, server_default=""))
    publication = op.create_table(
        "audit_publication",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("published_through", sa.BigInteger(), nullable=False),
        sa.Column("purge_before_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_publication")),
    )
    op.bulk_insert(publication, [{"id": 1, "published_through": 0, "purge_before_ns": 0}])
    for statement in _triggers(op.get_bind().dialect.name):
        op.execute(statement)


def _triggers(dialect: str) -> list[str]:
    if dialect == "sqlite":
        return [
            f"CREATE TRIGGER audit_log_no_update BEFORE UPDATE ON audit_log BEGIN SELECT RAISE(ABORT, '{_TEXT}'); END",
            f"CREATE TRIGGER audit_log_no_delete BEFORE DELETE ON audit_log WHEN NOT {_MAY_GO}"
            f" BEGIN SELECT RAISE(ABORT, '{_TEXT}'); END",
        ]
    return [
        "CREATE FUNCTION audit_log_refuse() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN RAISE EXCEPTION '{_TEXT}'; END $$",
        "CREATE FUNCTION audit_log_retain() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF NOT {_MAY_GO} THEN RAISE EXCEPTION '{_TEXT}'; END IF; RETURN OLD; END $$",
        "CREATE TRIGGER audit_log_no_update BEFORE UPDATE ON audit_log"
        " FOR EACH ROW EXECUTE FUNCTION audit_log_refuse()",
        "CREATE TRIGGER audit_log_no_delete BEFORE DELETE ON audit_log"
        " FOR EACH ROW EXECUTE FUNCTION audit_log_retain()",
        "CREATE TRIGGER audit_log_no_truncate BEFORE TRUNCATE ON audit_log"
        " FOR EACH STATEMENT EXECUTE FUNCTION audit_log_refuse()",
    ]


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER audit_log_no_update")
        op.execute("DROP TRIGGER audit_log_no_delete")
    else:
        for trigger in ("no_update", "no_delete", "no_truncate"):
            op.execute(f"DROP TRIGGER audit_log_{trigger} ON audit_log")
        op.execute("DROP FUNCTION audit_log_refuse()")
        op.execute("DROP FUNCTION audit_log_retain()")
    op.drop_table("audit_publication")
    op.drop_column("audit_log", "origin")
    op.drop_column("audit_log", "door")
