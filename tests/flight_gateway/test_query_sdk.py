"""Queries as users write them: the builders of the official client, what it does with answers, its command line."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mosaicolabs import (
    GPS,
    IMU,
    GPSStatus,
    Message,
    MosaicoClient,
    Point3d,
    Query,
    QueryableNumeric,
    QueryOntologyCatalog,
    QueryResponse,
    QuerySequence,
    QueryTopic,
    RobotJoint,
    String,
    TimestampRange,
    Vector3d,
)
from pyarrow import ArrowInvalid

from tests.flight_gateway.conftest import Served
from tests.warehouses import BOTH, only_on_files

WAREHOUSES = BOTH
MILLISECOND = 1_000_000


def imu(number: int, x: float) -> Message:
    still = Vector3d(x=0.0, y=0.0, z=0.0)
    data = IMU(acceleration=Vector3d(x=x, y=0.0, z=9.81), angular_velocity=still)
    return Message(timestamp_ns=number * MILLISECOND, data=data)


def gps(number: int, satellites: int) -> Message:
    status = GPSStatus(status=2, service=1, satellites=satellites)
    return Message(timestamp_ns=number * MILLISECOND, data=GPS(position=Point3d(x=45.0, y=9.0, z=0.0), status=status))


@pytest.fixture(scope="module")
def fleet(sdk: MosaicoClient) -> MosaicoClient:
    """Three drives of a fleet; in drive_1 both sensors notice something at the same time."""
    drives: dict[str, dict[str, Any]] = {
        "drive_1": {"project": "Apollo", "weather": {"kind": "rain", "visibility": 40}, "tags": ["night", "wet"]},
        "drive_2": {"project": "Apollo", "weather": {"kind": "sun", "visibility": 900.5}, "count": "7"},
        "test_1": {"project": "Gemini", "weather": None, "count": 7, "ready": True},
    }
    for number, (name, metadata) in enumerate(drives.items()):
        with sdk.sequence_create(name, metadata=metadata) as writer:
            front = writer.topic_create(
                "imu/front", metadata={"rate": 100, "mount": {"side": "left"}}, ontology_type=IMU
            )
            rear = writer.topic_create("/imu/rear", metadata={"rate": 50.0}, ontology_type=IMU)
            position = writer.topic_create("gps", metadata={}, ontology_type=GPS)
            joints = writer.topic_create("arm", metadata={}, ontology_type=RobotJoint)
            log = writer.topic_create("log", metadata={}, ontology_type=String)
            for tick in range(100):
                front.push(imu(tick, x=float(tick) if number == 0 else -1.0))
                rear.push(imu(tick, x=0.0))
                position.push(gps(tick, satellites=20 if 90 <= tick < 95 else 4 + number))
                values = [0.1 * tick, float(number)]
                joint = RobotJoint(names=["a", "b"], positions=values, velocities=values, efforts=values)
                joints.push(Message(timestamp_ns=tick * MILLISECOND, data=joint))
            log.push(Message(timestamp_ns=1, data=String(data=f"[ERR] wheel {number}\nslips")))
    return sdk


def names(response: QueryResponse | None) -> dict[str, list[str]]:
    assert response is not None
    return {item.sequence.name: [topic.name for topic in item.topics] for item in response}


ALL_TOPICS = ["/arm", "/gps", "/imu/front", "/imu/rear", "/log"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (QuerySequence().with_name("drive_1"), {"drive_1"}),
        (QuerySequence().with_name_match("drive_#"), {"drive_1", "drive_2"}),
        (QuerySequence().with_name_match("*_1"), {"drive_1", "test_1"}),
        (QuerySequence().with_name_match("*"), {"drive_1", "drive_2", "test_1"}),
        (QuerySequence().with_created_timestamp(time_start=1), {"drive_1", "drive_2", "test_1"}),
        (QuerySequence().with_created_timestamp(time_end=1), set()),
        (QuerySequence().with_created_timestamp(time_start=1, time_end=2), set()),
        (QuerySequence().with_user_metadata("project", eq="Apollo"), {"drive_1", "drive_2"}),
        (QuerySequence().with_user_metadata("project", neq="Apollo"), {"test_1"}),
        (QuerySequence().with_user_metadata("project", match="A*"), {"drive_1", "drive_2"}),
        (QuerySequence().with_user_metadata("project", in_=["Gemini", "Mercury"]), {"test_1"}),
        (QuerySequence().with_user_metadata("weather.visibility", lt=50), {"drive_1"}),
        (QuerySequence().with_user_metadata("weather.visibility", leq=900.5), {"drive_1", "drive_2"}),
        (QuerySequence().with_user_metadata("weather.visibility", gt=40), {"drive_2"}),
        (QuerySequence().with_user_metadata("weather.visibility", geq=40), {"drive_1", "drive_2"}),
        (QuerySequence().with_user_metadata("weather.visibility", between=[40, 41]), {"drive_1"}),
        (QuerySequence().with_user_metadata("weather.visibility", outside=[39, 41]), {"drive_2"}),
        (QuerySequence().with_user_metadata("weather", ex=True), {"drive_1", "drive_2", "test_1"}),
        (QuerySequence().with_user_metadata("weather.kind", ex=True), {"drive_1", "drive_2"}),
        (QuerySequence().with_user_metadata("weather.kind", ex=False), {"test_1"}),
        (QuerySequence().with_user_metadata("weather.kind", neq="rain"), {"drive_2"}),
        (QuerySequence().with_user_metadata("count", eq=7), {"test_1"}),
        (QuerySequence().with_user_metadata("count", eq="7"), {"drive_2"}),
        (QuerySequence().with_user_metadata("ready", eq=True), {"test_1"}),
        (QuerySequence().with_user_metadata("tags[*]", eq="wet"), {"drive_1"}),
        (QuerySequence().with_user_metadata("tags", eq="wet"), {"drive_1"}),
        (QuerySequence().with_user_metadata("*.kind", match="*a*"), {"drive_1"}),
        (QuerySequence().with_user_metadata("**", eq="sun"), {"drive_2"}),
    ],
)
def test_sequences_are_found(fleet: MosaicoClient, query: QuerySequence, expected: set[str]) -> None:
    found = names(fleet.query(query))
    assert set(found) == expected
    assert all(topics == ALL_TOPICS for topics in found.values())


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (QueryTopic().with_name("/imu/front"), ["/imu/front"]),
        (QueryTopic().with_name("imu/front"), ["/imu/front"]),
        (QueryTopic().with_name_match("/imu/*"), ["/imu/front", "/imu/rear"]),
        (QueryTopic().with_name_match("*re*r*"), ["/imu/rear"]),
        (QueryTopic().with_ontology_tag(GPS.ontology_tag()), ["/gps"]),
        (QueryTopic().with_created_timestamp(time_start=1), ALL_TOPICS),
        (QueryTopic().with_user_metadata("rate", eq=50), ["/imu/rear"]),
        (QueryTopic().with_user_metadata("rate", ex=True), ["/imu/front", "/imu/rear"]),
        (QueryTopic().with_user_metadata("rate", ex=False), ["/arm", "/gps", "/log"]),
        (QueryTopic().with_user_metadata("mount.side", eq="left").with_ontology_tag("IMU"), ["/imu/front"]),
    ],
)
def test_topics_are_found(fleet: MosaicoClient, query: QueryTopic, expected: list[str]) -> None:
    found = names(fleet.query(QuerySequence().with_name("drive_2"), query))
    assert found == {"drive_2": expected}


@pytest.mark.parametrize(
    ("expressions", "expected"),
    [
        ([IMU.Q.acceleration.x.gt(90.0)], {"drive_1": ["/imu/front"]}),
        ([IMU.Q.acceleration.x.lt(-0.5)], {"drive_2": ["/imu/front"], "test_1": ["/imu/front"]}),
        ([IMU.Q.acceleration.x.eq(42.0)], {"drive_1": ["/imu/front"]}),
        ([IMU.Q.acceleration.x.between([98.5, 1e9])], {"drive_1": ["/imu/front"]}),
        ([IMU.Q.acceleration.x.outside([-2, 98])], {"drive_1": ["/imu/front"]}),
        ([IMU.Q.acceleration.x.in_([17.0, 1e9])], {"drive_1": ["/imu/front"]}),
        ([IMU.Q.acceleration.x.gt(90.0), IMU.Q.timestamp_ns.lt(90 * MILLISECOND)], {}),
        ([IMU.Q.acceleration.x.gt(90.0), IMU.Q.timestamp_ns.geq(90 * MILLISECOND)], {"drive_1": ["/imu/front"]}),
        ([GPS.Q.status.satellites.eq(5)], {"drive_2": ["/gps"]}),
        ([IMU.Q.acceleration.x.gt(90.0), GPS.Q.status.satellites.eq(20)], {"drive_1": ["/gps", "/imu/front"]}),
        ([IMU.Q.acceleration.x.gt(90.0), GPS.Q.status.satellites.eq(5)], {}),
        ([String.Q.data.match("*wheel 1*slips")], {"drive_2": ["/log"]}),
        ([String.Q.data.match("*[[]ERR]*")], None),
        ([String.Q.data.match("*[[ERR]*")], None),
        ([RobotJoint.Q.positions.any().gt(9.85)], {"drive_1": ["/arm"], "drive_2": ["/arm"], "test_1": ["/arm"]}),
        ([RobotJoint.Q.positions.all().geq(1.5)], {"test_1": ["/arm"]}),
        ([RobotJoint.Q.positions[1].eq(2)], {"test_1": ["/arm"]}),
        ([RobotJoint.Q.positions[2].eq(2)], {}),
        ([QueryableNumeric("Unheard.of").gt(1)], {}),
    ],
)
def test_rows_are_found(fleet: MosaicoClient, expressions: list[Any], expected: dict[str, list[str]] | None) -> None:
    query = QueryOntologyCatalog(*expressions)
    if expected is None:
        with pytest.raises(ArrowInvalid, match="class"):
            fleet.query(query)
    else:
        assert names(fleet.query(query)) == expected


def test_a_query_over_everything(fleet: MosaicoClient) -> None:
    query = Query(
        QuerySequence().with_user_metadata("weather.kind", eq="rain").with_name_match("drive*"),
        QueryTopic().with_name("/imu/front"),
        QueryOntologyCatalog(IMU.Q.acceleration.x.gt(50.0)),
    )
    assert names(fleet.query(query=query)) == {"drive_1": ["/imu/front"]}


def test_an_answer_is_queried_again(fleet: MosaicoClient) -> None:
    rainy = fleet.query(QuerySequence().with_user_metadata("project", eq="Apollo"))
    assert rainy is not None
    shaken = fleet.query(rainy.to_query_sequence(), QueryOntologyCatalog(IMU.Q.acceleration.x.lt(-0.5)))
    assert names(shaken) == {"drive_2": ["/imu/front"]}
    assert shaken is not None
    on_topics = fleet.query(shaken.to_query_topic(), QuerySequence().with_name("drive_1"))
    assert names(on_topics) == {"drive_1": ["/imu/front"]}


def test_matches_are_clustered_and_intersected(fleet: MosaicoClient) -> None:
    found = fleet.query(
        QuerySequence().with_name("drive_1"),
        QueryOntologyCatalog(IMU.Q.acceleration.x.gt(91.5), GPS.Q.status.satellites.gt(10)),
    )
    assert found is not None
    (item,) = found
    position, front = item.topics
    assert [cluster.timerange for cluster in front.clusterize()] == [TimestampRange(92 * MILLISECOND, 99 * MILLISECOND)]
    assert len(front.clusterize(clustering_dt_ns=MILLISECOND - 1)) == 8
    assert len(front.clusterize(clustering_dt_ns=MILLISECOND)) == 1
    windowed = front.clusterize(timestamp_range=TimestampRange(95 * MILLISECOND, 97 * MILLISECOND))
    assert [cluster.timerange for cluster in windowed] == [TimestampRange(95 * MILLISECOND, 96 * MILLISECOND)]
    together = [cluster.timerange for cluster in front.intersect(position)]
    assert together == [TimestampRange(92 * MILLISECOND, 94 * MILLISECOND)]
    assert [cluster.timerange for cluster in item.intersect()] == together
    assert set(item.clusterize_all()) == {"/gps", "/imu/front"}


def test_clustering_a_topic_that_was_not_searched_is_refused(fleet: MosaicoClient) -> None:
    found = fleet.query(QueryTopic().with_name("/gps"))
    assert found is not None
    with pytest.raises(ArrowInvalid):
        found[0].topics[0].clusterize()


def run_official_command(served: Served, home: Path, *arguments: str, piped: str | None = None) -> str:
    program = Path(sys.executable).with_name("mosaico")
    if not program.exists():
        pytest.skip("the client's command line is not installed")
    environment = {**os.environ, "HOME": str(home), "MOSAICO_DAEMON_URL": f"127.0.0.1:{served.port}", "COLUMNS": "200"}
    environment["MOSAICO_CONFIG_PATH"] = str(home / "config.toml")
    done = subprocess.run(
        [program, *arguments], env=environment, input=piped, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@only_on_files
@pytest.mark.parametrize(
    ("arguments", "shown", "hidden"),
    [
        (["sequence", "ls"], ["drive_1", "drive_2", "test_1"], []),
        (["sequence", "ls", "--locator", "drive*"], ["drive_1", "drive_2"], ["test_1"]),
        (["sequence", "ls", "-m", "project=Gemini"], ["test_1"], ["drive_1", "drive_2"]),
        (["sequence", "ls", "-m", "count=7"], ["drive_2"], ["drive_1", "test_1"]),
        (["topic", "ls", "--locator", "*imu/front"], ["drive_1/imu/front", "test_1/imu/front"], ["imu/rear", "gps"]),
        (["topic", "ls", "-m", "mount.side=left"], ["drive_2/imu/front"], ["imu/rear", "gps"]),
    ],
)
def test_the_command_line_of_the_client_lists(
    fleet: MosaicoClient, served: Served, tmp_path: Path, arguments: list[str], shown: list[str], hidden: list[str]
) -> None:
    output = run_official_command(served, tmp_path, *arguments, "--output", "csv")
    assert [text for text in shown if text not in output] == []
    assert [text for text in hidden if text in output] == []


@only_on_files
def test_the_command_line_of_the_client_pipes_what_it_lists(
    fleet: MosaicoClient, served: Served, tmp_path: Path
) -> None:
    def run(*arguments: str, piped: str | None = None) -> str:
        return run_official_command(served, tmp_path, *arguments, piped=piped)

    listed = run("sequence", "ls", "--locator", "drive*", "--created-after", "1", "--limit", "1")
    assert listed == f"drive_1,0,{99 * MILLISECOND}\n"
    described = run("sequence", "stat", piped=listed)
    assert "Sequence: drive_1" in described
    assert all(topic in described for topic in ALL_TOPICS)
    assert "weather.kind=rain" in described
    topic = f"drive_1/imu/front,0,{99 * MILLISECOND}\n"
    lines = run("topic", "mcat", "--from-index", "7", "--count", "2", piped=topic).splitlines()
    shown = [(row["_timestamp"], row["acceleration"]["x"]) for row in map(json.loads, lines)]
    assert shown == [(7 * MILLISECOND, 7.0), (8 * MILLISECOND, 8.0)]
