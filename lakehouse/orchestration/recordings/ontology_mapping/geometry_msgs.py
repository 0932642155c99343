"""geometry_msgs: points, vectors, poses, velocities, transforms, forces, and their stamped and uncertain variants.

Source: common_interfaces, geometry_msgs/msg. A covariance of zeros is what ROS publishers send when they do not know it
("if the covariance is unknown, fill with zeros"), so only one with a positive element counts as known.
"""

from lakehouse.orchestration.recordings.ontology_mapping.conditions import any_is_positive, is_not_empty
from lakehouse.orchestration.recordings.ontology_mapping.expressions import (
    Each,
    Expression,
    Field,
    Inside,
    MessageTable,
    OnlyIf,
    Record,
    Stacked,
    record,
)
from lakehouse.orchestration.recordings.ontology_mapping.std_msgs import HEADER


def known_covariance(path: str) -> Expression:
    """The covariance in an array field, row-major, where it is known."""
    return OnlyIf(any_is_positive(path), Field(path, optional=True))


def vector(path: str) -> Record:
    """A Vector3, Point or Point32 in a field."""
    return record(x=f"{path}.x", y=f"{path}.y", z=f"{path}.z")


def quaternion(path: str) -> Record:
    """A Quaternion in a field."""
    return vector(path) | record(w=f"{path}.w")


VECTOR = record(x="x", y="y", z="z")
QUATERNION = VECTOR | record(w="w")

STAMP = record(header=HEADER)


def pose(at: str = "") -> Record:
    """A Pose, in this message or below the dotted prefix `at`."""
    return record(position=vector(f"{at}position"), orientation=quaternion(f"{at}orientation"))


def motion(at: str = "") -> Record:
    """The linear and angular part of a Twist or an Accel, in this message or below the dotted prefix `at`."""
    return record(linear=vector(f"{at}linear"), angular=vector(f"{at}angular"))


def transform(at: str = "") -> Record:
    """A Transform, in this message or below the dotted prefix `at`."""
    return record(translation=vector(f"{at}translation"), rotation=quaternion(f"{at}rotation"))


def wrench(at: str = "") -> Record:
    """A Wrench, in this message or below the dotted prefix `at`."""
    return record(force=vector(f"{at}force"), torque=vector(f"{at}torque"))


def inertia(at: str = "") -> Record:
    """An Inertia, in this message or below the dotted prefix `at`; the tensor is symmetric, its upper half is kept."""
    tensor = Stacked(tuple(f"{at}{component}" for component in ("ixx", "ixy", "ixz", "iyy", "iyz", "izz")))
    return record(mass=f"{at}m", center_of_mass=vector(f"{at}com"), inertia=tensor)


POSE_STAMPED = STAMP | pose("pose.")
POSE_WITH_COVARIANCE = pose("pose.") | record(covariance=known_covariance("covariance"))
TWIST_WITH_COVARIANCE = motion("twist.") | record(covariance=known_covariance("covariance"))
ACCEL_WITH_COVARIANCE = motion("accel.") | record(covariance=known_covariance("covariance"))
TRANSFORM_STAMPED = (
    STAMP
    | transform("transform.")
    | record(target_frame_id=OnlyIf(is_not_empty("child_frame_id"), Field("child_frame_id")))
)

MESSAGES: MessageTable = {
    "geometry_msgs/msg/Point": ("Point3d", VECTOR),
    "geometry_msgs/msg/PointStamped": ("Point3d", STAMP | vector("point")),
    "geometry_msgs/msg/Vector3": ("Vector3d", VECTOR),
    "geometry_msgs/msg/Vector3Stamped": ("Vector3d", STAMP | vector("vector")),
    "geometry_msgs/msg/Quaternion": ("Quaternion", QUATERNION),
    "geometry_msgs/msg/QuaternionStamped": ("Quaternion", STAMP | quaternion("quaternion")),
    "geometry_msgs/msg/Pose": ("Pose", pose()),
    "geometry_msgs/msg/PoseStamped": ("Pose", POSE_STAMPED),
    "geometry_msgs/msg/PoseWithCovariance": ("Pose", POSE_WITH_COVARIANCE),
    "geometry_msgs/msg/PoseWithCovarianceStamped": (
        "Pose",
        STAMP | pose("pose.pose.") | record(covariance=known_covariance("pose.covariance")),
    ),
    "geometry_msgs/msg/Twist": ("Velocity", motion()),
    "geometry_msgs/msg/TwistStamped": ("Velocity", STAMP | motion("twist.")),
    "geometry_msgs/msg/TwistWithCovariance": ("Velocity", TWIST_WITH_COVARIANCE),
    "geometry_msgs/msg/TwistWithCovarianceStamped": (
        "Velocity",
        STAMP | motion("twist.twist.") | record(covariance=known_covariance("twist.covariance")),
    ),
    "geometry_msgs/msg/Accel": ("Acceleration", motion()),
    "geometry_msgs/msg/AccelStamped": ("Acceleration", STAMP | motion("accel.")),
    "geometry_msgs/msg/AccelWithCovariance": ("Acceleration", ACCEL_WITH_COVARIANCE),
    "geometry_msgs/msg/AccelWithCovarianceStamped": (
        "Acceleration",
        STAMP | motion("accel.accel.") | record(covariance=known_covariance("accel.covariance")),
    ),
    "geometry_msgs/msg/Transform": ("Transform", transform()),
    "geometry_msgs/msg/TransformStamped": ("Transform", TRANSFORM_STAMPED),
    "geometry_msgs/msg/Wrench": ("ForceTorque", wrench()),
    "geometry_msgs/msg/WrenchStamped": ("ForceTorque", STAMP | wrench("wrench.")),
    "geometry_msgs/msg/Inertia": ("Inertia", inertia()),
    "geometry_msgs/msg/InertiaStamped": ("Inertia", STAMP | inertia("inertia.")),
    "geometry_msgs/msg/Polygon": ("Polygon", record(points=Each("points", VECTOR))),
    "geometry_msgs/msg/PolygonStamped": (
        "Polygon",
        STAMP | record(points=Inside("polygon", Each("points", VECTOR))),
    ),
}
