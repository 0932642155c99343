"""Tickets: everything DoGet needs to know, issued by GetFlightInfo and opaque to clients."""

from dataclasses import dataclass
from typing import Self

from lakehouse.catalog.errors import BadRequestError, LakehouseError
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.records import TopicRecord
from lakehouse.catalog.time_window import TimeWindow
from lakehouse.flight_gateway import payloads


@dataclass(frozen=True, slots=True)
class Ticket:
    """One topic and a window of its rows.

    The creation time (Unix ns) tells a topic from a later one of the same name, whose rows an old ticket must not show.
    """

    locator: TopicLocator
    created_at_ns: int
    window: TimeWindow

    @classmethod
    def issue(cls, topic: TopicRecord, window: TimeWindow) -> Self:
        return cls(topic.locator, topic.created_at_ns, window)

    def names(self, topic: TopicRecord) -> bool:
        """Whether the ticket was issued for exactly this topic."""
        return self.locator == topic.locator and self.created_at_ns == topic.created_at_ns

    def to_bytes(self) -> bytes:
        return payloads.encode(
            {
                "resource_locator": str(self.locator),
                "created_at_ns": self.created_at_ns,
                "timestamp_ns_start": self.window.start_ns,
                "timestamp_ns_end": self.window.end_ns,
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a ticket.

        Raises:
            BadRequestError: If this server did not issue it.
        """
        try:
            fields = payloads.Fields.parse(data)
            return cls(
                TopicLocator.parse(fields.text("resource_locator")),
                fields.integer("created_at_ns"),
                TimeWindow(fields.optional_integer("timestamp_ns_start"), fields.optional_integer("timestamp_ns_end")),
            )
        except LakehouseError:
            raise BadRequestError("not a ticket of this server; GetFlightInfo issues them") from None
