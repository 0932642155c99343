"""How `--help` names what options take: in capitals, as manuals do, and nothing where there is nothing to say.

Typer shows the types of Python instead (`<list[Path]>`, and `<bool>` for a flag), and mixes them with names that were
given to options.
"""

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

_NAMES = {"int": "NUMBER", "int range": "NUMBER", "float": "NUMBER", "str": "TEXT", "path": "PATH"}


class _Styled:
    """Names the parameters of a command when they are shown."""

    def get_params(self, ctx: Any) -> list[Any]:
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if isinstance(param, TyperOption):
                _name_option(param, ctx)
            elif isinstance(param, TyperArgument):
                # Its name says what it is.
                param.display_type_rich = _nothing  # type: ignore[method-assign]
        return params


class _Command(_Styled, TyperCommand):
    pass


class _Group(_Styled, TyperGroup):
    pass


class App(typer.Typer):
    """A group of commands that are shown so."""

    def __init__(self, **options: Any) -> None:
        super().__init__(cls=_Group, no_args_is_help=True, rich_markup_mode="markdown", **options)

    def command(self, name: str | None = None, **options: Any) -> Callable[[Any], Any]:
        return super().command(name, cls=_Command, **options)


def _name_option(option: TyperOption, ctx: Any) -> None:
    if option.is_flag:
        option.metavar = ""
    elif option.metavar is None:
        kind = option.display_type(ctx).strip("<>").removeprefix("list[").removesuffix("]")
        option.metavar = kind if "|" in kind else _NAMES.get(kind, "VALUE")


def _nothing(ctx: Any) -> None:
    """What is shown of the type of an argument."""
    del ctx
