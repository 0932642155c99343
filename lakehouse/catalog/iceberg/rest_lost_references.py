"""Tags and branches that somebody named a snapshot in the very moment in which it expired: they are put back.

A commit may require that references of known names are where they were; the protocol has no requirement that there are
no others, and servers drop those whose snapshot goes. The log of metadata files tells, however, from which state the
server removed the snapshots, and for some time all of their files are still there.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from lakehouse.catalog.iceberg.staging import SnapshotBuilder, StagedTable
from lakehouse.catalog.iceberg.table_documents import MAIN_BRANCH, TableDocument, TableFiles


@dataclass(frozen=True)
class LostReferences:
    """What an expiry took that it should not have.

    Attributes:
        references: By name, as table metadata has them.
        snapshots: Those they named.
    """

    references: Mapping[str, Mapping[str, Any]]
    snapshots: tuple[Mapping[str, Any], ...]


def lost_references(
    files: TableFiles, base_location: str, removed: Collection[int], committed: Mapping[str, Any]
) -> LostReferences | None:
    """What was lost by an expiry; None if nothing, as nearly always.

    Args:
        files: Reads table metadata.
        base_location: The state in which the snapshots were chosen.
        removed: Their ids.
        committed: Metadata of the table after the expiry.

    Raises:
        StorageError: If the state from which the server removed them cannot be read.
    """
    log = committed.get("metadata-log") or []
    if not log or log[-1]["metadata-file"] == base_location:
        return None
    before = files.document(log[-1]["metadata-file"])
    references = {
        name: reference
        for name, reference in (before.fields.get("refs") or {}).items()
        if reference["snapshot-id"] in removed
    }
    named = {reference["snapshot-id"] for reference in references.values()}
    snapshots = tuple(snapshot for snapshot in before.snapshots if snapshot["snapshot-id"] in named)
    return LostReferences(references, snapshots) if references else None


def restoration(
    files: TableFiles, identifier: str, base: TableDocument, lost: LostReferences
) -> tuple[dict[str, Any], StagedTable] | None:
    """A commit that puts them back, and the snapshot that it adds besides; None if the table has no rows any more.

    A snapshot out of its turn is taken without a parent only, and sets the table's last sequence number back to its
    own. One that changes nothing follows, with the number that is next.
    """
    current = base.current_snapshot
    if current is None:
        return None
    follows = SnapshotBuilder(files, identifier, base).replace_manifests([])
    head = {**(base.fields.get("refs") or {}).get(MAIN_BRANCH, {"type": "branch"})}
    assert follows.snapshot is not None
    head["snapshot-id"] = follows.snapshot["snapshot-id"]
    added = [{key: value for key, value in each.items() if key != "parent-snapshot-id"} for each in lost.snapshots]
    expected = {name: each["snapshot-id"] for name, each in (base.fields.get("refs") or {}).items()}
    expected |= {MAIN_BRANCH: current["snapshot-id"], **dict.fromkeys(lost.references.keys() - expected.keys())}
    body = {
        "requirements": [
            {"type": "assert-table-uuid", "uuid": base.fields["table-uuid"]},
            *({"type": "assert-ref-snapshot-id", "ref": name, "snapshot-id": at} for name, at in expected.items()),
        ],
        "updates": [
            *({"action": "add-snapshot", "snapshot": snapshot} for snapshot in [*added, follows.snapshot]),
            {"action": "set-snapshot-ref", "ref-name": MAIN_BRANCH, **head},
            *(
                {"action": "set-snapshot-ref", "ref-name": name, **reference}
                for name, reference in lost.references.items()
            ),
        ],
    }
    return body, follows
