"""ROS messages (CDR and ROS 1 serialization) to columns.

Messages of one topic mostly look alike: the same strings, the same number of ranges. So a block is grouped by length
and by layout (`ros_layout`), and each group is read column by column straight from its bytes, without an object per
message.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lakehouse.orchestration.recordings.decoding.decoded import DecodedBlock, Indices, no_rows
from lakehouse.orchestration.recordings.decoding.ros_layout import (
    NUMPY_CODES,
    BrokenMessageError,
    MessageLayout,
    Node,
    Number,
    Octets,
    Placement,
    Repeated,
    Struct,
    Text,
)
from lakehouse.orchestration.recordings.decoding.ros_types import Definitions, decoded_schema

ByteMatrix = npt.NDArray[np.uint8]

_GROUP_ROWS = 2048
_GROUP_BYTES = 8 << 20
_REMEMBERED_PLACEMENTS = 256
_BYTE_ORDERS = {b"\x00\x00": ">", b"\x00\x01": "<"}


class RosDecoder:
    """Decodes the messages of one ROS type.

    Raises:
        MessageDefinitionError: If the type cannot become columns.
    """

    def __init__(self, message_type: str, definitions: Definitions, *, is_cdr: bool) -> None:
        self._schema = decoded_schema(message_type, definitions)
        self._struct_type = pa.struct(list(self._schema))
        self._layout = MessageLayout(message_type, definitions, is_cdr=is_cdr)
        self._placements: dict[tuple[str, int], Placement] = {}

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    def decode(self, payloads: Sequence[bytes]) -> DecodedBlock:
        """Decode a block; a message that is broken gets no row and is counted with its reason."""
        failures: Counter[str] = Counter()
        pieces: list[pa.Array] = []
        origins: list[Indices] = []
        for byte_order, members in self._groups(payloads, failures):
            length = len(payloads[members[0]])
            matrix = np.frombuffer(b"".join([payloads[member] for member in members]), dtype=np.uint8)
            for array, rows in self._decode_group(matrix.reshape(len(members), length), byte_order, failures):
                pieces.append(array)
                origins.append(np.asarray(members, dtype=np.int64)[rows])
        if not pieces:
            return DecodedBlock(no_rows(self._schema), np.empty(0, np.int64), failures)
        rows = np.concatenate(origins)
        combined = pieces[0] if len(pieces) == 1 else pa.concat_arrays(pieces)
        if np.any(rows[1:] < rows[:-1]):
            order = np.argsort(rows, kind="stable")
            combined, rows = combined.take(pa.array(order)), rows[order]
        return DecodedBlock(pa.RecordBatch.from_struct_array(combined), rows, failures)

    def _groups(self, payloads: Sequence[bytes], failures: Counter[str]) -> Iterator[tuple[str, list[int]]]:
        """Positions of messages of equal byte order and length, a bounded number of rows and bytes at a time."""
        groups: dict[tuple[str, int], list[int]] = {}
        for position, payload in enumerate(payloads):
            byte_order = _BYTE_ORDERS.get(bytes(payload[:2])) if self._layout.is_cdr else "<"
            if byte_order is None or len(payload) < self._layout.header_size:
                failures["the message does not begin with a CDR encapsulation ROS uses"] += 1
                continue
            groups.setdefault((byte_order, len(payload)), []).append(position)
        for (byte_order, length), members in groups.items():
            step = max(1, min(_GROUP_ROWS, _GROUP_BYTES // max(length, 1)))
            for start in range(0, len(members), step):
                yield byte_order, members[start : start + step]

    def _decode_group(
        self, matrix: ByteMatrix, byte_order: str, failures: Counter[str]
    ) -> Iterator[tuple[pa.Array, Indices]]:
        """Arrays of the messages in a matrix (one per row), with the rows they stand for."""
        remaining: Indices = np.arange(len(matrix), dtype=np.int64)
        key = (byte_order, matrix.shape[1])
        while remaining.size:
            placement = self._placements.get(key)
            if placement is None or not _fitting(placement, matrix[remaining[:1]], byte_order)[0]:
                try:
                    placement = self._layout.trace(matrix[remaining[0]].tobytes(), byte_order)
                except BrokenMessageError as error:
                    failures[str(error)] += 1
                    remaining = remaining[1:]
                    continue
                if len(self._placements) >= _REMEMBERED_PLACEMENTS:
                    self._placements.clear()
                self._placements[key] = placement
            fits = _fitting(placement, matrix[remaining], byte_order)
            yield from self._read(matrix, remaining[fits], placement, byte_order, failures)
            remaining = remaining[~fits]

    def _read(
        self, matrix: ByteMatrix, rows: Indices, placement: Placement, byte_order: str, failures: Counter[str]
    ) -> Iterator[tuple[pa.Array, Indices]]:
        """Read messages of one layout; if a text among them is not valid, find the messages it is in."""
        try:
            chosen = matrix if len(rows) == len(matrix) else matrix[rows]
            yield _Columns(chosen, placement, byte_order).build(self._layout.root, self._struct_type), rows
        except InvalidTextError as error:
            if len(rows) == 1:
                failures[str(error)] += 1
                return
            for index in range(len(rows)):
                yield from self._read(matrix, rows[index : index + 1], placement, byte_order, failures)


class InvalidTextError(ValueError):
    """A string of a message is not valid UTF-8 (or UTF-16, UTF-32 for wide strings)."""

    def __init__(self) -> None:
        super().__init__("a string is not valid Unicode text")


def _fitting(placement: Placement, matrix: ByteMatrix, byte_order: str) -> npt.NDArray[np.bool_]:
    """Which messages have all their lengths as the placement has them."""
    fits = np.ones(len(matrix), dtype=np.bool_)
    for start, value in placement.lengths:
        lengths = np.ascontiguousarray(matrix[:, start : start + 4]).view(f"{byte_order}u4").ravel()
        fits &= lengths == value
    for place in placement.terminators:
        fits &= matrix[:, place] == 0
    return fits


class _Columns:
    """Builds Arrow arrays from messages of one layout; nested values of one message lie next to each other."""

    def __init__(self, matrix: ByteMatrix, placement: Placement, byte_order: str) -> None:
        self._matrix = matrix
        self._placement = placement
        self._byte_order = byte_order
        self._rows = len(matrix)

    def build(self, node: Node, arrow_type: pa.DataType) -> pa.Array:
        if isinstance(node, Struct):
            children = [self.build(child, arrow_type.field(index).type) for index, child in enumerate(node.children)]
            return pa.StructArray.from_arrays(children, fields=list(arrow_type))
        if isinstance(node, Number):
            return self._numbers(node, arrow_type)
        if isinstance(node, Octets):
            return self._bytes(self._placement.places[node.slot], arrow_type)
        if isinstance(node, Text):
            return self._texts(node)
        return self._lists(node, arrow_type)

    def _numbers(self, node: Number, arrow_type: pa.DataType) -> pa.Array:
        runs = self._placement.places[node.slot]
        if not node.on_wire:
            return pa.array(np.zeros(self._rows * sum(count for _, count, _ in runs), dtype=np.uint8))
        code = NUMPY_CODES[node.name]
        values = self._gather(runs, node.size).view(self._byte_order + code).ravel()
        if node.name == "bool":
            return pa.array(values != 0)
        return pa.array(values.astype(code, copy=False), arrow_type)

    def _gather(self, runs: list[Any], size: int) -> ByteMatrix:
        """The bytes of all numbers in the runs, message by message."""
        if not runs:
            return np.empty(0, dtype=np.uint8)
        if len(runs) == 1:
            start, count, stride = runs[0]
            if count <= 1 or stride == size:
                return np.ascontiguousarray(self._matrix[:, start : start + count * size])
        starts = np.concatenate([start + stride * np.arange(count, dtype=np.int64) for start, count, stride in runs])
        places = (starts[:, None] + np.arange(size)).ravel()
        return np.ascontiguousarray(self._matrix[:, places])

    def _bytes(self, runs: list[Any], arrow_type: pa.DataType) -> pa.Array:
        lengths = np.array([length for _, length in runs], dtype=np.int64)
        offsets = np.concatenate([[0], np.cumsum(np.tile(lengths, self._rows))])
        if len(runs) == 1:
            start, length = runs[0]
            data = np.ascontiguousarray(self._matrix[:, start : start + length])
        else:
            parts = [self._matrix[:, start : start + length] for start, length in runs]
            data = np.concatenate(parts, axis=1) if parts else np.empty(0, dtype=np.uint8)
        count = len(lengths) * self._rows
        return pa.Array.from_buffers(
            arrow_type, count, [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(data.ravel())]
        )

    def _texts(self, node: Text) -> pa.Array:
        runs = self._placement.places[node.slot]
        if node.is_wide:
            return self._wide_texts(runs)
        texts = self._bytes(runs, pa.string())
        try:
            texts.validate(full=True)
        except pa.ArrowInvalid:
            raise InvalidTextError from None
        return texts

    def _wide_texts(self, runs: list[Any]) -> pa.Array:
        order = "le" if self._byte_order == "<" else "be"
        encoding = f"utf-{8 * self._placement.wide_size}-{order}"
        raw = self._bytes(runs, pa.binary()).to_pylist()
        try:
            return pa.array([item.decode(encoding).removesuffix("\0") for item in raw], pa.string())
        except UnicodeDecodeError:
            raise InvalidTextError from None

    def _lists(self, node: Repeated, arrow_type: pa.DataType) -> pa.Array:
        values = self.build(node.element, arrow_type.value_type)
        if node.count is not None:
            return pa.FixedSizeListArray.from_arrays(values, type=arrow_type)
        lengths = np.tile(np.array(self._placement.places[node.slot], dtype=np.int64), self._rows)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), values, type=arrow_type)
