"""Contract files: what is shipped is good, what is broken is named with file, line and what is expected."""

from pathlib import Path

import pytest

from lakehouse.contracts.collection import ContractLibrary, read_contract, shipped_contracts
from lakehouse.contracts.document import BrokenContractError, read_document
from lakehouse.contracts.parsing import parse_contract
from lakehouse.ontology.registry import load_models
from tests.contracts.contract_files import contract_text, rule

GOOD = """\
apiVersion: v3.1.0
kind: DataContract
id: fleet.imu
version: 1.2.0
status: active
schema:
  - name: IMU
    physicalType: topic
    customProperties:
      - { property: ontologyTag, value: IMU }
    quality:
      - id: gaps
        type: custom
        engine: mosaico
        severity: warning
        implementation: { rule: gaps, maxSeconds: 0.5 }
    properties:
      - name: acceleration
        logicalType: object
        properties:
          - name: x
            logicalType: number
            customProperties: [{ property: unit, value: m/s² }]
            quality:
              - id: ax
                type: custom
                engine: mosaico
                implementation: { rule: range, min: -50, max: 50 }
              - { metric: nullValues, mustBe: 0 }
"""


def problems_of(text: str) -> list[str]:
    with pytest.raises(BrokenContractError) as broken:
        parse_contract(read_document("fleet.yaml", text), "user")
    assert len(str(broken.value)) <= 1000
    return [str(problem) for problem in broken.value.problems]


def test_a_good_contract_is_read_with_all_its_rules() -> None:
    contract = parse_contract(read_document("fleet.yaml", GOOD), "user")
    (part,) = contract.objects
    assert (contract.id, contract.version, part.ontology_tag) == ("fleet.imu", "1.2.0", "IMU")
    assert [(r.id, r.rule, ".".join(r.path), r.severity) for r in part.rules] == [
        ("gaps", "gaps", "", "warning"),
        ("ax", "range", "acceleration.x", "error"),
        ("acceleration_x_present", "present", "acceleration.x", "error"),
    ]


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("name: x\n", "name: xx\n", 21, "unknown column 'acceleration.xx'; did you mean 'x'?"),
        ("name: acceleration", "name: temperature", 18, "unknown column 'temperature'; expected one of timestamp_ns, "),
        ("rule: gaps", "rule: gapz", 12, "unknown rule 'gapz' for a topic; did you mean 'gaps'?"),
        ("rule: gaps", "rule: sing", 12, "unknown rule 'sing' for a topic; expected one of compare, covariance, "),
        ("maxSeconds: 0.5", "maxSecond: 1", 12, "unknown parameter 'maxSecond'; expected nominalHz, maxSeconds"),
        ("maxSeconds: 0.5", "maxSeconds: -1", 12, "maxSeconds: Input should be greater than 0"),
        ("min: -50, max: 50", "min: 50, max: -50", 25, "min must not exceed max"),
        ("rule: gaps, maxSeconds: 0.5", "rule: rate, minHz: 205, maxHz: 195", 12, "minHz must not exceed maxHz"),
        ("id: ax", "id: gaps", 25, "duplicated rule id 'gaps', first in line 12"),
        ("m/s²", "g", 21, "'acceleration.x' is in m/s² in the ontology, not in g"),
        ("severity: warning", "severity: fatal", 15, "severity is 'fatal'; expected error, warning or info"),
        ("engine: mosaico\n        sev", "engine: soda\n        sev", 14, "unknown engine 'soda'; expected mosaico"),
        ("physicalType: topic", "physicalType: table", 8, "physicalType is 'table'; expected topic or sequence"),
        ("kind: DataContract", "kind: Contract", 2, "kind: 'Contract' is not allowed; expected one of DataContract"),
        ("apiVersion: v3.1.0", "apiVersion: v2.2.2", 1, "expected v3 of the Open Data Contract Standard"),
        ("version: 1.2.0", "version: 1.2", 4, "version: '1.2' is not of the expected type string"),
        ("    quality:\n      - id: gaps", "    qality:\n      - id: gaps", 11, "unknown field 'qality'"),
        ("logicalType: number", "logicalType: float", 22, "'float' is not allowed; expected one of string, "),
        ("mustBe: 0", "mustBe: 3", 29, "expected mustBe: 0, mustBeLessThan or mustBeLessOrEqualTo"),
        ("implementation: { rule: gaps,", "implementation: { rule: [gaps,", 16, "not valid YAML"),
        ("rule: range, min: -50, max: 50", "rule: quaternion_norm", 25, "needs a struct; 'acceleration.x' is double"),
        ("- { property: ontologyTag, value: IMU }", "[]", 7, "applies to nothing"),
        ("status: active", "status: active\nid: again", 6, "not valid YAML: found duplicate key"),
    ],
)  # fmt: skip
def test_what_is_broken_is_named_with_its_line_and_what_is_expected(old: str, new: str, line: int, says: str) -> None:
    assert old in GOOD
    (problem, *_) = [each for each in problems_of(GOOD.replace(old, new, 1)) if says in each] or [None]
    assert problem is not None, problems_of(GOOD.replace(old, new, 1))
    assert problem.startswith(f"fleet.yaml, line {line}: ")


@pytest.mark.parametrize(
    "text", ["", "- a list", "just text", "apiVersion: v3.1.0", "a: &a [*a, *a]", "\t", "\x00", "{" * 500]
)
def test_anything_else_is_refused_in_one_line(text: str) -> None:
    assert all("\n" not in problem for problem in problems_of(text))


def test_everything_wrong_is_told_at_once() -> None:
    text = GOOD.replace("rule: gaps", "rule: gapz").replace("name: x\n", "name: xx\n")
    assert len(problems_of(text)) == 2


def test_one_broken_file_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("apiVersion: [")
    (tmp_path / "b.yaml").write_text(contract_text("fleet.b", topics="imu/*", rules=[rule("g", "gaps", maxSeconds=1)]))
    (tmp_path / "c.yml").write_bytes(b"\xff\xfe")
    (tmp_path / "d.yaml").write_text(contract_text("fleet.b", topics="other"))
    library = ContractLibrary.load(tmp_path)
    assert library.get("fleet.b").objects[0].topics == "imu/*"
    assert [problem.file for problem in library.problems] == ["a.yaml", "c.yml", "d.yaml"]
    assert "duplicated contract id 'fleet.b', first in b.yaml" in str(library.problems[2])


def test_a_contract_of_the_user_with_a_shipped_id_takes_its_place(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(contract_text("lakehouse.imu", tag="IMU", version="9.0.0"))
    library = ContractLibrary.load(tmp_path)
    assert (library.get("lakehouse.imu").version, library.get("lakehouse.imu").origin) == ("9.0.0", "user")
    assert len(library.contracts) == len(shipped_contracts())


def test_a_missing_file_is_a_problem_like_others(tmp_path: Path) -> None:
    with pytest.raises(BrokenContractError, match=r"none\.yaml: cannot be read"):
        read_contract(tmp_path / "none.yaml")


def test_contracts_are_shipped_for_all_commonly_used_types() -> None:
    covered = {part.ontology_tag for contract in shipped_contracts() for part in contract.objects}
    expected = """IMU GPS GPSStatus Image CompressedImage LaserScan MultiEchoLaserScan PointCloud2 Lidar RobotJoint Joy
        Temperature Pressure Range BatteryState Magnetometer MotionState Pose Transform FrameTransform ForceTorque
        Velocity Acceleration CameraInfo OccupancyGrid Radar RGBDCamera ToFCamera StereoCamera NMEASentence"""
    assert set(expected.split()) <= covered
    assert covered - {None} <= set(load_models())
