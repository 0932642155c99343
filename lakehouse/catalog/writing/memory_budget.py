"""One byte budget over everything that open uploads of this process hold in memory."""

import threading
from typing import Protocol


class BufferOwner(Protocol):
    """Something that holds bytes charged to the budget and can be asked to write them out."""

    def flushable_bytes(self) -> int:
        """Bytes that `flush_early` would set in motion; may be read at any time from any thread."""
        ...

    def flush_early(self) -> None:
        """Hand the largest buffer to the encoder, without waiting for it; called from any thread."""
        ...


class UploadBudget:
    """Counts charged bytes; whoever charges beyond the limit makes the largest buffers move and waits for them.

    The limit can be passed by the one record batch each uploading thread has just received, never by more: bytes are
    charged when they are in memory already, and `settle` lets the thread go on only when the total is back in bounds
    or nothing is left that could be written.

    Owners may call every method but `settle` while they hold a lock of their own.
    """

    def __init__(self, limit: int) -> None:
        """Set the limit in bytes."""
        self.limit = limit
        self._total = 0
        self._peak = 0
        self._in_flight = 0
        self._owners: set[BufferOwner] = set()
        self._changed = threading.Condition()

    @property
    def total(self) -> int:
        """Bytes charged at the moment."""
        return self._total

    @property
    def peak(self) -> int:
        """Largest total so far."""
        return self._peak

    @property
    def open_uploads(self) -> int:
        """Number of registered owners."""
        return len(self._owners)

    def register(self, owner: BufferOwner) -> None:
        with self._changed:
            self._owners.add(owner)

    def unregister(self, owner: BufferOwner) -> None:
        with self._changed:
            self._owners.discard(owner)
            self._changed.notify_all()

    def charge(self, size: int) -> None:
        """Count `size` more bytes. Call `settle` afterwards."""
        with self._changed:
            self._total += size
            self._peak = max(self._peak, self._total)

    def settle(self) -> None:
        """Return when the total is in bounds or cannot be lowered; sees to it that buffers are written."""
        while self._total > self.limit:
            with self._changed:
                owners = list(self._owners)
            largest = max(owners, key=lambda owner: owner.flushable_bytes(), default=None)
            if largest is not None and largest.flushable_bytes() > 0 and self._buffered_exceeds():
                largest.flush_early()
                continue
            with self._changed:
                if self._total <= self.limit or self._in_flight <= 0:
                    return
                self._changed.wait(timeout=1.0)

    def release(self, size: int) -> None:
        """Bytes that never went in flight are gone (discarded)."""
        with self._changed:
            self._total -= size
            self._changed.notify_all()

    def depart(self, size: int) -> None:
        """Charged bytes went from a buffer to the encoder."""
        with self._changed:
            self._in_flight += size

    def land(self, size: int) -> None:
        """Bytes in flight were written or given up."""
        with self._changed:
            self._in_flight -= size
            self._total -= size
            self._changed.notify_all()

    def _buffered_exceeds(self) -> bool:
        """Whether waiting for what is in flight would not suffice."""
        with self._changed:
            return self._total - self._in_flight > self.limit
