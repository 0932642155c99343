"""Installs what the other engines and the tests need besides Python packages: `python -m engines.install [NAME...]`.

Everything comes through the ordinary clients of its registry (go, mvn, pip, apt) and lands in `.cache/engines` of the
project, one directory per version. What is there already is left alone, so that calling this again costs nothing.
"""

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engines import versions
from engines.java import NoJavaError, find_java
from engines.maven import MavenError, copy_artifacts

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "engines"


class InstallationError(Exception):
    """Something cannot be installed; the text says what is missing on this machine."""


@dataclass(frozen=True, slots=True)
class Component:
    """Something to install.

    Attributes:
        name: What it is called on the command line.
        directory: Name below the cache; changes with the version.
        fill: Puts the files into an empty directory.
    """

    name: str
    directory: str
    fill: Callable[[Path], None]

    @property
    def path(self) -> Path:
        return CACHE / self.directory


def ensure(name: str) -> Path:
    """Directory of an installed component; it is installed first when it is missing.

    Raises:
        InstallationError: If that fails.
    """
    component = COMPONENTS[name]
    if component.path.exists():
        return component.path
    with _only_one_installer():
        # Another process may have installed it while this one was waiting.
        if not component.path.exists():
            _install(component)
    return component.path


def java_home(minimum: int) -> Path:
    """Home of a Java that is new enough; a wheel of it is installed when the machine has none.

    Raises:
        InstallationError: If there is none to be had.
    """
    try:
        return find_java(minimum)
    except NoJavaError:
        pass
    try:
        return find_java(minimum, ensure("java"))
    except NoJavaError as error:
        raise InstallationError(str(error)) from None


def _install(component: Component) -> None:
    unfinished = component.path.with_name(f"{component.directory}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    started = time.monotonic()
    print(f"Installing {component.name} ...", file=sys.stderr, flush=True)
    try:
        component.fill(unfinished)
    except MavenError as error:
        raise InstallationError(f"{component.name}: {error}") from None
    unfinished.rename(component.path)
    print(f"  {component.name} installed in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


@contextmanager
def _only_one_installer() -> Iterator[None]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(command: Sequence[str], what: str, **environment: str) -> None:
    run = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env={**os.environ, **environment}
    )
    if run.returncode:
        raise InstallationError(f"{what} could not be installed:\n{(run.stderr or run.stdout)[-800:]}")


def _fill_s3_server(directory: Path) -> None:
    program = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin:/usr/lib/go/bin")
    if program is None:
        raise InstallationError("the S3 server needs Go (go) to be built; on Debian: apt-get install golang-go")
    _run([program, "install", versions.VERSITYGW], "the S3 server", GOBIN=str(directory))


def _fill_spark_jars(directory: Path) -> None:
    copy_artifacts(versions.SPARK_JARS, directory)


def _fill_trino(directory: Path) -> None:
    archives = directory / "archives"
    copy_artifacts([versions.TRINO_SERVER], archives, file_type="tar.gz")
    copy_artifacts([versions.TRINO_ICEBERG_PLUGIN], archives, file_type="zip")
    # Not shutil.unpack_archive: it silently leaves out files whose names hold two dots, as these jars' do.
    with tarfile.open(next(archives.glob("*.tar.gz"))) as server_archive:
        server_archive.extractall(directory / "unpacked", filter="data")
    with zipfile.ZipFile(next(archives.glob("*.zip"))) as plugin_archive:
        plugin_archive.extractall(directory / "unpacked")
    (server,) = (directory / "unpacked").glob("trino-server-core-*")
    (plugin,) = (directory / "unpacked").glob("trino-iceberg-*")
    for part in ("bin", "lib"):
        (server / part).rename(directory / part)
    (directory / "plugin").mkdir()
    plugin.rename(directory / "plugin" / "iceberg")
    shutil.rmtree(archives)
    shutil.rmtree(directory / "unpacked")


def _fill_nessie(directory: Path) -> None:
    copy_artifacts([versions.NESSIE_SERVER], directory)


def _fill_iceberg_server(directory: Path) -> None:
    copy_artifacts(versions.ICEBERG_SERVER_JARS, directory)


def _fill_java(directory: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(directory)]
    _run([*command, versions.JAVA_WHEEL], "a Java runtime")


def _chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


def ensure_chromium() -> None:
    """Install the browser of the tests of web pages, which is a package of the system and needs root.

    Raises:
        InstallationError: If it is missing and cannot be installed.
    """
    if _chromium() is not None:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise InstallationError("Chromium is needed; on Debian, as root: apt-get install chromium")
    print("Installing chromium ...", file=sys.stderr, flush=True)
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    _run(["apt-get", "update", "-q"], "Chromium", **quiet)
    _run(["apt-get", "install", "-q", "-y", "--no-install-recommends", "chromium"], "Chromium", **quiet)


COMPONENTS = {
    component.name: component
    for component in (
        Component("s3-server", f"s3-server-{versions.VERSITYGW.rpartition('@')[2]}", _fill_s3_server),
        Component("spark-jars", f"spark-jars-{versions.ICEBERG}", _fill_spark_jars),
        Component("trino", f"trino-{versions.TRINO}", _fill_trino),
        Component("nessie", f"nessie-{versions.NESSIE}", _fill_nessie),
        Component("iceberg-server", f"iceberg-server-{versions.ICEBERG_SERVER}", _fill_iceberg_server),
        Component("java", f"java-{versions.JAVA_WHEEL.rpartition(chr(61))[2]}", _fill_java),
    )
}

# Lowest Java that each of them runs on.
JAVA_OF = {
    "spark-jars": versions.SPARK_JAVA,
    "trino": versions.TRINO_JAVA,
    "nessie": versions.NESSIE_JAVA,
    "iceberg-server": versions.ICEBERG_SERVER_JAVA,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    names = ["s3-server", "spark-jars", "trino", "nessie", "iceberg-server", "chromium"]
    parser.add_argument("names", nargs="*", default=names, help=f"what to install (default: {' '.join(names)})")
    failures = []
    for name in parser.parse_args().names:
        try:
            if name == "chromium":
                ensure_chromium()
            elif name in COMPONENTS:
                ensure(name)
            else:
                raise InstallationError(f"there is no '{name}'; known: {', '.join([*COMPONENTS, 'chromium'])}")
            if name in JAVA_OF:
                java_home(JAVA_OF[name])
        except InstallationError as error:
            failures.append(f"{name}: {error}")
    if failures:
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    main()
