"""nav_msgs: odometry, paths and grid maps.

Source: common_interfaces, nav_msgs/msg.
"""

from lakehouse.orchestration.recordings.ontology_mapping.builtin_interfaces import TIME
from lakehouse.orchestration.recordings.ontology_mapping.expressions import Each, Inside, MessageTable, record
from lakehouse.orchestration.recordings.ontology_mapping.geometry_msgs import (
    POSE_STAMPED,
    POSE_WITH_COVARIANCE,
    TWIST_WITH_COVARIANCE,
    VECTOR,
    pose,
)
from lakehouse.orchestration.recordings.ontology_mapping.std_msgs import HEADER

MAP_META_DATA = record(
    map_load_time=Inside("map_load_time", TIME),
    resolution="resolution",
    width="width",
    height="height",
    origin=pose("origin."),
)

MESSAGES: MessageTable = {
    "nav_msgs/msg/Odometry": (
        "MotionState",
        record(
            header=HEADER,
            target_frame_id="child_frame_id",
            pose=Inside("pose", POSE_WITH_COVARIANCE),
            velocity=Inside("twist", TWIST_WITH_COVARIANCE),
        ),
    ),
    "nav_msgs/msg/Path": ("RobotPath", record(header=HEADER, poses=Each("poses", POSE_STAMPED))),
    "nav_msgs/msg/GridCells": (
        "GridCells",
        record(header=HEADER, cell_width="cell_width", cell_height="cell_height", cells=Each("cells", VECTOR)),
    ),
    "nav_msgs/msg/MapMetaData": ("MapMetadata", MAP_META_DATA),
    "nav_msgs/msg/OccupancyGrid": (
        "OccupancyGrid",
        record(header=HEADER, info=Inside("info", MAP_META_DATA), data="data"),
    ),
}
