"""One log record per request, with the facts as separate attributes so that a JSON formatter can keep them apart."""

import logging
import time

import grpc

from lakehouse.flight_gateway.metrics import GatewayMetrics

_log = logging.getLogger("lakehouse.flight_gateway.requests")

# Faults of the server, as opposed to refused requests and to clients that went away.
_FAULTS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.ABORTED}
_LONGEST_SUBJECT = 200


class RequestLog:
    """Gathers what is known about one request until it ends.

    Attributes:
        subject: What the request is about: the action, or the locator. Set while serving.
        action: The same, if it is an action that exists.
        rows: Rows received or sent.
        caller: Who calls, once known: a key's fingerprint, never the key.
    """

    def __init__(self, rpc: str, peer: str, metrics: GatewayMetrics) -> None:
        metrics.began(rpc)
        self._metrics = metrics
        self.subject = ""
        self.action = ""
        self.rows = 0
        self.caller = ""
        self._rpc = rpc
        self._peer = peer
        self._started = time.monotonic()

    def received(self, message: bytes) -> bytes:
        """Count a message from the client, and return it."""
        self._metrics.received(self._rpc, len(message))
        return message

    def sent(self, message: bytes) -> bytes:
        """Count a message to the client, and return it."""
        self._metrics.sent(self._rpc, len(message))
        return message

    def end(self, status: grpc.StatusCode, text: str = "") -> None:
        """Write the record. Cancellation is a client's right, so it is no failure."""
        seconds = time.monotonic() - self._started
        self._metrics.ended(self._rpc, self.action, status, seconds)
        milliseconds = round(seconds * 1000, 1)
        subject = self.subject.encode("unicode_escape").decode("ascii")[:_LONGEST_SUBJECT]
        level = logging.ERROR if status in _FAULTS else logging.INFO if text else logging.DEBUG
        if status is grpc.StatusCode.RESOURCE_EXHAUSTED:
            level = logging.WARNING
        _log.log(
            level,
            "%s %s %s in %s ms%s",
            self._rpc,
            subject,
            status.name,
            milliseconds,
            f": {text}" if text else "",
            extra={
                "rpc": self._rpc,
                "subject": subject,
                "status": status.name,
                "duration_ms": milliseconds,
                "rows": self.rows,
                "peer": self._peer,
                "caller": self.caller,
            },
        )
