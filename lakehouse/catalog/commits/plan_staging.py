"""Stages what plans do to tables: manifests, manifest lists and metadata files, durable and pointed to by nobody."""

import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace

from lakehouse.catalog.commits.plan import CommitPlan, TableChange
from lakehouse.catalog.errors import NotFoundError
from lakehouse.catalog.iceberg.row_changes import stage_rows
from lakehouse.catalog.iceberg.staging import REPLACE, FileChange, StagedTable, stage
from lakehouse.catalog.iceberg.table_documents import TableFiles
from lakehouse.catalog.reading.skip_index import SkipIndex

STAGING_THREADS = 4
# They wait for an object store, not for the processor.
REMOTE_STAGING_THREADS = 16
# Entries of every snapshot's summary: what tables were changed in one transaction, and how many.
COMMIT_ID = "mosaico.commit"
COMMIT_TABLES = "mosaico.commit-tables"

Changes = Mapping[str, Sequence[tuple[CommitPlan, TableChange]]]
"""What is done to each table, by identifier, and the plan that wants it."""


class PlanStaging:
    """Stages several tables at a time.

    Args:
        files: Reads and writes table metadata.
    """

    def __init__(self, files: TableFiles) -> None:
        self._files = files
        self._index = SkipIndex(files)
        threads = STAGING_THREADS if files.warehouse.is_local else REMOTE_STAGING_THREADS
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="stage")

    def close(self) -> None:
        self._pool.shutdown()

    def stage(self, changes: Changes, pointers: Mapping[str, str], staged: list[StagedTable]) -> None:
        """Stage every table of the changes that has something to change, and write its metadata file.

        Args:
            changes: What to do.
            pointers: Locations of the metadata that each table is staged on.
            staged: Is filled, also when an error is raised: with what was written until then.

        Raises:
            NotFoundError: If a table does not exist.
            StorageError: If the warehouse fails.
        """

        def stage_one(identifier: str) -> StagedTable | None:
            if identifier not in pointers:
                raise NotFoundError("table", identifier)
            return self._stage_table(identifier, pointers[identifier], changes[identifier])

        futures = [self._pool.submit(stage_one, identifier) for identifier in sorted(changes)]
        failure: BaseException | None = None
        for future in futures:
            try:
                if (table := future.result()) is not None:
                    staged.append(table)
            except BaseException as error:
                failure = failure or error
        if failure is not None:
            raise failure
        self._write_metadata(staged)

    def _write_metadata(self, staged: Sequence[StagedTable]) -> None:
        # From these entries alone, whoever finds the files can tell whether the commit was staged completely.
        summary = {COMMIT_ID: str(uuid.uuid4()), COMMIT_TABLES: str(len(staged))}
        write = self._files.catalog.write_metadata
        futures = [self._pool.submit(write, self._files, table, summary) for table in staged]
        wait(futures)
        metadata_files = [uri for future in futures for uri in future.result()]
        if staged:
            self._files.warehouse.make_durable(*(uri for table in staged for uri in table.written), *metadata_files)

    def _stage_table(
        self, identifier: str, location: str, parts: Sequence[tuple[CommitPlan, TableChange]]
    ) -> StagedTable | None:
        base = self._files.document(location)
        changes = [change if not change.is_repeated else self._remaining(change, location) for _, change in parts]
        summary = _merge_summaries([plan.summary for plan, _ in parts])
        row_changes = [change.rows for change in changes if change.rows is not None]
        if row_changes:
            return stage_rows(self._files, identifier, base, row_changes, summary)
        return stage(
            self._files,
            identifier,
            base,
            FileChange(
                add=[entry.to_iceberg() for change in changes for entry in change.add],
                element_bounds={entry.path: entry.element_bounds for change in changes for entry in change.add},
                delete_sequences=frozenset(
                    change.delete_sequence for change in changes if change.delete_sequence is not None
                ),
                delete_paths=frozenset().union(*(change.replaced for change in changes)),
                paths_lie_in=frozenset(entry.sequence for change in changes for entry in change.add),
                operation=REPLACE if any(change.replaced for change in changes) else None,
                summary=summary,
            ),
        )

    def _remaining(self, change: TableChange, location: str) -> TableChange:
        held = {
            sequence
            for sequence in {entry.sequence for entry in change.add}
            for file in self._index.sequence_files(location, sequence)
            if not file.holds_other_sequences
        }
        return replace(change, add=[entry for entry in change.add if entry.sequence not in held])


def _merge_summaries(summaries: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Entries of all plans; where several have the same key, their values separated by a space (no locator has one)."""
    merged: dict[str, list[str]] = {}
    for summary in {id(summary): summary for summary in summaries}.values():
        for key, value in summary.items():
            merged.setdefault(key, []).append(value)
    return {key: " ".join(values) for key, values in merged.items()}
