"""Logs of a command, on standard error, in one of three forms, and without secrets."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property

from lakehouse.catalog.errors import ConfigurationError

# Attributes every record has; what is beyond them was given by the caller as structured facts.
_STANDARD_ATTRIBUTES = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LogFormat(StrEnum):
    JSON = "json"
    PRETTY = "pretty"
    PLAIN = "plain"


class LogLevel(StrEnum):
    WARNING = "warning"
    INFO = "info"
    DEBUG = "debug"


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, and the structured facts of the record."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {key: value for key, value in vars(record).items() if key not in _STANDARD_ATTRIBUTES}
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class WithoutSecrets(logging.Formatter):
    """Another formatter's lines without the passwords, keys and tokens of the settings.

    We write none; but the text of an error may be that of a server, and some servers repeat what they refuse.
    """

    def __init__(self, lines: logging.Formatter) -> None:
        super().__init__()
        self._lines = lines

    def format(self, record: logging.LogRecord) -> str:
        text = self._lines.format(record)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    @cached_property
    def _secrets(self) -> list[str]:
        # Imported when something is logged: the libraries behind it take a second.
        from lakehouse.catalog.settings import Settings

        try:
            known = Settings.load().secrets
        except ConfigurationError:
            return []
        # Also as JSON has them.
        return sorted({*known, *(json.dumps(secret)[1:-1] for secret in known)}, key=len, reverse=True)


@contextmanager
def logging_to_standard_error(log_format: LogFormat, level: LogLevel) -> Iterator[None]:
    """Send the logs of this process to standard error; other libraries only when they warn."""
    root, ours = logging.getLogger(), logging.getLogger("lakehouse")
    before = root.handlers, root.level, ours.level
    handler = _handler(log_format)
    handler.addFilter(_is_of_interest)
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    ours.setLevel(level.upper())
    try:
        yield
    finally:
        root.handlers, root_level, our_level = before
        root.setLevel(root_level)
        ours.setLevel(our_level)


def _is_of_interest(record: logging.LogRecord) -> bool:
    """Some libraries lower the level of their loggers, or log what Python warns their programmers of."""
    is_ours = record.name.partition(".")[0] == "lakehouse"
    return is_ours or (record.levelno >= logging.WARNING and record.name != "py.warnings")


def _handler(log_format: LogFormat) -> logging.Handler:
    if log_format is LogFormat.PRETTY:
        # Imported when it is wanted: every command would start later otherwise.
        from rich.console import Console
        from rich.logging import RichHandler

        pretty = RichHandler(console=Console(stderr=True), show_path=False, log_time_format="%Y-%m-%d %H:%M:%S")
        pretty.setFormatter(WithoutSecrets(logging.Formatter("%(message)s")))
        return pretty
    handler = logging.StreamHandler(sys.stderr)
    plain = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(WithoutSecrets(JsonFormatter() if log_format is LogFormat.JSON else plain))
    return handler
