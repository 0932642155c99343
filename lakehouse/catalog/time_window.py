"""A half-open window of record time."""

from dataclasses import dataclass

from lakehouse.catalog.errors import BadRequestError

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """`[start_ns, end_ns)` in nanoseconds; a bound that is None is open.

    A window with `start_ns == end_ns` is legal and empty (protocol section 17, item 4).

    Raises:
        BadRequestError: If start lies behind end, or a bound is no 64-bit integer.
    """

    start_ns: int | None = None
    end_ns: int | None = None

    def __post_init__(self) -> None:
        for bound in (self.start_ns, self.end_ns):
            if bound is not None and not INT64_MIN <= bound <= INT64_MAX:
                raise BadRequestError("a time bound must fit a signed 64-bit integer of nanoseconds")
        if self.start_ns is not None and self.end_ns is not None and self.start_ns > self.end_ns:
            raise BadRequestError(f"time range starts at {self.start_ns} but ends before, at {self.end_ns}")

    @property
    def is_unbounded(self) -> bool:
        return self.start_ns is None and self.end_ns is None

    def contains(self, first_ns: int, last_ns: int) -> bool:
        """Whether all of the closed interval `[first_ns, last_ns]` lies inside."""
        return (self.start_ns is None or self.start_ns <= first_ns) and (self.end_ns is None or last_ns < self.end_ns)

    def overlaps(self, first_ns: int, last_ns: int) -> bool:
        """Whether any of the closed interval `[first_ns, last_ns]` may lie inside."""
        if self.start_ns is not None and self.start_ns == self.end_ns:
            return False
        return (self.start_ns is None or last_ns >= self.start_ns) and (self.end_ns is None or first_ns < self.end_ns)


UNBOUNDED = TimeWindow()


@dataclass(frozen=True, slots=True)
class TimeInterval:
    """Closed interval of timestamps that are present, in nanoseconds."""

    start_ns: int
    end_ns: int
