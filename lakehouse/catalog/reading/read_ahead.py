"""Decoding the next rows while the last ones are on their way to a client."""

from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar, cast

Item = TypeVar("Item")

_END = object()
# Shared by all streams. Threads only decode or wait for storage, never for a client.
_decoders = ThreadPoolExecutor(32, thread_name_prefix="read-ahead")


def one_ahead(items: Generator[Item, None, None]) -> Iterator[Item]:
    """The same items, each from the second on made by another thread while the consumer works on the one before.

    At most one finished item waits here, whatever time the consumer takes. Closing waits for an item that is being
    made, then closes `items`. Errors of `items` come where their item would have come.
    """
    coming: Future[object] | None = None
    try:
        # In a list, not in a variable: the item must belong to the consumer alone while it is used.
        made = [next(items, _END)]
        while made[0] is not _END:
            coming = _decoders.submit(next, items, _END)
            yield cast(Item, made.pop())
            made.append(coming.result())
            coming = None
    finally:
        if coming is not None and not coming.cancel():
            wait([coming])
        items.close()
