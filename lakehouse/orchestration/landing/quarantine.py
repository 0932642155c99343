"""The folder of what could not be ingested: beside each recording a text file with the reason."""

from dataclasses import dataclass
from pathlib import Path

REASON_SUFFIX = ".reason.txt"


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A recording that was refused.

    Attributes:
        name: File or directory name.
        reason: Why, for people.
        since: Unix seconds.
    """

    name: str
    reason: str
    since: float


class Quarantine:
    """One such folder; created on first use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def note(self, name: str, reason: str) -> None:
        """Leave the reason why the recording `name` was refused."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{name}{REASON_SUFFIX}").write_text(reason + "\n", encoding="utf-8")

    def entries(self) -> list[Quarantined]:
        """Everything with a reason, latest first. Deleting the text file takes a recording off the list."""
        found = []
        for path in self.folder.glob(f"*{REASON_SUFFIX}"):
            try:
                reason, since = path.read_text(encoding="utf-8", errors="replace").strip(), path.stat().st_mtime
            except FileNotFoundError:
                continue
            found.append(Quarantined(path.name.removesuffix(REASON_SUFFIX), reason, since))
        return sorted(found, key=lambda entry: (-entry.since, entry.name))
