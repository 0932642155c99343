"""Artifacts of Maven repositories, fetched by Maven itself with whatever settings this machine has."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from engines.versions import MAVEN_DEPENDENCY_PLUGIN

_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>lakehouse</groupId><artifactId>engines</artifactId><version>1</version><packaging>pom</packaging>
  <build><plugins><plugin>
    <groupId>{plugin_group}</groupId><artifactId>{plugin_artifact}</artifactId><version>{plugin_version}</version>
    <configuration><artifactItems>{items}</artifactItems></configuration>
  </plugin></plugins></build>
</project>
"""
_PLUGIN = MAVEN_DEPENDENCY_PLUGIN.split(":")
_ITEM = (
    "<artifactItem><groupId>{group}</groupId><artifactId>{artifact}</artifactId>"
    "<version>{version}</version><classifier>{classifier}</classifier><type>{type}</type></artifactItem>"
)


class MavenError(Exception):
    """Maven is missing or did not deliver; the text holds its own complaint."""


def copy_artifacts(coordinates: Sequence[str], directory: Path, *, file_type: str = "jar") -> None:
    """Copy artifacts, without what they depend on, into a directory.

    Args:
        coordinates: `group:artifact:version` of each, or `group:artifact:version:classifier`.
        directory: Created when missing.
        file_type: Ending of the files.

    Raises:
        MavenError: If Maven is missing, or one of them cannot be had.
    """
    program = shutil.which("mvn")
    if program is None:
        raise MavenError("Maven (mvn) is needed; on Debian and Ubuntu: apt-get install maven")
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="lakehouse-mvn-") as workplace:
        pom = Path(workplace) / "pom.xml"
        items = (
            _ITEM.format(
                group=escape(group),
                artifact=escape(artifact),
                version=escape(version),
                classifier=escape("".join(classifier)),
                type=file_type,
            )
            for group, artifact, version, *classifier in (coordinate.split(":") for coordinate in coordinates)
        )
        plugin = dict(zip(("plugin_group", "plugin_artifact", "plugin_version"), _PLUGIN, strict=True))
        pom.write_text(_POM.format(items="".join(items), **plugin))
        command = [program, "--batch-mode", "--quiet", "--no-transfer-progress", "-Dstyle.color=never"]
        command += ["--file", str(pom), f"{MAVEN_DEPENDENCY_PLUGIN}:copy", f"-DoutputDirectory={directory.resolve()}"]
        run = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if run.returncode:
        complaints = [line for line in run.stdout.splitlines() if "[ERROR]" in line]
        text = re.sub(r"https?://\S+", "...", "\n".join(complaints[:3]) or run.stderr[-500:])
        raise MavenError(f"Maven could not fetch {', '.join(coordinates)}:\n{text}")
