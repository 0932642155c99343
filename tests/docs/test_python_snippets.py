"""Python of the docs that reads tables runs as it stands beside the lake of the demo, and nothing warns of anything."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.settings import Settings
from lakehouse.orchestration.recordings.ingest import ingest_recording

PROJECT = Path(__file__).parents[2]
SNIPPETS = {
    page: snippet
    for page in ("README.md", "docs/sql.md")
    for snippet in re.findall(r"```python\n(.*?)```", (PROJECT / page).read_text(), re.DOTALL)
    if "scan_iceberg" in snippet
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `.lakehouse` is the demo's."""
    here: Path = tmp_path_factory.mktemp("demo")
    with Lakehouse.open(Settings.load(home=here / ".lakehouse", db_url="", store_endpoint="")) as lake:
        ingest_recording(lake, PROJECT / "demo" / "recordings" / "city_drive.mcap")
    return here


@pytest.mark.parametrize("page", ["README.md", "docs/sql.md"])
def test_a_snippet_prints_rows_and_no_warning(directory: Path, page: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POLARS_")}
    command = [sys.executable, "-c", SNIPPETS[page]]
    run = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert "shape: (" in run.stdout
    assert "Warning" not in run.stderr
