"""Retention policies as people write them: a YAML file, read strictly, every complaint with its line.

policies:
  - name: camera-pictures
    tag: Image
    max_bytes: 2 TB
  - name: apollo
    metadata: {project: apollo}
    each: vehicle
    max_age: 90 days
    max_bytes: 500 GB
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from lakehouse.catalog.errors import ConfigurationError, quoted

_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 604_800}
_BYTES = {
    "B": 1,
    **{unit: 1000 ** (power + 1) for power, unit in enumerate(("kB", "MB", "GB", "TB", "PB"))},
    **{unit: 1024 ** (power + 1) for power, unit in enumerate(("KiB", "MiB", "GiB", "TiB", "PiB"))},
}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?) *([A-Za-z]+)")


class AgeOf(StrEnum):
    """What the age is counted from."""

    ARRIVAL = "arrival"
    RECORDING = "recording"


class Pinned(StrEnum):
    """What happens where data would go that a tag or branch of a table names."""

    REFUSE = "refuse"
    KEEP = "keep"


@dataclass(frozen=True)
class RetentionPolicy:
    """One bucket, or one for each value of a label, from which the oldest goes first.

    Attributes:
        name: Unique in the file.
        line: Where in the file it begins.
        sequences: Glob; only sequences whose names fit.
        metadata: Only sequences that have all these values in their metadata, by dotted path.
        tag: Only topics of this ontology tag; these go one by one, and not the sequences.
        each: Dotted path of a metadata value: a bucket for each.
        max_age_s: What is older goes; seconds.
        max_bytes: While a bucket holds more, its oldest goes; sizes as uploaded.
        age_of: What age and order go by.
        pinned: What happens where pinned data would have to go.
    """

    name: str
    line: int
    sequences: str = "*"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    tag: str | None = None
    each: str | None = None
    max_age_s: int | None = None
    max_bytes: int | None = None
    age_of: AgeOf = AgeOf.ARRIVAL
    pinned: Pinned = Pinned.REFUSE


def read_policies(path: Path) -> list[RetentionPolicy]:
    """The policies of a file; none if there is no such file.

    Raises:
        ConfigurationError: If the file is not what it has to be; the text names file and line, and what is expected.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path.name}: cannot be read: {type(error).__name__}") from None
    return _Reader(path.name).policies(text)


class _Reader:
    def __init__(self, file_name: str) -> None:
        self._file_name = file_name

    def policies(self, text: str) -> list[RetentionPolicy]:
        try:
            document = YAML(typ="rt").load(text)
        except MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise self._wrong(line, f"not YAML: {error.problem or error.context}") from None
        except YAMLError:
            raise self._wrong(1, "not YAML") from None
        if document is None:
            return []
        if not isinstance(document, CommentedMap) or list(document) != ["policies"]:
            raise self._wrong(1, "expected one key 'policies' with a list below it")
        entries: Any = document["policies"]
        if type(entries) is not CommentedSeq:
            raise self._wrong(_line(document, "policies"), "'policies' must be a list")
        found: list[RetentionPolicy] = []
        for number, entry in enumerate(entries):
            if not isinstance(entry, CommentedMap):
                raise self._wrong(entries.lc.item(number)[0] + 1, "a policy must be a mapping with a name")
            policy = self._policy(entry)
            if any(policy.name == other.name for other in found):
                raise self._wrong(policy.line, f"the name {quoted(policy.name)} is taken by an earlier policy")
            found.append(policy)
        return found

    def _policy(self, entry: CommentedMap) -> RetentionPolicy:
        line = entry.lc.line + 1
        readers: dict[str, Callable[[CommentedMap, str], Any]] = {
            "name": self._text,
            "sequences": self._text,
            "metadata": self._metadata,
            "tag": self._text,
            "each": self._text,
            "max_age": self._seconds,
            "max_bytes": self._bytes,
            "age_of": lambda entry, key: self._choice(entry, key, AgeOf),
            "pinned": lambda entry, key: self._choice(entry, key, Pinned),
        }
        for key in entry:
            if key not in readers:
                raise self._wrong(_line(entry, key), f"unknown key {quoted(key)}; known are {', '.join(readers)}")
        if "name" not in entry:
            raise self._wrong(line, "the policy has no 'name'")
        if "max_age" not in entry and "max_bytes" not in entry:
            raise self._wrong(line, f"policy {quoted(entry['name'])} needs 'max_age', 'max_bytes' or both")
        fields = {key: readers[key](entry, key) for key in entry}
        if "max_age" in fields:
            fields["max_age_s"] = fields.pop("max_age")
        return RetentionPolicy(line=line, **fields)

    def _text(self, entry: CommentedMap, key: str) -> str:
        value = entry[key]
        if not isinstance(value, str) or not value:
            raise self._wrong(_line(entry, key), f"'{key}' must be a text")
        return str(value)

    def _metadata(self, entry: CommentedMap, key: str) -> dict[str, Any]:
        value = entry[key]
        if not isinstance(value, CommentedMap) or not value:
            raise self._wrong(_line(entry, key), "'metadata' must map paths to values, e.g. {project: apollo}")
        for path, wanted in value.items():
            if not isinstance(path, str) or not isinstance(wanted, (str, int, float, bool)):
                raise self._wrong(
                    _line(value, path), f"the value of {quoted(path)} must be a text, number or truth value"
                )
        return dict(value)

    def _seconds(self, entry: CommentedMap, key: str) -> int:
        units = _SECONDS | {f"{unit}s": size for unit, size in _SECONDS.items()}
        return self._quantity(entry, key, units, "a time such as '90 days' or '12 hours'")

    def _bytes(self, entry: CommentedMap, key: str) -> int:
        return self._quantity(entry, key, _BYTES, "a size such as '500 GB' or '2 TiB'")

    def _quantity(self, entry: CommentedMap, key: str, units: Mapping[str, int], expected: str) -> int:
        found = _QUANTITY.fullmatch(str(entry[key]).strip())
        if found is None or found.group(2) not in units:
            raise self._wrong(_line(entry, key), f"'{key}' must be {expected}, not {quoted(entry[key])}")
        return round(float(found.group(1)) * units[found.group(2)])

    def _choice(self, entry: CommentedMap, key: str, choices: type[StrEnum]) -> StrEnum:
        try:
            return choices(entry[key])
        except ValueError:
            allowed = " or ".join(f"'{choice}'" for choice in choices)
            raise self._wrong(_line(entry, key), f"'{key}' must be {allowed}, not {quoted(entry[key])}") from None

    def _wrong(self, line: int, text: str) -> ConfigurationError:
        return ConfigurationError(f"{self._file_name}:{line}: {text}")


def _line(entry: CommentedMap, key: Any) -> int:
    return int(entry.lc.key(key)[0]) + 1
