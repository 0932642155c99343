"""Maintenance from the command line: dry runs, counts before and after, output for programs."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import duckdb
import pytest

from lakehouse.catalog.maintenance.compaction import COMPACTION_LEASE
from lakehouse.catalog.maintenance.leases import Lease
from tests.catalog.scattered_lake import ScatteredLake, in_order
from tests.cli.conftest import Run
from tests.orchestration.recordings.recording_files import string_channel, texts, write_mcap


@pytest.fixture
def scattered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScatteredLake:
    """A lake with small files, of which the commands see the same."""
    with ScatteredLake(tmp_path / "lake") as lake:
        lake.store("drive", in_order())
        lake.store("other", in_order(count=2))
    return lake


def test_compact_tells_before_what_it_would_do_and_then_does_it(scattered: ScatteredLake, lakehouse: Run) -> None:
    foreseen = json.loads(lakehouse("compact", "--dry-run", "--json").stdout)
    assert foreseen["dry_run"]
    announced = lakehouse("compact", "--dry-run").stdout.splitlines()
    assert announced[0].split() == ["now", "would", "become"]
    assert any(
        "scattered.front" in line and f"{foreseen['total']['files_replaced']} -> 1" in line for line in announced
    )
    shown = lakehouse("compact")
    assert shown.returncode == 0
    assert shown.stdout.split()[:2] == ["before", "after"]
    line = next(line for line in shown.stdout.splitlines() if "scattered.front" in line)
    replaced = foreseen["total"]["files_replaced"]
    assert f"{replaced} -> 1" in line
    again = json.loads(lakehouse("compact", "--json").stdout)
    assert again["before"]["data_files"] == foreseen["after"]["data_files"]
    assert foreseen["after"]["data_files"] == foreseen["before"]["data_files"] - replaced + 1
    assert again["work"] == {}
    assert "no topic has enough small files" in lakehouse("compact").stdout


def test_compact_steps_back_while_another_process_is_at_it(scattered: ScatteredLake, lakehouse: Run) -> None:
    with ScatteredLake(scattered.lakehouse.settings.home) as lake:
        assert Lease(lake.lakehouse.database, COMPACTION_LEASE).hold()
        result = lakehouse("compact")
        assert (result.returncode, result.stdout) == (0, "Another process is compacting; nothing done.\n")
        assert json.loads(lakehouse("compact", "--json").stdout) == {"skipped": "another process is compacting"}


def test_cleanup_reports_to_programs_too(scattered: ScatteredLake, lakehouse: Run) -> None:
    report = json.loads(lakehouse("cleanup", "--dry-run", "--json").stdout)
    assert report["dry_run"]
    assert report["before"]["data_files"] > 8


def test_audit_shows_who_did_what_with_which_command(scattered: ScatteredLake, lakehouse: Run) -> None:
    lakehouse("compact")
    (entry,) = json.loads(lakehouse("audit", "--operation", "compaction", "--json").stdout)
    assert (entry["resource"], entry["door"]) == ("scattered.front", "lakehouse compact")
    assert entry["actor"].startswith("user ")
    shown = lakehouse("audit", "--resource", "drive:", "--since", "2026-01-01").stdout
    assert "session_finalize" in shown
    assert "compaction" not in shown
    assert lakehouse("audit", "--actor", "nobody-at-all").stdout == "No entry.\n"
    assert "is no time" in lakehouse("audit", "--since", "yesterday").stderr


def test_retention_deletes_what_policies_say_and_fails_where_it_is_refused(
    scattered: ScatteredLake, lakehouse: Run
) -> None:
    file = scattered.lakehouse.settings.retention_path
    assert f"the file {file} does not exist" in lakehouse("retention").stdout
    file.write_text("policies:\n  - name: others\n    sequences: oth*\n    max_bytes: 1 B\n")
    foreseen = json.loads(lakehouse("retention", "--dry-run", "--json").stdout)
    assert foreseen["policies"][0]["deleted"][0][0] == "other"
    done = lakehouse("retention")
    assert done.returncode == 0
    assert "deleted 1" in done.stdout
    assert "other" not in lakehouse("sequences").stdout
    file.write_text("policies:\n  - name: others\n    size: 1 B\n")
    wrong = lakehouse("retention")
    assert wrong.returncode == 1
    assert "retention.yaml:3: unknown key 'size'" in wrong.stderr
    file.write_text("policies:\n  - {name: all, max_bytes: 1 B}\n")
    with ScatteredLake(scattered.lakehouse.settings.home) as lake:
        table = lake.stock_table("scattered.front")
        table.manage_snapshots().create_tag(table.metadata.current_snapshot_id or 0, "v1").commit()
    refused = lakehouse("retention")
    assert refused.returncode == 1
    assert "sequence 'drive' is pinned by tag 'v1'" in refused.stdout


def test_a_sequence_knows_its_source_decoder_and_who_ingested_it(lakehouse: Run, tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "drive.mcap", [string_channel("/text", texts(3))])
    assert lakehouse("ingest", path).returncode == 0
    with ScatteredLake(tmp_path / "lake") as lake:
        published = lake.stock_table("mosaico.sequences").scan().to_arrow()
    with duckdb.connect() as connection:
        connection.register("sequences", published)
        row = connection.execute(
            "SELECT sequence, user_metadata::JSON ->> '$.recording.files[0].sha256',"
            " user_metadata::JSON ->> '$.recording.decoder_version',"
            " user_metadata::JSON ->> '$.recording.ingested_by' FROM sequences"
        ).fetchone()
    assert row is not None
    assert row[:2] == ("drive", hashlib.sha256(path.read_bytes()).hexdigest())
    assert row[2] == version("mosaico-lakehouse")
    assert row[3].startswith("user ")
