"""Tables of a REST catalog whose snapshots are kept: travelled to, expired, tagged, purged."""

import time
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from lakehouse.catalog.iceberg.table_catalog import CatalogUncertainError
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.maintenance import upkeep as upkeep_module
from lakehouse.catalog.maintenance.cleanup import run_cleanup_cycle
from lakehouse.catalog.maintenance.upkeep import Upkeep
from tests.foreign_catalogs.foreign_lake import ForeignLake, rows_read
from tests.rebuild.test_rebuild import record

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("rest-catalog")]

DAY_NS = 86_400 * 10**9
KEPT = 2
# As often as commits come in, so are snapshots left behind.
FEW: dict[str, Any] = {"snapshots_to_keep": KEPT}


def drives(lakehouse: Lakehouse, *names: str) -> None:
    for name in names:
        lakehouse.sequences.create(name, {})
        record(lakehouse, name, "a")


def snapshot_ids(lake: ForeignLake) -> list[int]:
    """Of the table `plain.a`, oldest first."""
    return [each.snapshot_id for each in lake.engine().load_table("plain.a").snapshots()]


def upkeep_of(lakehouse: Lakehouse) -> Upkeep:
    return Upkeep(lakehouse.database, lakehouse.table_files, lakehouse.committer, lakehouse.settings)


def test_former_snapshots_are_there_until_they_expire(on_reference: ForeignLake) -> None:
    with on_reference.open(**FEW) as lakehouse:
        drives(lakehouse, "x", "y")
        first, second = snapshot_ids(on_reference)
        assert on_reference.engine_rows("plain.a", first) == ["x"] * 4
        assert on_reference.engine_rows("plain.a", second) == ["x"] * 4 + ["y"] * 4
        drives(lakehouse, "z")
        assert lakehouse.maintenance.run(["plain.a"]).expired_snapshots == 1
        assert snapshot_ids(on_reference)[0] == second
        assert len(snapshot_ids(on_reference)) == KEPT
        assert rows_read(lakehouse, "x", "a") == 4
    assert on_reference.engine_rows("plain.a") == ["x"] * 4 + ["y"] * 4 + ["z"] * 4


def test_a_tagged_snapshot_stays_with_its_rows_whatever_is_deleted(on_reference: ForeignLake) -> None:
    options = {**FEW, "snapshot_min_age": 0, "cleanup_retention_duration": 0}
    with on_reference.open(**options) as lakehouse:
        drives(lakehouse, "x", "y")
        (pinned, _) = snapshot_ids(on_reference)
        on_reference.engine().load_table("plain.a").manage_snapshots().create_tag(pinned, "training").commit()
        lakehouse.sequences.delete("x")
        drives(lakehouse, "z")
        later = time.time_ns() + 30 * DAY_NS
        report = run_cleanup_cycle(
            lakehouse.database, lakehouse.table_files, lakehouse.committer, lakehouse.settings, now_ns=lambda: later
        )
        assert report is not None
        assert report.upkeep.expired_snapshots > 0
        assert report.orphans.purged + report.upkeep.purged_metadata_files > 0
        assert pinned in snapshot_ids(on_reference)
        assert on_reference.engine_rows("plain.a") == ["y"] * 4 + ["z"] * 4
    assert on_reference.engine_rows("plain.a", pinned) == ["x"] * 4


def test_a_tag_that_is_set_in_the_moment_of_the_expiry_keeps_its_snapshot(
    on_reference: ForeignLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    with on_reference.open(**FEW) as lakehouse:
        drives(lakehouse, "x", "y", "z")
        first = snapshot_ids(on_reference)[0]
        catalog = type(lakehouse.table_files.catalog)
        look = catalog._check_unmoved  # type: ignore[attr-defined]

        def looks_too_early(*arguments: Any) -> None:
            look(*arguments)
            monkeypatch.setattr(catalog, "_check_unmoved", look)
            on_reference.engine().load_table("plain.a").manage_snapshots().create_tag(first, "training").commit()

        monkeypatch.setattr(catalog, "_check_unmoved", looks_too_early)
        assert lakehouse.maintenance.run(["plain.a"]).expired_snapshots == 1
        references = on_reference.engine().load_table("plain.a").refs()
        assert references["training"].snapshot_id == first
        assert on_reference.engine_rows("plain.a", first) == ["x"] * 4
        # The table goes on in its order: what comes next is younger than all before.
        drives(lakehouse, "w")
        lakehouse.sequences.delete("y")
        lakehouse.maintenance.run(["plain.a"])
        numbers = [each.sequence_number for each in on_reference.engine().load_table("plain.a").snapshots()]
        assert len(set(numbers)) == len(numbers)
        assert on_reference.engine().load_table("plain.a").metadata.last_sequence_number == max(numbers)
        later = time.time_ns() + 30 * DAY_NS
        assert upkeep_of(lakehouse).purge_metadata(later).purged_metadata_files > 0
    assert on_reference.engine_rows("plain.a", first) == ["x"] * 4
    assert on_reference.engine_rows("plain.a") == sorted(["x", "z", "w"] * 4)


def test_an_engine_expires_snapshots_and_the_lake_goes_on(on_reference: ForeignLake) -> None:
    with on_reference.open() as lakehouse:
        drives(lakehouse, "x", "y")
        table = on_reference.engine().load_table("plain.a")
        table.maintenance.expire_snapshots().by_id(snapshot_ids(on_reference)[0]).commit()
        assert len(snapshot_ids(on_reference)) == 1
        drives(lakehouse, "z")
        lakehouse.sequences.delete("y")
        assert lakehouse.maintenance.run(["plain.a"]).expired_snapshots == 0
        assert [rows_read(lakehouse, name, "a") for name in "xz"] == [4, 4]
    assert on_reference.engine_rows("plain.a") == ["x"] * 4 + ["z"] * 4


def test_tables_of_others_are_left_alone_wherever_they_lie(on_reference: ForeignLake) -> None:
    store = on_reference.server.s3
    rows = pa.table({"value": [1, 2, 3]})
    with on_reference.open(snapshot_min_age=0, cleanup_retention_duration=0) as lakehouse:
        drives(lakehouse, "x")
        engine = on_reference.engine()
        engine.create_namespace("analysis")
        places = {"here": None, "elsewhere": f"s3://{store.new_bucket()}/mine"}
        for name, place in places.items():
            engine.create_table(f"analysis.{name}", rows.schema, location=place).append(rows)
        lakehouse.sequences.delete("x")
        later = time.time_ns() + 30 * DAY_NS
        report = run_cleanup_cycle(
            lakehouse.database, lakehouse.table_files, lakehouse.committer, lakehouse.settings, now_ns=lambda: later
        )
        assert report is not None
        assert report.orphans.purged > 0
        drives(lakehouse, "y")
    for name in places:
        assert on_reference.engine().load_table(f"analysis.{name}").scan().to_arrow() == rows


def expiring_beside(
    monkeypatch: pytest.MonkeyPatch, lakehouse: Lakehouse, now_ns: int, place: str
) -> tuple[Upkeep, Callable[[], int]]:
    """An upkeep that is overtaken by an expiry of another process, once; and how many snapshots that expired.

    Before, a third process marked what is to be left behind and died, or its request did: its marks are long due.
    """
    files = lakehouse.table_files
    with monkeypatch.context() as patched:

        def fails(*_: Any) -> None:
            raise CatalogUncertainError

        patched.setattr(type(files.catalog), "commit", fails)
        with pytest.raises(Exception, match="the catalog failed"):
            upkeep_of(lakehouse).maintain("plain.a", now_ns=lambda: now_ns - DAY_NS)
    expired: list[int] = []
    overtaken = upkeep_of(lakehouse)

    def expire() -> None:
        if not expired:
            expired.append(upkeep_of(lakehouse).maintain("plain.a", now_ns=lambda: now_ns).expired_snapshots)

    if place == "before the table is read":
        read = overtaken.document

        def document(identifier: str) -> Any:
            expire()
            return read(identifier)

        monkeypatch.setattr(overtaken, "document", document)
    else:
        referenced = upkeep_module.referenced_metadata

        def references(*arguments: Any) -> set[str]:
            monkeypatch.setattr(upkeep_module, "referenced_metadata", referenced)
            expire()
            return referenced(*arguments)

        monkeypatch.setattr(upkeep_module, "referenced_metadata", references)
    return overtaken, lambda: sum(expired)


@pytest.mark.parametrize("place", ["before the table is read", "after the table was read"])
def test_readers_have_their_time_though_a_mark_was_there_before_the_expiry(
    on_reference: ForeignLake, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    now_ns = time.time_ns()
    with on_reference.open(**FEW) as lakehouse:
        drives(lakehouse, "x", "y", "z")
        first = snapshot_ids(on_reference)[0]
        reader = on_reference.engine().load_table("plain.a")
        overtaken, expired = expiring_beside(monkeypatch, lakehouse, now_ns, place)
        assert overtaken.purge_metadata(now_ns).purged_metadata_files == 0
        assert expired() == 1
        assert first not in snapshot_ids(on_reference)
        # Whoever began to read before goes on ...
        assert reader.scan(snapshot_id=first).to_arrow().num_rows == 4
        # ... and what was left behind is not forgotten.
        after = now_ns + (lakehouse.settings.snapshot_min_age + 1) * 10**9
        assert upkeep_of(lakehouse).purge_metadata(after).purged_metadata_files > 0
        with pytest.raises(FileNotFoundError):
            reader.scan(snapshot_id=first).to_arrow()
