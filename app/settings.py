"""Every setting of the service, read from the environment (`LORAWORKS_…`) when it is built.

docs/reference/settings.md is made from the descriptions here: `UPDATE_DOCS=1 pytest
tests/contracts` writes it.
"""

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.environment import Folder, Folders, Names, Origins

PREFIX = "LORAWORKS_"
HUB_MODELS = (
    "distilbert-base-uncased",
    "distilbert/distilbert-base-uncased",
    "bert-base-uncased",
    "google-bert/bert-base-uncased",
    "roberta-base",
    "FacebookAI/roberta-base",
)
HUB_DATASETS = ("imdb", "stanfordnlp/imdb")
_DEVICE = re.compile(r"auto|cpu|cuda:[0-9]{1,2}")


class Settings(BaseSettings):
    """Frozen; built once by whoever starts a process and handed on from there."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,  # an error must not print the pepper
        validate_default=True,
    )

    data_dir: Folder = Field(
        Path("data"), description="Folder of all that is kept: database, uploads, models."
    )
    database_url: str | None = Field(
        None,
        repr=False,  # may hold a password
        description="Database; empty means SQLite at `loraworks.sqlite3` in the data folder.",
    )
    broker_url: str | None = Field(
        None,
        repr=False,
        description="Redis or Valkey that wakes the workers, `redis://host:6379/0`; empty: they "
        "only poll.",
    )
    store_url: str | None = Field(
        None,
        repr=False,
        description="Where models, checkpoints and uploads are kept, such as `s3://bucket/prefix` "
        "(credentials as for every S3 client: `AWS_ACCESS_KEY_ID` …); empty: the data folder.",
    )
    store_cache_bytes: int = Field(
        20_000_000_000, ge=0, description="Room for copies of what is kept elsewhere; old ones go."
    )

    host: str = Field(
        "127.0.0.1", description="Address to listen on. Any but loopback needs `LORAWORKS_AUTH=on`."
    )
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    auth: Literal["off", "on"] = Field(
        "off", description="`on`: every call needs an API key (`Authorization: Bearer lw_…`)."
    )
    pepper: SecretStr | None = Field(
        None,
        description="Secret mixed into stored keys, 32 characters or more. Empty: made on first "
        "use in the file `pepper` of the data folder.",
        min_length=32,
    )
    session_days: float = Field(
        30, ge=0.01, description="How long a browser stays signed in at most."
    )
    session_idle_days: float = Field(
        7, ge=0.01, description="A browser that was not used for so long has to sign in again."
    )
    allowed_hosts: Names = Field(
        (), description="Host names under which the service is called, besides loopback ones."
    )
    allowed_origins: Origins = Field(
        (),
        description="Origins of other web pages that may call and read the answers (CORS), such as "
        "`https://lab.example`.",
    )

    base_dirs: Folders = Field(
        (), description="Folders below which a job may name a base model; none by default."
    )
    hub_models: Names = Field(HUB_MODELS, description="Hub models that a job may start from.")
    hub_datasets: Names = Field(HUB_DATASETS, description="Hub data sets that a job may use.")

    max_upload_bytes: int = Field(200_000_000, ge=1, description="Largest upload.")
    max_rows: int = Field(1_000_000, ge=1, description="Most rows of an uploaded data set.")
    max_body_bytes: int = Field(2_000_000, ge=1, description="Largest body of any other call.")
    min_body_bytes_per_second: float = Field(
        10_000, gt=0, description="A body that comes more slowly, after 30 s, is refused (408)."
    )
    max_inputs: int = Field(64, ge=1, description="Most texts in one call of `/predict`.")
    inspect_memory_mb: int = Field(2048, ge=256, description="Memory to check an upload, in MB.")
    inspect_seconds: float = Field(60, gt=0, description="Time to check an upload.")
    max_import_bytes: int = Field(2 * 10**9, ge=1, description="Largest model to take in.")
    import_memory_mb: int = Field(8192, ge=1024, description="Memory to check a model, in MB.")
    import_seconds: float = Field(300, gt=0, description="Time to check a model.")

    poll_seconds: float | None = Field(
        None,
        gt=0,
        description="How often a worker looks for a job; empty: 1, and 15 where a broker wakes it.",
    )
    lease_seconds: float = Field(60, gt=0, description="Silence after which a worker is lost.")
    beat_seconds: float = Field(10, gt=0, description="How often a worker renews its lease.")
    reconcile_seconds: float = Field(10, gt=0, description="How often lost workers are looked for.")
    stop_grace_seconds: float = Field(
        30, gt=0, description="Time to stop after a cancel before the training is killed."
    )
    stall_seconds: float = Field(900, gt=0, description="Training is killed after such a silence.")
    max_failures: int = Field(
        10, ge=1, description="Failures in a row without progress that end a job."
    )
    retry_seconds: float = Field(
        10, ge=0, description="Wait before a failed job is tried again; doubles up to 10 minutes."
    )
    hint_seconds: float = Field(
        30,
        gt=0,
        description="Wait before the workers are told again of a job; doubles up to 10 minutes.",
    )
    patience_seconds: float = Field(
        3600,
        ge=0,
        description="How long a job waits for a hub that does not answer before it fails. For "
        "database, broker, storage and disk it waits without limit.",
    )
    queue_seconds: float | None = Field(
        None, gt=0, description="A job that waited so long in the queue fails; empty: never."
    )
    run_seconds: float | None = Field(
        None, gt=0, description="Longest time of one job on a device; empty: no limit."
    )
    checkpoint_seconds: float = Field(
        300, ge=0, description="Most training that a crash can cost: time between checkpoints."
    )
    devices: Names = Field(
        ("auto",),
        description="What a worker trains on: `cpu`, `cuda:0,cuda:1`, or `auto`: all GPUs, else "
        "the CPU.",
    )
    slots: int = Field(1, ge=1, description="Jobs that a worker trains on the CPU at a time.")
    min_free_bytes: int = Field(
        1_000_000_000, ge=0, description="Free disk space below which no training is started."
    )

    keep_checkpoint_days: float = Field(
        7, ge=0, description="How long checkpoints of a job stay after its end."
    )
    keep_artifact_days: float | None = Field(
        None,
        ge=0,
        description="How long models stay that no version is made of; empty: for ever.",
    )
    keep_prediction_days: float = Field(30, ge=0, description="How long prediction results stay.")
    orphan_seconds: float = Field(
        86_400, ge=0, description="Age at which files are removed that no row knows."
    )
    idempotency_seconds: float = Field(
        86_400, gt=0, description="How long the answer to an `Idempotency-Key` is kept."
    )

    max_loaded_bytes: int = Field(
        4_000_000_000,
        ge=1,
        description="Memory of the models kept for `/predict`; the least used go first.",
    )
    engine: Literal[
        "auto", "torch-fp32", "torch-bf16", "compiled-fp32", "compiled-bf16", "cuda-bf16"
    ] = Field(
        "auto",
        description="What computes answers; `auto`: the fastest here that is true to a model.",
    )
    max_wait_seconds: float = Field(
        5,
        gt=0,
        description=(
            "Work that may wait before `/predict`; more is refused (429), and so is what would "
            "wait for more than half of its `X-Request-Timeout`."
        ),
    )
    key_texts_per_second: float | None = Field(
        None, gt=0, description="Texts that one key may send a second; empty: no limit."
    )
    max_connections: int = Field(
        4000,
        ge=1,
        description="Connections that one API process has open at a time, at most three "
        "quarters of the files that it may open; a new one takes the place of an idle one.",
    )
    max_reads: int = Field(
        32, ge=1, description="Reads of data sets' rows that run or wait; more are refused (429)."
    )
    key_reads: int = Field(8, ge=1, description="Those of them that one key may have.")
    max_checks: int = Field(
        100,
        ge=1,
        description="Uploads and imports that are checked or wait for it; more are refused (429).",
    )
    max_streams: int = Field(
        500, ge=1, description="Jobs' streams that one API process sends at a time."
    )
    key_streams: int = Field(
        100, ge=1, description="Those of them that one key may follow at a time."
    )
    key_jobs: int = Field(
        1000, ge=1, description="Jobs and prediction runs that one key may have before their end."
    )
    key_trials: int = Field(
        10_000,
        ge=1,
        description="Trials that the running and paused sweeps of one key may have in all.",
    )
    key_upload_bytes: int = Field(
        50_000_000_000, ge=1, description="Bytes of all data sets that one key may keep."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least level of log lines, which go to standard error."
    )

    @model_validator(mode="after")
    def _fit_together(self) -> "Settings":
        if self.auth == "off" and not is_loopback(self.host):
            raise ValueError(
                f"LORAWORKS_HOST={self.host} can be reached from other machines, so it needs "
                "LORAWORKS_AUTH=on; or set LORAWORKS_HOST=127.0.0.1"
            )
        if self.beat_seconds * 2 > self.lease_seconds:
            raise ValueError(
                "LORAWORKS_BEAT_SECONDS must be at most half of LORAWORKS_LEASE_SECONDS, "
                "or a healthy worker would count as lost"
            )
        if self.orphan_seconds < 2 * self.lease_seconds:
            raise ValueError(
                "LORAWORKS_ORPHAN_SECONDS must be at least twice LORAWORKS_LEASE_SECONDS, "
                "or files of a job that still runs could count as left over"
            )
        odd = [each for each in self.devices if not _DEVICE.fullmatch(each)]
        if odd or not self.devices or ("auto" in self.devices and len(self.devices) > 1):
            raise ValueError("LORAWORKS_DEVICES must be auto, or a list of cpu, cuda:0, cuda:1 …")
        return self

    @property
    def sqlite_path(self) -> Path:
        """Where the database lies when no `database_url` is set."""
        return self.data_dir / "loraworks.sqlite3"

    @property
    def url(self) -> str:
        """SQLAlchemy URL of the database."""
        return self.database_url or f"sqlite:///{self.sqlite_path}"

    @property
    def artifacts_dir(self) -> Path:
        """Finished model directories."""
        return self.data_dir / "artifacts"

    @property
    def datasets_dir(self) -> Path:
        """Uploaded files."""
        return self.data_dir / "datasets"

    @property
    def work_dir(self) -> Path:
        """Directories of running attempts; may be emptied while nothing runs."""
        return self.data_dir / "work"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
