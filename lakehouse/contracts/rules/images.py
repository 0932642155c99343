"""Pictures that can be opened and have the size they announce."""

import io
import math
import warnings
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from pydantic import Field

from lakehouse.contracts.model import FieldPath, Kind
from lakehouse.contracts.rules.rule import VALUE, Derived, Parameters, Rows, Rule, between, find_field

# Still pictures; a packet of video (h264, hevc) is nothing without those before it.
STILL_FORMATS = frozenset({"png", "jpeg", "jpg", "tiff", "webp", "bmp"})
RAW = "raw"
_MEANINGS = ("", "no data", "cannot be decoded", "another width or height than announced", "another number of bytes")


class ImageDecodesParameters(Parameters):
    decode_every: int = Field(30, ge=1)


class ImageDecodes(Rule):
    """An image opens in the format it announces, and matches its width and height.

    Every picture's header is read; the pixels of every `decodeEvery`-th are decoded. Buffers of plain pixels must have
    `stride` x `height` bytes. As in the official client, such a buffer may be packed as a grey PNG of `stride` x
    `height`, whatever its pixels mean.
    """

    name = "image_decodes"
    kind = Kind.PHYSICS
    dimension = "conformity"
    parameters = ImageDecodesParameters

    def __init__(self, path: FieldPath, parameters: ImageDecodesParameters, schema: pa.Schema) -> None:
        self._every = parameters.decode_every
        names = ("width", "height", "stride")
        self._has_size = all(find_field(schema, (name,)) is not None for name in names)
        self.expectations = (between(VALUE, 0, 0),)
        self.expected = "decodes" + (" and matches width and height" if self._has_size else "")

    @classmethod
    def fields(cls, path: FieldPath, parameters: Any) -> tuple[FieldPath, ...]:
        return ("data",), ("format",)

    def derive(self, rows: Rows) -> Derived:
        data, formats = rows.column(("data",)), rows.column(("format",))
        sizes: Any = [(None, None, None)] * len(rows)
        if self._has_size:
            sizes = zip(*(rows.column((name,)).to_list() for name in ("width", "height", "stride")), strict=True)
        # One step per picture: opening one costs far more than the loop.
        found = [
            self._defect(data[number], formats[number], size, (rows.first_row + number) % self._every == 0)
            for number, size in enumerate(sizes)
        ]
        return {VALUE: np.array(found, dtype=np.float64)}

    def _defect(self, data: bytes | None, kind: str | None, size: tuple[Any, Any, Any], decodes: bool) -> float:
        width, height, stride = size
        if not data:
            return 1.0
        if kind == RAW:
            return math.nan if height is None or stride is None else 4.0 * (len(data) != stride * height)
        if kind not in STILL_FORMATS:
            return math.nan
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(io.BytesIO(data)) as picture:
                    if decodes:
                        picture.load()
                    found = picture.size
        # What decoders raise for damaged files differs from format to format.
        except (
            OSError,
            ValueError,
            SyntaxError,
            EOFError,
            Image.DecompressionBombError,
            Image.DecompressionBombWarning,
        ):
            return 2.0
        if width is None or found in ((width, height), (stride, height)):
            return 0.0
        return 3.0

    def describe(self, column: str, value: Any) -> str:
        return _MEANINGS[int(value)]
