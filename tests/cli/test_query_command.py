"""`lakehouse query`: conditions as people type them, and answers equal to those on the wire."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lakehouse.catalog.errors import BadRequestError, StorageError
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.query.engine import QueryEngine
from lakehouse.catalog.settings import Settings
from lakehouse.cli.conditions import parse_conditions
from tests.cli.conftest import Outcome, Run

SCHEMA = pa.schema(
    [
        pa.field("timestamp_ns", pa.int64(), nullable=False),
        pa.field("acceleration", pa.struct([("x", pa.float64()), ("y", pa.float64())])),
        pa.field("axes", pa.list_(pa.float64())),
    ]
)


def record_drives(home: Path) -> None:
    """Two drives; only the first shakes, in its second and third row."""
    with Lakehouse.open(Settings.load(home=home)) as lake:
        for name, y, kind in (("drive_1", [0.0, 5.0, 6.0, 0.0], "rain"), ("drive_2", [0.0] * 4, "sun")):
            lake.sequences.create(name, {"weather": {"kind": kind}, "number": int(name[-1])})
            session = lake.sessions.create(name)
            for path in ("imu/front", "imu/rear"):
                locator = TopicLocator(name, path)
                metadata = {"rate": 100 if path == "imu/front" else 50}
                topic = lake.topics.create(session.uuid, locator, "default", "IMU", metadata)
                values = y if path == "imu/front" else [0.0] * 4
                rows = [
                    {"timestamp_ns": 1_000_000_000 * n, "acceleration": {"x": 0.0, "y": value}, "axes": [value, 1.0]}
                    for n, value in enumerate(values)
                ]
                with lake.topics.begin_upload(locator, topic, SCHEMA) as upload:
                    upload.write(pa.RecordBatch.from_pylist(rows, SCHEMA))
                    upload.finish()
            lake.sessions.finalize(session.uuid)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("drives")
    record_drives(home)
    return home


@pytest.fixture
def drives(recorded: Path, lakehouse: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command sees the two drives, which nobody may change."""
    monkeypatch.setenv("LAKEHOUSE_HOME", str(recorded))


def found(lakehouse: Run, *arguments: str) -> list[str]:
    result = lakehouse("query", *arguments, "--json")
    assert result.returncode == 0, result.stderr
    return [topic["locator"] for item in json.loads(result.stdout)["items"] for topic in item["topics"]]


DRIVES = ("drive_1", "drive_2")
BOTH_FRONTS = ["drive_1/imu/front", "drive_2/imu/front"]


@pytest.mark.usefixtures("drives")
def test_every_option_narrows_the_answer(lakehouse: Run) -> None:
    assert found(lakehouse, "--where", "IMU.acceleration.y > 4") == ["drive_1/imu/front"]
    assert found(lakehouse, "-w", "IMU.acceleration.y > 4", "-w", "IMU.acceleration.y < 5.5", "--topic", "/imu/*") == [
        "drive_1/imu/front"
    ]
    assert found(lakehouse, "-w", "IMU.axes[?] between 5.5 and 7") == ["drive_1/imu/front"]
    assert found(lakehouse, "-w", "IMU.axes[0] in 6, 7") == ["drive_1/imu/front"]
    assert found(lakehouse, "--sequence", "drive_?", "--topic", "*front") == BOTH_FRONTS
    assert found(lakehouse, "--metadata", "weather.kind = sun", "--topic-metadata", "rate >= 100") == BOTH_FRONTS[1:]
    assert found(lakehouse, "--tag", "IMU", "-m", "number exists", "--topic-metadata", "rate = 100") == BOTH_FRONTS
    assert found(lakehouse, "--tag", "GPS") == []


@pytest.mark.usefixtures("drives")
def test_the_answer_is_a_table(lakehouse: Run) -> None:
    result = lakehouse("query", "--where", "IMU.acceleration.y > 4", "--when", "--explain")
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    assert lines[0].split("  ")[0].strip() == "sequence"
    assert lines[1].split()[:3] == ["drive_1", "imu/front", "IMU"]
    assert "1970-01-01 00:00:01.000" in lines[1]
    assert "1970-01-01 00:00:02.000" in lines[1]
    assert "1.00 s" in lines[1]
    assert "files opened" in result.stdout
    assert "IMU.acceleration.y > 4" in result.stdout
    assert lakehouse("query", "--sequence", "none").stdout == "Nothing matches.\n"


@pytest.mark.usefixtures("drives")
def test_machine_readable_answers_hold_times_and_counts(lakehouse: Run) -> None:
    answer = json.loads(lakehouse("query", "-w", "IMU.acceleration.y > 4", "--when", "--explain", "--json").stdout)
    assert answer["items"] == [
        {
            "sequence": "drive_1",
            "topics": [
                {
                    "locator": "drive_1/imu/front",
                    "ontology_tag": "IMU",
                    "start_ns": 1_000_000_000,
                    "end_ns": 2_000_000_000,
                }
            ],
        }
    ]
    explanation = answer["explanation"]
    assert explanation["files_considered"] == 4
    assert explanation["files_opened"] == 1
    assert sum(explanation["files_excluded"].values()) == 3


@pytest.mark.usefixtures("drives")
def test_an_answer_does_not_depend_on_its_hints(lakehouse: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> list[str]:
        raise StorageError("the database failed")

    monkeypatch.setattr(QueryEngine, "hints", fail)
    result = lakehouse("query", "--tag", "IMV", "--json")
    assert result.returncode == 0
    assert json.loads(result.stdout) == {"items": []}
    assert result.stderr == ""


@pytest.mark.usefixtures("drives")
@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["-w", "IMU.acceleration.zz > 1"], "no topic has a field 'IMU.acceleration.zz'; did you mean "),
        (["-w", "IMU.Acceleration.Y > 1"], "did you mean 'IMU.acceleration.y'"),
        (["-w", "IMU.axis[?] exists"], "did you mean 'IMU.axes[?]'?"),
        (["-w", "imu.acceleration.y > 1"], "no topic has the tag 'imu'; did you mean 'IMU'?"),
        (["-w", "IMU.acceleration > 1"], "'IMU.acceleration' has no values of its own, but fields such as"),
        (
            ["-w", "IMU.acceleration.y = up"],
            "no value of 'IMU.acceleration.y' (double) can satisfy 'IMU.acceleration.y = 'up''",
        ),
        (["-w", "acceleration.y > 4"], "no topic has the tag 'acceleration'; did you mean 'IMU.acceleration.y'?"),
        (["--tag", "Imu"], "no topic has the tag 'Imu'; did you mean 'IMU'?"),
        (["-m", "wether.kind = rain"], "no metadata has 'wether.kind'; did you mean 'weather.kind'"),
        (["--tag", "Lidar"], "no topic has the tag 'Lidar'\n"),
    ],
)
def test_a_misspelt_name_is_told(lakehouse: Run, arguments: list[str], hint: str) -> None:
    result = lakehouse("query", *arguments)
    assert (result.returncode, result.stdout) == (0, "Nothing matches.\n")
    assert result.stderr.startswith("hint: ")
    assert hint in result.stderr
    programs = lakehouse("query", *arguments, "--json")
    assert (json.loads(programs.stdout), programs.stderr) == ({"items": []}, result.stderr)


@pytest.mark.usefixtures("drives")
@pytest.mark.parametrize(
    "arguments",
    [
        ["-w", "IMU.acceleration.y > 100"],
        ["-w", "IMU.axes[?] = 100"],
        ["-w", "IMU.timestamp_ns < 0"],
        ["--sequence", "drive_9"],
        ["-m", "weather.kind = snow"],
        ["-w", "IMU.absent missing", "-m", "nowhere missing", "--topic", "none"],
    ],
)
def test_what_is_well_spelt_and_finds_nothing_needs_no_hint(lakehouse: Run, arguments: list[str]) -> None:
    assert lakehouse("query", *arguments) == Outcome(0, "Nothing matches.\n", "")


def test_an_audit_reads_what_statistics_spared(lakehouse: Run, tmp_path: Path) -> None:
    record_drives(tmp_path / "lake")
    asked = ("query", "-w", "IMU.acceleration.y > 4", "--audit", "10")
    sound = lakehouse(*asked)
    assert sound.returncode == 0
    assert "Audit: no file" in sound.stdout
    assert json.loads(lakehouse(*asked, "--json").stdout)["audit"] == []
    shaken, calm = (next((tmp_path / "lake").rglob(f"imu_front/data/{name}/**/*.parquet")) for name in DRIVES)
    calm.write_bytes(shaken.read_bytes())  # now it holds what its statistics deny
    damaged = lakehouse(*asked, "--json")
    assert damaged.returncode == 1
    (finding,) = json.loads(damaged.stdout)["audit"]
    assert finding["file"].endswith(calm.name)
    assert finding["spared_by"] == "bounds of IMU.acceleration.y"
    assert calm.name in lakehouse(*asked).stdout
    assert "conditions on rows" in lakehouse("query", "--sequence", "drive_1", "--audit", "1").stderr


@pytest.mark.usefixtures("drives")
def test_the_grammar_of_the_protocol_is_accepted(
    lakehouse: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = json.dumps({"ontology": {"IMU.acceleration.y": {"$gt": 4}}})
    path = tmp_path / "request.json"
    path.write_text(request)
    assert found(lakehouse, "--request", request) == ["drive_1/imu/front"]
    assert found(lakehouse, "--request", str(path)) == ["drive_1/imu/front"]
    monkeypatch.setattr("sys.stdin", io.StringIO(request))
    assert found(lakehouse, "--request", "-") == ["drive_1/imu/front"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "no condition"),
        (["--where", "IMU.acceleration.y"], "no condition"),
        (["--where", "x > 1"], "expected 'Tag.field.path'"),
        (["--where", "IMU.x between 2 and 1"], "min of 'between' on 'IMU.x' is larger than max"),
        (["--where", "IMU.x >> 4"], "'>>' is no operator; did you mean '>'?"),
        (["--where", "IMU.x <=> 4"], "'<=>' is no operator; there are '=', '!=', "),
        (["--metadata", "number > [1]"], "the operand of '>' on "),
        (["--metadata", "a..b = 1"], "malformed component"),
        (["--sequence", "[a"], "character class"),
        (["--where", "A.b > 1", "--where", "A.b > 2"], "two conditions"),
        (["--request", "[1]"], "neither a JSON object nor a file"),
        (["--request", "{"], "not a JSON object"),
        (["--request", "{}", "--tag", "IMU"], "--request"),
    ],
)
def test_mistakes_are_explained(lakehouse: Run, arguments: list[str], text: str) -> None:
    result = lakehouse("query", *arguments)
    assert (result.returncode, result.stdout) == (1, "")
    assert text in result.stderr
    assert "Bad request" not in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("text", "field", "operators"),
    [
        ("IMU.acceleration.y > 4", "IMU.acceleration.y", {"$gt": 4}),
        ("a>=4.5", "a", {"$geq": 4.5}),
        ("a <= -1e3", "a", {"$leq": -1000.0}),
        ("a == true", "a", {"$eq": True}),
        ("a = True", "a", {"$eq": "True"}),
        ("a != null", "a", {"$neq": "null"}),
        ("weather.kind = light rain", "weather.kind", {"$eq": "light rain"}),
        ('id = "7"', "id", {"$eq": "7"}),
        ("the key = 7", "the key", {"$eq": 7}),
        ("Joy.axes[!] = 1", "Joy.axes[!]", {"$eq": 1}),
        ("Joy.axes[?] != 1", "Joy.axes[?]", {"$neq": 1}),
        ("Joy.axes = [1, 2]", "Joy.axes", {"$eq": [1, 2]}),
        ("a ~ *x = y*", "a", {"$match": "*x = y*"}),
        ("a = =b", "a", {"$eq": "=b"}),
        ("a ~ 7", "a", {"$match": "7"}),
        ("a between 1 and 2.5", "a", {"$between": [1, 2.5]}),
        ("a outside 2024-01-01 and 2024-02-01", "a", {"$outside": ["2024-01-01", "2024-02-01"]}),
        ("a in 1, 2", "a", {"$in": [1, 2]}),
        ("a in [1, 2]", "a", {"$in": [1, 2]}),
        ("a in rain, light snow", "a", {"$in": ["rain", "light snow"]}),
        ("a in x=1, y", "a", {"$in": ["x=1", "y"]}),
        ("a = made in Italy", "a", {"$eq": "made in Italy"}),
        ("tags[*] exists", "tags[*]", {"$ex": None}),
        ("a.b missing", "a.b", {"$nex": None}),
    ],
)
def test_conditions_as_people_type_them(text: str, field: str, operators: dict[str, Any]) -> None:
    assert parse_conditions([f" {text} "]) == {field: operators}


@pytest.mark.parametrize("text", ["", "a", "a >", "> 4", "a like b", "between 1 and 2"])
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(BadRequestError, match="no condition"):
        parse_conditions([text])


@pytest.mark.parametrize("symbol", ["=>", "<>", ">>", "===", "=~", "!==", "<=>", "~~~~"])
def test_an_unknown_operator_is_refused_as_such(symbol: str) -> None:
    for text in (f"a {symbol} 4", f"a{symbol}4"):
        with pytest.raises(BadRequestError, match=f"'{symbol}' is no operator"):
            parse_conditions([text])
