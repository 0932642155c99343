"""The threads that serve RPCs."""

import logging
from concurrent.futures import ThreadPoolExecutor

_log = logging.getLogger(__name__)


class ServingThreads(ThreadPoolExecutor):
    """A pool that grows with demand and survives the operating system's refusal to start another thread.

    gRPC submits work from its one event thread. An exception there would end all serving, whereas the work itself is
    already queued and only has to wait for a thread.
    """

    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()
        except RuntimeError:
            if not self._threads:
                raise
            _log.error(
                "the operating system refuses to start another thread; requests wait for one of %d", len(self._threads)
            )
