"""From errors to gRPC status codes: the one table (protocol section 14)."""

import logging
import secrets

import grpc

from lakehouse.catalog import errors
from lakehouse.catalog.errors import LakehouseError, shorten

_log = logging.getLogger(__name__)

# Looked up along the class hierarchy of the error, most specific class first.
_STATUS_CODES: dict[type[LakehouseError], grpc.StatusCode] = {
    errors.BadRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExistsError: grpc.StatusCode.ALREADY_EXISTS,
    errors.StateError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.PermissionDeniedError: grpc.StatusCode.PERMISSION_DENIED,
    errors.UnsupportedOperationError: grpc.StatusCode.UNIMPLEMENTED,
    errors.ResourceExhaustedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.CommitConflictError: grpc.StatusCode.ABORTED,
    errors.UploadCancelledError: grpc.StatusCode.CANCELLED,
    LakehouseError: grpc.StatusCode.INTERNAL,
}


def status_of(error: Exception) -> tuple[grpc.StatusCode, str]:
    """Status code and text for the client.

    An error that nobody raised on purpose becomes INTERNAL with an incident number; its traceback goes to the log
    under the same number and never to the client.
    """
    if isinstance(error, LakehouseError):
        code = next(_STATUS_CODES[kind] for kind in type(error).__mro__ if kind in _STATUS_CODES)
        if code is grpc.StatusCode.INTERNAL:
            _log.error("%s", error.message, exc_info=error)
        return code, wire_text(error.message)
    incident = secrets.token_hex(4)
    _log.error("unexpected error, incident %s", incident, exc_info=error, extra={"incident": incident})
    return grpc.StatusCode.INTERNAL, f"Internal error; incident {incident} in the server's log"


def wire_text(text: str) -> str:
    """Printable ASCII of bounded length: the text travels in response trailers, whose size gRPC limits."""
    printable = "".join(c if " " <= c <= "~" else c.encode("unicode_escape").decode("ascii") for c in shorten(text))
    return shorten(printable)
