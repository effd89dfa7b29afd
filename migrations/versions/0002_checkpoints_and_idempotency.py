"""Checkpoints, idempotency keys, dispatch times, waits and limits of jobs; 64-bit integers."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

JSON = sa.JSON().with_variant(JSONB(), "postgresql")
BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
ZERO = sa.text("0")
BIGGER = (("artifacts", "bytes"), ("datasets", "bytes"), ("workers", "pid_start"))
revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "checkpoints",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("manifest_sha256", sa.String(length=64), nullable=False),
        sa.Column("bytes", BIG, nullable=False),
        sa.Column("bad", sa.Boolean(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("fk_checkpoints_job_id_jobs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "attempt", "step", name=op.f("pk_checkpoints")),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("api_key_id", sa.Uuid(), nullable=False),
        sa.Column("route", sa.String(length=255), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("body_sha256", sa.String(length=64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("location", sa.String(length=255), nullable=True),
        sa.Column("answer", JSON, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["api_key_id"], ["api_keys.id"], name=op.f("fk_idempotency_keys_api_key_id_api_keys")
        ),
        sa.PrimaryKeyConstraint("api_key_id", "route", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])
    op.drop_index("ix_jobs_queue", "jobs")  # a copied table would lose its order
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("time_limit_seconds", sa.Double(), nullable=True))
        jobs.add_column(
            sa.Column("running_seconds", sa.Double(), server_default=ZERO, nullable=False)
        )
        jobs.add_column(sa.Column("waiting_since", sa.Double(), nullable=True))
        jobs.add_column(sa.Column("waiting_code", sa.String(length=64), nullable=True))
        jobs.add_column(sa.Column("waiting_message", sa.Text(), nullable=True))
        jobs.add_column(
            sa.Column("resume_exact", sa.Boolean(), server_default=sa.true(), nullable=False)
        )
        jobs.add_column(sa.Column("dispatched_at", sa.Double(), nullable=True))
        jobs.add_column(
            sa.Column("dispatch_count", sa.Integer(), server_default=ZERO, nullable=False)
        )
        jobs.drop_constraint(op.f("ck_jobs_lane"), type_="check")
        jobs.create_check_constraint(op.f("ck_jobs_lane"), "lane IN ('cpu', 'gpu', 'any')")
    _index_queue()
    with op.batch_alter_table("attempts") as attempts:
        attempts.add_column(sa.Column("device", sa.String(length=16), nullable=True))
        attempts.add_column(
            sa.Column("first_step", sa.Integer(), server_default=ZERO, nullable=False)
        )
    with op.batch_alter_table("workers") as workers:
        workers.add_column(
            sa.Column("devices", sa.JSON(), server_default=sa.text("'[]'"), nullable=False)
        )
    if op.get_bind().dialect.name == "postgresql":  # integers of SQLite have 64 bits anyway
        for table, column in BIGGER:
            op.alter_column(table, column, type_=sa.BigInteger(), existing_nullable=False)


def downgrade() -> None:
    op.execute("UPDATE jobs SET lane = 'cpu' WHERE lane = 'any'")
    if op.get_bind().dialect.name == "postgresql":
        for table, column in BIGGER:
            op.alter_column(table, column, type_=sa.Integer(), existing_nullable=False)
    with op.batch_alter_table("workers") as workers:
        workers.drop_column("devices")
    with op.batch_alter_table("attempts") as attempts:
        attempts.drop_column("first_step")
        attempts.drop_column("device")
    op.drop_index("ix_jobs_queue", "jobs")
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_constraint(op.f("ck_jobs_lane"), type_="check")
        jobs.create_check_constraint(op.f("ck_jobs_lane"), "lane IN ('cpu', 'gpu')")
        for column in (
            *("dispatch_count", "dispatched_at", "resume_exact", "waiting_message"),
            *("waiting_code", "waiting_since", "running_seconds", "time_limit_seconds"),
        ):
            jobs.drop_column(column)
    _index_queue()
    op.drop_table("idempotency_keys")
    op.drop_table("checkpoints")


def _index_queue() -> None:
    op.create_index(
        "ix_jobs_queue",
        "jobs",
        ["lane", sa.text("priority DESC"), "run_after", "id"],
        sqlite_where=sa.text("state = 'queued'"),
        postgresql_where=sa.text("state = 'queued'"),
    )
