"""`lakehouse contracts` from a terminal."""

import json
from pathlib import Path

import pytest

from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.settings import Settings
from tests.cli.conftest import Run
from tests.contracts.contract_files import contract_text, rule
from tests.orchestration.recordings.recording_files import string_channel, texts, write_mcap

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


def test_a_contract_that_covers_nothing_is_noted_with_what_may_be_meant(
    lakehouse: Run, folder: Path, tmp_path: Path
) -> None:
    gaps = [rule("gaps", "gaps", maxSeconds=1)]
    files = {
        "tag": contract_text("fleet.tag", tag="Strig", topics="text", rules=gaps),
        "topic": contract_text("fleet.topic", topics="texd", rules=gaps),
        "sequence": contract_text("fleet.sequence", topics="te*", sequences="drives_*", rules=gaps),
        "good": contract_text("fleet.good", topics="te*", sequences="drive*", rules=gaps),
        "whole": contract_text(
            "fleet.whole", scope="sequence", rules=[rule("there", "topics_present", topics=["text"])]
        ),
    }
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    without_lake = lakehouse("contracts", "lint")
    assert (without_lake.returncode, without_lake.stderr) == (0, "")
    assert not (tmp_path / "lake" / "lakehouse.db").exists(), "files can be checked where there is no lake"
    assert json.loads(lakehouse("contracts", "list", "--json").stdout)[0]["covers"] is None
    for name in ("drive_1", "drive_2"):
        channels = [string_channel("/text", texts(3, prefix=name)), string_channel("/b", [])]
        recording = write_mcap(tmp_path / f"{name}.mcap", channels)
        assert lakehouse("ingest", recording).returncode == 0
    linted = lakehouse("contracts", "lint")
    assert linted.returncode == 0
    assert sorted(linted.stderr.splitlines()) == [
        "note: sequence.yaml: no sequence in the lake matches 'drives_*'; did you mean 'drive_2' or 'drive_1'?",
        "note: tag.yaml: no shipped type and no topic of the lake has the tag 'Strig'; did you mean 'String'?",
        "note: topic.yaml: no topic in the lake matches 'texd'; did you mean 'text'?",
    ]
    assert lakehouse("contracts", "lint", folder / "tag.yaml").stderr.startswith("note: tag.yaml: no shipped type")
    covers = {each["id"]: each["covers"] for each in json.loads(lakehouse("contracts", "list", "--json").stdout)}
    assert covers["fleet.good"] == {"topics": 2, "sequences": 0}
    assert covers["fleet.whole"] == {"topics": 0, "sequences": 2}
    assert covers["fleet.topic"] == covers["fleet.sequence"] == {"topics": 0, "sequences": 0}
    listed = {line.split()[0]: line for line in lakehouse("contracts", "list").stdout.splitlines()}
    assert "2 topics" in listed["fleet.good"]
    assert "nothing" in listed["fleet.tag"]


@pytest.mark.slow
def test_a_recording_is_validated_and_a_broken_contract_is_loud(lakehouse: Run, folder: Path, tmp_path: Path) -> None:
    assert lakehouse("ingest", RECORDING).returncode == 0
    good = lakehouse("contracts", "run")
    assert (good.returncode, good.stderr) == (0, "")
    assert "city_drive  passed" in good.stdout
    assert lakehouse("contracts", "failing").stdout == "nothing fails\n"
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
    options = ["--contract", strict, "--no-record", "--json", "--data-docs", tmp_path / "docs"]
    report = json.loads(lakehouse("contracts", "run", *options).stdout)
    assert "city_drive" in (tmp_path / "docs" / "index.html").read_text()
    assert report["verdict"] == "failed"
    (failed,) = [each for each in report["results"] if each["verdict"] != "passed"]
    assert failed["topic"] == "city_drive/imu/front"
    assert failed["time_ranges"][0][0] == failed["first_failing_ns"]
    assert "nothing to validate" in lakehouse("contracts", "run", "--sequence", "none*").stdout
    absent = lakehouse("contracts", "run", "--sequence", "none", "--json")
    assert ("'none' not found" in absent.stderr, absent.stdout) == (True, "")
    nothing = json.loads(lakehouse("contracts", "run", "--sequence", "none*", "--json").stdout)
    assert (nothing["results"], nothing["verdict"]) == ([], "passed")


@pytest.mark.slow
def test_what_is_cut_or_cannot_be_read_is_seen_everywhere(lakehouse: Run, tmp_path: Path) -> None:
    whole = write_mcap(tmp_path / "whole.mcap", [string_channel("/text", texts(2000))], chunk_size=2048)
    cut, spoilt = tmp_path / "cut.mcap", tmp_path / "spoilt.mcap"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    write_mcap(spoilt, [string_channel("/text", texts(9)), string_channel("/more", texts(9))])
    assert lakehouse("ingest", cut, whole, spoilt).returncode == 0
    listing = {each["sequence"]: each["remarks"] for each in json.loads(lakehouse("sequences", "--json").stdout)}
    assert listing["whole"] == listing["spoilt"] == []
    (remark,) = listing["cut"]
    assert remark.startswith("recording incomplete: damaged: ")
    assert "recording incomplete: damaged: " in lakehouse("sequences").stdout
    assert remark in lakehouse("sequences", "cut").stdout
    with Lakehouse.open(Settings.load()) as lake:
        uuid = lake.topics.get(TopicLocator("spoilt", "text")).uuid
    (file,) = [path for path in (tmp_path / "lake").rglob("*.parquet") if uuid in path.name]
    file.unlink()
    run = lakehouse("contracts", "run")
    assert run.returncode == 1
    assert "failed: cut, rule recording_complete" in run.stdout
    assert "failed: spoilt/text, rule readable" in run.stdout
    assert "observed  could not be read: a file of the warehouse is missing" in run.stdout
    assert "whole  passed" in run.stdout
    failing = json.loads(lakehouse("contracts", "failing", "--json").stdout)
    assert {(each["sequence"], each["path"], each["rule"]) for each in failing} == {
        ("cut", None, "recording_complete"),
        ("spoilt", "text", "readable"),
    }
    shown = lakehouse("contracts", "failing", "--limit", "1").stdout.splitlines()
    assert (len(shown), shown[-1]) == (3, "and 1 more; 2 sequences fail")
    sql = "SELECT sequence, rule FROM mosaico.validation_results WHERE verdict = 'failed' ORDER BY 1"
    recorded = lakehouse("sql", "--format", "csv", sql).stdout.splitlines()
    assert recorded == ["sequence,rule", "cut,recording_complete", "spoilt,readable"]


def test_what_breaks_its_contracts_is_refused_or_waits_in_quarantine(
    lakehouse: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_mcap(tmp_path / "drive.mcap", [string_channel("/text", texts(5))])
    strict = folder / "strict.yaml"
    strict.write_text(contract_text("strict", topics="text", rules=[rule("rows", "row_count", min=6)]))
    monkeypatch.setenv("LAKEHOUSE_CONTRACT_POLICY", "refuse")
    refused = lakehouse("ingest", path)
    assert refused.returncode == 1
    assert "breaks its contracts: drive/text, rule rows (at least 6 rows): 5 rows" in refused.stderr
    assert json.loads(lakehouse("sequences", "--json").stdout) == [], "a refused recording leaves nothing behind"
    monkeypatch.setenv("LAKEHOUSE_CONTRACT_POLICY", "quarantine")
    for _ in range(2):
        kept = lakehouse("ingest", path)
        assert kept.returncode == 1
        assert "it is in quarantine until an operator releases or discards it" in kept.stderr
    (entry,) = json.loads(lakehouse("contracts", "quarantined", "--json").stdout)
    assert entry["reason"] == "breaks its contracts: drive/text, rule rows (at least 6 rows): 5 rows"
    assert entry["session"] in lakehouse("contracts", "quarantined").stdout
    assert "quarantined" in lakehouse("sequences").stdout
    assert "in quarantine: drive:" in lakehouse("sequences", "drive").stdout
    assert "in quarantine of sequence 'elsewhere' not found" in lakehouse("contracts", "release", "elsewhere").stderr
    released = lakehouse("contracts", "release", "drive")
    assert (released.returncode, released.stdout) == (0, f"{entry['session']}: released, and committed\n")
    assert "no session is in quarantine" in lakehouse("contracts", "quarantined").stdout
    assert "is finalized: it is not in quarantine" in lakehouse("contracts", "discard", entry["session"]).stderr
    other = write_mcap(tmp_path / "other.mcap", [string_channel("/text", texts(4))])
    lakehouse("ingest", other)
    (entry,) = json.loads(lakehouse("contracts", "quarantined", "--json").stdout)
    discarded = lakehouse("contracts", "discard", entry["session"]).stdout
    assert discarded == f"{entry['session']}: discarded, and sequence other, which held nothing else\n"
    assert [each["sequence"] for each in json.loads(lakehouse("sequences", "--json").stdout)] == ["drive"]
    strict.unlink()
    assert lakehouse("ingest", other).returncode == 0
    listing = json.loads(lakehouse("sequences", "--json").stdout)
    assert {each["sequence"]: each["sessions"][0]["state"] for each in listing} == {
        "drive": "finalized",
        "other": "finalized",
    }
