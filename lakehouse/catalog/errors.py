"""The one error hierarchy of the project.

Every error a user can meet is a `LakehouseError`. Its class says what happened; each door (Flight gateway,
command line, Dagster) maps classes to its own vocabulary in exactly one place. Texts are for people: they name the
thing, say what is allowed, stay under `MAX_MESSAGE_LENGTH` characters and never contain a path of the server.

The mixins `Transient` and `Terminal` carry the decision to retry in the type.
"""

MAX_MESSAGE_LENGTH = 1000


def shorten(text: str, limit: int = MAX_MESSAGE_LENGTH) -> str:
    """Cut `text` to at most `limit` characters, marking the cut."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


def quoted(name: object, limit: int = 200) -> str:
    """A name as it appears in an error text: printable, quoted, and short even when the input was not."""
    return "'" + shorten(str(name).encode("unicode_escape").decode("ascii"), limit) + "'"


class LakehouseError(Exception):
    """Root of all errors raised on purpose.

    Attributes:
        message: The text for the user, already shortened.
        plain_message: The same without the words by which clients of the protocol tell kinds of errors apart.
    """

    def __init__(self, message: str, *, kind: str = "") -> None:
        self.plain_message = shorten(message)
        self.message = shorten(f"{kind}: {message}") if kind else self.plain_message
        super().__init__(self.message)


class Transient:
    """Mixin: the same call may succeed later, unchanged."""


class Terminal:
    """Mixin: the same call will fail again until something else changes."""


class BadRequestError(LakehouseError, Terminal, ValueError):
    """Input that is malformed whatever the state of the lake."""

    def __init__(self, message: str) -> None:
        super().__init__(message, kind="Bad request")


class InvalidNameError(BadRequestError):
    """A sequence, topic or session locator that breaks the naming rules (protocol section 5.3)."""


class InvalidUuidError(BadRequestError):
    """A text that is not a UUID."""

    def __init__(self, text: object) -> None:
        super().__init__(f"{quoted(text)} is not a valid UUID")


class UnsupportedSchemaError(BadRequestError):
    """An Arrow schema that cannot be stored losslessly, or lacks the `timestamp_ns` column."""

    def __init__(self, message: str) -> None:
        super().__init__(f"Unsupported schema: {message}")


class InvalidDataError(BadRequestError):
    """Record batches that break their own schema or the Arrow format."""


class NotFoundError(LakehouseError, Terminal, LookupError):
    """The named sequence, session, topic or table does not exist.

    Args:
        kind: What it is.
        name: Its name.
        hint: The end of the sentence: what may be meant.
    """

    def __init__(self, kind: str, name: object, hint: str = "") -> None:
        super().__init__(f"{kind} {quoted(name)} not found{hint}")


class AlreadyExistsError(LakehouseError, Terminal):
    """The name is taken."""

    def __init__(self, kind: str, name: object) -> None:
        super().__init__(f"{kind} {quoted(name)} already exists")


class StateError(LakehouseError, Terminal):
    """The object exists but its state forbids the operation (protocol section 7.3)."""


class ChangedTableError(StateError):
    """Another engine changed a table in a way that topics or commits of ours cannot follow."""


class PermissionDeniedError(LakehouseError, Terminal):
    """The caller does not hold the capability or the permission the operation needs."""

    def __init__(self, message: str) -> None:
        super().__init__(message, kind="Unauthorized")


class UnsupportedOperationError(LakehouseError, Terminal):
    """The protocol knows the operation, this server does not offer it."""


class ResourceExhaustedError(LakehouseError, Transient):
    """A limit of this server (message size, open uploads, memory) is reached."""


class CommitConflictError(LakehouseError, Transient):
    """Other writers kept winning the race for a table until the retries ran out."""


class ReplacedFilesGoneError(CommitConflictError):
    """Files that were to be replaced by others with the same rows are no longer, or not alone, what the table holds."""


class UploadCancelledError(LakehouseError, Terminal):
    """The client went away in the middle of an upload."""


class StorageError(LakehouseError, Transient):
    """The warehouse or the database could not be read or written."""


class CatalogAccessError(StorageError):
    """The REST catalog refuses the lake's token or credential, or does not allow it what it asks for.

    What is refused has not happened; it is worth trying again once the catalog's administrator has seen to it.
    """

    def __init__(self) -> None:
        super().__init__(
            "the REST catalog refuses access to this lake: its operator has to renew LAKEHOUSE_CATALOG_TOKEN or "
            "LAKEHOUSE_CATALOG_CREDENTIAL, or have it permitted there"
        )


class DamagedDataError(StorageError):
    """What was stored can be fetched, and not be decoded."""


class MissingFileError(StorageError):
    """A file is not where it was stored."""


class ConfigurationError(LakehouseError, Terminal):
    """A setting is missing, malformed or contradicts another."""


class ContractError(LakehouseError, Terminal):
    """A data contract that cannot be read: it breaks the standard, names an unknown rule or column, or another's id."""


class ContractBreachError(StateError):
    """A session breaks a data contract, and the policy is to refuse such sessions."""


class QuarantinedError(ContractBreachError):
    """A session breaks a data contract, and was put in quarantine."""
