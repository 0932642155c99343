"""A contract file as text: YAML with line numbers, checked against the official JSON schema of the standard."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from io import StringIO
from typing import Any

from jsonschema import Draft201909Validator
from jsonschema.exceptions import ValidationError, best_match
from open_data_contract_standard.model import OpenDataContractStandard
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from lakehouse.catalog.errors import ContractError, quoted, shorten

MAX_BYTES = 1 << 20
MAX_PROBLEMS = 5
_MAX_PROBLEM_LENGTH = 300

_UNEXPECTED = ("unevaluatedProperties", "additionalProperties")

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """What is wrong in a contract file.

    Attributes:
        file: Name of the file, without folders.
        line: Counted from 1; None if it concerns the whole file.
        text: What was found and what is expected.
    """

    file: str
    line: int | None
    text: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}, line {self.line}"
        return f"{place}: {shorten(self.text, _MAX_PROBLEM_LENGTH)}"


class BrokenContractError(ContractError):
    """A contract file that is not used, with all that is wrong in it.

    Attributes:
        problems: At least one.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        shown = "; ".join(str(problem) for problem in self.problems[:MAX_PROBLEMS])
        more = len(self.problems) - MAX_PROBLEMS
        super().__init__(shown + (f"; and {more} more" if more > 0 else ""))


@dataclass(frozen=True)
class ContractDocument:
    """The content of a contract file that follows the standard.

    Attributes:
        file: Its name, for messages.
        content: Mappings, lists and scalars that know their lines.
    """

    file: str
    content: Mapping[str, Any]

    def problem(self, path: Path, text: str) -> Problem:
        """A problem at a place in the content."""
        return Problem(self.file, line_of(self.content, path), text)


def read_document(file: str, text: str) -> ContractDocument:
    """Parse a contract file.

    Raises:
        BrokenContractError: If it is not YAML, or not a data contract of version 3 of the standard.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise BrokenContractError([Problem(file, None, "larger than 1 MiB, which no contract is")])
    try:
        content = YAML(typ="rt").load(StringIO(text))
    except MarkedYAMLError as error:
        line = None if error.problem_mark is None else error.problem_mark.line + 1
        raise BrokenContractError([Problem(file, line, f"not valid YAML: {error.problem}")]) from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise BrokenContractError(
            [Problem(file, None, f"not valid YAML: {str(error).partition(chr(10))[0]}")]
        ) from None
    if not isinstance(content, Mapping):
        raise BrokenContractError([Problem(file, 1, "expected a mapping that begins with apiVersion and kind")])
    version = str(content.get("apiVersion", ""))
    if not version.startswith("v3."):
        text = f"apiVersion is {quoted(version)}; expected v3 of the Open Data Contract Standard, e.g. v3.1.0"
        raise BrokenContractError([Problem(file, line_of(content, ("apiVersion",)), text)])
    problems = _problems(file, content)
    if problems:
        raise BrokenContractError(problems)
    return ContractDocument(file, content)


@cache
def _validator() -> Draft201909Validator:
    return Draft201909Validator(json.loads(OpenDataContractStandard.json_schema()))


def _problems(file: str, content: Any) -> list[Problem]:
    """What the schema says, without what only follows from it.

    Whatever is wrong deep inside makes everything around it "unevaluated": of such complaints the deepest counts.
    """
    errors = [_innermost(error) for error in _validator().iter_errors(content)]
    found: dict[Path, str] = {}
    unexpected: list[Path] = []
    for error in errors:
        path = tuple(error.absolute_path)
        if error.validator == "required" and error.message.startswith("'map'") and "logicalType" not in error.instance:
            # The official schema asks this of every property without a type.
            continue
        if error.validator in _UNEXPECTED and isinstance(error.instance, Mapping):
            unexpected += [(*path, str(key)) for key in error.instance if f"'{key}'" in error.message]
        else:
            found.setdefault(path, _text(error))
    for path in sorted(set(unexpected), key=len, reverse=True):
        if not any(other[: len(path)] == path for other in found):
            found[path] = f"unknown field {quoted(path[-1])}; the standard has none of that name here"
    problems = [Problem(file, line_of(content, path), _placed(path, text)) for path, text in found.items()]
    return sorted(problems, key=lambda problem: problem.line or 0)


def _innermost(error: ValidationError) -> ValidationError:
    while error.context and (inner := best_match(error.context)) is not None:
        error = inner
    return error


def _text(error: ValidationError) -> str:
    if error.validator == "type":
        return f"{quoted(error.instance, 60)} is not of the expected type {error.validator_value}"
    if error.validator == "enum":
        return (
            f"{quoted(error.instance, 60)} is not allowed; expected one of {', '.join(map(str, error.validator_value))}"
        )
    return error.message


def _placed(path: Path, text: str) -> str:
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    return f"{where}: {text}" if where else text


def line_of(content: Any, path: Path) -> int | None:
    """The line, from 1, of a place in a parsed document; of what encloses it if the place itself has none."""
    line: int | None = 1
    for found in _lines(content, path):
        line = found
    return line


def _lines(node: Any, path: Path) -> Iterator[int]:
    for part in path:
        is_key = isinstance(node, Mapping) and part in node
        is_place = isinstance(node, Sequence) and isinstance(part, int) and part < len(node)
        if not (is_key or is_place):
            return
        yield _zero_based(node, part) + 1
        node = node[part]


def _zero_based(node: Any, part: Any) -> int:
    positions = node.lc.data or {}
    return int(positions[part][0]) if part in positions else int(node.lc.line)
