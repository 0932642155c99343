"""Queries by content: which topics of which sequences match, and when (protocol sections 12.8 and 13)."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.rows import find_topic, select_topics, topic_record
from lakehouse.catalog.control_plane.schema import topics
from lakehouse.catalog.errors import BadRequestError, NotFoundError, StateError, quoted
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.query.candidates import Candidate, find_candidates, find_few_candidates
from lakehouse.catalog.query.clusters import intersect
from lakehouse.catalog.query.conditions import FieldCondition
from lakehouse.catalog.query.content_search import AuditFinding, ContentSearch
from lakehouse.catalog.query.explain import Explanation
from lakehouse.catalog.query.grammar import Query, parse_field_conditions, parse_query
from lakehouse.catalog.query.hints import find_hints
from lakehouse.catalog.query.sequence_prefilter import SequencePrefilter
from lakehouse.catalog.query.sql_dialect import dialect_of
from lakehouse.catalog.records import TopicRecord, TopicState
from lakehouse.catalog.time_window import UNBOUNDED, TimeInterval, TimeWindow

MAX_INTERSECTED_TOPICS = 1000
FEW_CANDIDATES = 1000


@dataclass(frozen=True, slots=True)
class MatchingTopic:
    """A topic of a query's result.

    Attributes:
        interval: First and last timestamp of the rows that match; None unless the query asks for it.
    """

    locator: TopicLocator
    ontology_tag: str
    interval: TimeInterval | None = None


@dataclass(frozen=True, slots=True)
class MatchingSequence:
    """A sequence of a query's result with its matching topics, at least one, sorted by locator."""

    name: str
    topics: tuple[MatchingTopic, ...]


@dataclass(frozen=True, slots=True)
class ClusterRequest:
    """What to look for in one topic.

    Attributes:
        conditions: From `Tag.field.path` to operators; the tag is the topic's.
        clustering_dt_ns: Largest gap between matching rows of one cluster, ns; 0: all are one cluster.
        window: Part of the topic to look at.

    Raises:
        BadRequestError: If the gap is negative.
    """

    locator: TopicLocator
    conditions: tuple[FieldCondition, ...]
    clustering_dt_ns: int = 0
    window: TimeWindow = UNBOUNDED

    def __post_init__(self) -> None:
        if self.clustering_dt_ns < 0:
            raise BadRequestError("'clustering_dt_ns' must not be negative")

    @classmethod
    def parse(
        cls,
        locator: TopicLocator,
        ontology: Mapping[str, Any],
        clustering_dt_ns: int = 0,
        window: TimeWindow = UNBOUNDED,
    ) -> "ClusterRequest":
        """Read the conditions as they come in JSON.

        Raises:
            BadRequestError: If a condition is malformed, there is none, or they have several tags.
        """
        conditions = parse_field_conditions(ontology)
        tags = sorted({condition.path.tag for condition in conditions})
        if not tags:
            raise BadRequestError(f"'ontology' holds no condition on topic {quoted(locator)}")
        if len(tags) > 1:
            raise BadRequestError(f"the conditions on topic {quoted(locator)} have several tags: {quoted(tags)}")
        return cls(locator, conditions, clustering_dt_ns, window)


class QueryEngine:
    """Answers queries, each from a consistent view of the control plane.

    Args:
        database: Control plane.
        content: Looks into the rows of topics.
        few_candidates: Up to so many topics are looked up at once; more, only in sequences that bounds leave over.
    """

    def __init__(self, database: Database, content: ContentSearch, *, few_candidates: int = FEW_CANDIDATES) -> None:
        self._database = database
        self._content = content
        self._few_candidates = few_candidates
        self._prefilter = SequencePrefilter(content.index)

    def query(self, request: Mapping[str, Any], explanation: Explanation | None = None) -> list[MatchingSequence]:
        """Find sequences and topics by name, type, creation time, user metadata and content.

        Args:
            request: The query as JSON objects (protocol section 12.1).
            explanation: Is told what was looked at.

        Returns:
            Sequences sorted by name. A query without any condition finds nothing.

        Raises:
            BadRequestError: If the request is malformed.
            StorageError: If the warehouse or the database cannot be read.
        """
        query = parse_query(request)
        if query.is_empty:
            return []
        if not query.fields:
            with self._database.snapshot() as connection:
                candidates = find_candidates(connection, query)
            return _grouped((candidate, None) for candidate in candidates)
        conditions = _by_tag(query.fields)
        candidates = self._candidates(query, conditions, may_skip=self._content.is_pruning, explanation=explanation)
        records = self._records([candidate.topic_id for candidate in candidates])
        intervals = self._search(records, conditions, query.include_timestamp_range, explanation)
        # Whatever was deleted meanwhile must not be in the answer. Ids are never used twice, so that what is there
        # now was there all the time.
        existing = self._existing(intervals)
        found = ((each, intervals[each.topic_id]) for each in candidates if each.topic_id in existing)
        return _grouped(found)

    def hints(self, request: Mapping[str, Any]) -> list[str]:
        """Why a query may find nothing: names in it that nothing in the lake has, with those that may be meant.

        Raises:
            BadRequestError: If the request is malformed.
        """
        query = parse_query(request)
        with self._database.snapshot() as connection:
            return find_hints(connection, query, lambda tag: self._prefilter.locate(connection, tag).by_schema)

    def audit(self, request: Mapping[str, Any], *, sample: int, seed: int = 0) -> list[AuditFinding]:
        """Read again some of the files and row groups that bounds spare a query; see `ContentSearch.audit`.

        Args:
            request: The query; its conditions on names and metadata choose the topics.
            sample: Largest number of files of each kind and tag.
            seed: Chooses the sample.

        Returns:
            What should not have been spared: nothing, unless a bound is wrong.

        Raises:
            BadRequestError: If the request is malformed, or has no condition on rows.
            StorageError: If the warehouse or the database cannot be read.
        """
        query = parse_query(request)
        if not query.fields:
            raise BadRequestError("only conditions on rows spare files: there is nothing to audit without one")
        conditions = _by_tag(query.fields)
        candidates = self._candidates(query, conditions, may_skip=False)
        records = self._records([candidate.topic_id for candidate in candidates])
        findings: list[AuditFinding] = []
        for tag, of_tag in conditions.items():
            members = [each for each in records if each.ontology_tag == tag]
            findings += self._content.audit(members, of_tag, sample=sample, seed=seed)
        return findings

    def clusterize(self, request: ClusterRequest, explanation: Explanation | None = None) -> Iterator[TimeInterval]:
        """When all conditions held in a topic, as intervals in time order (protocol section 13.1).

        Raises:
            BadRequestError: If the conditions are about another tag than the topic's.
            NotFoundError: If there is no such topic.
            StateError: If it was never uploaded.
            StorageError: If its rows cannot be read.
        """
        return self._clusters(self._uploaded(request), request, explanation)

    def intersect(
        self, requests: Sequence[ClusterRequest], intersect_dt_ns: int = 0, explanation: Explanation | None = None
    ) -> Iterator[TimeInterval]:
        """When the conditions held in all topics at once, which may be of any sequences (protocol section 13.2).

        Args:
            requests: What to look for in each topic; naming the same twice changes nothing.
            intersect_dt_ns: Largest distance of a near miss, ns.

        Raises:
            BadRequestError: If there are fewer than two or too many topics, or the distance is negative.
        """
        if intersect_dt_ns < 0:
            raise BadRequestError("'intersect_dt_ns' must not be negative")
        if len(requests) < 2:
            raise BadRequestError("an intersection needs at least two topics")
        if len(requests) > MAX_INTERSECTED_TOPICS:
            raise BadRequestError(f"an intersection takes at most {MAX_INTERSECTED_TOPICS} topics")
        distinct = {repr(request): request for request in requests}.values()
        found = [(self._uploaded(request), request) for request in distinct]
        clusterings = [self._clusters(topic, request, explanation) for topic, request in found]
        return clusterings[0] if len(clusterings) == 1 else intersect(clusterings, intersect_dt_ns)

    def _candidates(
        self,
        query: Query,
        conditions: Mapping[str, Sequence[FieldCondition]],
        *,
        may_skip: bool,
        explanation: Explanation | None = None,
    ) -> list[Candidate]:
        """Candidates in sequences that have some of every tag.

        Args:
            may_skip: Whether candidates may be left out that cannot match.
            explanation: Is told what made it possible.
        """
        if not may_skip:
            with self._database.snapshot() as connection:
                return _having_every_tag(find_candidates(connection, query), conditions)
        with self._database.snapshot() as connection:
            few = find_few_candidates(connection, query, self._few_candidates)
            if few is not None:
                return _having_every_tag(few, conditions)
            tables = {tag: self._prefilter.locate(connection, tag) for tag in conditions}
        # Reading manifests may take long; no connection waits for it.
        surviving: set[str] | None = None
        for tag, of_tag in conditions.items():
            names = self._prefilter.surviving(tables[tag], of_tag, explanation)
            if names is not None:
                surviving = names if surviving is None else surviving & names
        if explanation is not None and surviving is not None:
            explanation.sequences_left_over = len(surviving)
        if surviving is not None and not surviving:
            return []
        with self._database.snapshot() as connection:
            return _having_every_tag(find_candidates(connection, query, surviving), conditions)

    def _records(self, topic_ids: Sequence[int]) -> list[TopicRecord]:
        """Those of the topics that are still there."""
        with self._database.snapshot() as connection:
            wanted = dialect_of(connection).is_one_of(topics.c.id, topic_ids)
            return [topic_record(row) for row in connection.execute(select_topics(with_metadata=False).where(wanted))]

    def _search(
        self,
        records: Sequence[TopicRecord],
        conditions: Mapping[str, Sequence[FieldCondition]],
        with_ranges: bool,
        explanation: Explanation | None,
    ) -> dict[int, TimeInterval | None]:
        """Topics with a row that satisfies all conditions of their tag, in sequences that have one for every tag."""
        found: dict[int, TimeInterval | None] = {}
        surviving = {record.sequence_id for record in records}
        for tag, of_tag in conditions.items():
            members = [each for each in records if each.ontology_tag == tag and each.sequence_id in surviving]
            matching = self._content.matching(members, of_tag, with_ranges=with_ranges, explanation=explanation)
            surviving &= {record.sequence_id for record in members if record.id in matching}
            found |= matching
        return {each.id: found[each.id] for each in records if each.id in found and each.sequence_id in surviving}

    def _existing(self, topic_ids: Iterable[int]) -> set[int]:
        with self._database.snapshot() as connection:
            wanted = dialect_of(connection).is_one_of(topics.c.id, sorted(topic_ids))
            return set(connection.scalars(select(topics.c.id).where(wanted)))

    def _uploaded(self, request: ClusterRequest) -> TopicRecord:
        with self._database.snapshot() as connection:
            topic = find_topic(connection, request.locator)
        if topic is None:
            raise NotFoundError("topic", request.locator)
        tag = request.conditions[0].path.tag
        if tag != topic.ontology_tag:
            raise BadRequestError(
                f"topic {quoted(topic.locator)} has the tag {quoted(topic.ontology_tag)}, "
                f"but the conditions are about {quoted(tag)}"
            )
        if topic.state is not TopicState.FINALIZED:
            raise StateError(f"topic {quoted(topic.locator)} has no finished upload to search yet")
        return topic

    def _clusters(
        self, topic: TopicRecord, request: ClusterRequest, explanation: Explanation | None
    ) -> Iterator[TimeInterval]:
        return self._content.clusterize(
            topic, request.conditions, request.clustering_dt_ns, request.window, explanation
        )


def _by_tag(fields: Iterable[FieldCondition]) -> dict[str, list[FieldCondition]]:
    conditions: dict[str, list[FieldCondition]] = defaultdict(list)
    for condition in fields:
        conditions[condition.path.tag].append(condition)
    return conditions


def _having_every_tag(candidates: list[Candidate], tags: Iterable[str]) -> list[Candidate]:
    for tag in tags:
        sequences = {candidate.sequence_id for candidate in candidates if candidate.ontology_tag == tag}
        candidates = [candidate for candidate in candidates if candidate.sequence_id in sequences]
    return candidates


def _grouped(found: Iterable[tuple[Candidate, TimeInterval | None]]) -> list[MatchingSequence]:
    """By sequence; names and locators sorted by code point."""
    of_sequence: dict[str, list[MatchingTopic]] = defaultdict(list)
    for candidate, interval in found:
        locator = TopicLocator(candidate.sequence, candidate.path)
        of_sequence[candidate.sequence].append(MatchingTopic(locator, candidate.ontology_tag, interval))
    return [
        MatchingSequence(name, tuple(sorted(members, key=lambda topic: topic.locator.path)))
        for name, members in sorted(of_sequence.items())
    ]
