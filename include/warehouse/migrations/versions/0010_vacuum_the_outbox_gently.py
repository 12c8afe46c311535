"""Let autovacuum take its time on the outbox and its attempts.

On a day that fills much of them it would begin again with every fifth payout, at a third of a
processor each time.
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TABLES = ("transaction", "attempt_item")


def upgrade() -> None:
    for table in TABLES:
        op.execute(f"ALTER TABLE wallet.{table} SET (autovacuum_vacuum_cost_delay = 20)")


def downgrade() -> None:
    for table in TABLES:
        op.execute(f"ALTER TABLE wallet.{table} RESET (autovacuum_vacuum_cost_delay)")
