"""Messages that nothing here can decode, kept as they are."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from lakehouse.orchestration.recordings.decoding.decoded import DecodedBlock

DATA_COLUMN = "data"


class RawDecoder:
    """Gives every message one `data` column with its bytes."""

    schema = pa.schema([pa.field(DATA_COLUMN, pa.binary())])

    def decode(self, payloads: Sequence[bytes]) -> DecodedBlock:
        batch = pa.RecordBatch.from_arrays([pa.array(payloads, pa.binary())], schema=self.schema)
        return DecodedBlock(batch, np.arange(len(payloads), dtype=np.int64), Counter())
