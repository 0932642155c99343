"""Rules about a sequence as a whole: its topics, its tree of frames, and what of its recording is missing."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, ClassVar

import polars as pl
from pydantic import Field

from lakehouse.catalog.recording_losses import losses_of
from lakehouse.catalog.records import TopicRecord
from lakehouse.contracts.model import Kind
from lakehouse.contracts.rules.rule import Expectation, Parameters, between

MAX_NAMED = 5


@dataclass(frozen=True)
class SequenceFacts:
    """What is known of a sequence without looking at rows.

    Attributes:
        topics: All that are finalized.
        user_metadata: Of the sequence.
    """

    topics: Sequence[TopicRecord]
    user_metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """What a sequence rule measured, and the same in words.

    Attributes:
        is_judged: Whether the sequence holds anything that the rule is about. If not, it passes with nothing checked.
    """

    value: float
    text: str
    is_judged: bool = True


class SequenceRule(ABC):
    """One rule bound to one sequence.

    Attributes:
        expectation: About the number it measures.
    """

    name: ClassVar[str]
    kind: ClassVar[Kind] = Kind.SEQUENCE
    dimension: ClassVar[str]
    parameters: ClassVar[type[Parameters]]
    expectation: ClassVar[Expectation] = between("", 0, 0)
    expected: str

    @abstractmethod
    def __init__(self, parameters: Any) -> None: ...

    def reads(self, topic: TopicRecord) -> bool:
        """Whether it wants to see the rows of a topic."""
        return False

    def observe(self, frame: pl.DataFrame) -> None:
        """Rows of a topic it wants to see."""
        raise NotImplementedError("a rule that reads topics looks at their rows")

    @abstractmethod
    def finish(self, facts: SequenceFacts) -> Measured:
        """What was found."""


class TopicsPresentParameters(Parameters):
    topics: tuple[str, ...] = ()
    ontology_tags: tuple[str, ...] = ()
    min_rows: int = Field(1, ge=0)


class TopicsPresent(SequenceRule):
    """Certain topics, by path or pattern, and topics of certain types are there and have rows."""

    name = "topics_present"
    dimension = "completeness"
    parameters = TopicsPresentParameters

    def __init__(self, parameters: TopicsPresentParameters) -> None:
        self._parameters = parameters
        self.expected = "topics " + ", ".join([*parameters.topics, *parameters.ontology_tags])

    def finish(self, facts: SequenceFacts) -> Measured:
        filled = [topic for topic in facts.topics if topic.row_count >= self._parameters.min_rows]
        paths, tags = [topic.locator.path for topic in filled], {topic.ontology_tag for topic in filled}
        missing = [name for name in self._parameters.topics if not any(fnmatchcase(path, name) for path in paths)]
        missing += [f"any of type {tag}" for tag in self._parameters.ontology_tags if tag not in tags]
        return Measured(len(missing), f"missing: {', '.join(missing)}" if missing else "all there")


class NoParameters(Parameters):
    pass


class TfTree(SequenceRule):
    """The coordinate frames of all transforms form one tree: connected, one parent per frame, no cycle (REP 105)."""

    name = "tf_tree"
    dimension = "consistency"
    parameters = NoParameters
    TAGS = frozenset({"FrameTransform", "Transform"})

    def __init__(self, parameters: NoParameters) -> None:
        self.expected = "one connected tree of frames"
        self._edges: set[tuple[str, str]] = set()

    def reads(self, topic: TopicRecord) -> bool:
        return topic.ontology_tag in self.TAGS

    def observe(self, frame: pl.DataFrame) -> None:
        if "transforms" in frame.columns:
            frame = frame.select(pl.col("transforms").explode()).unnest("transforms")
        if not {"header", "target_frame_id"} <= set(frame.columns):
            return
        pairs = frame.select(parent=pl.col("header").struct.field("frame_id"), child="target_frame_id")
        self._edges.update(pairs.drop_nulls().unique().iter_rows())

    def finish(self, facts: SequenceFacts) -> Measured:
        if not any(self.reads(topic) and topic.row_count for topic in facts.topics):
            return Measured(0, "not judged: the sequence holds no transforms", is_judged=False)
        edges = {(parent.lstrip("/"), child.lstrip("/")) for parent, child in self._edges}
        defects = tree_defects(edges) if edges else ["no transform names both of its frames"]
        return Measured(len(defects), "; ".join(defects[:MAX_NAMED]) or f"{len(edges)} transforms form one tree")


class RecordingComplete(SequenceRule):
    """Everything in the recording that a sequence was made from is in the lake.

    Measures what is missing: damaged places of the container, and messages without a row.
    """

    name = "recording_complete"
    dimension = "completeness"
    parameters = NoParameters

    def __init__(self, parameters: NoParameters) -> None:
        self.expected = "every message of the recording, and no damage in it"

    def finish(self, facts: SequenceFacts) -> Measured:
        losses = losses_of(facts.user_metadata, facts.topics)
        if losses is None:
            return Measured(0, "not judged: not made from a recording", is_judged=False)
        return Measured(losses.count, str(losses))


def tree_defects(edges: set[tuple[str, str]]) -> list[str]:
    """What keeps frames (parent, child) from being one tree; empty if nothing does, as without any edge."""
    parents: dict[str, set[str]] = {}
    neighbours: dict[str, set[str]] = {}
    for parent, child in edges:
        parents.setdefault(child, set()).add(parent)
        neighbours.setdefault(parent, set()).add(child)
        neighbours.setdefault(child, set()).add(parent)
    defects = [f"{child} has parents {', '.join(sorted(p))}" for child, p in sorted(parents.items()) if len(p) > 1]
    roots = []
    unseen = set(neighbours)
    while unseen:
        reached, frontier = set(), [min(unseen)]
        while frontier:
            frame = frontier.pop()
            if frame not in reached:
                reached.add(frame)
                frontier += neighbours[frame] - reached
        unseen -= reached
        top = sorted(frame for frame in reached if frame not in parents)
        roots.append(top[0] if top else min(reached))
        if not top:
            defects.append(f"a cycle through {min(reached)}")
    if len(roots) > 1:
        defects.append(f"{len(roots)} separate trees, at {', '.join(sorted(roots)[:MAX_NAMED])}")
    return defects
