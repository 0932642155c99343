"""Manifests decoded all at once say what they say entry by entry, whoever wrote them, whatever they lack."""

import random
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import DayTransform, IdentityTransform
from pyiceberg.typedef import Record
from pyiceberg.types import LongType, NestedField, StringType, TimestamptzType

from lakehouse.catalog.iceberg import entry_groups
from lakehouse.catalog.iceberg.avro_encoding import (
    ContainerFile,
    encode_block,
    encode_header,
    encode_long,
)
from lakehouse.catalog.iceberg.encoded_metrics import NO_FIELD, EncodedMetrics, read_metrics
from lakehouse.catalog.iceberg.entry_layout import find_entries
from lakehouse.catalog.iceberg.manifest_decoding import ManifestFile, decode_frame, decode_frames
from lakehouse.catalog.iceberg.manifest_format import ManifestFormat
from lakehouse.catalog.iceberg.manifest_frames import LeafMetrics, ManifestFrame
from lakehouse.catalog.iceberg.manifests import ADDED, DELETED, EXISTING, Entry, added_entry, encode_manifest
from lakehouse.catalog.iceberg.varints import Varints, read_longs
from lakehouse.catalog.query.leaf_bounds import LeafBounds

SCHEMA = Schema(
    NestedField(1, "sequence", StringType(), required=True),
    NestedField(2, "recorded_at", TimestamptzType(), required=True),
    NestedField(3, "timestamp_ns", LongType(), required=True),
)
SPEC = PartitionSpec(
    PartitionField(1, 1000, IdentityTransform(), "sequence"), PartitionField(2, 1001, DayTransform(), "recorded_at_day")
)
FORM = ManifestFormat(SCHEMA, SCHEMA.model_dump_json(), SPEC)
# One byte, two bytes and three bytes long in Avro.
FIELD_IDS = (1, 2, 3, 63, 64, 65, 8191, 8192, 70_000)
SEQUENCE_NUMBER = 17

counts = st.none() | st.dictionaries(st.sampled_from(FIELD_IDS), st.integers(0, 2**62))
bounds = st.none() | st.dictionaries(
    st.sampled_from(FIELD_IDS), st.binary(max_size=3) | st.binary(min_size=8, max_size=8) | st.binary(min_size=130)
)
files = st.builds(
    DataFile.from_args,
    content=st.just(DataFileContent.DATA),
    file_path=st.text(max_size=40).map(lambda name: f"file:///ä/{name}.parquet"),
    file_format=st.sampled_from([FileFormat.PARQUET, FileFormat.PARQUET, FileFormat.ORC]),
    partition=st.tuples(st.none() | st.text(max_size=20), st.none() | st.integers(-40_000, 40_000)).map(
        lambda values: Record(*values)
    ),
    record_count=st.integers(0, 2**62),
    file_size_in_bytes=st.integers(0, 2**62),
    column_sizes=counts,
    value_counts=counts,
    null_value_counts=counts,
    nan_value_counts=counts,
    lower_bounds=bounds,
    upper_bounds=bounds,
    key_metadata=st.none() | st.binary(max_size=5),
    split_offsets=st.none() | st.lists(st.integers(0, 2**40), max_size=3),
    equality_ids=st.none(),
    sort_order_id=st.none() | st.integers(0, 200),
)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    entry = added_entry(FORM, draw(files), draw(st.integers(1, 2**63 - 1)))
    number = st.none() | st.integers(0, 2**40)
    return replace(
        entry,
        status=draw(st.sampled_from([ADDED, ADDED, EXISTING, DELETED])),
        sequence_number=draw(number),
        file_sequence_number=draw(number),
    )


manifests = st.lists(st.lists(entries(), max_size=12), min_size=1, max_size=4)


def encoded(of_manifest: list[Entry]) -> bytes:
    return encode_manifest(FORM, "file:///m.avro", of_manifest, 5, SEQUENCE_NUMBER)[0]


def as_file(content: bytes) -> ManifestFile:
    return ManifestFile(content, SEQUENCE_NUMBER, 0, 1)


def one_by_one(content: bytes) -> ManifestFrame:
    return decode_frame(ContainerFile(content), SEQUENCE_NUMBER, 0, 1)


def assert_same_metrics(found: LeafMetrics, expected: LeafMetrics) -> None:
    assert found.lower.equals(expected.lower)
    assert found.upper.equals(expected.upper)
    for name in ("value_counts", "null_counts", "nan_counts"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def assert_same(found: ManifestFrame, expected: ManifestFrame) -> None:
    assert isinstance(found.metrics, EncodedMetrics)
    assert not isinstance(expected.metrics, EncodedMetrics)
    for name in ("paths", "sequences", "days", "formats"):
        assert getattr(found, name).equals(getattr(expected, name)), name
    for name in ("sequence_numbers", "contents", "record_counts", "file_sizes"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    rows = np.arange(len(found))
    assert found.metrics.fields_with_nan(rows) == expected.metrics.fields_with_nan(rows)
    for field_id in (*FIELD_IDS, 4, NO_FIELD):
        assert_same_metrics(found.metrics.of_field(field_id), expected.metrics.of_field(field_id))


@settings(deadline=None, max_examples=60)
@given(of_manifests=manifests, group_bytes=st.sampled_from([1, 700, 1 << 20]))
def test_all_at_once_is_entry_by_entry(of_manifests: list[list[Entry]], group_bytes: int) -> None:
    contents = [encoded(each) for each in of_manifests]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entry_groups, "_GROUP_BYTES", group_bytes)
        frames = decode_frames([as_file(content) for content in contents])
        expected = [one_by_one(content) for content in contents]
        for found, each in zip(frames, expected, strict=True):
            assert_same(found, each)
        field_ids = [FIELD_IDS[: len(frames)], [FIELD_IDS[-1]] * len(frames)]
        for metrics, ids in zip(read_metrics(frames, field_ids), field_ids, strict=True):
            parts = [each.metrics.of_field(field_id) for each, field_id in zip(expected, ids, strict=True)]
            assert_same_metrics(metrics, LeafMetrics.joined(parts))


def entry_with(bounds_of: dict[int, bytes], path: str = "file:///a.parquet") -> Entry:
    return added_entry(FORM, data_file(path, lower_bounds=bounds_of, upper_bounds=bounds_of), 1)


def data_file(path: str, **others: Any) -> DataFile:
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=Record("a", 3),
        record_count=9,
        file_size_in_bytes=99,
        **others,
    )


def test_files_with_texts_of_many_lengths_beside_uniform_ones() -> None:
    generator = random.Random(0)
    uniform = [entry_with({1: b"name", 3: bytes([n] * 8)}, f"file:///{n}") for n in range(100)]
    varied = [
        entry_with({1: b"x" * generator.randrange(200), 64: bytes([n] * 8)} if n % 3 else {}, f"file:///{n}")
        for n in range(100)
    ]
    mixed = [*uniform, *varied]
    generator.shuffle(mixed)
    for some in (uniform, varied, mixed):
        (found,) = decode_frames([as_file(encoded(some))])
        assert_same(found, one_by_one(encoded(some)))


def test_what_is_kept_of_one_manifest_keeps_no_other_in_memory() -> None:
    frames = decode_frames([as_file(encoded([entry_with({3: bytes(8)}, f"file:///{n}")])) for n in range(500)])
    for frame in frames:
        columns = (frame.paths, frame.sequences, frame.days, frame.formats)
        held = sum(column.get_total_buffer_size() for column in columns)
        # Arrow fills buffers up to 64 bytes.
        assert held <= frame.nbytes + 64 * 3 * len(columns)
    everything = LeafBounds.decode(pa.int64(), read_metrics(frames, [[3] * len(frames)])[0])
    part = everything.part(3, 4)
    assert all(array.base is None for array in (part.lower, part.upper, part.value_counts, part.null_counts))


def with_header(content: bytes, **changed: str) -> bytes:
    """The same blocks behind another header."""
    container = ContainerFile(content)
    metadata = {key: value.decode() for key, value in container.metadata.items()}
    return encode_header({**metadata, **changed}) + content[container.first_block - 16 :]


class TestOtherWriters:
    """What does not lie like ours goes entry by entry; nobody can tell from the frame."""

    def blocks(self, counts_of: list[int], codec: str) -> bytes:
        """Entries in blocks of so many, as other writers put them."""
        one_each = encoded([entry_with({3: bytes([n] * 8)}, f"file:///{n}") for n in range(sum(counts_of))])
        contents = iter([content for _, content in ContainerFile(one_each).blocks()])
        sync = bytes(16)
        head = with_header(one_each, **{"avro.codec": codec})
        head = head[: ContainerFile(head).first_block - 16] + sync
        return head + b"".join(
            encode_block(b"".join(next(contents) for _ in range(count)), count, sync, deflate=codec == "deflate")
            for count in counts_of
        )

    @pytest.mark.parametrize("codec", ["null", "deflate"])
    def test_one_entry_a_block(self, codec: str) -> None:
        content = self.blocks([1] * 12, codec)
        assert find_entries(ContainerFile(content)) is not None
        (found,) = decode_frames([as_file(content)])
        assert len(found) == 12
        assert_same(found, one_by_one(content))

    @pytest.mark.parametrize("counts_of", [[12], [1, 1, 2], [3, 1]])
    def test_several_entries_a_block(self, counts_of: list[int]) -> None:
        content = self.blocks(counts_of, "deflate")
        assert find_entries(ContainerFile(content)) is None
        ours = self.blocks([1, 1], "null")
        first, found, last = decode_frames([as_file(ours), as_file(content), as_file(ours)])
        assert found.paths.to_pylist() == [f"file:///{n}" for n in range(sum(counts_of))]
        (together,) = read_metrics([first, found, last], [[3, 3, NO_FIELD]])
        expected = [*range(2), *range(sum(counts_of))]
        assert together.lower.to_pylist() == [*(bytes([n] * 8) for n in expected), None, None]

    def test_another_layout(self) -> None:
        ours = encoded([entry_with({})])
        schema = ContainerFile(ours).metadata["avro.schema"].decode()
        without_field = schema.replace('"field-id": 140', '"field-id": 141')
        assert find_entries(ContainerFile(with_header(ours, **{"avro.schema": without_field}))) is None
        other_partition = schema.replace('["null", "string"]', '["null", "bytes"]')
        assert other_partition != schema
        assert find_entries(ContainerFile(with_header(ours, **{"avro.schema": other_partition}))) is None

    def test_maps_in_several_blocks_are_refused_not_misread(self) -> None:
        """Avro allows them, no writer of Iceberg makes them; guessing would lose bounds."""
        one_block = b"\x02" + encode_long(1) + encode_long(3) + encode_long(9) + b"\x00"
        two_blocks = one_block[:-1] + encode_long(1) + encode_long(64) + encode_long(9) + b"\x00"
        many = added_entry(FORM, data_file("file:///a", value_counts={3: 9}), 1)
        changed = many.data_file.replace(one_block, two_blocks)
        assert len(changed) > len(many.data_file)
        content = encoded([replace(many, data_file=changed)])
        with pytest.raises((ValueError, IndexError)):
            decode_frames([as_file(content)])[0].metrics.of_field(3)


class TestDamage:
    CONTENT = encoded([entry_with({3: bytes([n] * 8), 64: b"text"}, f"file:///{n}") for n in range(20)])

    @settings(deadline=None, max_examples=150)
    @given(st.data())
    def test_is_an_error_or_harmless_never_endless(self, data: st.DataObject) -> None:
        start = ContainerFile(self.CONTENT).first_block
        place = data.draw(st.integers(start, len(self.CONTENT) - 1))
        damaged = bytearray(self.CONTENT)
        damaged[place] ^= data.draw(st.integers(1, 255))
        # The skip index makes one error of all that a decoder may stumble on.
        with suppress(ValueError, IndexError, EOFError, OSError, KeyError, pa.ArrowException, OverflowError):
            (frame,) = decode_frames([as_file(bytes(damaged))])
            frame.metrics.of_field(64)
            assert len(frame) <= 20

    # Less than the last block: cut off between blocks, only the length in the manifest list tells.
    @given(st.integers(1, 80))
    def test_a_missing_end_is_an_error(self, missing: int) -> None:
        with pytest.raises((ValueError, IndexError, EOFError, OSError)):
            decode_frames([as_file(self.CONTENT[:-missing])])


class TestIntegers:
    @given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
    def test_are_read_as_they_were_written(self, values: list[int]) -> None:
        parts = [encode_long(value) for value in values]
        content = np.frombuffer(b"\0" + b"".join(parts), np.uint8)
        positions = 1 + np.cumsum([0, *map(len, parts)])[:-1]
        found, following = read_longs(content, positions)
        assert found.tolist() == values
        assert following.tolist() == (positions + list(map(len, parts))).tolist()
        integers = Varints(content)
        numbers = integers.numbered(positions)
        assert integers.starts(numbers).tolist() == positions.tolist()
        assert integers.values(numbers).tolist() == values

    def test_longer_than_any_are_refused(self) -> None:
        with pytest.raises(ValueError, match="64 bits"):
            read_longs(np.full(20, 0xFF, np.uint8), np.array([0]))


def test_no_manifest_has_no_files() -> None:
    assert decode_frames([]) == []
    metadata = ContainerFile(encoded([entry_with({})])).metadata
    empty = encode_header({key: value.decode() for key, value in metadata.items()})
    (frame,) = decode_frames([as_file(empty + bytes(16))])
    assert (len(frame), len(frame.metrics.of_field(3))) == (0, 0)
    assert frame.paths.type == pa.string()
