"""Iceberg REST catalogs (Nessie, Polaris, Lakekeeper, ...): the server writes metadata files, we send what changes.

Sessions, authentication and paths are PyIceberg's. Changes are sent as the protocol has them (Iceberg REST API,
`CommitTableRequest`): the difference between two states of a table, and what must still hold for it to apply.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import requests
from pyiceberg.catalog.rest import Endpoint, HttpMethod, RestCatalog
from pyiceberg.exceptions import (
    ForbiddenError,
    NamespaceAlreadyExistsError,
    NoSuchNamespaceError,
    NoSuchTableError,
    OAuthError,
    RESTError,
    TableAlreadyExistsError,
    UnauthorizedError,
)
from pyiceberg.table.metadata import TableMetadata
from sqlalchemy import Connection

from lakehouse.catalog.errors import ConfigurationError, NotFoundError, StorageError
from lakehouse.catalog.iceberg.sql_catalog import CATALOG_NAME, split_identifier
from lakehouse.catalog.iceberg.table_catalog import CatalogConflictError, CatalogUncertainError
from lakehouse.catalog.iceberg.table_documents import MAIN_BRANCH
from lakehouse.catalog.settings import Settings

if TYPE_CHECKING:
    from lakehouse.catalog.control_plane.database import Database
    from lakehouse.catalog.iceberg.staging import StagedTable
    from lakehouse.catalog.iceberg.table_documents import TableFiles
    from lakehouse.catalog.storage import Warehouse

_TRANSACTIONS = "transactions/commit"
_LOOKUP_THREADS = 8
_TIMEOUT_S = 60.0
_BAD_REQUEST, _NOT_FOUND, _CONFLICT, _SERVER_ERROR = 400, 404, 409, 500
_CREATE_PROPERTIES = {"format-version": "2"}


_Turn = Callable[[], AbstractContextManager[None]]


class _Client(RestCatalog):
    """PyIceberg's client, which also says what the server can do and posts any request."""

    @property
    def announces_transactions(self) -> bool:
        wanted = Endpoint(http_method=HttpMethod.POST, path=f"/v1/{{prefix}}/{_TRANSACTIONS}")
        return wanted in self._supported_endpoints

    @property
    def ignores_first_commits(self) -> bool:
        """Whether the server does not check that a table has no snapshot yet, which null asks for by the protocol.

        Nessie does not: of two first commits both would win, and the rows of one would be lost.
        """
        return bool(self.properties.get("nessie.is-nessie-catalog") == "true")

    def post(self, path: str, body: Mapping[str, Any]) -> requests.Response:
        response: requests.Response = self._session.post(self.url(path), json=body, timeout=_TIMEOUT_S)
        return response

    def table_path(self, identifier: str) -> str:
        parts = self._split_identifier_for_path(identifier)
        return f"namespaces/{parts['namespace']}/tables/{parts['table']}"


class RestTableCatalog:
    """A `TableCatalog` behind the REST protocol.

    Args:
        client: Connected.
        commits_together: Whether the server commits to several tables at once.
        first_commits: One process of the lake at a time is inside.
    """

    shares_transactions = False

    def __init__(self, client: _Client, commits_together: bool, first_commits: _Turn) -> None:
        self._client = client
        self._first_commits = first_commits
        self._commits_together = commits_together
        self._pool = ThreadPoolExecutor(_LOOKUP_THREADS, thread_name_prefix="catalog")

    @classmethod
    def open(
        cls, settings: Settings, storage_properties: Mapping[str, str], first_commits: _Turn
    ) -> "RestTableCatalog":
        """Connect to the catalog that `settings` name.

        Raises:
            ConfigurationError: If it refuses, or cannot be reached.
        """
        # Lean answers: of a table only the place of its metadata is asked for.
        client = _connect(settings, {**storage_properties, "snapshot-loading-mode": "refs"})
        choice = settings.catalog_multi_table_commit
        return cls(client, choice == "always" or (choice == "auto" and client.announces_transactions), first_commits)

    def locations(self, connection: Connection, identifiers: Iterable[str] | None = None) -> dict[str, str]:
        del connection
        with _translated():
            wanted = sorted(set(self._all_tables() if identifiers is None else identifiers))
            found = list(self._pool.map(self._location, wanted)) if len(wanted) > 1 else map(self._location, wanted)
            return {name: place for name, place in zip(wanted, found, strict=True) if place is not None}

    def namespace_properties(self, connection: Connection, namespace: str) -> dict[str, str]:
        del connection
        with _translated():
            try:
                return dict(self._client.load_namespace_properties(namespace))
            except NoSuchNamespaceError:
                return {}

    def create_namespace(self, connection: Connection, namespace: str, properties: Mapping[str, str]) -> bool:
        del connection
        with _translated():
            try:
                self._client.create_namespace(namespace, dict(properties))
            except NamespaceAlreadyExistsError:
                return False
        return True

    def create_table(
        self, database: "Database", warehouse: "Warehouse", identifier: str, metadata: TableMetadata
    ) -> bool:
        del database, warehouse
        with _translated():
            try:
                self._client.create_table(
                    identifier,
                    metadata.schema(),
                    partition_spec=metadata.spec(),
                    sort_order=metadata.sort_orders[0],
                    properties={**_CREATE_PROPERTIES, **metadata.properties},
                )
            except TableAlreadyExistsError:
                return False
        return True

    def hold(self, connection: Connection, identifier: str) -> str | None:
        return self.locations(connection, [identifier]).get(identifier)

    def drop_table(self, connection: Connection, identifier: str, location: str) -> bool:
        # An upload could claim the table between a look at it and its end, and nothing here could hold it.
        del connection, identifier, location
        return False

    def write_metadata(self, files: "TableFiles", staged: "StagedTable", summary: Mapping[str, str]) -> list[str]:
        del files
        if staged.snapshot is not None:
            staged.snapshot["summary"].update(summary)
        return []

    def commit(self, connection: Connection | None, files: "TableFiles", staged: "StagedTable") -> None:
        del connection
        path, body = self._client.table_path(staged.identifier), self._request(files, staged)
        if _removed(files.document(staged.base_location).fields, staged.fields):
            # A tag may have been set meanwhile, and no requirement says "no new tags".
            with _translated():
                self._check_unmoved([staged])
        with self._unraced(files, [staged]):
            self._send(path, body, staged.identifier)

    def commit_together(
        self, connection: Connection | None, files: "TableFiles", staged: Sequence["StagedTable"]
    ) -> bool:
        del connection
        if not self._commits_together:
            return False
        changes = [self._request(files, table) for table in staged]
        if changes:
            with self._unraced(files, staged):
                self._send(_TRANSACTIONS, {"table-changes": changes}, ", ".join(table.identifier for table in staged))
        return True

    @contextmanager
    def _unraced(self, files: "TableFiles", staged: Sequence["StagedTable"]) -> Iterator[None]:
        """Do for first commits what the server leaves undone: refuse one that another came before."""
        first = [
            table
            for table in staged
            if table.snapshot is not None and _main(files.document(table.base_location).fields) is None
        ]
        if not first or not self._client.ignores_first_commits:
            yield
            return
        with self._first_commits():
            with _translated():
                self._check_unmoved(first)
            yield

    def _check_unmoved(self, staged: Sequence["StagedTable"]) -> None:
        if any(self._location(table.identifier) != table.base_location for table in staged):
            raise CatalogConflictError

    def _request(self, files: "TableFiles", staged: "StagedTable") -> dict[str, Any]:
        namespace, name = split_identifier(staged.identifier)
        base = files.document(staged.base_location).fields
        return {
            "identifier": {"namespace": namespace.split("."), "name": name},
            "requirements": list(requirements(base, staged.fields)),
            "updates": list(updates(base, staged.fields)),
        }

    def _send(self, path: str, body: Mapping[str, Any], subject: str) -> None:
        try:
            status = self._client.post(path, body).status_code
        except requests.ConnectTimeout as error:
            raise StorageError("the catalog cannot be reached") from error
        except requests.RequestException as error:
            raise CatalogUncertainError from error
        if status == _CONFLICT:
            raise CatalogConflictError
        if status == _NOT_FOUND:
            raise NotFoundError("table", subject)
        if status >= _SERVER_ERROR:
            raise CatalogUncertainError
        if status >= _BAD_REQUEST:
            raise StorageError(f"the catalog refused a commit (HTTP status {status})")

    def _all_tables(self) -> Iterator[str]:
        for namespace in self._client.list_namespaces():
            try:
                yield from (".".join(name) for name in self._client.list_tables(namespace))
            except NoSuchNamespaceError:
                continue  # dropped since it was listed

    def _location(self, identifier: str) -> str | None:
        try:
            return str(self._client.load_table(identifier).metadata_location)
        except (NoSuchTableError, NoSuchNamespaceError):
            return None


def open_rest_catalog(settings: Settings, storage_properties: Mapping[str, str]) -> RestCatalog:
    """The catalog as PyIceberg sees it, with all snapshots of its tables; for queries and tools, not for our commits.

    Raises:
        ConfigurationError: If it refuses, or cannot be reached.
    """
    return _connect(settings, storage_properties)


def _connect(settings: Settings, properties: Mapping[str, str]) -> _Client:
    access = {
        "token": settings.catalog_token.get_secret_value(),
        "credential": settings.catalog_credential.get_secret_value(),
        "warehouse": settings.catalog_warehouse,
    }
    given = {name: value for name, value in access.items() if value}
    try:
        return _Client(CATALOG_NAME, uri=settings.catalog_uri, **properties, **given)
    except (UnauthorizedError, ForbiddenError, OAuthError) as error:
        raise ConfigurationError("LAKEHOUSE_CATALOG_TOKEN or _CREDENTIAL: the catalog refuses access") from error
    except (RESTError, requests.RequestException, ValueError) as error:
        raise ConfigurationError("LAKEHOUSE_CATALOG_URI: the catalog cannot be reached or refuses") from error


def updates(base: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What changes a table from one state to the next, of all that our own commits change (REST API, `TableUpdate`)."""
    known_schemas = {schema["schema-id"] for schema in base["schemas"]}
    new_schemas = [schema for schema in after["schemas"] if schema["schema-id"] not in known_schemas]
    for schema in new_schemas:
        yield {"action": "add-schema", "schema": schema, "last-column-id": after["last-column-id"]}
    if after["current-schema-id"] != base["current-schema-id"]:
        # -1: the one that was added last; the server numbers them by itself.
        yield {"action": "set-current-schema", "schema-id": -1 if new_schemas else after["current-schema-id"]}
    before_ids = _snapshot_ids(base)
    for snapshot in after.get("snapshots") or []:
        if snapshot["snapshot-id"] not in before_ids:
            yield {"action": "add-snapshot", "snapshot": snapshot}
    if _main(after) != _main(base):
        yield {"action": "set-snapshot-ref", "ref-name": MAIN_BRANCH, **after["refs"][MAIN_BRANCH]}
    if removed := _removed(base, after):
        yield {"action": "remove-snapshots", "snapshot-ids": removed}


def requirements(base: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What must still hold of the table for these changes to apply (REST API, `TableRequirement`)."""
    yield {"type": "assert-table-uuid", "uuid": base["table-uuid"]}
    yield {"type": "assert-ref-snapshot-id", "ref": MAIN_BRANCH, "snapshot-id": _main(base)}
    if _removed(base, after):
        # They were chosen by what tags and branches do not name.
        for name, reference in (base.get("refs") or {}).items():
            if name != MAIN_BRANCH:
                yield {"type": "assert-ref-snapshot-id", "ref": name, "snapshot-id": reference["snapshot-id"]}
    if after["current-schema-id"] != base["current-schema-id"]:
        yield {"type": "assert-current-schema-id", "current-schema-id": base["current-schema-id"]}
        yield {"type": "assert-last-assigned-field-id", "last-assigned-field-id": base["last-column-id"]}


def _removed(base: Mapping[str, Any], after: Mapping[str, Any]) -> list[int]:
    """Ids of the snapshots that expire."""
    return sorted(_snapshot_ids(base) - _snapshot_ids(after))


def _snapshot_ids(fields: Mapping[str, Any]) -> set[int]:
    return {snapshot["snapshot-id"] for snapshot in fields.get("snapshots") or []}


def _main(fields: Mapping[str, Any]) -> int | None:
    current = fields.get("current-snapshot-id")
    return None if current in (None, -1) else current


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (RESTError, requests.RequestException) as error:
        raise StorageError("the catalog failed or cannot be reached") from error
