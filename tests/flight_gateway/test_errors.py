"""Errors arrive with the right code, short, and without anything of the server's inside (protocol section 14)."""

import re

import grpc
import pyarrow as pa
import pytest

from lakehouse.catalog import errors
from lakehouse.flight_gateway.errors import status_of as gateway_status_of
from lakehouse.flight_gateway.errors import wire_text
from tests.flight_gateway.raw_client import RawClient, status_of


def all_subclasses(root: type) -> set[type]:
    return {root}.union(*(all_subclasses(child) for child in root.__subclasses__()))


def test_every_error_class_has_a_status_code() -> None:
    for kind in all_subclasses(errors.LakehouseError):
        error = kind.__new__(kind)
        errors.LakehouseError.__init__(error, "text")
        code, text = gateway_status_of(error)
        assert code not in (grpc.StatusCode.OK, grpc.StatusCode.UNKNOWN)
        assert text == "text"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidNameError("x"), grpc.StatusCode.INVALID_ARGUMENT),
        (errors.InvalidDataError("x"), grpc.StatusCode.INVALID_ARGUMENT),
        (errors.UnsupportedSchemaError("x"), grpc.StatusCode.INVALID_ARGUMENT),
        (errors.NotFoundError("topic", "x"), grpc.StatusCode.NOT_FOUND),
        (errors.AlreadyExistsError("topic", "x"), grpc.StatusCode.ALREADY_EXISTS),
        (errors.StateError("x"), grpc.StatusCode.FAILED_PRECONDITION),
        (errors.PermissionDeniedError("x"), grpc.StatusCode.PERMISSION_DENIED),
        (errors.StorageError("x"), grpc.StatusCode.INTERNAL),
        (errors.CommitConflictError("x"), grpc.StatusCode.ABORTED),
        (errors.UploadCancelledError("x"), grpc.StatusCode.CANCELLED),
    ],
)
def test_status_codes(error: Exception, code: grpc.StatusCode) -> None:
    assert gateway_status_of(error)[0] is code


@pytest.mark.parametrize("error", [KeyError("/srv/secret"), pa.ArrowInvalid("secret"), OSError("secret"), TypeError()])
def test_an_unexpected_error_is_reported_by_number_only(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    code, text = gateway_status_of(error)
    assert code is grpc.StatusCode.INTERNAL
    assert "secret" not in text
    found = re.search(r"incident ([0-9a-f]{8})", text)
    assert found is not None
    assert found.group(1) in caplog.text
    assert caplog.records[0].exc_info is not None


def test_texts_are_printable_ascii_of_bounded_length() -> None:
    text = wire_text("\u00e9\n\x00\U0001f697 " * 5000)
    assert len(text) <= 1000
    assert text.isascii()
    assert text.isprintable()


@pytest.mark.parametrize("length", [3000, 100_000, 5_000_000])
def test_errors_about_long_input_keep_their_code(raw: RawClient, name: str, length: int) -> None:
    long = "x" * length
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    for call in (
        lambda: raw.action("sequence_create", locator=long),
        lambda: raw.action("sequence_create", locator="\u00e9" * length),
        lambda: raw.action("sequence_create", locator=name, user_metadata={long + "--": 1}),
        lambda: raw.action("topic_delete", locator=f"a/{long}"),
        lambda: raw.action("session_delete", locator=f"{long}:01JXYZ3V8Q6M2W7K9T4R5N0ABC"),
        lambda: raw.action("session_finalize", session_uuid=long),
        lambda: raw.action(long),
        lambda: raw.describe(long),
        lambda: raw.get(long.encode()),
    ):
        assert status_of(call).code is invalid
