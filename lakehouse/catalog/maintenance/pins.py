"""What tags and branches of tables hold on to: the rows of a pinned dataset."""

from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.errors import quoted
from lakehouse.catalog.iceberg.table_documents import MAIN_BRANCH, TableDocument, TableFiles
from lakehouse.catalog.reading.skip_index import SkipIndex


class Pins:
    """Looks up, table by table, which references name snapshots with rows of a sequence.

    Args:
        database: Table pointers.
        files: Reads table metadata.
    """

    def __init__(self, database: Database, files: TableFiles) -> None:
        self._database = database
        self._index = SkipIndex(files)
        self._by_table: dict[str, dict[str, set[str | None]]] = {}

    def of(self, identifier: str, sequence: str) -> list[str]:
        """The tags and branches of a table, `main` apart, that hold rows of a sequence, as texts: `tag 'v1'`.

        Raises:
            StorageError: If the table's metadata cannot be read.
        """
        if identifier not in self._by_table:
            self._by_table[identifier] = self._load(identifier)
        # Without a partition value a file may hold rows of any sequence.
        return [name for name, held in sorted(self._by_table[identifier].items()) if sequence in held or None in held]

    def _load(self, identifier: str) -> dict[str, set[str | None]]:
        with self._database.snapshot() as connection:
            location = self._index.catalog.locations(connection, [identifier]).get(identifier)
        if location is None:
            return {}
        document = self._index.document(location)
        return {
            f"{reference['type']} {quoted(name)}": self._sequences(document, reference["snapshot-id"])
            for name, reference in (document.fields.get("refs") or {}).items()
            if name != MAIN_BRANCH
        }

    def _sequences(self, document: TableDocument, snapshot_id: int) -> set[str | None]:
        as_of = TableDocument(document.metadata_location, {**document.fields, "current-snapshot-id": snapshot_id})
        return {
            sequence
            for manifest in self._index.manifests(as_of)
            for sequence in self._index.frame(manifest).sequences.unique().to_pylist()
        }
