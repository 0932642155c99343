"""Bounds of list elements in manifests: kept exactly through every rewrite of ours, out of sight of other engines."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.catalog.commits.plan import TableChange
from lakehouse.catalog.iceberg.bounds import ElementBounds
from lakehouse.catalog.iceberg.data_files import DataFileEntry
from lakehouse.catalog.iceberg.element_records import (
    ElementRecords,
    ElementReference,
    decode_records,
    gather,
)
from lakehouse.catalog.iceberg.tables import TopicTable
from lakehouse.catalog.maintenance.manifests import MANIFESTS_PER_CLASS
from lakehouse.catalog.maintenance.upkeep import Upkeep
from lakehouse.catalog.reading.skip_index import SkipIndex
from tests.catalog.small_lake import SmallLake

Elements = dict[int, ElementBounds]

_counts = st.integers(0, 2**62)
_bounds = st.builds(
    ElementBounds,
    st.none() | st.binary(max_size=20),
    st.none() | st.binary(max_size=20),
    _counts,
    _counts,
    st.none() | _counts,
)
_files = st.lists(st.dictionaries(st.integers(1, 2**31 - 1), _bounds, max_size=3), max_size=6)


def in_files(records: ElementRecords | None, file_count: int) -> list[Elements]:
    """What is recorded of each file."""
    found: list[Elements] = [{} for _ in range(file_count)]
    if records is None:
        return found
    for field_id in set(records.rows["field_id"].to_pylist()):
        columns = records.columns(field_id, file_count)
        for number, values in enumerate(zip(*(column.to_pylist() for column in columns), strict=True)):
            if values[2] is not None:
                found[number][field_id] = ElementBounds(*values)
    return found


@given(_files)
def test_what_is_stored_comes_back(files: list[Elements]) -> None:
    paths = [f"data/{number}.parquet" for number in range(len(files))]
    assert in_files(decode_records(ElementRecords.of(files).encode(paths), paths), len(files)) == files


@given(st.lists(_files, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_files_of_several_manifests_are_gathered_in_any_order(
    parts: list[list[Elements]], chance: random.Random
) -> None:
    records = [ElementRecords.of(files) for files in parts]
    chosen: list[tuple[ElementReference | None, Elements]] = [
        (ElementReference(records[part], number), of_file)
        for part, files in enumerate(parts)
        for number, of_file in enumerate(files)
        if chance.random() < 0.7
    ] + [(None, {})]
    chance.shuffle(chosen)
    gathered = gather(reference for reference, _ in chosen)
    assert in_files(gathered, len(chosen)) == [of_file for _, of_file in chosen]


def test_records_that_are_damaged_or_about_other_files_are_not_believed() -> None:
    files = [{5: ElementBounds(b"\x01", b"\x02", 3, 1, None)}]
    stored = ElementRecords.of(files).encode(["a"])
    assert in_files(decode_records(stored, ["a"]), 1) == files
    for doubtful, paths in (
        (None, ["a"]),
        (b"", ["a"]),
        (b"!" + stored, ["a"]),
        (b"Ag" + stored[2:], ["a"]),
        (stored, ["b"]),
        (stored, ["a", "b"]),
        (stored, []),
        (stored[:-1], ["a"]),
        (stored[:30], ["a"]),
        (stored[:10], ["a"]),
        (stored[:40] + bytes([stored[40] ^ 1]) + stored[41:], ["a"]),
    ):
        assert decode_records(doubtful, paths) is None


def element_bounds(number: int) -> Elements:
    return {100: ElementBounds(bytes([number]), bytes([number + 1]), number, 0, None)}


@pytest.fixture
def table(lake: SmallLake) -> TopicTable:
    return lake.table()


def append(lake: SmallLake, table: TopicTable, template: DataFileEntry, *numbers: int) -> None:
    """One commit with a file per number, of a sequence of its own; it exists on paper only."""
    entries = [
        replace(
            template,
            sequence=f"s{number}",
            path=template.path.replace("template", f"s{number}"),
            element_bounds=element_bounds(number),
        )
        for number in numbers
    ]
    lake.commit([TableChange(table.identifier, add=entries)])


def recorded(lake: SmallLake, table: TopicTable) -> dict[str, Elements]:
    """By sequence what the manifests of the current snapshot record."""
    found: dict[str, Elements] = {}
    for frame in SkipIndex(lake.files).frames(lake.pointers()[table.identifier]):
        records = decode_records(frame.elements, frame.paths.to_pylist())
        found |= dict(zip(frame.sequences.to_pylist(), in_files(records, len(frame)), strict=True))
    return found


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_merges_and_deletions_of_ours_carry_them_along(lake: SmallLake, table: TopicTable) -> None:
    template = lake.write(table, "template")
    upkeep = Upkeep(lake.database, lake.files, lake.committer, lake.settings)
    expected: dict[str, Elements] = {}
    for commit in range(MANIFESTS_PER_CLASS):
        append(lake, table, template, *range(3 * commit, 3 * commit + 3))
        expected |= {f"s{number}": element_bounds(number) for number in range(3 * commit, 3 * commit + 3)}
    assert recorded(lake, table) == expected
    lake.delete(table, "s4")
    del expected["s4"]
    assert recorded(lake, table) == expected
    assert upkeep.maintain(table.identifier).manifest_merges == 1
    assert len(list(SkipIndex(lake.files).frames(lake.pointers()[table.identifier]))) == 1
    assert recorded(lake, table) == expected
    for sequence in ("s0", "s23"):
        lake.delete(table, sequence)
        del expected[sequence]
        assert recorded(lake, table) == expected


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_they_live_and_die_with_their_manifest(lake: SmallLake, table: TopicTable) -> None:
    template = lake.write(table, "template")
    before = lake.stored(table.location, "metadata")
    append(lake, table, template, 1)
    new = lake.stored(table.location, "metadata") - before
    kinds = sorted("-m0.avro" if uri.endswith("-m0.avro") else uri.rpartition(".")[2] for uri in new)
    assert kinds == ["-m0.avro", "avro", "json"], "a manifest, its list and a metadata file; nothing else to look after"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_manifests_without_them_are_merged_with_others(
    lake: SmallLake, table: TopicTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = lake.write(table, "template")
    with monkeypatch.context() as earlier_release:
        earlier_release.setattr("lakehouse.catalog.iceberg.manifests.gather", lambda _references: None)
        append(lake, table, template, 0)
    for number in range(1, MANIFESTS_PER_CLASS):
        append(lake, table, template, number)
    expected = {f"s{number}": element_bounds(number) if number else {} for number in range(MANIFESTS_PER_CLASS)}
    assert recorded(lake, table) == expected
    Upkeep(lake.database, lake.files, lake.committer, lake.settings).maintain(table.identifier)
    assert recorded(lake, table) == expected


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_other_programs_read_manifests_with_a_megabyte_of_them(
    lake: SmallLake, table: TopicTable, tmp_path: Path
) -> None:
    template = lake.write(table, "template")
    generator = random.Random(0)
    many: list[DataFileEntry] = []
    for number in range(600):
        elements = {
            field_id: ElementBounds(generator.randbytes(16), generator.randbytes(16), number, 0, 0)
            for field_id in range(100, 160)
        }
        path = template.path.replace("template", f"s{number}")
        many.append(replace(template, sequence=f"s{number}", path=path, element_bounds=elements))
    lake.commit([TableChange(table.identifier, add=many)])
    (manifest,) = (uri for uri in lake.stored(table.location, "metadata") if uri.endswith("-m0.avro"))
    assert lake.warehouse.open_input(manifest).size() > 1 << 20
    stock = lake.stock_table(table.identifier)
    files: dict[str, Any] = stock.inspect.files().to_pydict()
    assert set(files["file_path"]) == {entry.path for entry in many}
    assert len(lake.sequences_in(table.identifier)) == 600
    # Nothing an engine may act on speaks of elements.
    for metric in ("lower_bounds", "upper_bounds", "value_counts", "nan_value_counts"):
        assert all(field_id < 100 for of_file in files[metric] for field_id, _ in of_file), metric
