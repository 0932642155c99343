"""All rule types by name: the only place that knows them all."""

from collections.abc import Mapping
from types import MappingProxyType

from lakehouse.contracts.rules.choices import Enumeration, Pattern, Present
from lakehouse.contracts.rules.geometry import Covariance, QuaternionNorm
from lakehouse.contracts.rules.images import ImageDecodes
from lakehouse.contracts.rules.native import GreatExpectation
from lakehouse.contracts.rules.position import GpsBounds, GpsJump, PositionJump
from lakehouse.contracts.rules.ranges import ElementsRange, Magnitude, Range, RowCount
from lakehouse.contracts.rules.relations import Compare, SameLength
from lakehouse.contracts.rules.rule import Rule
from lakehouse.contracts.rules.schema import RequiredValues, SchemaMatches
from lakehouse.contracts.rules.sensors import Frozen, GridLayout, PointCloudLayout, ScanGeometry
from lakehouse.contracts.rules.sequences import RecordingComplete, SequenceRule, TfTree, TopicsPresent
from lakehouse.contracts.rules.timing import Gaps, Jitter, MonotonicTime, Rate

TOPIC_RULES: Mapping[str, type[Rule]] = MappingProxyType(
    {
        rule.name: rule
        for rule in (
            *(Range, Magnitude, ElementsRange, SameLength, Enumeration, Pattern, Present, Compare, RowCount),
            *(GreatExpectation, MonotonicTime, Gaps, Jitter, Rate, QuaternionNorm, Covariance, GpsBounds, GpsJump),
            *(
                SchemaMatches,
                RequiredValues,
                PositionJump,
                Frozen,
                PointCloudLayout,
                ScanGeometry,
                GridLayout,
                ImageDecodes,
            ),
        )
    }
)
SEQUENCE_RULES: Mapping[str, type[SequenceRule]] = MappingProxyType(
    {rule.name: rule for rule in (TopicsPresent, TfTree, RecordingComplete)}
)
