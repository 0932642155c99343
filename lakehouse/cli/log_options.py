"""The two options about its log that every command has."""

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Annotated, Any

import typer

from lakehouse.cli.log_output import LogFormat, LogLevel, logging_to_standard_error

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
