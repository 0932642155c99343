"""Logs of a command, on standard error, in one of three forms, and the two options for them that every command has."""

import inspect
import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property, wraps
from typing import Annotated, Any

import typer

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


LogFormatOption = Annotated[LogFormat, typer.Option(help="Form of the log lines on standard error.")]
LogLevelOption = Annotated[LogLevel, typer.Option(help="Least severe records to log.")]


def add_log_options(app: typer.Typer, levels: Mapping[str, LogLevel]) -> None:
    """Give every command of a program, those of its groups included, the options `--log-format` and `--log-level`.

    Args:
        levels: The default by name of the command, where it is not to log warnings only.
    """
    for command in app.registered_commands:
        if command.callback is not None:
            command.callback = _logged(command.callback, levels.get(command.name or "", LogLevel.WARNING))
    for group in app.registered_groups:
        if group.typer_instance is not None:
            add_log_options(group.typer_instance, {})


def _logged(function: Callable[..., Any], default_level: LogLevel) -> Callable[..., Any]:
    """The function of a command with two parameters more, of which it knows nothing."""

    @wraps(function)
    def logged(*arguments: Any, log_format: LogFormat, log_level: LogLevel, **options: Any) -> Any:
        with logging_to_standard_error(log_format, log_level):
            return function(*arguments, **options)

    added = {
        "log_format": (LogFormatOption, LogFormat.PLAIN),
        "log_level": (LogLevelOption, default_level),
    }
    signature = inspect.signature(function, eval_str=True)
    if "log_format" in signature.parameters:
        # A group of commands is there once, however often the program around it is put together in one process.
        return function
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        *signature.parameters.values(),
        *(inspect.Parameter(name, keyword, default=value, annotation=kind) for name, (kind, value) in added.items()),
    ]
    # Where Typer reads the options of a command from.
    logged.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    logged.__annotations__ = {**function.__annotations__, **{name: kind for name, (kind, _) in added.items()}}
    return logged


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
