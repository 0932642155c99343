"""Bounds of the leaf columns of one data file, from its Parquet footer.

A bound that is wrong by one bit makes queries lose rows, so every doubt ends in no bound at all. Encodings follow the
Iceberg specification, appendix D (single-value serialization); truncation of strings follows Iceberg's default metrics
mode `truncate(16)`.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pat

from lakehouse.catalog.iceberg.leaves import Leaf

STRING_BOUND_LENGTH = 16
# Session locators differ in their last characters only, so truncated bounds of the envelope would never prune.
ENVELOPE_BOUND_LENGTH = 64
ENVELOPE_STRINGS = ("sequence", "session")

_LAST_CODE_POINT = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)


@dataclass(slots=True)
class ElementCounts:
    """What the footer does not tell about the values of a leaf in one row group.

    Attributes:
        values: Elements of all lists, or rows; null and NaN included.
        nulls, nans: How many of them are null, and NaN.
        extremes: Smallest and largest float that is not NaN, for columns whose statistics are not in the footer.
    """

    values: int = 0
    nulls: int = 0
    nans: int = 0
    extremes: tuple[float, float] | None = None

    def add(self, other: "ElementCounts") -> None:
        """Count what `other` counted too."""
        self.values += other.values
        self.nulls += other.nulls
        self.nans += other.nans


@dataclass(frozen=True, slots=True)
class ElementBounds:
    """Bounds of the elements of a list or of the keys or values of a map, over all rows of a file.

    Attributes:
        lower, upper: Single-value serialization; None when unknown or when there is no value but null and NaN.
        value_count: Elements, null and NaN included; unlike Parquet, empty and null lists count nothing.
        null_count: Elements that are null.
        nan_count: Elements that are NaN; None for types without NaN.
    """

    lower: bytes | None
    upper: bytes | None
    value_count: int
    null_count: int
    nan_count: int | None


@dataclass(frozen=True, slots=True)
class ColumnMetrics:
    """Per-leaf metrics of one file, keyed by Iceberg field id."""

    column_sizes: dict[int, int] = field(default_factory=dict)
    value_counts: dict[int, int] = field(default_factory=dict)
    null_value_counts: dict[int, int] = field(default_factory=dict)
    nan_value_counts: dict[int, int] = field(default_factory=dict)
    lower_bounds: dict[int, bytes] = field(default_factory=dict)
    upper_bounds: dict[int, bytes] = field(default_factory=dict)
    element_bounds: dict[int, ElementBounds] = field(default_factory=dict)


def has_nan(kind: pa.DataType) -> bool:
    return bool(pat.is_floating(kind))


def has_bounds(kind: pa.DataType) -> bool:
    """Whether values of `kind` get bounds: everything with an order but binary, which holds images and the like."""
    return bool(
        pat.is_boolean(kind)
        or pat.is_int32(kind)
        or pat.is_int64(kind)
        or pat.is_float32(kind)
        or pat.is_float64(kind)
        or pat.is_decimal128(kind)
        or pat.is_string(kind)
        or pat.is_large_string(kind)
        or pat.is_date32(kind)
        or (pat.is_timestamp(kind) and kind.unit == "us")
        or (pat.is_time64(kind) and kind.unit == "us")
    )


def count_elements(batch: pa.RecordBatch, leaves: Sequence[Leaf]) -> list[ElementCounts | None]:
    """Count per leaf what `column_metrics` needs and the Parquet footer lacks; None where it lacks nothing."""
    return [
        _count(leaf.values(batch)) if leaf.is_repeated or has_nan(leaf.type) or not has_bounds(leaf.type) else None
        for leaf in leaves
    ]


def _count(values: pa.Array) -> ElementCounts:
    nans = int(pc.sum(pc.is_nan(values)).as_py() or 0) if has_nan(values.type) else 0
    return ElementCounts(len(values), values.null_count, nans)


def count_rows(rows: pa.Table, leaves: Sequence[Leaf]) -> list[ElementCounts | None]:
    """`count_elements` of a whole row group."""
    total: list[ElementCounts | None] = [None] * len(leaves)
    for batch in rows.to_batches():
        for number, count in enumerate(count_elements(batch, leaves)):
            known = total[number]
            if known is None or count is None:
                total[number] = count
            else:
                known.add(count)
    return total


def float_extremes(rows: pa.Table, leaf: Leaf) -> tuple[float, float] | None:
    """Smallest and largest value of a float column, NaN and null left out; None if nothing is left."""
    found = [pc.min_max(leaf.values(batch)).as_py() for batch in rows.to_batches()]
    # Arrow ignores NaN unless there is nothing else.
    known = [each for each in found if each["min"] is not None and not math.isnan(each["min"])]
    return (min(each["min"] for each in known), max(each["max"] for each in known)) if known else None


def column_metrics(
    footer: pq.FileMetaData, leaves: Sequence[Leaf], counts: Sequence[Sequence[ElementCounts | None]]
) -> ColumnMetrics:
    """Metrics of a whole file.

    Args:
        footer: The footer of the file.
        leaves: Its leaves, in the order of its columns.
        counts: For each row group the result of `count_elements`.
    """
    metrics = ColumnMetrics()
    row_groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    for number, leaf in enumerate(leaves):
        chunks = [group.column(number) for group in row_groups]
        _add_leaf(metrics, leaf, chunks, [group_counts[number] for group_counts in counts])
    return metrics


def _add_leaf(
    metrics: ColumnMetrics, leaf: Leaf, chunks: Sequence[pq.ColumnChunkMetaData], counts: Sequence[ElementCounts | None]
) -> None:
    field_id = leaf.field_id
    metrics.column_sizes[field_id] = sum(chunk.total_compressed_size for chunk in chunks)
    metrics.value_counts[field_id] = sum(chunk.num_values for chunk in chunks)
    statistics = [chunk.statistics for chunk in chunks]
    if all(known is not None and known.has_null_count for known in statistics):
        metrics.null_value_counts[field_id] = sum(known.null_count for known in statistics)
    elif not leaf.is_repeated and all(count is not None for count in counts):
        metrics.null_value_counts[field_id] = sum(count.nulls for count in counts if count is not None)
    nan_count = sum(count.nans for count in counts if count is not None) if has_nan(leaf.type) else None
    extremes = _extremes(leaf, chunks, statistics, counts)
    lower, upper = _serialized(leaf, extremes) if extremes else (None, None)
    if leaf.is_repeated:
        # The specification and the engines know no bounds of list and map elements: these stay ours.
        if has_bounds(leaf.type):
            known_counts = [count for count in counts if count is not None]
            metrics.element_bounds[field_id] = ElementBounds(
                lower,
                upper,
                sum(count.values for count in known_counts),
                sum(count.nulls for count in known_counts),
                nan_count,
            )
        return
    if nan_count is not None:
        metrics.nan_value_counts[field_id] = nan_count
    if lower is not None:
        metrics.lower_bounds[field_id] = lower
    if upper is not None:
        metrics.upper_bounds[field_id] = upper


def _extremes(
    leaf: Leaf,
    chunks: Sequence[pq.ColumnChunkMetaData],
    statistics: Sequence[Any],
    counts: Sequence[ElementCounts | None],
) -> tuple[Any, Any] | None:
    """Smallest and largest physical value over all row groups; None when one group with values does not tell."""
    if not has_bounds(leaf.type):
        return None
    smallest: list[Any] = []
    largest: list[Any] = []
    for chunk, known, count in zip(chunks, statistics, counts, strict=True):
        if known is not None and known.has_min_max:
            smallest.append(_comparable(leaf.type, known.min_raw))
            largest.append(_comparable(leaf.type, known.max_raw))
        elif count is not None and count.extremes is not None:
            smallest.append(count.extremes[0])
            largest.append(count.extremes[1])
        elif not _is_void(chunk, known, count):
            return None
    if not smallest:
        return None
    low, high = min(smallest), max(largest)
    if has_nan(leaf.type):
        if math.isnan(low) or math.isnan(high):
            return None
        # Parquet and Iceberg order -0.0 before 0.0, comparisons do not: a bound of zero must cover both.
        low, high = (-0.0 if low == 0 else low), (0.0 if high == 0 else high)
    return low, high


def _is_void(chunk: pq.ColumnChunkMetaData, known: Any, count: ElementCounts | None) -> bool:
    """Whether a row group certainly holds nothing but null and NaN."""
    if known is not None and known.has_null_count:
        return bool(chunk.num_values - known.null_count <= (count.nans if count is not None else 0))
    return count is not None and count.values == count.nulls + count.nans


def _comparable(kind: pa.DataType, raw: Any) -> Any:
    if pat.is_decimal(kind):
        return int.from_bytes(raw, "big", signed=True) if isinstance(raw, bytes) else int(raw)
    if pat.is_string(kind) or pat.is_large_string(kind):
        # UTF-8 compares bytewise as its code points do.
        return bytes(raw)
    return raw


def _serialized(leaf: Leaf, extremes: tuple[Any, Any]) -> tuple[bytes | None, bytes | None]:
    low, high = extremes
    if pat.is_string(leaf.type) or pat.is_large_string(leaf.type):
        limit = ENVELOPE_BOUND_LENGTH if leaf.parquet_path in ENVELOPE_STRINGS else STRING_BOUND_LENGTH
        upper = truncated_upper(high.decode(), limit)
        return low.decode()[:limit].encode(), None if upper is None else upper.encode()
    return serialize(leaf.type, low), serialize(leaf.type, high)


def truncated_upper(text: str, limit: int) -> str | None:
    """The shortest simple upper bound of `text` with at most `limit` code points; None if there is none."""
    if len(text) <= limit:
        return text
    prefix = text[:limit]
    for end in range(len(prefix), 0, -1):
        following = ord(prefix[end - 1]) + 1
        if following in _SURROGATES:
            # Lone surrogates are no text: the next code point that is lies behind them.
            following = _SURROGATES.stop
        if following <= _LAST_CODE_POINT:
            return prefix[: end - 1] + chr(following)
    return None


_FORMATS: Mapping[str, str] = {"int32": "<i", "date32[day]": "<i", "float": "<f", "double": "<d", "bool": "<?"}


def serialize(kind: pa.DataType, value: Any) -> bytes:
    """Single-value serialization of a physical Parquet value (Iceberg specification, appendix D)."""
    if pat.is_decimal(kind):
        unscaled = int(value)
        bits = (unscaled if unscaled >= 0 else ~unscaled).bit_length()
        return unscaled.to_bytes(bits // 8 + 1, "big", signed=True)
    # Longs, timestamps and times are all 64-bit integers.
    return struct.pack(_FORMATS.get(str(kind), "<q"), value)
