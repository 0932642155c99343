"""What maintenance has done for good is recorded however it ends."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lakehouse.catalog.errors import LakehouseError

logger = logging.getLogger(__name__)


@contextmanager
def recorded_at_the_end(record: Callable[[], None]) -> Iterator[None]:
    """Call `record` after the block, also when an error ends it half-way: what was done by then is done.

    Raises:
        Exception: That of the block, if it has one: what went wrong first is what callers should hear, and a database
            that breaks a step refuses its record too. Else that of `record`.
    """
    try:
        yield
    except BaseException:
        try:
            record()
        except LakehouseError as failure:
            logger.warning("what maintenance did until an error ended it could not be recorded: %s", failure)
        raise
    record()
