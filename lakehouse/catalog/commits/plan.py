"""What a commit is asked to do: changes of tables, and the rows of the control plane that go with them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from lakehouse.catalog.iceberg.data_files import DataFileEntry
from lakehouse.catalog.iceberg.row_changes import RowChange


class StalePlanError(Exception):
    """Raised by `announce` and `apply` of a plan that no longer fits the control plane; it is prepared again."""


@dataclass(frozen=True)
class TableChange:
    """What a plan does to one table.

    Attributes:
        identifier: `namespace.table`.
        add: Data files to append.
        delete_sequence: Drop all files of this sequence's partitions.
        is_repeated: Whether the files may have been appended before; they are not if the table holds rows of their
            sequence (a topic, which is a table's share of a sequence, is written once).
        rows: Changes of single rows, for the small metadata tables.
        replaced: URIs of data files which those of `add` take the place of, holding the same rows. Such a plan has to
            be committed alone.
    """

    identifier: str
    add: Sequence[DataFileEntry] = ()
    delete_sequence: str | None = None
    is_repeated: bool = False
    rows: RowChange | None = None
    replaced: frozenset[str] = frozenset()


@dataclass(frozen=True)
class CommitPlan:
    """One logical change.

    Attributes:
        changes: Per table; a table may occur more than once.
        apply: Writes the control-plane rows that make the change visible, inside the transaction that swaps the
            pointers. It may raise a `LakehouseError` to refuse the plan, or `StalePlanError` to have it prepared again.
        summary: Entries for the summaries of the snapshots, e.g. `mosaico.session`.
        announce: Writes what is needed to carry the plan through after a crash; may raise the same. Runs just before
            `apply`, in the same transaction; or, where tables are committed to elsewhere, in one of its own before any
            of them.
    """

    changes: Sequence[TableChange]
    apply: Callable[[Connection], None]
    summary: Mapping[str, str] = field(default_factory=dict)
    announce: Callable[[Connection], None] = lambda _connection: None

    @property
    def row_keys(self) -> frozenset[str]:
        return frozenset(change.rows.key for change in self.changes if change.rows is not None)
