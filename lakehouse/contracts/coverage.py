"""What of the lake contracts are about: a name that is misspelt covers nothing, and nothing else tells of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property

from sqlalchemy import func, select

from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.schema import sequences, topics
from lakehouse.catalog.errors import quoted
from lakehouse.catalog.proposals import proposal
from lakehouse.contracts.model import Contract, SchemaObject, Scope
from lakehouse.ontology.registry import load_models


@dataclass(frozen=True, slots=True)
class Covered:
    """What a contract applies to, in any of its parts.

    Attributes:
        topics: Number of topics, over all sequences.
        sequences: Number of sequences that it describes as a whole.
    """

    topics: int
    sequences: int


@dataclass(frozen=True, slots=True)
class _Kind:
    """Topics of one path and type."""

    path: str
    tag: str
    count: int


class Coverage:
    """Compares contracts with the names that are in the lake.

    Raises:
        StorageError: From each method, if the database fails.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, contract: Contract) -> Covered:
        """What a contract applies to."""
        parts = [part for part in contract.objects if part.scope is Scope.TOPIC]
        patterns = [part.sequences for part in contract.objects if part.scope is Scope.SEQUENCE]
        described = sum(any(_matches(pattern, name) for pattern in patterns) for name in self._sequences)
        return Covered(sum(self._count(kind, parts) for kind in self._kinds), described if patterns else 0)

    def notes(self, contract: Contract) -> list[str]:
        """What of a contract is about nothing there is, a sentence for each part."""
        return [note for part in contract.objects if (note := self._note(part)) is not None]

    def _note(self, part: SchemaObject) -> str | None:
        tags = {kind.tag for kind in self._kinds}
        if part.ontology_tag is not None and part.ontology_tag not in tags | set(load_models()):
            proposed = proposal(part.ontology_tag, [*sorted(tags), *load_models()])
            return f"no shipped type and no topic of the lake has the tag {quoted(part.ontology_tag)}{proposed}"
        if not self._sequences:
            return None  # nothing to compare with
        if part.topics is not None and not any(_is_about(part, kind) for kind in self._kinds):
            of_tag = f" of type {part.ontology_tag}" if part.ontology_tag else ""
            known = dict.fromkeys(kind.path for kind in self._kinds if part.ontology_tag in (None, kind.tag))
            return f"no topic{of_tag} in the lake matches {quoted(part.topics)}{proposal(part.topics, known)}"
        if part.sequences is not None and not any(_matches(part.sequences, name) for name in self._sequences):
            proposed = proposal(part.sequences, self._sequences)
            return f"no sequence in the lake matches {quoted(part.sequences)}{proposed}"
        return None

    def _count(self, kind: _Kind, parts: Sequence[SchemaObject]) -> int:
        about = [part for part in parts if _is_about(part, kind)]
        if any(part.sequences is None for part in about):
            return kind.count
        if not about:
            return 0
        query = (
            select(sequences.c.name)
            .join_from(topics, sequences, topics.c.sequence_id == sequences.c.id)
            .where(topics.c.path == kind.path, topics.c.ontology_tag == kind.tag)
        )
        with self._database.snapshot() as connection:
            return sum(any(_matches(part.sequences, name) for part in about) for name in connection.scalars(query))

    @cached_property
    def _kinds(self) -> list[_Kind]:
        grouped = select(topics.c.path, topics.c.ontology_tag, func.count()).group_by(
            topics.c.path, topics.c.ontology_tag
        )
        with self._database.snapshot() as connection:
            return sorted((_Kind(*row) for row in connection.execute(grouped)), key=lambda kind: (kind.path, kind.tag))

    @cached_property
    def _sequences(self) -> list[str]:
        with self._database.snapshot() as connection:
            return list(connection.scalars(select(sequences.c.name).order_by(sequences.c.name)))


def _is_about(part: SchemaObject, kind: _Kind) -> bool:
    return part.ontology_tag in (None, kind.tag) and _matches(part.topics, kind.path)


def _matches(pattern: str | None, name: str) -> bool:
    return pattern is None or fnmatchcase(name, pattern)
