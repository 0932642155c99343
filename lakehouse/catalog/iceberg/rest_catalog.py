"""Iceberg REST catalogs (Nessie, Polaris, Lakekeeper, ...): the server writes metadata files, we send what changes."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import requests
from pydantic import ValidationError
from pyiceberg.exceptions import (
    NamespaceAlreadyExistsError,
    NoSuchNamespaceError,
    NoSuchTableError,
    OAuthError,
    RESTError,
    TableAlreadyExistsError,
)
from pyiceberg.table.metadata import TableMetadata
from sqlalchemy import Connection

from lakehouse.catalog.errors import CatalogAccessError, NotFoundError, StorageError
from lakehouse.catalog.iceberg.rest_access import AuthorizationServerError
from lakehouse.catalog.iceberg.rest_changes import main_snapshot, removed_snapshots, requirements, updates
from lakehouse.catalog.iceberg.rest_client import (
    ACCESS_ERRORS,
    TOKEN_EXPIRED,
    TRANSACTIONS,
    UNAUTHORIZED,
    RestClient,
    connect,
)
from lakehouse.catalog.iceberg.rest_lost_references import LostReferences, lost_references, restoration
from lakehouse.catalog.iceberg.sql_catalog import split_identifier
from lakehouse.catalog.iceberg.table_catalog import CatalogConflictError, CatalogUncertainError
from lakehouse.catalog.settings import Settings

if TYPE_CHECKING:
    from lakehouse.catalog.control_plane.database import Database
    from lakehouse.catalog.iceberg.staging import StagedTable
    from lakehouse.catalog.iceberg.table_documents import TableFiles
    from lakehouse.catalog.storage import Warehouse

logger = logging.getLogger(__name__)

_LOOKUP_THREADS = 8
_ATTEMPTS = 10
_BAD_REQUEST, _FORBIDDEN, _NOT_FOUND, _CONFLICT, _SERVER_ERROR = 400, 403, 404, 409, 500
_CREATE_PROPERTIES = {"format-version": "2"}


_Turn = Callable[[], AbstractContextManager[None]]


class RestTableCatalog:
    """A `TableCatalog` behind the REST protocol.

    Args:
        client: Connected.
        commits_together: Whether the server commits to several tables at once.
        first_commits: One process of the lake at a time is inside.
    """

    shares_transactions = False

    def __init__(self, client: RestClient, commits_together: bool, first_commits: _Turn) -> None:
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
        client = connect(settings, {**storage_properties, "snapshot-loading-mode": "refs"})
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
        removed = removed_snapshots(files.document(staged.base_location).fields, staged.fields)
        if removed:
            # A tag may have been set meanwhile, and no requirement says "no new tags".
            with _translated():
                self._check_unmoved([staged])
        with self._unraced(files, [staged]):
            answer = self._send(path, body, staged.identifier)
        if removed:
            lost = lost_references(files, staged.base_location, removed, answer.json()["metadata"])
            if lost is not None:
                self._put_back(files, staged.identifier, lost)

    def _put_back(self, files: "TableFiles", identifier: str, lost: LostReferences) -> None:
        names = ", ".join(sorted(lost.references))
        for _ in range(_ATTEMPTS):
            with _translated():
                location = self._location(identifier)
            change = None if location is None else restoration(files, identifier, files.document(location), lost)
            if change is None:
                break
            body, staged = change
            files.warehouse.make_durable(*staged.written)
            try:
                self._send(self._client.table_path(identifier), body, identifier)
            except CatalogConflictError:
                files.warehouse.discard(list(staged.written))
                continue
            logger.warning("table %s: %s was set while its snapshot expired, and was put back", identifier, names)
            return
        logger.error("table %s: %s was set while its snapshot expired, and is lost", identifier, names)

    def commit_together(
        self, connection: Connection | None, files: "TableFiles", staged: Sequence["StagedTable"]
    ) -> bool:
        del connection
        if not self._commits_together:
            return False
        changes = [self._request(files, table) for table in staged]
        if changes:
            with self._unraced(files, staged):
                self._send(TRANSACTIONS, {"table-changes": changes}, ", ".join(table.identifier for table in staged))
        return True

    @contextmanager
    def _unraced(self, files: "TableFiles", staged: Sequence["StagedTable"]) -> Iterator[None]:
        """Do for first commits what the server leaves undone: refuse one that another came before."""
        first = [
            table
            for table in staged
            if table.snapshot is not None and main_snapshot(files.document(table.base_location).fields) is None
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

    def _send(self, path: str, body: Mapping[str, Any], subject: str) -> requests.Response:
        try:
            response = self._client.post(path, body)
        except AuthorizationServerError as error:
            raise _no_token(error) from None
        except requests.ConnectTimeout as error:
            raise StorageError("the catalog cannot be reached") from error
        except requests.RequestException as error:
            raise CatalogUncertainError from error
        except OAuthError:
            raise CatalogAccessError from None
        status = response.status_code
        if status in (UNAUTHORIZED, _FORBIDDEN, TOKEN_EXPIRED):
            raise CatalogAccessError
        if status == _CONFLICT:
            raise CatalogConflictError
        if status == _NOT_FOUND:
            raise NotFoundError("table", subject)
        if status >= _SERVER_ERROR:
            raise CatalogUncertainError
        if status >= _BAD_REQUEST:
            raise StorageError(f"the catalog refused a commit (HTTP status {status})")
        return response

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


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except ACCESS_ERRORS:
        raise CatalogAccessError from None
    except AuthorizationServerError as error:
        raise _no_token(error) from None
    except (RESTError, NotImplementedError) as error:
        # Status and type at most: see `CatalogTransport`.
        raise StorageError(f"the catalog failed ({error or type(error).__name__})") from None
    except requests.RequestException as error:
        raise StorageError("the catalog failed or cannot be reached") from error
    except ValidationError:
        # Without its cause, which holds the answer.
        raise StorageError("the catalog gave an answer that nobody understands") from None


def _no_token(error: AuthorizationServerError) -> StorageError:
    return StorageError(f"no token for the catalog: the authorization server fails or cannot be reached ({error})")
