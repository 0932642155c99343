"""tf2_msgs: coordinate frames over time.

Source: geometry2, tf2_msgs/msg/TFMessage.msg.
"""

from lakehouse.orchestration.recordings.ontology_mapping.expressions import Each, MessageTable, record
from lakehouse.orchestration.recordings.ontology_mapping.geometry_msgs import TRANSFORM_STAMPED

MESSAGES: MessageTable = {
    "tf2_msgs/msg/TFMessage": ("FrameTransform", record(transforms=Each("transforms", TRANSFORM_STAMPED))),
}
