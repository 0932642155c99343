"""What decoders return."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class DecodedBlock:
    """The outcome of decoding a block of messages.

    Attributes:
        batch: One row per message that could be decoded, in the order of the block.
        rows: For each row, the position of its message in the block; ascending.
        failures: Reason -> number of messages that have no row because of it.
    """

    batch: pa.RecordBatch
    rows: Indices
    failures: Counter[str]


class MessageDecoder(Protocol):
    """Turns the payloads of one channel into columns; the schema is the same for every block."""

    @property
    def schema(self) -> pa.Schema: ...

    def decode(self, payloads: Sequence[bytes]) -> DecodedBlock: ...


def no_rows(schema: pa.Schema) -> pa.RecordBatch:
    """A batch without rows."""
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)
