"""All settings, read once from the environment (and a `.env` file in the working directory).

Variables that Mosaico users already know keep their names (`MOSAICOD_*`). Without any variable everything lives under
`LAKEHOUSE_HOME`, by default `./.lakehouse`.
"""

import os
from pathlib import Path
from typing import Literal, Self
from urllib.parse import quote, quote_plus, urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from lakehouse.catalog import addresses
from lakehouse.catalog.errors import ConfigurationError

MIB = 1 << 20
_SHORTEST_SECRET = 6
DEFAULT_CHUNK_SIZE = 128 * MIB


class Settings(BaseSettings):
    """Every setting with its default. Sizes are in bytes, durations in seconds unless the name says otherwise."""

    model_config = SettingsConfigDict(
        env_file=".env", env_prefix="LAKEHOUSE_", extra="ignore", populate_by_name=True, frozen=True
    )

    home: Path = Field(
        Path(".lakehouse"),
        validation_alias="LAKEHOUSE_HOME",
        description="directory of the embedded database and files",
    )
    drop_folder: Path = Field(
        Path("drop"),
        validation_alias="LAKEHOUSE_DROP_FOLDER",
        description="folder watched for recordings; a relative path is below LAKEHOUSE_HOME",
    )
    drop_settle_time: int = Field(
        5,
        ge=0,
        validation_alias="LAKEHOUSE_DROP_SETTLE_TIME",
        description="seconds a dropped recording must stay unchanged before it is ingested",
    )
    contracts_folder: Path = Field(
        Path("contracts"),
        validation_alias="LAKEHOUSE_CONTRACTS_FOLDER",
        description="folder of data contracts beside those shipped; a relative path is below LAKEHOUSE_HOME",
    )
    contract_policy: Literal["report", "refuse", "quarantine"] = Field(
        "report",
        validation_alias="LAKEHOUSE_CONTRACT_POLICY",
        description=(
            "what Dagster and `lakehouse ingest` do with a recording that fails its data contracts: report it after "
            "the commit, refuse the commit, or put its session in quarantine"
        ),
    )
    gateway_contract_policy: Literal["report", "refuse", "quarantine"] = Field(
        "report",
        validation_alias="LAKEHOUSE_GATEWAY_CONTRACT_POLICY",
        description=(
            "what the gateway does with a session that fails its data contracts; all but report read every session "
            "back before its commit"
        ),
    )
    landing_prefix: str = Field(
        "",
        validation_alias="LAKEHOUSE_LANDING_PREFIX",
        description="URL watched for recordings, such as s3://bucket/incoming; empty: only the drop folder",
    )
    landing_afterwards: Literal["keep", "move"] = Field(
        "keep",
        validation_alias="LAKEHOUSE_LANDING_AFTERWARDS",
        description="what becomes of recordings below the prefix: keep, or move to ingested/ and rejected/ below it",
    )
    dagster_url: str = Field(
        "http://127.0.0.1:3000",
        validation_alias="LAKEHOUSE_DAGSTER_URL",
        description="Dagster webserver, told to reload when new tables appear; empty: not told",
    )
    stale_session_age: int = Field(
        86400,
        ge=60,
        validation_alias="LAKEHOUSE_STALE_SESSION_AGE",
        description="seconds without any change after which an open session counts as stale",
    )
    stale_session_policy: Literal["report", "discard"] = Field(
        "report",
        validation_alias="LAKEHOUSE_STALE_SESSION_POLICY",
        description="what becomes of stale open sessions: report or discard",
    )
    fresh_tables: str = Field(
        "",
        validation_alias="LAKEHOUSE_FRESH_TABLES",
        description="tables that should keep moving, as patterns such as imu.*,gps.* with commas between",
    )
    freshness_window: int = Field(
        86400,
        ge=60,
        validation_alias="LAKEHOUSE_FRESHNESS_WINDOW",
        description="seconds without new rows after which such a table, and the sequences as a whole, look red",
    )
    notify_webhook: SecretStr = Field(
        SecretStr(""),
        validation_alias="LAKEHOUSE_NOTIFY_WEBHOOK",
        description="URL that failed runs and sessions in quarantine are posted to as JSON; empty: only the log",
    )
    db_url: str = Field(
        "",
        repr=False,
        validation_alias="MOSAICOD_DB_URL",
        description="database URL; empty: SQLite at LAKEHOUSE_HOME/lakehouse.db",
    )
    max_db_connections: int = Field(
        10, ge=2, validation_alias="MOSAICOD_MAX_DB_CONNECTIONS", description="size of the connection pool"
    )
    store_endpoint: str = Field(
        "",
        validation_alias="MOSAICOD_STORE_ENDPOINT",
        description="object store endpoint URL or file:///dir; empty: LAKEHOUSE_HOME",
    )
    store_bucket: str = Field(
        "warehouse",
        min_length=1,
        validation_alias="MOSAICOD_STORE_BUCKET",
        description="bucket, or directory below a file endpoint",
    )
    store_access_key: SecretStr = Field(
        SecretStr(""),
        validation_alias="MOSAICOD_STORE_ACCESS_KEY",
        description="S3 access key; empty: what AWS's own tools would use here",
    )
    store_secret_key: SecretStr = Field(
        SecretStr(""), validation_alias="MOSAICOD_STORE_SECRET_KEY", description="S3 secret key that goes with it"
    )
    store_region: str = Field(
        "",
        validation_alias="LAKEHOUSE_STORE_REGION",
        description="region of the bucket; empty: us-east-1 behind an endpoint, found out on AWS",
    )
    store_ca_file: str = Field(
        "",
        validation_alias="LAKEHOUSE_STORE_CA_FILE",
        description="PEM file of authorities for the store's https certificate; empty: the system's",
    )
    tls_cert_file: str = Field(
        "",
        validation_alias="MOSAICOD_TLS_CERT_FILE",
        description="certificate and chain for `lakehouse run --tls`, PEM",
    )
    tls_private_key_file: str = Field(
        "",
        validation_alias="MOSAICOD_TLS_PRIVATE_KEY_FILE",
        description="private key of that certificate, PEM without password",
    )
    status_host: str = Field(
        "127.0.0.1",
        validation_alias="LAKEHOUSE_STATUS_HOST",
        description="address that serves /health, /ready and /metrics",
    )
    status_port: int = Field(
        8080,
        ge=0,
        le=65535,
        validation_alias="LAKEHOUSE_STATUS_PORT",
        description="port that serves /health, /ready and /metrics; 0: none",
    )

    catalog_uri: str = Field(
        "",
        validation_alias="LAKEHOUSE_CATALOG_URI",
        description="URL of an Iceberg REST catalog that keeps the tables; empty: the SQL catalog in the database",
    )
    catalog_warehouse: str = Field(
        "", validation_alias="LAKEHOUSE_CATALOG_WAREHOUSE", description="name of the warehouse in the REST catalog"
    )
    catalog_token: SecretStr = Field(
        SecretStr(""), validation_alias="LAKEHOUSE_CATALOG_TOKEN", description="bearer token for the REST catalog"
    )
    catalog_credential: SecretStr = Field(
        SecretStr(""),
        validation_alias="LAKEHOUSE_CATALOG_CREDENTIAL",
        description="client_id:client_secret for which an authorization server gives tokens for the REST catalog",
    )
    catalog_oauth2_server_uri: str = Field(
        "",
        validation_alias="LAKEHOUSE_CATALOG_OAUTH2_SERVER_URI",
        description="URL of the authorization server that gives them; empty: v1/oauth/tokens of the REST catalog",
    )
    catalog_scope: str = Field(
        "catalog", validation_alias="LAKEHOUSE_CATALOG_SCOPE", description="scope of these tokens; empty: none"
    )
    catalog_multi_table_commit: Literal["auto", "always", "never"] = Field(
        "auto",
        validation_alias="LAKEHOUSE_CATALOG_MULTI_TABLE_COMMIT",
        description="whether the REST catalog commits to several tables at once; auto: if it announces that it does",
    )

    max_grpc_message_size: int = Field(
        50 * MIB,
        ge=4 * MIB,
        le=512 * MIB,
        validation_alias="MOSAICOD_MAX_GRPC_MESSAGE_SIZE",
        description="largest accepted message, bytes",
    )
    target_message_size: int = Field(
        25 * MIB,
        ge=64 * 1024,
        validation_alias="MOSAICOD_TARGET_MESSAGE_SIZE",
        description="target size of streamed batches, bytes",
    )
    max_batch_size: int = Field(
        8192, ge=1, validation_alias="MOSAICOD_MAX_BATCH_SIZE", description="largest number of rows in a streamed batch"
    )
    max_chunk_size: int = Field(
        DEFAULT_CHUNK_SIZE,
        ge=0,
        validation_alias="MOSAICOD_MAX_CHUNK_SIZE_IN_BYTES",
        description="target of a data file, bytes of Arrow data; 0: unlimited",
    )
    max_concurrent_writes: int = Field(
        0,
        ge=0,
        validation_alias="MOSAICOD_MAX_CONCURRENT_WRITES",
        description="concurrent encode-and-store operations; 0: default parallelism",
    )
    max_concurrent_chunk_queries: int = Field(
        4,
        ge=1,
        validation_alias="MOSAICOD_MAX_CONCURRENT_CHUNK_QUERIES",
        description="data files that one query scans at the same time",
    )
    default_parallelism: int = Field(
        0,
        ge=0,
        validation_alias="MOSAICOD_DEFAULT_PARALLELISM",
        description="override of the detected number of cores; 0: detect",
    )
    query_memory: int = Field(
        0,
        ge=0,
        validation_alias="MOSAICOD_QUERY_ENGINE_MEMORY_POOL_SIZE",
        description="bytes of rows that one query holds in memory; 0: as many as it scans fastest with",
    )
    query_time_limit: int = Field(
        300,
        ge=0,
        validation_alias="LAKEHOUSE_QUERY_TIME_LIMIT",
        description="seconds that the search for one query may take; 0: no limit",
    )
    max_open_uploads: int = Field(
        1000,
        ge=1,
        validation_alias="LAKEHOUSE_MAX_OPEN_UPLOADS",
        description="uploads that one gateway has open at the same time",
    )
    max_request_body: int = Field(
        16 * MIB,
        ge=64 * 1024,
        validation_alias="LAKEHOUSE_MAX_REQUEST_BODY",
        description="largest request of an action, bytes of JSON",
    )
    key_rate_limit: float = Field(
        0,
        ge=0,
        validation_alias="LAKEHOUSE_KEY_RATE_LIMIT",
        description="calls per second of one API key at one gateway, on average; 0: no limit",
    )
    encoding_buffer_size: int = Field(
        16 * MIB,
        ge=1 * MIB,
        validation_alias="MOSAICOD_PARQUET_IN_MEMORY_ENCODING_BUFFER_SIZE",
        description="Arrow bytes buffered per upload before a row group is encoded",
    )
    upload_memory_budget: int = Field(
        512 * MIB,
        ge=16 * MIB,
        validation_alias="LAKEHOUSE_UPLOAD_MEMORY_BUDGET",
        description="Arrow bytes buffered by all open uploads of one process together",
    )
    snapshots_to_keep: int = Field(
        20, ge=1, validation_alias="LAKEHOUSE_SNAPSHOTS_TO_KEEP", description="untagged snapshots kept per table"
    )
    metadata_cache_size: int = Field(
        1024 * MIB,
        ge=0,
        validation_alias="LAKEHOUSE_METADATA_CACHE_SIZE",
        description="bytes of table metadata of an object store kept below LAKEHOUSE_HOME/cache; 0: off",
    )
    snapshot_min_age: int = Field(
        300,
        ge=0,
        validation_alias="LAKEHOUSE_SNAPSHOT_MIN_AGE",
        description="seconds a snapshot's own metadata files outlive it, so that running readers finish",
    )
    cleanup_time_interval: int = Field(
        86400,
        ge=0,
        validation_alias="MOSAICOD_CLEANUP_TIME_INTERVAL",
        description="seconds between cleanup cycles; 0: off",
    )
    cleanup_retention_duration: int = Field(
        86400,
        ge=0,
        validation_alias="MOSAICOD_CLEANUP_RETENTION_DURATION",
        description="seconds between marking and purging of orphans; 0: at once",
    )

    retention_file: Path = Field(
        Path("retention.yaml"),
        validation_alias="LAKEHOUSE_RETENTION_FILE",
        description="YAML file with retention policies; a relative path is below LAKEHOUSE_HOME",
    )
    audit_retention_duration: int = Field(
        31_536_000,
        ge=0,
        validation_alias="LAKEHOUSE_AUDIT_RETENTION_DURATION",
        description="seconds that audit entries stay in the control plane once published; 0: for ever",
    )
    compaction_target_size: int = Field(
        0,
        ge=0,
        validation_alias="LAKEHOUSE_COMPACTION_TARGET_SIZE",
        description="size that compaction gives data files, bytes as stored; 0: MOSAICOD_MAX_CHUNK_SIZE_IN_BYTES",
    )
    compaction_min_files: int = Field(
        8,
        ge=2,
        validation_alias="LAKEHOUSE_COMPACTION_MIN_FILES",
        description="small data files of one topic and day that are worth being compacted",
    )

    @field_validator("store_endpoint")
    @classmethod
    def _endpoint_is_a_url(cls, value: str) -> str:
        if value and not value.startswith(("file:///", "http://", "https://", "s3://")):
            raise ValueError("must be a URL such as file:///srv/lake or https://s3.example.org")
        if "@" in urlsplit(value).netloc:
            raise ValueError("must not contain credentials; they go to MOSAICOD_STORE_ACCESS_KEY and _SECRET_KEY")
        return value

    @field_validator("catalog_uri", "catalog_oauth2_server_uri")
    @classmethod
    def _catalog_is_a_url(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must be a URL such as https://catalog.example.org/iceberg")
        if "@" in urlsplit(value).netloc:
            raise ValueError("must not contain credentials; they go to LAKEHOUSE_CATALOG_CREDENTIAL or _TOKEN")
        return value

    @field_validator("db_url")
    @classmethod
    def _database_url_is_one(cls, value: str) -> str:
        try:
            if value:
                make_url(value)
        except (ArgumentError, ValueError):
            raise ValueError("must be a URL such as postgresql://user:password@host/database") from None
        return value

    @model_validator(mode="after")
    def _message_target_fits_the_limit(self) -> Self:
        if self.target_message_size > self.max_grpc_message_size:
            raise ValueError("MOSAICOD_TARGET_MESSAGE_SIZE must not exceed MOSAICOD_MAX_GRPC_MESSAGE_SIZE")
        return self

    @property
    def catalog_token_url(self) -> str:
        """Where tokens for the REST catalog are to be had."""
        return self.catalog_oauth2_server_uri or f"{self.catalog_uri.rstrip('/')}/v1/oauth/tokens"

    @classmethod
    def load(cls, **overrides: object) -> Self:
        """Read the settings.

        Raises:
            ConfigurationError: If a variable is malformed; the text names it.
        """
        try:
            return cls(**overrides)  # type: ignore[arg-type]
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors())
            raise ConfigurationError(f"invalid configuration: {problems}") from None

    @property
    def drop_path(self) -> Path:
        return (self.home / self.drop_folder).resolve()

    @property
    def contracts_path(self) -> Path:
        return (self.home / self.contracts_folder).resolve()

    @property
    def retention_path(self) -> Path:
        return self.home / self.retention_file

    @property
    def metadata_cache_path(self) -> Path:
        return self.home.resolve() / "cache" / "metadata"

    @property
    def parallelism(self) -> int:
        return self.default_parallelism or os.cpu_count() or 1

    @property
    def concurrent_writes(self) -> int:
        return self.max_concurrent_writes or self.parallelism

    @property
    def compacted_file_size(self) -> int:
        """Bytes, as stored, at which compaction ends a data file."""
        return self.compaction_target_size or self.max_chunk_size or DEFAULT_CHUNK_SIZE

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL of the database that holds the control plane and the Iceberg catalog."""
        return addresses.database_url(self.db_url, self._embedded_database)

    @property
    def has_database(self) -> bool:
        """Whether there may be a lake: the embedded database comes into being when it is first opened."""
        return bool(self.db_url) or self._embedded_database.exists()

    @property
    def database_name(self) -> str:
        """The same URL as people may see it: without passwords, also those among its parameters."""
        return addresses.without_passwords(self.database_url)

    @property
    def secrets(self) -> set[str]:
        """Passwords, keys and tokens that nobody may see; not those so short that they are words of any text."""
        values = [value.get_secret_value() for _, value in self if isinstance(value, SecretStr)]
        client_id, colon, secret = self.catalog_credential.get_secret_value().partition(":")
        values.append(secret if colon else client_id)
        values += addresses.passwords_in(self.database_url)
        # Also as they are in addresses and forms.
        values += [form for value in values for form in (quote(value, safe=""), quote_plus(value))]
        return {value for value in values if len(value) >= _SHORTEST_SECRET}

    @property
    def warehouse_uri(self) -> str:
        """Root URI of all table files, without trailing slash."""
        return addresses.warehouse_uri(self.store_endpoint, self.store_bucket, self.home.resolve())

    @property
    def _embedded_database(self) -> Path:
        return self.home.resolve() / "lakehouse.db"
