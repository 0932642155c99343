"""Which nodes of a JSON document a metadata path addresses, in one pass, whatever wildcards the path has.

Deciding for every node anew, from the root on, would let a short query about a large document take minutes. The walk
down carries along which steps of the path may be behind it instead, and remembers where each set of those leads: an
automaton that is built while it is used.
"""

from collections.abc import Iterator
from typing import Any

from lakehouse.catalog.control_plane.metadata_index import Step
from lakehouse.catalog.query.metadata_paths import MetadataPath, Wildcard

_MOST_MOVES = 4096
# Stand for every step that the path does not name; no key is empty and no position negative.
_OTHER_KEY, _OTHER_POSITION = "", -1

Reached = frozenset[int]


class PathAutomaton:
    """Decides for nodes, step by step from the root, whether a path addresses them.

    Args:
        path: The path.
    """

    def __init__(self, path: MetadataPath) -> None:
        self._path = path
        self._named = {step for step in path.steps if not isinstance(step, Wildcard)}
        self._moves: dict[tuple[Reached, Step], Reached] = {}
        self._start: Reached = frozenset(path.begin())

    def leads_to(self, steps: tuple[Step, ...]) -> bool:
        """Whether the path addresses a node, or an array that it is an element of."""
        reached = self._start
        for step in steps:
            reached = self._after(reached, step)
            if not reached:
                return False
        return self._is_end(reached)

    def values(self, document: Any) -> Iterator[Any]:
        """The values of all nodes below the root that the path addresses, in no particular order."""
        pending: list[tuple[Any, Reached]] = [(document, self._start)]
        while pending:
            value, reached = pending.pop()
            children: Iterator[tuple[Step, Any]] | None = None
            if isinstance(value, dict):
                children = iter(value.items())
            elif isinstance(value, list):
                children = iter(enumerate(value))
            for step, child in children or ():
                following = self._after(reached, step)
                if following:
                    if self._is_end(following):
                        yield child
                    pending.append((child, following))

    def _is_end(self, reached: Reached) -> bool:
        return len(self._path.steps) in reached

    def _after(self, reached: Reached, step: Step) -> Reached:
        if step not in self._named:
            step = _OTHER_POSITION if isinstance(step, int) else _OTHER_KEY
        found = self._moves.get((reached, step))
        if found is None:
            found = frozenset(self._path.advance(reached, step))
            if len(self._moves) < _MOST_MOVES:
                self._moves[reached, step] = found
        return found
