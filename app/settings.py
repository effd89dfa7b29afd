"""Settings of the service, read from the environment (`LORAWORKS_…`).

docs/reference/settings.md is generated from the descriptions in this module: run
`UPDATE_DOCS=1 pytest tests/contracts` to update it.
"""

import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.local_service_url import local_service_url

MAX_INPUTS = 10_000  # that `max_inputs` may be: bodies with more are rejected unread
FOREVER = "forever"  # as a value of a retention setting: nothing is deleted
_HOST_NAME_PATTERN = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_ORIGIN_PATTERN = re.compile(r"[a-z][a-z0-9+.-]*://[^/*\s]+")
_PUBLIC_URL_PATTERN = re.compile(r"https?://[^/?#@\s]+(/[^?#\s]*)?")


def _split_commas(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part for part in (part.strip() for part in value.split(",")) if part)
    return value


def _parse_forever(value: Any) -> Any:
    return None if value == FOREVER else value


def _make_absolute(path: Path) -> Path:
    return path.expanduser().absolute()


def _normalize_host(text: str) -> str:
    """Lowercase a host name; check an address or a network."""
    host = text.lower()
    if "/" in host or ":" in host or host.replace(".", "").isdigit():
        return str(ip_network(host))
    if not _HOST_NAME_PATTERN.fullmatch(host):
        raise ValueError("a host is a name, an address or a network, such as 10.0.0.0/8")
    return host


def _normalize_origin(text: str) -> str:
    """Lowercase the origin, as browsers send it."""
    origin = text.lower()
    if not _ORIGIN_PATTERN.fullmatch(origin):
        raise ValueError("an origin is a scheme and a host, such as https://lab.example")
    return origin


def _normalize_public_url(text: str) -> str:
    """Remove slashes from the end."""
    url = text.rstrip("/")
    if url and not _PUBLIC_URL_PATTERN.fullmatch(url):
        raise ValueError("a URL starts with http:// or https://, such as https://lab.example")
    return url


AbsolutePath = Annotated[Path, AfterValidator(_make_absolute)]
Host = Annotated[str, AfterValidator(_normalize_host)]
Origin = Annotated[str, AfterValidator(_normalize_origin)]
PublicUrl = Annotated[str, AfterValidator(_normalize_public_url)]
StringList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_commas)]
PathList = Annotated[tuple[AbsolutePath, ...], NoDecode, BeforeValidator(_split_commas)]
HostList = Annotated[tuple[Host, ...], NoDecode, BeforeValidator(_split_commas)]
OriginList = Annotated[tuple[Origin, ...], NoDecode, BeforeValidator(_split_commas)]
RetentionDays = Annotated[Annotated[float, Field(ge=0)] | None, BeforeValidator(_parse_forever)]


ENV_PREFIX = "LORAWORKS_"
OTHER_VARIABLES = ("API_KEY", "CACHE", "FAULT", "URL")  # of the command line, library and tests
DEFAULT_HUB_MODELS = (
    "distilbert-base-uncased",
    "distilbert/distilbert-base-uncased",
    "bert-base-uncased",
    "google-bert/bert-base-uncased",
    "roberta-base",
    "FacebookAI/roberta-base",
    "xlm-roberta-base",
    "FacebookAI/xlm-roberta-base",
)
DEFAULT_HUB_DATASETS = ("imdb", "stanfordnlp/imdb")
_DEVICE_PATTERN = re.compile(r"auto|cpu|cuda:[0-9]{1,2}")


class Settings(BaseSettings):
    """Frozen settings: built once at process start and passed on from there."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,  # an error must not print the pepper
        validate_default=True,
    )

    data_dir: AbsolutePath = Field(
        Path("data"), description="Data directory: database, uploads, models."
    )
    database_url: str | None = Field(
        None,
        repr=False,  # may contain a password
        description="Database URL; empty: SQLite at `loraworks.sqlite3` in the data directory.",
    )
    broker_url: str | None = Field(
        None,
        repr=False,
        description="Redis or Valkey URL for the Celery tasks of queued jobs, "
        "`redis://host:6379/0`; empty: workers only poll.",
    )
    remote_control: Literal["off", "on"] = Field(
        "on",
        description="`off`: workers ignore `celery inspect`, `celery control` and Flower, so that "
        "access to the broker does not allow stopping them.",
    )
    store_url: str | None = Field(
        None,
        repr=False,
        description="Where models, checkpoints and uploads are stored, such as "
        "`s3://bucket/prefix` (credentials as for every S3 client: `AWS_ACCESS_KEY_ID` …); empty: "
        "the data directory.",
    )
    store_cache_bytes: int = Field(
        20_000_000_000,
        ge=0,
        description="Size limit of the local cache of a remote store; the least recently used "
        "entries are evicted.",
    )

    host: str = Field(
        "127.0.0.1",
        description="Address to listen on. Anything but loopback requires `LORAWORKS_AUTH=on`.",
    )
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 picks a free port.")
    auth: Literal["off", "on"] = Field(
        "off", description="`on`: every request needs an API key (`Authorization: Bearer lw_…`)."
    )
    pepper: SecretStr | None = Field(
        None,
        description="Secret mixed into stored API keys, at least 32 characters. Empty: generated "
        "on first use in the file `pepper` in the data directory.",
        min_length=32,
    )
    session_days: float = Field(
        30, ge=0.01, description="Maximum lifetime of a browser session, in days."
    )
    session_idle_days: float = Field(
        7, ge=0.01, description="A browser session that is idle this many days expires."
    )
    allowed_hosts: StringList = Field(
        (),
        description="Names and addresses by which the service is reached, in addition to "
        "`LORAWORKS_HOST` and the loopback ones.",
    )
    allowed_origins: OriginList = Field(
        (),
        description="Origins of other web pages that may call the API and read its responses "
        "(CORS), such as `https://lab.example`.",
    )

    base_dirs: PathList = Field(
        (), description="Directories from which a job may load a base model; none by default."
    )
    hub_models: StringList = Field(
        DEFAULT_HUB_MODELS,
        description="Hub models that a job may fine-tune; `*`: all. Gated ones need `HF_TOKEN`, in "
        "the environment of the API and of each worker.",
    )
    hub_datasets: StringList = Field(
        DEFAULT_HUB_DATASETS,
        description="Hub datasets that a job may use, with all their configurations; `*`: all. "
        "Gated ones need `HF_TOKEN`, in the environment of each worker.",
    )

    max_upload_bytes: int = Field(
        200_000_000, ge=1, le=500_000_000, description="Maximum size of an upload, up to 500 MB."
    )
    max_rows: int = Field(
        1_000_000,
        ge=1,
        le=1_000_000,  # as `lora_core.data.rows`
        description="Maximum rows of an uploaded dataset, up to a million.",
    )
    max_body_bytes: int = Field(
        2_000_000, ge=1, description="Maximum body size of any other request."
    )
    min_body_bytes_per_second: float = Field(
        10_000,
        gt=0,
        description="Minimum upload rate after the first 30 s; a slower body is rejected (408).",
    )
    max_inputs: int = Field(
        64,
        ge=1,
        le=MAX_INPUTS,
        description="Maximum texts in one `/predict` request, up to 10,000. More than 512 are "
        "admitted only while no others are computed; with API keys, more than 256 only while no "
        "others of the key are.",
    )
    inspect_memory_mb: int = Field(
        2048, ge=256, description="Memory limit for checking an upload, in MB."
    )
    inspect_seconds: float = Field(60, gt=0, description="Time limit for checking an upload.")
    max_import_bytes: int = Field(2 * 10**9, ge=1, description="Maximum size of an imported model.")
    import_memory_mb: int = Field(
        8192, ge=1024, description="Memory limit for checking an imported model or a base, in MB."
    )
    import_seconds: float = Field(
        300, gt=0, description="Time limit for checking an imported model or a base."
    )

    webhook_allowed_hosts: HostList = Field(
        (),
        description="Hosts in private networks to which webhooks may be sent, and those to which "
        "they may be sent by plain http: names, addresses, and networks such as `10.0.0.0/8`. "
        "All others must be public and use https.",
    )

    mlflow_tracking_uri: str | None = Field(
        None,
        repr=False,  # may contain a password, which is refused later
        description="MLflow server that workers send jobs and model versions to, such as "
        "`https://mlflow.example`; empty: none.",
    )
    mlflow_experiment: str = Field(
        "loraworks", description="MLflow experiment of the jobs; created if it does not exist."
    )
    mlflow_token: SecretStr | None = Field(
        None, description="Bearer token for MLflow, unless it wants a user name and a password."
    )
    mlflow_username: str | None = Field(None, description="User name for MLflow.")
    mlflow_password: SecretStr | None = Field(None, description="Password for MLflow.")
    public_url: PublicUrl | None = Field(
        None,
        description="URL of this service for links in MLflow, such as `https://lab.example`; "
        "empty: its address and port.",
    )

    poll_seconds: float | None = Field(
        None,
        gt=0,
        description="How often a worker polls for jobs, in seconds; empty: 1, or 15 with a broker.",
    )
    lease_seconds: float = Field(
        60, gt=0, description="A worker that has not renewed its lease for this long is lost."
    )
    heartbeat_seconds: float = Field(
        10, gt=0, description="Heartbeat interval: how often a worker renews its lease."
    )
    reconcile_seconds: float = Field(
        10, gt=0, description="How often each worker checks for lost workers."
    )
    stop_grace_seconds: float = Field(
        30, gt=0, description="Grace period after a cancel before the training process is killed."
    )
    stall_seconds: float = Field(
        900, gt=0, description="A training process that is silent for this long is killed."
    )
    max_failures: int = Field(
        10, ge=1, description="A job fails after this many consecutive failures without progress."
    )
    retry_seconds: float = Field(
        10, ge=0, description="Delay before a failed job is retried; doubles up to 10 minutes."
    )
    redispatch_seconds: float = Field(
        30,
        gt=0,
        description="Delay before the Celery task of a queued job is sent again; doubles up to a "
        "day.",
    )
    hub_timeout_seconds: float = Field(
        3600,
        ge=0,
        description="How long a job waits for an unreachable hub before it fails. It waits for "
        "database, broker, storage and disk without a limit.",
    )
    max_queue_seconds: float | None = Field(
        None, gt=0, description="Maximum time in the queue before a job fails; empty: no limit."
    )
    time_limit_seconds: float | None = Field(
        None, gt=0, description="Maximum time of one job on a device; empty: no limit."
    )
    checkpoint_seconds: float = Field(
        300,
        ge=0,
        description="Time between checkpoints, and so the most training that a crash can lose.",
    )
    devices: StringList = Field(
        ("auto",),
        description="Devices of a worker: `cpu`, `cuda:0,cuda:1`, or `auto`: all GPUs, else the "
        "CPU.",
    )
    concurrency: int = Field(
        1, ge=1, description="Number of jobs that a worker runs on the CPU at once."
    )
    fork_server: bool = Field(
        True,
        description="Keep a process that has imported torch, so that training on the CPU starts "
        "some seconds earlier. It takes 400 MB of memory.",
    )
    min_free_bytes: int = Field(
        1_000_000_000, ge=0, description="No training starts with less free disk space than this."
    )

    keep_checkpoint_days: RetentionDays = Field(
        7, description="How long checkpoints are kept after their job ends, or `forever`."
    )
    keep_artifact_days: RetentionDays = Field(
        90,
        description="How long models without a registered version are kept after their job ends, "
        "or `forever`.",
    )
    keep_prediction_days: RetentionDays = Field(
        30,
        description="How long the results of prediction runs are kept, and vectors that no "
        "labeling project uses, or `forever`.",
    )
    keep_job_days: RetentionDays = Field(
        400,
        description="How long ended jobs, prediction runs and sweeps are kept, or `forever`. Jobs "
        "with a model, tags or notes are always kept.",
    )
    keep_delivery_days: RetentionDays = Field(
        30, description="How long ended webhook deliveries are kept, or `forever`."
    )
    keep_traffic: Literal["off", "scores", "texts"] = Field(
        "off",
        description="What is kept of online predictions besides counts. `scores`: a hash of the "
        "text, the predicted labels and their probabilities; `texts`: the texts, too.",
    )
    keep_traffic_share: float = Field(
        1.0, ge=0, le=1, description="Share of the texts that this applies to, drawn at random."
    )
    keep_traffic_days: float = Field(
        30, gt=0, le=400, description="How long kept predictions stay, at most 400 days."
    )
    drift_days: float = Field(
        7,
        gt=0,
        le=400,
        description="How often workers check whether the texts of each version in production are "
        "still like its training texts; only if texts are kept.",
    )
    drift_level: float = Field(
        0.01,
        ge=0.002,
        le=0.5,
        description="Level of this test: the share of checks that raise a false alarm.",
    )
    keep_feedback_days: RetentionDays = Field(
        400, description="How long feedback on predictions is kept, or `forever`."
    )
    keep_curve_points: Annotated[
        Annotated[int, Field(ge=10)] | None, BeforeValidator(_parse_forever)
    ] = Field(
        100,
        description="Points that each curve of an ended job keeps; `forever`: all points.",
    )
    orphan_seconds: float = Field(
        86_400,
        ge=3600,
        description="Age at which files without a database row are deleted, at least an hour: "
        "uploads and imports in progress have none.",
    )
    idempotency_seconds: float = Field(
        86_400, gt=0, description="How long the response to an `Idempotency-Key` is kept."
    )

    max_loaded_bytes: int = Field(
        4_000_000_000,
        ge=1,
        description="Memory for models loaded for `/predict`; the least recently used are "
        "evicted first.",
    )
    engine: Literal[
        "auto",
        "native-bf16",
        "onednn-fp32",
        "onednn-bf16",
        "torch-fp32",
        "torch-bf16",
        "compiled-fp32",
        "compiled-bf16",
        "cuda-bf16",
    ] = Field(
        "auto",
        description="Inference engine; `auto`: the fastest one here that reproduces the model's "
        "outputs.",
    )
    max_wait_seconds: float = Field(
        5,
        gt=0,
        description=(
            "Maximum expected wait for `/predict`; requests beyond it are rejected (429), and so "
            "are those that would wait for more than half of their `X-Request-Timeout`."
        ),
    )
    max_texts_per_second_per_key: float | None = Field(
        None, gt=0, description="Texts per second that one API key may send; empty: no limit."
    )
    max_connections: int = Field(
        4000,
        ge=1,
        description="Maximum open connections of one API process, and at most three quarters of "
        "its open-file limit; a new connection replaces an idle one.",
    )
    max_reads: int = Field(
        32,
        ge=1,
        description="Maximum reads of dataset rows that run or wait; more are rejected (429).",
    )
    max_reads_per_key: int = Field(8, ge=1, description="Maximum such reads of one API key.")
    max_checks: int = Field(
        100,
        ge=1,
        description="Maximum uploads and other files being checked or waiting for it, and as many "
        "imports; more are rejected (429).",
    )
    max_streams: int = Field(
        500, ge=1, description="Maximum open job event streams of one API process."
    )
    max_streams_per_key: int = Field(
        100, ge=1, description="Maximum open event streams of one API key."
    )
    max_jobs_per_key: int = Field(
        1000, ge=1, description="Maximum unfinished jobs and prediction runs of one API key."
    )
    max_trials_per_key: int = Field(
        10_000,
        ge=1,
        description="Maximum trials in the running and paused sweeps of one API key.",
    )
    max_upload_bytes_per_key: int = Field(
        50_000_000_000, ge=1, description="Maximum bytes of all datasets of one API key."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Minimum level of log lines, which go to standard error."
    )

    @field_validator("*", mode="before")
    @classmethod
    def _read_empty_as_unset(cls, value: Any, info: ValidationInfo) -> Any:
        """Return the default for an empty value, except that an empty list is a list."""
        default = cls.model_fields[info.field_name or ""].default
        return default if value == "" and not isinstance(default, tuple) else value

    @model_validator(mode="after")
    def _check_consistency(self) -> "Settings":
        if self.auth == "off" and not is_loopback(self.host):
            raise ValueError(
                f"LORAWORKS_HOST={self.host} is reachable from other machines, so it requires "
                "LORAWORKS_AUTH=on; or set LORAWORKS_HOST=127.0.0.1"
            )
        if self.heartbeat_seconds * 2 > self.lease_seconds:
            raise ValueError(
                "LORAWORKS_HEARTBEAT_SECONDS must be at most half of LORAWORKS_LEASE_SECONDS, "
                "or healthy workers would be considered lost"
            )
        if self.reconcile_seconds * 2 > self.lease_seconds:
            raise ValueError(
                "LORAWORKS_RECONCILE_SECONDS must be at most half of LORAWORKS_LEASE_SECONDS, "
                "or workers would not be seen as alive"
            )
        if self.orphan_seconds < 2 * self.lease_seconds:
            raise ValueError(
                "LORAWORKS_ORPHAN_SECONDS must be at least twice LORAWORKS_LEASE_SECONDS, "
                "or files of a running job could be deleted as orphans"
            )
        invalid = [device for device in self.devices if not _DEVICE_PATTERN.fullmatch(device)]
        if invalid or not self.devices or ("auto" in self.devices and len(self.devices) > 1):
            raise ValueError("LORAWORKS_DEVICES must be auto, or a list of cpu, cuda:0, cuda:1 …")
        return self

    @property
    def session_idle_seconds(self) -> float:
        """After how many seconds without a request a browser session ends."""
        return self.session_idle_days * 86_400

    @property
    def local_service_url(self) -> str:
        """URL at which this machine reaches the service."""
        return local_service_url(self.host, self.port)

    @property
    def default_sqlite_path(self) -> Path:
        """Path of the SQLite file that is used without a `database_url`."""
        return self.data_dir / "loraworks.sqlite3"

    @property
    def sqlalchemy_url(self) -> str:
        """SQLAlchemy URL of the database."""
        return self.database_url or f"sqlite:///{self.default_sqlite_path}"

    @property
    def artifacts_dir(self) -> Path:
        """Root of the local artifact store."""
        return self.data_dir / "artifacts"

    @property
    def uploads_dir(self) -> Path:
        """Directory of uploads in progress, and of the files that version 0.1 stored."""
        return self.data_dir / "datasets"

    @property
    def work_dir(self) -> Path:
        """Work directories of running attempts; may be emptied while nothing runs."""
        return self.data_dir / "work"


def is_loopback(host: str) -> bool:
    """Return whether only this host can reach the address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
