"""What can be wrong with a recording."""

from lakehouse.catalog.errors import LakehouseError, Terminal, quoted


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


class MessageDefinitionError(LakehouseError, Terminal):
    """The definition of a message type is missing, malformed, or cannot be turned into columns."""

    def __init__(self, message_type: str, reason: str) -> None:
        self.reason = reason
        super().__init__(f"The definition of {quoted(message_type)} cannot be used: {reason}")
