"""Rows are decoded one step ahead of their consumer, and never further."""

import threading
import weakref
from collections.abc import Generator, Iterator
from functools import partial

import pytest

from lakehouse.catalog.reading.read_ahead import one_ahead
from tests.waiting import eventually

PATIENCE_S = 60.0


class _Source:
    """Makes numbers and tells how far it has come."""

    def __init__(self, count: int, fails_at: int | None = None) -> None:
        self.made = 0
        self.is_closed = False
        self.makers: set[int] = set()
        self.second_is_made = threading.Event()
        self._count = count
        self._fails_at = fails_at

    def items(self) -> Generator[int, None, None]:
        try:
            for number in range(self._count):
                self.makers.add(threading.get_ident())
                if number == self._fails_at:
                    raise ValueError("damaged")
                self.made += 1
                if self.made == 2:
                    self.second_is_made.set()
                yield number
        finally:
            self.is_closed = True


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_the_items_come_unchanged_and_in_order(count: int) -> None:
    source = _Source(count)
    assert list(one_ahead(source.items())) == list(range(count))
    assert source.is_closed


def test_the_next_item_is_made_while_the_consumer_works_on_the_last_one_and_no_further() -> None:
    source = _Source(5)
    numbers = one_ahead(source.items())
    assert next(numbers) == 0
    # Nobody asks for the second one here; that it comes at all shows that another thread makes it.
    assert source.second_is_made.wait(PATIENCE_S)
    assert source.made == 2
    assert threading.get_ident() in source.makers
    assert len(source.makers) == 2
    _close(numbers)
    assert source.made == 2


def test_closing_early_closes_the_source() -> None:
    source = _Source(5)
    numbers = one_ahead(source.items())
    next(numbers)
    _close(numbers)
    assert source.is_closed


def test_an_error_comes_in_its_place() -> None:
    source = _Source(5, fails_at=2)
    numbers = one_ahead(source.items())
    assert [next(numbers), next(numbers)] == [0, 1]
    with pytest.raises(ValueError, match="damaged"):
        next(numbers)
    assert source.is_closed


def test_an_item_belongs_to_its_consumer_alone() -> None:
    class Rows:
        pass

    def items() -> Generator[Rows, None, None]:
        for _ in range(3):
            yield Rows()

    numbers = one_ahead(items())
    for _ in range(3):
        seen = weakref.ref(next(numbers))
        # The thread that made it may need a moment to let go.
        assert eventually(partial(_is_gone, seen))
    _close(numbers)


def _is_gone(seen: weakref.ref[object]) -> bool:
    return seen() is None


def _close(items: Iterator[object]) -> None:
    assert isinstance(items, Generator)
    items.close()
