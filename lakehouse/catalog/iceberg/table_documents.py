"""Table metadata files as JSON documents.

Our own commits edit the document and never pass it through a model: fields which other engines wrote and we do not
know survive, and a commit costs one JSON parse and one dump. Field names: Iceberg spec, "Table Metadata Fields".
"""

import json
import random
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from pyiceberg.schema import Schema

from lakehouse.catalog.bounded_cache import BoundedCache
from lakehouse.catalog.errors import ChangedTableError, StorageError, quoted
from lakehouse.catalog.iceberg.column_history import COLUMNS_PROPERTY, ColumnHistory
from lakehouse.catalog.iceberg.file_cache import FileCache
from lakehouse.catalog.iceberg.manifest_format import ManifestFormat, manifest_format, parse_schema
from lakehouse.catalog.iceberg.manifest_lists import ManifestRecord, decode_manifest_list
from lakehouse.catalog.iceberg.sql_catalog import SqlTableCatalog
from lakehouse.catalog.iceberg.table_catalog import TableCatalog
from lakehouse.catalog.storage import Warehouse

FORMAT_VERSION = 2
MAIN_BRANCH = "main"
# Maintenance trims the log and removes the files; this bound holds even where it does not run.
MAX_METADATA_LOG = 100
CACHED_BYTES = 32 << 20
CACHED_MANIFEST_RECORDS = 50_000

Item = TypeVar("Item")
Result = TypeVar("Result")

# They wait for an object store; idle ones cost nothing.
_readers = ThreadPoolExecutor(16, thread_name_prefix="table-files")


@dataclass(frozen=True)
class TableDocument:
    """The content of one metadata file. Treat `fields` as immutable.

    Attributes:
        metadata_location: URI of the file.
        fields: The parsed JSON.
    """

    metadata_location: str
    fields: Mapping[str, Any]

    @property
    def location(self) -> str:
        """Root URI of the table's files, without trailing slash."""
        return str(self.fields["location"]).rstrip("/")

    @property
    def properties(self) -> Mapping[str, str]:
        return self.fields.get("properties") or {}

    @property
    def snapshots(self) -> Sequence[Mapping[str, Any]]:
        return self.fields.get("snapshots") or []

    @property
    def current_snapshot(self) -> Mapping[str, Any] | None:
        """The snapshot of the main branch; None for a table without data."""
        current = self.fields.get("current-snapshot-id")
        if current is None or current == -1:
            return None
        return next(snapshot for snapshot in self.snapshots if snapshot["snapshot-id"] == current)

    @property
    def last_sequence_number(self) -> int:
        return int(self.fields.get("last-sequence-number", 0))

    @property
    def schema_fields(self) -> Mapping[str, Any]:
        """The current schema as JSON has it; where many tables are looked at, models of it cost too much."""
        current = self.fields["current-schema-id"]
        schema: Mapping[str, Any] = next(each for each in self.fields["schemas"] if each["schema-id"] == current)
        return schema

    @cached_property
    def schema_json(self) -> str:
        return json.dumps(self.schema_fields, separators=(",", ":"))

    @property
    def schema(self) -> Schema:
        """The current schema.

        Raises:
            ChangedTableError: If another engine gave it columns of a type that is not known here.
        """
        try:
            return parse_schema(self.schema_json)
        except ValueError:
            raise ChangedTableError(f"table {self.name} has columns of a type that is not known here") from None

    @cached_property
    def columns(self) -> ColumnHistory:
        """Its columns by all names they ever had."""
        uploaded = self.properties.get(COLUMNS_PROPERTY)
        return ColumnHistory(self.fields["schemas"], self.fields["current-schema-id"], uploaded)

    def column_id(self, name: str) -> int:
        """Field id of one of the columns that all topic tables have.

        Raises:
            ChangedTableError: If another engine renamed or dropped it.
        """
        field_id = self.columns.current.get((name,))
        if field_id is None:
            raise ChangedTableError(
                f"table {self.name} has no column {quoted(name)} any more: another engine renamed or dropped it; "
                "a renamed one has to get its name back there"
            )
        return field_id

    @property
    def name(self) -> str:
        """As catalogs call it, unless somebody has renamed the whole table since."""
        return ".".join(self.location.rsplit("/", 2)[1:])

    @property
    def is_writable(self) -> bool:
        """Whether it is of the format version that our commits are written in."""
        return bool(self.fields["format-version"] == FORMAT_VERSION)

    def check_writable(self) -> None:
        """Refuse to write to a table which other engines could not read, or not rightly, afterwards.

        Raises:
            ChangedTableError: If the table is of a format version we do not write.
        """
        if not self.is_writable:
            raise ChangedTableError(
                f"table {self.name} is in Iceberg format version {self.fields['format-version']} since another engine "
                "upgraded it: it is read as ever, and changed by that engine only"
            )

    def manifest_format(self, spec_id: int) -> ManifestFormat:
        """How its manifests of a partition spec are encoded.

        Raises:
            ChangedTableError: See `schema`.
        """
        self.schema  # noqa: B018, raises what is to be raised
        spec = next(spec for spec in self.fields["partition-specs"] if spec["spec-id"] == spec_id)
        return manifest_format(self.schema_json, json.dumps(spec, separators=(",", ":")))

    def with_snapshot(self, snapshot: Mapping[str, Any]) -> dict[str, Any]:
        """The fields after `snapshot` became the head of the main branch."""
        snapshot_id, at_ms = snapshot["snapshot-id"], snapshot["timestamp-ms"]
        refs = dict(self.fields.get("refs") or {})
        refs[MAIN_BRANCH] = {**refs.get(MAIN_BRANCH, {}), "snapshot-id": snapshot_id, "type": "branch"}
        return {
            **self.successor(at_ms),
            "last-sequence-number": snapshot["sequence-number"],
            "current-snapshot-id": snapshot_id,
            "snapshots": [*self.snapshots, snapshot],
            "snapshot-log": [
                *(self.fields.get("snapshot-log") or []),
                {"snapshot-id": snapshot_id, "timestamp-ms": at_ms},
            ],
            "refs": refs,
        }

    def successor(self, at_ms: int) -> dict[str, Any]:
        """The fields as they begin the next version: this file entered into the log of earlier ones.

        Raises:
            ChangedTableError: If the table is of a format version we do not write.
        """
        self.check_writable()
        log = self.fields.get("metadata-log") or []
        entry = {"metadata-file": self.metadata_location, "timestamp-ms": self.fields["last-updated-ms"]}
        return {**self.fields, "last-updated-ms": at_ms, "metadata-log": [*log[1 - MAX_METADATA_LOG :], entry]}

    def next_timestamp_ms(self) -> int:
        """Now, but never before the last change: snapshot times must not run backwards when clocks differ."""
        return max(time.time_ns() // 1_000_000, int(self.fields["last-updated-ms"]))

    def next_metadata_location(self) -> str:
        version = re.match(r"(\d+)-", self.metadata_location.rpartition("/")[2])
        number = int(version.group(1)) + 1 if version else len(self.fields.get("metadata-log") or []) + 1
        return f"{self.location}/metadata/{number:05d}-{uuid.uuid4()}.metadata.json"


def new_snapshot_id(document: TableDocument) -> int:
    taken = {snapshot["snapshot-id"] for snapshot in document.snapshots}
    while (snapshot_id := random.getrandbits(63)) in taken or snapshot_id == 0:
        pass
    return snapshot_id


class TableFiles:
    """Reads the immutable files of table metadata, keeping recently used ones in memory.

    Metadata files are kept as bytes (parsing one costs less than half a millisecond, keeping it parsed ten times the
    memory), manifest lists decoded.

    Args:
        warehouse: Where the files are.
        copies: Keeps copies on the local disk, for a warehouse that is elsewhere.
        catalog: Tells which of them are current; None: the SQL catalog in the database.
    """

    def __init__(
        self, warehouse: Warehouse, copies: FileCache | None = None, catalog: TableCatalog | None = None
    ) -> None:
        self.warehouse = warehouse
        self.catalog: TableCatalog = SqlTableCatalog() if catalog is None else catalog
        self._copies = copies
        self._documents: BoundedCache[str, bytes] = BoundedCache(CACHED_BYTES, len)
        self._lists: BoundedCache[str, tuple[ManifestRecord, ...]] = BoundedCache(
            CACHED_MANIFEST_RECORDS, lambda records: 1 + len(records)
        )

    def document(self, metadata_location: str) -> TableDocument:
        """Parse a metadata file.

        Raises:
            StorageError: If it cannot be read.
        """
        data = self._documents.get(metadata_location, lambda: self.read(metadata_location))
        try:
            return TableDocument(metadata_location, json.loads(data))
        except ValueError as error:
            raise StorageError("a metadata file of a table is damaged") from error

    def manifest_list(self, location: str) -> tuple[ManifestRecord, ...]:
        """The manifests of a snapshot.

        Raises:
            StorageError: If the list cannot be read.
        """
        return self._lists.get(location, lambda: tuple(decode_manifest_list(self.read(location))))

    def remember(
        self, metadata_location: str, document: bytes, list_location: str, records: Sequence[ManifestRecord]
    ) -> None:
        """Keep what this process has just written: the next commit to the table builds on it."""
        self._documents.keep(metadata_location, document)
        self._lists.keep(list_location, tuple(records))

    def at_once(self, look: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Do something with each of many tables; where that waits for an object store, with several at a time.

        Args:
            look: Must not come here itself, nor to `read_all`.
            items: What it is called with.
        """
        if self.warehouse.is_local or len(items) < 2:
            return [look(item) for item in items]
        return list(_readers.map(look, items))

    def read_all(self, uris: Sequence[str]) -> list[bytes]:
        """Whole files; from an object store many at once, since each of them takes its time to begin.

        Raises:
            StorageError: If one cannot be read.
        """
        return self.at_once(self.read, uris)

    def write_document(self, uri: str, fields: Mapping[str, Any]) -> bytes:
        """Write a metadata file; it is durable only after `Warehouse.make_durable`.

        Raises:
            StorageError: If the warehouse refuses.
        """
        document = json.dumps(fields, separators=(",", ":")).encode()
        with self.warehouse.open_output(uri) as stream:
            stream.write(document)
        return document

    def read(self, uri: str) -> bytes:
        """A whole file.

        Raises:
            StorageError: If it cannot be read.
        """
        if self._copies is not None and (copy := self._copies.get(uri)) is not None:
            return copy
        try:
            content = self.warehouse.read(uri)
        except OSError as error:
            raise StorageError("a metadata file of a table could not be read") from error
        if self._copies is not None:
            self._copies.put(uri, content)
        return content
