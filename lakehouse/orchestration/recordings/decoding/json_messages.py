"""JSON messages to columns, as `json_types` has chosen them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lakehouse.orchestration.recordings.decoding.decoded import DecodedBlock
from lakehouse.orchestration.recordings.decoding.json_shape import JsonSurvey, parse_json
from lakehouse.orchestration.recordings.decoding.json_types import JSON_TEXT, JsonTypes

VALUE_COLUMN = "value"
"""The one column of messages that are not JSON objects."""

_LARGEST_DOUBLE = 2**1024 - 2**970
_IS_TEXT = next(iter(JSON_TEXT)).encode()

Owners = npt.NDArray[np.int64]


class JsonDecoder:
    """Decodes the messages of one JSON channel.

    Args:
        schema: The JSON Schema document; empty if there is none. One that is no JSON counts as none.
        survey: What all messages of the channel look like.
    """

    def __init__(self, schema: bytes, survey: JsonSurvey) -> None:
        try:
            document = parse_json(schema) if schema.strip() else {}
        except ValueError:
            document = {}
        types = JsonTypes(document)
        self._is_wrapped = bool(survey.shape.kinds) and "object" not in survey.shape.kinds
        fields = [] if self._is_wrapped or survey.shape.is_unbounded else types.message_fields(survey.shape)
        if not fields:
            self._is_wrapped = True
            fields = [types.value_field(VALUE_COLUMN, survey.shape)]
        self.schema = pa.schema(fields)

    def decode(self, payloads: Sequence[bytes]) -> DecodedBlock:
        """Decode a block; a message that is no JSON, or not of the columns' types, gets no row."""
        messages: list[Any] = []
        rows: list[int] = []
        failures: Counter[str] = Counter()
        for position, payload in enumerate(payloads):
            try:
                value = parse_json(payload)
            except ValueError:
                failures["it is not valid JSON"] += 1
                continue
            if self._is_wrapped:
                value = {VALUE_COLUMN: value}
            elif not isinstance(value, dict):
                failures["it is not a JSON object like the other messages"] += 1
                continue
            messages.append(value)
            rows.append(position)
        builder = _Builder()
        owners = np.arange(len(messages), dtype=np.int64)
        columns = [
            builder.build(field, [message.get(field.name) for message in messages], owners, field.name)
            for field in self.schema
        ]
        batch = pa.RecordBatch.from_arrays(columns, schema=self.schema)
        positions = np.array(rows, dtype=np.int64)
        if builder.refused:
            failures.update(builder.refused.values())
            kept = np.setdiff1d(owners, np.fromiter(builder.refused, dtype=np.int64))
            batch, positions = batch.take(pa.array(kept)), positions[kept]
        return DecodedBlock(batch, positions, failures)


class _Builder:
    """Builds arrays, and notes the messages with values that do not fit.

    Attributes:
        refused: Message -> the first reason.
    """

    def __init__(self) -> None:
        self.refused: dict[int, str] = {}

    def build(self, field: pa.Field, values: list[Any], owners: Owners, path: str) -> pa.Array:
        arrow_type = field.type
        if field.metadata and _IS_TEXT in field.metadata:
            texts = [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
            return self._texts(texts, owners, path)
        if pa.types.is_struct(arrow_type):
            return self._structs(arrow_type, self._only((dict,), values, owners, path, "an object"), owners, path)
        if pa.types.is_list(arrow_type):
            return self._lists(arrow_type, self._only((list,), values, owners, path, "an array"), owners, path)
        if pa.types.is_map(arrow_type):
            return self._maps(arrow_type, self._only((dict,), values, owners, path, "an object"), owners, path)
        if pa.types.is_string(arrow_type):
            return self._texts(self._only((str,), values, owners, path, "a text"), owners, path)
        if pa.types.is_boolean(arrow_type):
            return pa.array(self._only((bool,), values, owners, path, "true or false"), arrow_type)
        if pa.types.is_floating(arrow_type):
            numbers = self._only((float, int), values, owners, path, "a number")
            return pa.array(self._doubles(numbers, owners, path), arrow_type)
        whole = [int(value) if isinstance(value, float) and value.is_integer() else value for value in values]
        return pa.array(self._only((int,), whole, owners, path, "a whole number"), arrow_type)

    def _only(self, kinds: tuple[type, ...], values: list[Any], owners: Owners, path: str, expected: str) -> list[Any]:
        """The values with those of other kinds replaced by null, their messages refused."""
        if {*kinds, type(None)}.issuperset(map(type, values)):
            return values
        result = []
        for value, owner in zip(values, owners, strict=True):
            if value is None or type(value) in kinds:
                result.append(value)
            else:
                self._refuse(int(owner), f"the value of '{path}' is not {expected}")
                result.append(None)
        return result

    def _refuse(self, owner: int, reason: str) -> None:
        self.refused.setdefault(owner, reason)

    def _doubles(self, values: list[Any], owners: Owners, path: str) -> list[Any]:
        result = []
        for value, owner in zip(values, owners, strict=True):
            if type(value) is int:
                if abs(value) > _LARGEST_DOUBLE:
                    self._refuse(int(owner), f"the value of '{path}' is too large for a number")
                    value = None
                else:
                    value = float(value)
            result.append(value)
        return result

    def _texts(self, values: list[Any], owners: Owners, path: str) -> pa.Array:
        try:
            return pa.array(values, pa.string())
        except (UnicodeEncodeError, pa.ArrowInvalid):
            result = []
            for value, owner in zip(values, owners, strict=True):
                try:
                    if value is not None:
                        value.encode()
                except UnicodeEncodeError:
                    self._refuse(int(owner), f"the text of '{path}' is not valid Unicode")
                    value = None
                result.append(value)
            return pa.array(result, pa.string())

    def _structs(self, arrow_type: pa.StructType, values: list[Any], owners: Owners, path: str) -> pa.Array:
        children = [
            self.build(
                child,
                [None if value is None else value.get(child.name) for value in values],
                owners,
                f"{path}.{child.name}",
            )
            for child in arrow_type
        ]
        mask = pa.array([value is None for value in values], pa.bool_())
        return pa.StructArray.from_arrays(children, fields=list(arrow_type), mask=mask)

    def _lists(self, arrow_type: pa.ListType, values: list[Any], owners: Owners, path: str) -> pa.Array:
        offsets, inner_owners, missing = _spread(values, owners)
        items = list(chain.from_iterable(value for value in values if value is not None))
        children = self.build(arrow_type.value_field, items, inner_owners, f"{path}[]")
        return pa.ListArray.from_arrays(offsets, children, type=arrow_type, mask=missing)

    def _maps(self, arrow_type: pa.MapType, values: list[Any], owners: Owners, path: str) -> pa.Array:
        offsets, inner_owners, missing = _spread(values, owners)
        present = [value for value in values if value is not None]
        keys = self._texts(list(chain.from_iterable(present)), inner_owners, path)
        items = self.build(
            arrow_type.item_field,
            list(chain.from_iterable(value.values() for value in present)),
            inner_owners,
            f"{path}{{}}",
        )
        return pa.MapArray.from_arrays(offsets, keys, items, arrow_type, mask=missing)


def _spread(values: list[Any], owners: Owners) -> tuple[pa.Array, Owners, pa.Array]:
    """Offsets of collections, the owner of each of their elements, and which collections are missing."""
    lengths = np.array([0 if value is None else len(value) for value in values], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.array(offsets), np.repeat(owners, lengths), pa.array([value is None for value in values], pa.bool_())
