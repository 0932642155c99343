"""Finds a Java that is new enough: `JAVA_HOME`, the path, the places where packages put it, a Python wheel."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

_PLACES = ("/usr/lib/jvm", "/opt/java", "/opt/jdks", "/Library/Java/JavaVirtualMachines", "~/.sdkman/candidates/java")
_VERSION = re.compile(r'version "(?:1\.)?(\d+)')


class NoJavaError(Exception):
    """No Java on this machine is new enough; the text says what would do."""


def find_java(minimum: int, wheel: Path | None = None) -> Path:
    """Home of the oldest Java whose version is at least `minimum`: engines are tried most with what they ask for.

    Args:
        minimum: Feature version, such as 17.
        wheel: Where a wheel of a Java runtime is unpacked; taken when nothing else will do.

    Raises:
        NoJavaError: If there is none.
    """
    found = {home: version for home in _candidates() if (version := java_version(home)) is not None}
    suitable = [(version, str(home)) for home, version in found.items() if version >= minimum]
    if suitable:
        return Path(min(suitable)[1])
    for home in wheel.glob("*/java-runtime") if wheel else ():
        if (java_version(home) or 0) >= minimum:
            return home
    seen = ", ".join(sorted({str(version) for version in found.values()})) or "none"
    raise NoJavaError(f"Java {minimum} or newer is needed (found: {seen}); install it, or point JAVA_HOME to it")


def java_version(home: Path) -> int | None:
    """Feature version of the Java in `home`; None if there is none that runs."""
    program = home / "bin" / "java"
    try:
        run = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    match = _VERSION.search(run.stderr)
    return int(match.group(1)) if match else None


def _candidates() -> Iterator[Path]:
    seen: set[Path] = set()
    for home in _homes():
        resolved = home.resolve()
        if resolved not in seen and (resolved / "bin" / "java").exists():
            seen.add(resolved)
            yield resolved


def _homes() -> Iterator[Path]:
    if configured := os.environ.get("JAVA_HOME"):
        yield Path(configured)
    if program := shutil.which("java"):
        yield Path(program).resolve().parent.parent
    for place in _PLACES:
        directory = Path(place).expanduser()
        if directory.is_dir():
            for home in sorted(directory.iterdir()):
                yield home
                yield home / "Contents" / "Home"
