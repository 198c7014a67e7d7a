"""Settings, read once from the environment (`TTRL_*`) and passed in; each is described in
docs/operations.md.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

SECRETS = ("TTRL_ADMIN_KEY", "TTRL_METRICS_KEY", "TTRL_KEY_PEPPER", "TTRL_DATABASE_URL")


def environment_of_children() -> dict[str, str]:
    """This process's environment without the server's secrets: engine and trainer run code of a
    model's files and of many libraries, and need none of them.
    """
    return {name: value for name, value in os.environ.items() if name not in SECRETS}


class Settings(BaseSettings):
    """All settings of all processes. Times are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix="TTRL_", frozen=True, extra="ignore")

    data_dir: Path = Field(
        default=Path("var"), description="Where the database, adapters, secrets and logs live."
    )
    database_url: str | None = Field(
        default=None,
        description="SQLAlchemy URL with an async driver; default: SQLite in the data directory.",
    )

    database_wait_s: float = Field(
        default=300,
        ge=0,
        description="How long `serve` waits at start for a database that does not answer.",
    )

    host: str = Field(default="127.0.0.1", description="Address that the web process binds.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port that the web process binds.")
    admin_key: SecretStr | None = Field(
        default=None,
        description="Admin key; default: made at first start in `<data_dir>/admin.key`, 0600.",
    )
    metrics_key: SecretStr | None = Field(
        default=None, description="Key that opens `/metrics` alone; default: the admin key does."
    )
    key_pepper: SecretStr | None = Field(
        default=None,
        description="HMAC pepper of API keys; default: made in `<data_dir>/pepper.key`.",
    )

    model: str = Field(
        default="demo/model",
        description="Base model: a path, or a hub id that vLLM and the trainer load.",
    )
    served_model_name: str = Field(default="ttrl", description="The model name that clients use.")
    model_dtype: str = Field(
        default="auto", description="vLLM's `--dtype` and the trainer's base dtype."
    )
    max_model_len: int | None = Field(
        default=None, ge=16, description="vLLM's `--max-model-len`; default: the model's own."
    )

    engine_urls: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Comma-separated URLs of engines; empty: supervise vLLM children.",
    )
    engine_count: int = Field(
        default=1, ge=1, le=64, description="Supervised vLLM children; on GPUs each has one device."
    )
    engine_args: str = Field(
        default="", description="Extra arguments for the supervised vLLM, shell-quoted."
    )
    engine_kv_cache_gib: int = Field(
        default=1, ge=1, description="KV cache of the supervised CPU engine, in GiB."
    )
    engine_threads: int = Field(
        default_factory=lambda: max(1, (os.cpu_count() or 2) - 1),
        ge=1,
        description="OpenMP threads of the supervised CPU engine; default: all cores but one.",
    )
    engine_max_seqs: int = Field(default=256, ge=1, description="vLLM's `--max-num-seqs`.")
    engine_max_loras: int = Field(
        default=8, ge=3, description="LoRA slots: versions in use at once, plus two."
    )
    engine_max_cpu_loras: int = Field(
        default=32, ge=3, description="Adapters that the engine keeps in host memory."
    )
    engine_keep_s: float = Field(
        default=60, ge=0, description="How long a superseded version nobody uses stays loaded."
    )
    engine_load_timeout_s: float = Field(
        default=30, gt=0, description="An engine that loads an adapter for longer is put aside."
    )
    engine_silence_s: float = Field(
        default=10, gt=0, description="A serving engine that is silent for longer is put aside."
    )
    swap_warm_s: float = Field(
        default=2,
        ge=0,
        description="How long a promotion may fill the new version's prefix cache; 0: not at all.",
    )
    engine_start_timeout_s: float = Field(
        default=300, gt=0, description="How long a starting engine may take."
    )
    engine_restart_backoff_s: float = Field(
        default=1, gt=0, description="First pause before a restart; doubles to 30."
    )
    engine_poll_s: float = Field(
        default=1, gt=0, description="How often engines are checked and reconciled."
    )
    lora_rank: int = Field(
        default=16, description="Rank of every adapter; one of vLLM's allowed ranks."
    )
    lora_alpha: int = Field(default=32, ge=1, description="LoRA alpha of every adapter.")

    max_body_bytes: int = Field(default=4 * 2**20, ge=1024, description="Largest request body.")
    max_messages: int = Field(default=2048, ge=1, description="Most messages in one chat request.")
    max_n: int = Field(default=64, ge=1, description="Largest `n` of a request.")
    max_votes: int = Field(
        default=32, ge=1, le=1024, description="Most answers that one request is voted on with."
    )
    max_in_flight: int = Field(
        default=256, ge=1, description="Answers in the making over all tenants; more must wait."
    )
    queue_size: int | None = Field(
        default=None,
        ge=0,
        description="Requests that wait for a seat; default: half as many as may be in flight.",
    )
    queue_wait_s: float = Field(
        default=2,
        gt=0,
        description="Longest wait for a seat; then a request is answered 503, or 429.",
    )
    web_processes: int = Field(
        default=1,
        ge=1,
        description="Web processes; each enforces its share of seats and tenants' limits.",
    )
    max_connections: int = Field(
        default=4096, ge=1, description="Connections of a web process; the longest idle one yields."
    )
    max_header_bytes: int = Field(
        default=32 * 1024, ge=1024, description="Largest head of a request: its line and headers."
    )
    max_headers: int = Field(default=100, ge=1, description="Most headers of a request.")
    header_timeout_s: float = Field(
        default=15, gt=0, description="Longest time in which a request's head may come."
    )
    body_timeout_s: float = Field(
        default=30, gt=0, description="Longest time in which a request's body may come."
    )
    idle_timeout_s: int = Field(
        default=75, ge=1, description="How long a connection is kept between two requests."
    )
    unread_timeout_s: float = Field(
        default=30, gt=0, description="How long an answer waits for a client that does not read."
    )
    request_timeout_s: float = Field(
        default=600, gt=0, description="Longest time from asking an engine to its last byte."
    )
    tenant_cache_s: float = Field(
        default=0.5,
        ge=0,
        description="Age up to which a key and its live version serve; read anew before, if used.",
    )
    log_queue_size: int = Field(
        default=4096,
        ge=1,
        description="Answers whose rows wait to be stored; more are answered 503.",
    )
    log_timeout_s: float = Field(
        default=10, gt=0, description="Longest wait for a commit before the client gets an error."
    )
    log_patience_s: float = Field(
        default=1, gt=0, description="A commit that takes longer sends what waits to the spool."
    )
    log_journal: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Answers go out when a local journal has them, their rows come to the database "
        "a moment later: `on`, `off` (when the database has them), or `auto`: on for SQLite, whose "
        "disk is the journal's.",
    )
    log_spool_bytes: int = Field(
        default=2**30,
        ge=0,
        description="Bound of a web process's spool in `<data_dir>/spool`; 0: no spool.",
    )
    log_when_full: Literal["refuse", "serve_unlogged"] = Field(
        default="refuse",
        description="Neither database nor spool takes answers: 503, or serve them and count.",
    )

    worker: bool = Field(
        default=True, description="Whether `serve` runs a worker process beside the web process."
    )
    trainer_threads: int = Field(
        default=1, ge=1, description="Cores of the trainer: processes, or threads beside a GPU."
    )
    trainer_device: str = Field(
        default="auto", description="Torch device of the trainer: auto, cpu, cuda, cuda:1, ..."
    )
    trainer_timeout_s: float = Field(
        default=600, gt=0, description="Longest time for one request to the trainer."
    )
    trainer_nice: int = Field(
        default=15, ge=0, le=19, description="Niceness of the trainer process."
    )
    background_requests: int = Field(
        default=24, ge=1, description="Sampling requests of a cycle in flight at once."
    )
    background_requests_busy: int = Field(
        default=6, ge=1, description="The same while users are served; what is above is cut off."
    )
    lease_s: float = Field(
        default=15, gt=1, description="Lease of a running cycle; renewed three times as often."
    )
    scheduler_tick_s: float = Field(
        default=1, gt=0, description="How often a worker looks for work."
    )

    metrics_tenants: int = Field(
        default=100, ge=0, description="Tenants with metrics of their own; the rest share `other`."
    )
    otlp_endpoint: str | None = Field(
        default_factory=lambda: os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or None,
        description="Where traces are sent, OTLP over HTTP; default: OTEL_EXPORTER_OTLP_ENDPOINT.",
    )
    trace_content: bool = Field(
        default=False, description="Whether traces hold prompts and answers."
    )
    access_log: bool = Field(default=True, description="Whether each request is a line in the log.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level that is logged."
    )
    log_format: Literal["console", "json"] = Field(
        default="console", description="Readable lines, or one JSON object a line."
    )

    @field_validator("engine_urls", mode="before")
    @classmethod
    def _split_urls(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(url.strip().rstrip("/") for url in value.split(",") if url.strip())
        return value

    @property
    def sqlalchemy_url(self) -> str:
        """The database's URL, the embedded SQLite file where none is set."""
        return self.database_url or f"sqlite+aiosqlite:///{(self.data_dir / 'ttrl.db').resolve()}"

    @property
    def has_journal(self) -> bool:
        """Whether answers are stored in a journal first."""
        wanted = self.log_journal == "on" or (self.log_journal == "auto" and self.is_sqlite)
        return wanted and self.log_spool_bytes > 0

    @property
    def is_sqlite(self) -> bool:
        """Whether the embedded database is used."""
        return self.sqlalchemy_url.startswith("sqlite")

    @property
    def spool_dir(self) -> Path:
        """Where the web processes' spools and journals lie."""
        return self.data_dir / "spool"

    @property
    def presence_path(self) -> Path:
        """The file that says when users were last served."""
        return self.data_dir / "serving"

    @property
    def adapters_dir(self) -> Path:
        """Where adapter versions live, absolute: the engine loads them by this path."""
        return (self.data_dir / "adapters").resolve()
