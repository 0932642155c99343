"""Pixels and encoded pictures as the ontology keeps them."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image as Picture

from lakehouse.orchestration.recordings.ontology_mapping.rows import BooleanMask, Rows

RAW, PNG = "raw", "png"
CONTAINER_FORMATS = frozenset({RAW, PNG, "jpeg", "jpg", "tiff", "h264", "hevc"})


def packed_pixels(rows: Rows) -> pa.Array:
    """Losslessly compressed pixels of sensor_msgs/Image messages.

    The memory of an image, `height` rows of `step` bytes, becomes a grey PNG of that size; what the bytes mean stays in
    `encoding`. The official SDK packs and unpacks images in the same way. Memory of another size stays as it is.
    """
    images = zip(rows.blobs("data"), rows.numbers("step").tolist(), _is_rectangular(rows).tolist(), strict=True)
    # One call per picture: compressing one takes milliseconds, next to which the loop costs nothing.
    return pa.array(
        [_to_png(data.as_buffer(), step) if fits else data.as_py() for data, step, fits in images], pa.binary()
    )


def pixel_container(rows: Rows) -> pa.Array:
    """The format in which `packed_pixels` keeps each image."""
    return pc.if_else(pa.array(_is_rectangular(rows)), PNG, RAW)


def _is_rectangular(rows: Rows) -> BooleanMask:
    sizes = pc.binary_length(rows.blobs("data")).to_numpy(zero_copy_only=False)
    promised = rows.numbers("height").astype(np.int64) * rows.numbers("step").astype(np.int64)
    return (sizes > 0) & (sizes == promised)


def container_format(rows: Rows) -> pa.Array:
    """The container format that the `format` text of sensor_msgs/CompressedImage messages announces."""
    texts = rows.texts("format").dictionary_encode()
    names = [_container_format(text) for text in texts.dictionary.to_pylist()]
    return pa.array(names, pa.string()).take(texts.indices)


def _container_format(text: str) -> str:
    """The codec in texts like `jpeg`, `bgr8; jpeg compressed bgr8` and `16UC1; compressedDepth png`.

    Source: image_transport_plugins, compressed_image_transport and compressed_depth_image_transport, which append their
    name to the pixel encoding, older ones without saying the codec. An unknown codec is `raw`: bytes as they came.
    """
    words = text.split()
    if not text:
        codec = PNG
    elif len(words) == 1:
        codec = words[0]
    elif "compressedDepth" in words and "compressed" in words:
        codec = RAW
    elif "compressed" in words:
        codec = words[1]
    elif "compressedDepth" in words:
        codec = words[2] if len(words) > 2 else PNG
    else:
        codec = RAW
    codec = codec.lower()
    return codec if codec in CONTAINER_FORMATS else RAW


def _to_png(pixels: pa.Buffer, step: int) -> bytes:
    target = io.BytesIO()
    # Level 1: sensor noise does not compress further, and encoding is what limits ingestion.
    picture = Picture.fromarray(np.frombuffer(pixels, dtype=np.uint8).reshape(-1, step))
    picture.save(target, format="PNG", compress_level=1)
    return target.getvalue()
