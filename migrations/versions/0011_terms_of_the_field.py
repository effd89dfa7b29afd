"""Tables, columns, stored JSON and error codes get the names that other tools use.

Job descriptions become version 2. Stored files keep their names: readers accept both.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

JSON = sa.JSON().with_variant(JSONB(), "postgresql")
revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

Json = dict[str, Any]
Names = Mapping[str, str]  # old -> new

BATCH_ROWS = 500

JOB_COLUMNS = {"lane": "device_class", "cell_sha256": "trial_sha256"}
SWEEP_COLUMNS = {"parallel": "max_parallel_jobs", "pinned": "resolved_inputs"}
RESPONSE_COLUMNS = {"answer": "response_body"}
TRIAL_COLUMNS = {
    **{
        name: name
        for name in ("sweep_id", "number", "rung", "settings", "job_id", "reused", "problem")
    },
    "draft": "job_columns",
    "cell_sha256": "trial_sha256",
    "lost": "lost_jobs",
}
CORRECTNESS_COLUMNS = {
    name: name for name in ("job_id", "split", "texts_sha256", "count", "correct")
}
SPEC = {"result": {"train_figures": "train_metrics"}, "trial": {"share": "budget"}}
VERDICT = {"rivals": "references", "never_answered": "never_predicted"}
STRATEGY = {"cells": "trials", "first_share": "min_budget", "keep": "min_full_runs"}
SWEEP_VIEW = {
    "cells": "trial_count",
    "counts": "trial_counts",
    "parallel": "max_parallel_jobs",
    "verdict": "result",
}
BASE = {"content": "content_id", "own": "from_registry"}
EVENTS = {"rival": "linear_model"}
ARTIFACTS = {"figures": "metrics"}
CODES = {
    "artifact_unfit": "unsupported_artifact",
    "base_directories_off": "base_directories_disabled",
    "base_outside": "base_directory_not_allowed",
    "broken_base": "unreadable_base",
    "broken_rows": "malformed_row",
    "changed_meanwhile": "concurrent_update",
    "column_taken": "reserved_column",
    "engine_disagrees": "engine_output_mismatch",
    "golden_mismatch": "golden_predictions_mismatch",
    "gpu_driver_fails": "gpu_driver_failed",
    "no_special_tokens": "special_tokens_not_added",
    "model_disagrees": "model_output_mismatch",
    "out_exists": "output_exists",
    "sample_changed": "sample_checksum_mismatch",
    "store_of_another": "store_belongs_to_another_database",
    "tokenizer_unfit": "unsupported_tokenizer",
    "unknown_split": "invalid_split_value",
}
RESERVE_MESSAGE = "Only "  # how the message about the reserve of disk space begins


def upgrade() -> None:
    _rename_columns(up=True)
    _replace_table("sweep_cells", "trials", _trials_table, TRIAL_COLUMNS)
    op.create_index("ix_trials_job_id", "trials", ["job_id"])
    _replace_table("grades", "correctness", _correctness_table, CORRECTNESS_COLUMNS)
    _rename_values(up=True)


def downgrade() -> None:
    _rename_values(up=False)
    _replace_table("correctness", "grades", _correctness_table, CORRECTNESS_COLUMNS)
    _replace_table("trials", "sweep_cells", _trials_table, _inverted(TRIAL_COLUMNS))
    op.create_index("ix_sweep_cells_job_id", "sweep_cells", ["job_id"])
    _rename_columns(up=False)


def _inverted(names: Names) -> dict[str, str]:
    return {new: old for old, new in names.items()}


# Tables and columns


def _rename_columns(*, up: bool) -> None:
    columns, sweep_columns, response_columns = (
        names if up else _inverted(names)
        for names in (JOB_COLUMNS, SWEEP_COLUMNS, RESPONSE_COLUMNS)
    )
    (old_class, new_class), (old_hash, new_hash) = columns.items()
    for index in ("ix_jobs_queue", "ix_jobs_succeeded", f"ix_jobs_{old_hash}"):
        op.drop_index(index, "jobs")  # a copied table would lose the order of the first
    with op.batch_alter_table("jobs", recreate=_recreate()) as jobs:
        jobs.drop_constraint(op.f(f"ck_jobs_{old_class}"), type_="check")
        for old, new in columns.items():
            jobs.alter_column(old, new_column_name=new)
        jobs.create_check_constraint(
            op.f(f"ck_jobs_{new_class}"), f"{new_class} IN ('cpu', 'gpu', 'any')"
        )
    queue: list[str | sa.TextClause] = [
        sa.text("priority DESC"),
        "created_at",
        "id",
        new_class,
        "run_after",
    ]
    _partial_index("ix_jobs_queue", queue, "state = 'queued'")
    _partial_index("ix_jobs_succeeded", ["kind", new_class, "finished_at"], "state = 'succeeded'")
    op.create_index(f"ix_jobs_{new_hash}", "jobs", [new_hash])
    with op.batch_alter_table("sweeps", recreate=_recreate()) as sweeps:
        for old, new in sweep_columns.items():
            sweeps.alter_column(old, new_column_name=new)
    with op.batch_alter_table("idempotency_keys", recreate=_recreate()) as keys:
        for old, new in response_columns.items():
            keys.alter_column(old, new_column_name=new)


def _recreate() -> Literal["always", "never"]:
    """Copy the table on SQLite, which otherwise writes changed columns unlike those of a new one."""
    return "always" if op.get_bind().dialect.name == "sqlite" else "never"


def _partial_index(name: str, columns: list[str | sa.TextClause], where: str) -> None:
    rows = sa.text(where)
    op.create_index(name, "jobs", columns, sqlite_where=rows, postgresql_where=rows)


def _replace_table(
    old: str, new: str, create: Callable[[str, Names], sa.Table], columns: Names
) -> None:
    """Copy the rows to a new table, whose constraints have its name. `columns`: old to new."""
    target = create(new, columns)
    source = sa.table(old, *map(sa.column, columns))
    op.execute(target.insert().from_select(list(columns.values()), sa.select(*source.c)))
    op.drop_table(old)


def _trials_table(name: str, columns: Names) -> sa.Table:
    job_columns, sha256, lost = list(columns.values())[-3:]
    return op.create_table(
        name,
        sa.Column("sweep_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("rung", sa.Integer(), nullable=False),
        sa.Column("settings", JSON, nullable=False),
        sa.Column(job_columns, JSON, nullable=False),
        sa.Column(sha256, sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("reused", sa.Boolean(), nullable=False),
        sa.Column(lost, sa.Integer(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f(f"fk_{name}_job_id_jobs"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["sweep_id"], ["sweeps.id"], name=op.f(f"fk_{name}_sweep_id_sweeps"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("sweep_id", "number", "rung", name=op.f(f"pk_{name}")),
    )


def _correctness_table(name: str, _columns: Names) -> sa.Table:
    return op.create_table(
        name,
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("split", sa.String(length=16), nullable=False),
        sa.Column("texts_sha256", sa.String(length=64), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("correct", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f(f"fk_{name}_job_id_jobs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "split", name=op.f(f"pk_{name}")),
    )


# Values, in tables that have the new names


class _Values:
    """Renames in stored values. `disk_full` meant the reserve, `storage_full` a full disk."""

    def __init__(self, *, up: bool) -> None:
        self.up = up
        self.spec_version = 2 if up else 1
        self.codes = (
            {**CODES, "storage_full": "disk_full"}
            if up
            else {**_inverted(CODES), "insufficient_disk_space": "disk_full"}
        )

    def names(self, names: Names) -> Names:
        return names if self.up else _inverted(names)

    def rename(self, value: Json, names: Names) -> Json:
        names = self.names(names)
        return {names.get(name, name): each for name, each in value.items()}

    def spec(self, spec: Json) -> Json:
        parts = {part: self.rename(spec[part], SPEC[part]) for part in SPEC if spec.get(part)}
        version = {"spec_version": self.spec_version} if "spec_version" in spec else {}
        return {**spec, **parts, **version}

    def summary(self, summary: Json | None) -> Json | None:
        if not summary or not summary.get("verdict"):
            return summary
        return {**summary, "verdict": self.rename(summary["verdict"], VERDICT)}

    def code(self, code: str | None, message: str | None) -> str | None:
        if code is None:
            return None
        if self.up and code == "disk_full" and (message or "").startswith(RESERVE_MESSAGE):
            return "insufficient_disk_space"
        return self.codes.get(code, code)

    def job(self, row: Json) -> Json:
        changed: Json = {
            "summary": self.summary(row["summary"]),
            "error_code": self.code(row["error_code"], row["error_message"]),
            "waiting_code": self.code(row["waiting_code"], row["waiting_message"]),
        }
        if row["kind"] == "training":
            spec = self.spec(row["spec"])
            changed |= {"spec": spec, "spec_version": self.spec_version}
            if spec != row["spec"]:
                changed["spec_sha256"] = _sha256(spec)
        return changed

    def trial(self, row: Json) -> Json:
        if not row["job_columns"]:  # it can never have a job
            return {}
        columns = self.rename(row["job_columns"], JOB_COLUMNS)
        versioned = {"spec": self.spec(columns["spec"]), "spec_version": self.spec_version}
        return {"job_columns": {**columns, **versioned}}

    def sweep(self, row: Json) -> Json:
        return {"job": self.spec(row["job"]), "strategy": self.rename(row["strategy"], STRATEGY)}

    def sweep_row(self, row: Json) -> Json:
        inputs = row["resolved_inputs"]
        bases = {name: self.rename(base, BASE) for name, base in inputs["bases"].items()}
        return {**self.sweep(row), "resolved_inputs": {**inputs, "bases": bases}}

    def response(self, row: Json) -> Json:
        body = row["response_body"]
        if "objective" in body:  # a sweep
            body = {**self.rename(body, SWEEP_VIEW), **self.sweep(body)}
        if "method" in (body.get("spec") or {}):  # a training job
            body = {**body, "spec": self.spec(body["spec"])}
        if body.get("metrics"):  # a model version
            body = {**body, "metrics": self.summary(body["metrics"])}
        return {"response_body": body}

    def version(self, row: Json) -> Json:
        return {"metrics": self.summary(row["metrics"])}

    def event(self, row: Json) -> Json:
        data = row["data"]
        code = self.code(data.get("code"), row["message"])
        return {"data": data if code is None else {**data, "code": code}}


def _rename_values(*, up: bool) -> None:
    values, uuid, integer = _Values(up=up), sa.Uuid(), sa.Integer()
    job: Json = {
        "kind": None,
        "spec": JSON,
        "spec_version": None,
        "spec_sha256": None,
        "summary": JSON,
    }
    codes = dict.fromkeys(("error_code", "error_message", "waiting_code", "waiting_message"))
    trial_key = {"sweep_id": uuid, "number": integer, "rung": integer}
    response_key = {"api_key_id": uuid, "route": sa.String(), "key": sa.String()}
    event_key = {"job_id": uuid, "seq": integer}
    _update_rows("jobs", {"id": uuid}, {**job, **codes}, values.job)
    _update_rows("trials", trial_key, {"job_columns": JSON}, values.trial)
    sweep = dict.fromkeys(("job", "strategy", "resolved_inputs"), JSON)
    _update_rows("sweeps", {"id": uuid}, sweep, values.sweep_row)
    _update_rows("idempotency_keys", response_key, {"response_body": JSON}, values.response)
    _update_rows("model_versions", {"id": uuid}, {"metrics": JSON}, values.version)
    _update_rows(
        *("job_events", event_key, {"data": JSON, "message": None}, values.event),
        where=sa.column("kind").in_(("failed", "requeued")),
    )
    for table, kinds in (("job_events", EVENTS), ("artifacts", ARTIFACTS)):
        for old, new in values.names(kinds).items():
            rows = sa.table(table, sa.column("kind"))
            op.execute(sa.update(rows).where(rows.c.kind == old).values(kind=new))


def _update_rows(
    name: str,
    primary_key: Mapping[str, Any],
    columns: Mapping[str, Any],
    change: Callable[[Json], Json],
    *,
    where: sa.ColumnElement[bool] | None = None,
) -> None:
    """Write what `change` returns for each row, a batch of rows at a time."""
    table = sa.table(name, *_columns(primary_key), *_columns(columns))
    key = [table.c[each] for each in primary_key]
    connection, last = op.get_bind(), None
    while True:
        statement = sa.select(table).order_by(*key).limit(BATCH_ROWS)
        if where is not None:
            statement = statement.where(where)
        if last is not None:
            statement = statement.where(sa.tuple_(*key) > _key_values(primary_key, last))
        rows = connection.execute(statement).all()
        for row in rows:
            old = dict(row._mapping)
            changed = {each: value for each, value in change(old).items() if value != old[each]}
            if changed:
                this = sa.and_(*(column == old[column.name] for column in key))
                connection.execute(sa.update(table).where(this).values(**changed))
        if len(rows) < BATCH_ROWS:
            return
        last = [rows[-1]._mapping[each] for each in primary_key]


def _columns(types: Mapping[str, Any]) -> Iterable[sa.ColumnClause[Any]]:
    return (sa.column(name, type_) for name, type_ in types.items())


def _key_values(primary_key: Mapping[str, Any], values: Sequence[Any]) -> sa.Tuple:
    return sa.tuple_(*values, types=list(primary_key.values()))


def _sha256(value: Json) -> str:
    canonical = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(canonical.encode()).hexdigest()
