"""Orphans: stored files that nothing refers to, found by listing, marked first and purged after their retention.

A file below the location of one of our tables is an orphan when it is in no snapshot of any table, is no recorded file
of an open session, and belongs to no running upload and no commit being staged. The decision is made twice, when a file
is marked and when it is purged. Only tables of the catalog are listed: a warehouse may hold other people's files.
"""

import logging
import re
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, select, update

from lakehouse.catalog import crash_points
from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.orphan_marks import mark, marked_files, unmark
from lakehouse.catalog.control_plane.schema import data_files, topics
from lakehouse.catalog.iceberg.data_files import DataFileEntry
from lakehouse.catalog.iceberg.table_documents import TableDocument, TableFiles
from lakehouse.catalog.maintenance.snapshots import referenced_metadata
from lakehouse.catalog.maintenance.upkeep import is_ours
from lakehouse.catalog.reading.skip_index import IndexedManifest, SkipIndex
from lakehouse.catalog.records import TopicState
from lakehouse.catalog.storage import StoredFile

logger = logging.getLogger(__name__)

NANOSECONDS = 1_000_000_000
# Files of a commit that is being staged are seconds old; those of a suspended process are refused by its commit.
STAGING_GRACE_S = 3600
# An upload that closed no file for this long is taken for broken off. Should it live after all, it fails when it ends.
UPLOAD_SILENCE_S = 86_400
# Files that other engines write lie unreferenced until their commit; three days is what Iceberg's own tools wait.
FOREIGN_GRACE_S = 3 * 86_400
# What is in memory at a time, whatever the size of the lake: manifests in bytes, and files as they are listed.
_DECODED_BYTES = 32 << 20
_LISTED_AT_ONCE = 10_000

Hashes = npt.NDArray[np.int64]

_TOPIC_FILE = re.compile(r"/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})-\d{5,}\.parquet$")
_OWN_FILE = re.compile(
    r"/(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?:-\d{5,}(?:-\d{5,}-[0-9a-f]{8})?\.parquet|\.parquet|-m\d+\.avro)"
    r"|snap-\d+-\d+-[0-9a-f-]{36}\.avro|\d{5,}-[0-9a-f-]{36}\.metadata\.json)$"
)


@dataclass
class OrphanReport:
    """What a search found and did.

    Attributes:
        files, bytes: Everything stored below our tables, before anything was purged.
        orphans, orphan_bytes: Of these, what nothing refers to.
        marked: Orphans seen for the first time.
        purged, purged_bytes: Orphans removed, or to be removed in a dry run.
        aborted_uploads: Beginnings of files in an object store that no listing shows, thrown away.
    """

    files: int = 0
    bytes: int = 0
    orphans: int = 0
    orphan_bytes: int = 0
    marked: int = 0
    purged: int = 0
    purged_bytes: int = 0
    aborted_uploads: int = 0


class _References:
    """Everything that protects a file. What tables refer to is kept as hashes of eight bytes: a clash spares a file.

    Args:
        recorded: Files of open sessions.
        uploading: Topics whose upload is running.
        referenced: Hashes of what snapshots and metadata of tables refer to, in parts.
    """

    def __init__(self, recorded: set[str], uploading: frozenset[str], referenced: Iterable[Hashes]) -> None:
        self._recorded = recorded
        self.uploading = uploading
        # What several snapshots or tables refer to counts once.
        self._referenced = np.unique(np.concatenate([np.empty(0, np.int64), *referenced]))

    def missing(self, uris: Sequence[str]) -> list[int]:
        """Positions of the files that nothing refers to."""
        wanted = _hashes(uris)
        places = np.searchsorted(self._referenced, wanted)
        found = np.zeros(len(wanted), np.bool_)
        inside = places < len(self._referenced)
        found[inside] = self._referenced[places[inside]] == wanted[inside]
        return [position for position in np.flatnonzero(~found).tolist() if uris[position] not in self._recorded]


class OrphanSearch:
    """Finds, marks and purges orphans.

    Args:
        database: Holds the marks, and what protects files.
        files: Reads table metadata.
        retention_s: Seconds between mark and purge.
    """

    def __init__(self, database: Database, files: TableFiles, retention_s: int) -> None:
        self._database = database
        self._files = files
        self._retention_ns = retention_s * NANOSECONDS

    def run(self, dry_run: bool = False, now_ns: int | None = None) -> OrphanReport:
        """Search all of our tables once.

        Raises:
            StorageError: If anything that may refer to files cannot be read; nothing is purged then.
        """
        now_ns = time.time_ns() if now_ns is None else now_ns
        report = OrphanReport()
        # What is recorded is read before the snapshots: finalizing moves files from the one to the other.
        with self._database.snapshot() as connection:
            recorded, uploading = _recorded_files(connection), _uploading_topics(connection)
        locations = self._locations()
        references = _References(recorded, uploading, self._referenced(locations))
        with self._database.snapshot() as connection:
            marks = marked_files(connection)
        orphans: list[StoredFile] = []
        roots: list[str] = []
        for document in self._documents(locations):
            roots.append(f"{document.location}/")
            if is_ours(document):
                orphans += self._orphans_of(document, references, now_ns, report)
        due = {uri for uri, at_ns in marks.items() if now_ns - at_ns >= self._retention_ns}
        if self._retention_ns == 0:
            due |= {file.uri for file in orphans}
        purged = [file for file in orphans if file.uri in due]
        # Files of dropped tables: marked when the table was dropped, and not listed any more.
        listed = tuple(roots)
        unlisted = [uri for uri in due if not uri.startswith(listed)]
        homeless = {unlisted[position] for position in references.missing(unlisted)}
        report.orphans, report.orphan_bytes = len(orphans), sum(file.size for file in orphans)
        report.marked = sum(file.uri not in marks for file in orphans)
        if not dry_run:
            saved = self._fence_uploads({_topic_of(file.uri) for file in purged} & references.uploading)
            purged = [file for file in purged if _topic_of(file.uri) not in saved]
            crash_points.reach("orphan-purge:before")
            self._files.warehouse.delete([*(file.uri for file in purged), *homeless])
            crash_points.reach("orphan-purge:after")
            gone = homeless | {file.uri for file in purged}
            # Only its writer knows an unfinished file, so none is touched that could still be growing.
            oldest_ns = now_ns - max(self._retention_ns, FOREIGN_GRACE_S * NANOSECONDS)
            report.aborted_uploads = self._files.warehouse.abort_unfinished(oldest_ns)
            self._settle({file.uri for file in orphans}, gone, marks.keys(), listed, now_ns)
            crash_points.reach("orphan-marks:after")
        report.purged, report.purged_bytes = len(purged) + len(homeless), sum(file.size for file in purged)
        return report

    def _locations(self) -> list[str]:
        """Metadata locations of all tables that can be read."""
        with self._database.snapshot() as connection:
            pointers = self._files.catalog.locations(connection)
        elsewhere = sorted(name for name, location in pointers.items() if not self._files.warehouse.holds(location))
        if elsewhere:
            # None of them is ours, and no file of theirs is where ours are listed.
            logger.warning("%d tables in other storage are left out, such as %s", len(elsewhere), elsewhere[0])
        return [pointers[name] for name in sorted(pointers.keys() - set(elsewhere))]

    def _documents(self, locations: Iterable[str]) -> Iterator[TableDocument]:
        """One after another, as all of them at once may be larger than memory."""
        return map(self._files.document, locations)

    def _referenced(self, locations: Iterable[str]) -> Iterator[Hashes]:
        index = SkipIndex(self._files, frame_cache_bytes=0)
        for document in self._documents(locations):
            yield _hashes(referenced_metadata(self._files, document))
            own = [_hashes(paths) for paths in _data_paths(index, self._files, document)]
            if own:
                yield np.unique(np.concatenate(own))

    def _orphans_of(
        self, document: TableDocument, references: _References, now_ns: int, report: OrphanReport
    ) -> list[StoredFile]:
        stored = chain.from_iterable(
            self._files.warehouse.list_files(f"{document.location}/{directory}") for directory in ("data", "metadata")
        )
        candidates: list[StoredFile] = []
        last_sign: dict[str, int] = {}
        while files := list(islice(stored, _LISTED_AT_ONCE)):
            report.files += len(files)
            report.bytes += sum(file.size for file in files)
            for file in files:
                if (topic := _topic_of(file.uri)) in references.uploading:
                    last_sign[topic] = max(last_sign.get(topic, 0), file.modified_ns)
            candidates += [files[position] for position in references.missing([file.uri for file in files])]
        return [file for file in candidates if not _is_young(file, references.uploading, last_sign, now_ns)]

    def _settle(
        self, orphans: set[str], gone: set[str], marked: Iterable[str], locations: tuple[str, ...], now_ns: int
    ) -> None:
        # A mark on a file that is in use again must not shorten its retention some other time. Metadata files are
        # marked while they are young, by the expiry that leaves them behind.
        in_use = {uri for uri in marked if uri not in orphans and uri.startswith(locations) and "/metadata/" not in uri}
        with self._database.transaction() as connection:
            mark(connection, orphans - gone, now_ns)
            unmark(connection, gone | in_use)

    def _fence_uploads(self, topic_uuids: set[str]) -> set[str]:
        """Make sure that uploads whose files are to be purged can never be completed.

        Returns:
            Topics whose upload has been completed after all; their files are in use.
        """
        if not topic_uuids:
            return set()
        with self._database.transaction() as connection:
            connection.execute(
                update(topics)
                .where(topics.c.uuid.in_(topic_uuids), topics.c.state == TopicState.UPLOADING)
                .values(table_identifier=None)
            )
            completed = select(topics.c.uuid).where(
                topics.c.uuid.in_(topic_uuids), topics.c.state == TopicState.FINALIZED
            )
            return set(connection.scalars(completed))


def _recorded_files(connection: Connection) -> set[str]:
    return {DataFileEntry.from_bytes(entry).path for entry in connection.scalars(select(data_files.c.entry))}


def _uploading_topics(connection: Connection) -> frozenset[str]:
    query = select(topics.c.uuid).where(topics.c.state == TopicState.UPLOADING, topics.c.table_identifier.is_not(None))
    return frozenset(connection.scalars(query))


def _data_paths(index: SkipIndex, files: TableFiles, document: TableDocument) -> Iterator[list[str]]:
    """Paths of all data and delete files in all snapshots of a table, some manifests at a time."""
    manifests = {
        record.path: IndexedManifest(record, None, None)
        for snapshot in document.snapshots
        for record in files.manifest_list(snapshot["manifest-list"])
    }
    waiting, size = list[IndexedManifest](), 0
    for manifest in manifests.values():
        if waiting and size + manifest.record.length > _DECODED_BYTES:
            yield from (frame.paths.to_pylist() for frame in index.decoded(waiting))
            waiting, size = [], 0
        waiting.append(manifest)
        size += manifest.record.length
    yield from (frame.paths.to_pylist() for frame in index.decoded(waiting))


def _hashes(uris: Collection[str]) -> Hashes:
    return np.fromiter(map(hash, uris), np.int64, len(uris))


def _is_young(file: StoredFile, uploading: frozenset[str], last_sign: dict[str, int], now_ns: int) -> bool:
    """Whether somebody may be about to refer to an unreferenced file."""
    topic = _topic_of(file.uri)
    if topic in uploading:
        return now_ns - last_sign[topic] < UPLOAD_SILENCE_S * NANOSECONDS
    grace_s = STAGING_GRACE_S if _OWN_FILE.search(file.uri) else FOREIGN_GRACE_S
    return now_ns - file.modified_ns < grace_s * NANOSECONDS


def _topic_of(uri: str) -> str:
    """The UUID of the topic a data file was uploaded for; empty for every other file."""
    found = _TOPIC_FILE.search(uri)
    return found.group(1) if found else ""
