"""Names, creation, growth and removal of topic tables."""

import re
import threading
from pathlib import Path

import pyarrow as pa
import pytest
from sqlalchemy import insert

from lakehouse.catalog.control_plane.schema import sequences, sessions, topics
from lakehouse.catalog.iceberg.identifiers import namespace_candidates, table_candidates
from lakehouse.catalog.iceberg.tables import TAG_PROPERTY, TOPIC_PROPERTY, TopicTable
from lakehouse.ontology.arrow_iceberg import plan_storage
from tests.catalog.small_lake import PLAN, SCHEMA, SmallLake


def with_column(name: str, kind: pa.DataType) -> pa.Schema:
    return SCHEMA.append(pa.field(name, kind))


@pytest.mark.parametrize(
    ("tag", "namespace"),
    [
        ("IMU", "imu"),
        ("CompressedImage", "compressed_image"),
        ("GPSStatus", "gps_status"),
        ("PointCloud2", "point_cloud2"),
        ("Vector3d", "vector3d"),
        ("sensor_msgs/msg/JointState", "sensor_msgs_msg_joint_state"),
        ("3d", "tag_3d"),
        ("Time", "tag_time"),
        ("Map", "tag_map"),
    ],
)
def test_tags_become_snake_case_namespaces(tag: str, namespace: str) -> None:
    assert namespace_candidates(tag)[0] == namespace


@pytest.mark.parametrize(
    "path", ["/", "select", "con", "9", "x" * 1000, "a--b", "日本", "sensors/front/imu", "_", "Order", "con_v2", "1e5"]
)
def test_every_table_name_is_usable_unquoted_everywhere(path: str) -> None:
    for name in (*table_candidates(path), *table_candidates(path, version=12)):
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
        assert len(name) <= 110
        assert name not in ("select", "con", "order")


def test_the_namespace_of_the_metadata_tables_is_never_a_tag(lake: SmallLake) -> None:
    lake.metadata_tables.ensure()
    for tag in ("mosaico", "Mosaico", "MOSAICO"):
        assert lake.table(tag=tag).identifier.split(".")[0] != "mosaico"


def test_a_topic_has_one_table_over_all_sequences(lake: SmallLake) -> None:
    first = lake.table("sensors/front_imu")
    assert first.identifier == "imu.sensors_front_imu"
    assert lake.table("sensors/front_imu") == first == lake.tables.load(first.identifier)


def test_originals_with_the_same_slug_stay_apart_and_keep_their_names(lake: SmallLake) -> None:
    paths = ["a/b", "a_b", "A/b", "a-b"]
    tables = [lake.table(path) for path in paths]
    other_tag = lake.table("a/b", tag="imu")
    assert len({table.identifier for table in [*tables, other_tag]}) == 5
    for path, table in zip(paths, tables, strict=True):
        assert lake.table(path).identifier == table.identifier
        assert lake.stock_table(table.identifier).properties[TOPIC_PROPERTY] == path
    assert lake.stock_table(other_tag.identifier).properties[TAG_PROPERTY] == "imu"


def test_a_stock_client_sees_partitions_order_comments_and_properties(lake: SmallLake) -> None:
    table = lake.stock_table(lake.table().identifier)
    assert [(field.name, str(field.transform)) for field in table.spec().fields] == [
        ("sequence", "identity"),
        ("recorded_at_day", "day"),
    ]
    assert table.sort_order().fields[0].source_id == table.schema().find_field("timestamp_ns").field_id
    assert table.format_version == 2
    assert "ns" in (table.schema().find_field("timestamp_ns").doc or "")
    assert table.properties["write.metadata.delete-after-commit.enabled"] == "true"
    assert table.location().startswith(lake.warehouse.uri)


def test_added_columns_and_wider_numbers_grow_the_table(lake: SmallLake) -> None:
    before = lake.table()
    grown = lake.table(plan=plan_storage(with_column("temperature", pa.float32())))
    wider = lake.table(plan=plan_storage(with_column("temperature", pa.float64())))
    assert {before.identifier} == {grown.identifier, wider.identifier}
    assert str(wider.schema.find_field("temperature").field_type) == "double"
    assert lake.table() == wider, "narrower uploads fit"
    assert str(lake.stock_table(wider.identifier).schema().find_field("temperature").field_type) == "double"


def test_an_incompatible_schema_opens_a_sibling_which_is_found_again(lake: SmallLake) -> None:
    first = lake.table()
    text_plan = plan_storage(pa.schema([SCHEMA.field("timestamp_ns"), pa.field("count", pa.string())]))
    list_plan = plan_storage(pa.schema([SCHEMA.field("timestamp_ns"), pa.field("count", pa.list_(pa.int8()))]))
    second, third = lake.table(plan=text_plan), lake.table(plan=list_plan)
    assert [second.identifier, third.identifier] == [f"{first.identifier}_v2", f"{first.identifier}_v3"]
    assert lake.table() == first
    assert lake.table(plan=text_plan) == second
    assert lake.table(plan=list_plan) == third


def test_racing_threads_make_one_table(lake: SmallLake, tmp_path: Path, database_url: str) -> None:
    plans = [plan_storage(with_column(f"extra_{number}", pa.int64())) for number in range(8)]
    found: list[TopicTable] = []
    barrier = threading.Barrier(len(plans))

    def ensure(number: int) -> None:
        with SmallLake(tmp_path, database_url) as own:
            barrier.wait()
            found.append(own.table(plan=plans[number]))

    threads = [threading.Thread(target=ensure, args=(number,)) for number in range(len(plans))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {table.identifier for table in found} == {"imu.sensors_imu"}
    assert len(found) == len(plans)
    columns = {field.name for field in lake.tables.load("imu.sensors_imu").schema.fields}
    assert columns >= {f"extra_{number}" for number in range(len(plans))}, "no writer undid another's growth"
    assert len(lake.pointers()) == 1


def test_an_unused_table_is_dropped_and_a_used_one_is_not(lake: SmallLake) -> None:
    unused, claimed, filled = lake.table("unused"), lake.table("claimed"), lake.table("filled")
    claim(lake, claimed)
    lake.append(filled, "drive")
    assert lake.tables.drop_if_unused(unused.identifier)
    assert not lake.tables.drop_if_unused(unused.identifier)
    assert not lake.tables.drop_if_unused(claimed.identifier)
    assert not lake.tables.drop_if_unused(filled.identifier)
    assert lake.pointers().keys() == {claimed.identifier, filled.identifier}
    with lake.database.transaction() as connection:
        assert lake.tables.hold(connection, claimed)
        assert not lake.tables.hold(connection, unused)
    assert lake.table("unused", plan=PLAN).identifier == unused.identifier


def claim(lake: SmallLake, table: TopicTable) -> None:
    """Record a topic whose upload goes into `table`."""
    with lake.database.transaction() as connection:
        sequence = connection.execute(
            insert(sequences).values(name="drive", user_metadata="{}", created_at_ns=1)
        ).inserted_primary_key
        session = connection.execute(
            insert(sessions).values(
                sequence_id=sequence[0], uuid="u", public_uuid="p", ulid="l", state="open", created_at_ns=1
            )
        ).inserted_primary_key
        connection.execute(
            insert(topics).values(
                sequence_id=sequence[0],
                session_id=session[0],
                uuid="t",
                path="claimed",
                ontology_tag="IMU",
                serialization_format="default",
                user_metadata="{}",
                state="uploading",
                created_at_ns=1,
                table_identifier=table.identifier,
            )
        )
