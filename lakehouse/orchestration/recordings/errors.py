"""What can be wrong with a recording."""

from lakehouse.catalog.errors import AlreadyExistsError, LakehouseError, Terminal, Transient, quoted


class RecordingError(LakehouseError, Terminal):
    """Root of the errors about a recording; `name` is its file or folder name, never a path."""

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self.reason = reason
        super().__init__(f"Recording {quoted(name)}: {reason}")


class UnreadableRecordingError(RecordingError):
    """The container is damaged, truncated beyond use, or cannot be opened."""


class UnsupportedRecordingError(RecordingError):
    """The container is intact as far as we can tell, but of a kind or version we do not read."""


class EmptyRecordingError(RecordingError):
    """No message of the recording can be stored, or it has none of the topics asked for."""


class ChangedRecordingError(AlreadyExistsError):
    """The name of the sequence is taken by other content, perhaps an earlier one of the same file."""

    def __init__(self, sequence: str, name: str, *, same_file: bool) -> None:
        self.name = name
        self.same_file = same_file
        what = f"the content of {quoted(name)} has changed since" if same_file else "it holds something else"
        LakehouseError.__init__(
            self,
            f"sequence {quoted(sequence)} already exists: {what}; "
            "give another name, or delete the sequence and ingest again",
        )


class IngestionRunningError(LakehouseError, Transient):
    """Another process ingests a recording of the same content, or was killed doing so a few minutes ago."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Recording {quoted(name)}: another process is ingesting the same content; try again later")


class MessageDefinitionError(LakehouseError, Terminal):
    """The definition of a message type is missing, malformed, or cannot be turned into columns."""

    def __init__(self, message_type: str, reason: str) -> None:
        self.reason = reason
        super().__init__(f"The definition of {quoted(message_type)} cannot be used: {reason}")
