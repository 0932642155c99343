"""Sessions that are kept from being committed, with the reason"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sessions", sa.Column("quarantine_reason", sa.Text))
    op.add_column("sessions", sa.Column("quarantined_at_ns", sa.BigInteger))


def downgrade() -> None:
    op.drop_column("sessions", "quarantined_at_ns")
    op.drop_column("sessions", "quarantine_reason")
