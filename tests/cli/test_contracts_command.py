"""`lakehouse contracts` from a terminal."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.contracts.contract_files import contract_text, rule

RECORDING = Path(__file__).parents[2] / "demo" / "recordings" / "city_drive.mcap"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "lake" / "contracts"
    path.mkdir(parents=True)
    return path


def test_contracts_are_listed_shown_and_checked(lakehouse: Run, folder: Path, tmp_path: Path) -> None:
    (folder / "own.yaml").write_text(
        contract_text("fleet.imu", topics="imu/*", rules=[rule("gaps", "gaps", maxSeconds=1)])
    )
    listed = lakehouse("contracts", "list")
    assert listed.returncode == 0
    assert "lakehouse.imu" in listed.stdout
    assert "fleet.imu" in listed.stdout
    assert {each["origin"] for each in json.loads(lakehouse("contracts", "list", "--json").stdout)} == {
        "shipped",
        "user",
    }
    assert "maxSeconds=1.0" in lakehouse("contracts", "show", "fleet.imu").stdout
    assert "'nothing' not found" in lakehouse("contracts", "show", "nothing").stderr
    assert "14 contracts are good" in lakehouse("contracts", "lint").stdout
    broken = tmp_path / "broken.yaml"
    broken.write_text(contract_text("x", topics="a", rules=[rule("gaps", "gapz")]))
    checked = lakehouse("contracts", "lint", broken, folder / "own.yaml")
    assert checked.returncode == 1
    assert "broken.yaml, line 10: unknown rule 'gapz' for a topic; did you mean 'gaps'?" in checked.stderr
    assert "own.yaml: good: fleet.imu 1.0.0, 1 rules" in checked.stdout


@pytest.mark.slow
def test_a_recording_is_validated_and_a_broken_contract_is_loud(lakehouse: Run, folder: Path, tmp_path: Path) -> None:
    assert lakehouse("ingest", RECORDING).returncode == 0
    good = lakehouse("contracts", "run")
    assert (good.returncode, good.stderr) == (0, "")
    assert "city_drive  passed" in good.stdout
    strict = tmp_path / "strict.yaml"
    properties = [{"name": "acceleration", "quality": [rule("gentle", "magnitude", max=10.5)]}]
    strict.write_text(contract_text("strict", topics="imu/front", properties=properties))
    (folder / "broken.yaml").write_text("kind: [")
    run = lakehouse("contracts", "run", "--sequence", "city_*", "--topic", "/imu/*", "--contract", strict)
    assert run.returncode == 1
    assert "contract not used: broken.yaml" in run.stderr
    assert "failed: city_drive/imu/front, rule gentle" in run.stdout
    assert "get_data_streamer(start_timestamp_ns=" in run.stdout
    (folder / "broken.yaml").unlink()
    report = json.loads(lakehouse("contracts", "run", "--contract", strict, "--no-record", "--json").stdout)
    assert report["verdict"] == "failed"
    (failed,) = [each for each in report["results"] if each["verdict"] != "passed"]
    assert failed["topic"] == "city_drive/imu/front"
    assert failed["time_ranges"][0][0] == failed["first_failing_ns"]
    assert "nothing to validate" in lakehouse("contracts", "run", "--sequence", "none*").stdout
    assert "'none' not found" in lakehouse("contracts", "run", "--sequence", "none").stderr
