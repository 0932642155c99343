"""Decoded ROS messages as rows of Mosaico ontology models, column by column.

Which message type becomes which model, and every value, is what the ROS bridge of the official SDK (0.7.0) produces;
tests compare the two field by field. There is one table per ROS package, to be read beside the message definitions.

Messages that the SDK fails on are kept where the model can hold them, and refused with a reason where it cannot:

- kept: CameraInfo of ROS 2 without distortion parameters (an empty list), an Image whose `is_bigendian` is more than 1
  (true), a CompressedImage whose format names no transport we know (`raw`);
- refused: times with a second or more of nanoseconds, point fields of an unknown datatype, numbers beyond the range of
  the model's type. A client could not read them back.

The SDK can map PointCloud2 to sensor-specific models (lidar, radar, ...) when its caller says so per topic; a recording
does not say so, and such clouds stay `PointCloud2`. Its bridge for JSON and Protobuf recordings maps no type at all.
"""

from lakehouse.orchestration.recordings.ontology_mapping.mapping import (
    MappedMessages,
    OntologyMapping,
    find_mapping,
    mappings,
)
from lakehouse.orchestration.recordings.ontology_mapping.rows import RefusedMessages

__all__ = ["MappedMessages", "OntologyMapping", "RefusedMessages", "find_mapping", "mappings"]
