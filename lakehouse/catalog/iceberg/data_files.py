"""The description of one stored data file: what the control plane records and what Iceberg's manifests say."""

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Self

from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.typedef import Record

from lakehouse.catalog.iceberg.bounds import ElementBounds

NANOSECONDS_PER_DAY = 86_400_000_000_000
EPOCH = date(1970, 1, 1)

_CODEC_VERSION = b"\x01"
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
_UUID_LENGTH = 36
_OWN_NAME = re.compile(r"(?P<topic>[0-9a-f-]{36})-(?P<number>\d+)(?:-(?P<position>\d+)-[0-9a-f]{8})?\.parquet")
# File systems allow 255 bytes per name.
_MAX_DIRECTORY_NAME = 120

# Number within the upload, and within what compaction made of files of that number.
Arrival = tuple[int, int]


@dataclass(frozen=True, slots=True)
class DataFileEntry:
    """One immutable Parquet file: sorted by `timestamp_ns`, one topic, one (sequence, day) partition.

    Attributes:
        path: URI of the file.
        sequence: Partition value: name of the sequence.
        day: Partition value: days since 1970-01-01 (UTC), negative before.
        file_size: Bytes.
        start_ns, end_ns: Smallest and largest `timestamp_ns`, both present in the file.
        ordinal: Number of the file within its upload; rows of equal time are ordered by it.
        column_sizes: Compressed bytes by field id.
        value_counts, null_value_counts, nan_value_counts: By field id, as Iceberg counts them.
        lower_bounds, upper_bounds: Iceberg single-value serialization by field id.
        element_bounds: Bounds of elements of lists and maps by field id; no part of the file's manifest entry.
        split_offsets: Where row groups start.
    """

    path: str
    sequence: str
    day: int
    record_count: int
    file_size: int
    start_ns: int
    end_ns: int
    ordinal: int
    column_sizes: Mapping[int, int] = field(default_factory=dict)
    value_counts: Mapping[int, int] = field(default_factory=dict)
    null_value_counts: Mapping[int, int] = field(default_factory=dict)
    nan_value_counts: Mapping[int, int] = field(default_factory=dict)
    lower_bounds: Mapping[int, bytes] = field(default_factory=dict)
    upper_bounds: Mapping[int, bytes] = field(default_factory=dict)
    element_bounds: Mapping[int, ElementBounds] = field(default_factory=dict)
    split_offsets: tuple[int, ...] = ()

    def to_bytes(self) -> bytes:
        """A compact, versioned form for the control plane."""
        document = {
            "path": self.path,
            "sequence": self.sequence,
            "numbers": [
                self.day,
                self.record_count,
                self.file_size,
                self.start_ns,
                self.end_ns,
                self.ordinal,
            ],
            "sizes": _pairs(self.column_sizes),
            "values": _pairs(self.value_counts),
            "nulls": _pairs(self.null_value_counts),
            "nans": _pairs(self.nan_value_counts),
            "lower": [[key, _text(value)] for key, value in self.lower_bounds.items()],
            "upper": [[key, _text(value)] for key, value in self.upper_bounds.items()],
            "elements": [
                [key, _text(found.lower), _text(found.upper), found.value_count, found.null_count, found.nan_count]
                for key, found in self.element_bounds.items()
            ],
            "splits": list(self.split_offsets),
        }
        return _CODEC_VERSION + zlib.compress(json.dumps(document, separators=(",", ":")).encode(), 1)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote.

        Raises:
            ValueError: If the form is of a version this release does not know.
        """
        if data[:1] != _CODEC_VERSION:
            raise ValueError("data file entry of an unknown version")
        document = json.loads(zlib.decompress(data[1:]))
        day, record_count, file_size, start_ns, end_ns, ordinal = document["numbers"]
        return cls(
            path=document["path"],
            sequence=document["sequence"],
            day=day,
            record_count=record_count,
            file_size=file_size,
            start_ns=start_ns,
            end_ns=end_ns,
            ordinal=ordinal,
            column_sizes=dict(document["sizes"]),
            value_counts=dict(document["values"]),
            null_value_counts=dict(document["nulls"]),
            nan_value_counts=dict(document["nans"]),
            lower_bounds={key: base64.b64decode(value) for key, value in document["lower"]},
            upper_bounds={key: base64.b64decode(value) for key, value in document["upper"]},
            element_bounds={
                key: ElementBounds(_bytes(lower), _bytes(upper), values, nulls, nans)
                for key, lower, upper, values, nulls, nans in document["elements"]
            },
            split_offsets=tuple(document["splits"]),
        )

    def to_iceberg(self, spec_id: int = 0) -> DataFile:
        """The manifest entry, for a table partitioned by (identity(sequence), day(recorded_at))."""
        data_file = DataFile.from_args(
            content=DataFileContent.DATA,
            file_path=self.path,
            file_format=FileFormat.PARQUET,
            partition=Record(self.sequence, self.day),
            record_count=self.record_count,
            file_size_in_bytes=self.file_size,
            column_sizes=dict(self.column_sizes),
            value_counts=dict(self.value_counts),
            null_value_counts=dict(self.null_value_counts),
            nan_value_counts=dict(self.nan_value_counts),
            lower_bounds=dict(self.lower_bounds),
            upper_bounds=dict(self.upper_bounds),
            key_metadata=None,
            split_offsets=list(self.split_offsets),
            equality_ids=None,
            sort_order_id=None,
        )
        data_file.spec_id = spec_id
        return data_file


def data_file_uri(table_location: str, sequence: str, day: int, topic_uuid: str, ordinal: int) -> str:
    """Where a data file lives: below its table, in a directory per partition, named after topic and arrival.

    The directories are for people only. They are not named `key=value`, because engines that are pointed at the files
    themselves would make columns of that and collide with those in the files. The name of the sequence loses what a URI
    would escape, because programs disagree on decoding it, and its excess length; the UUID keeps files apart.
    """
    directory = _UNSAFE.sub("_", sequence)
    if directory != sequence or len(directory) > _MAX_DIRECTORY_NAME:
        digest = hashlib.sha256(sequence.encode()).hexdigest()[:8]
        directory = f"{directory[:_MAX_DIRECTORY_NAME]}-{digest}"
    day_text = (EPOCH + timedelta(days=day)).isoformat()
    return f"{table_location.rstrip('/')}/data/{directory}/{day_text}/{topic_uuid}-{ordinal:05d}.parquet"


def compacted_file_uri(replaced_uri: str, arrival: Arrival, position: int, token: str) -> str:
    """Where a file lives that takes the place of others of its topic and partition.

    Args:
        replaced_uri: Any of the replaced files: the new one lies beside it.
        arrival: The first in order of arrival of what is replaced.
        position: Number of the file among those that replace them, by time.
        token: Eight hexadecimal digits of nobody else's, so that no two compactions write one file.
    """
    directory, _, name = replaced_uri.rpartition("/")
    number, sub_number = arrival
    return f"{directory}/{name[:_UUID_LENGTH]}-{number:05d}-{sub_number + position:05d}-{token}.parquet"


def arrival_of(path: str, topic_uuid: str) -> Arrival | None:
    """When the rows of a file of ours arrived, compared with those of the topic's other files; None for other files.

    It matters where files hold equal times: an upload numbers its files, and compaction passes on the number of what it
    replaces. Every file named like this is in time order.
    """
    found = _OWN_NAME.fullmatch(path.rpartition("/")[2])
    if found is None or found.group("topic") != topic_uuid:
        return None
    return int(found.group("number")), int(found.group("position") or 0)


def is_own_file(path: str) -> bool:
    """Whether a file has the name of one that an upload or our compaction wrote; such files keep the columns, names and
    field ids that they were uploaded with."""
    return _OWN_NAME.fullmatch(path.rpartition("/")[2]) is not None


def _pairs(mapping: Mapping[int, int]) -> list[list[Any]]:
    return [[key, value] for key, value in mapping.items()]


def _text(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode("ascii")


def _bytes(value: str | None) -> bytes | None:
    return None if value is None else base64.b64decode(value)
