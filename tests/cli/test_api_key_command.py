"""`lakehouse api-key`: keys from their making to their end, and what of them may be seen."""

import json
import re

import pytest

from tests.cli.conftest import Outcome, Run


def create(lakehouse: Run, *options: str) -> tuple[str, Outcome]:
    outcome = lakehouse("api-key", "create", *options)
    assert outcome.returncode == 0, outcome.stderr
    token = outcome.stdout.removesuffix("\n")
    assert re.fullmatch("msco_[a-z0-9]{32}_[0-9a-f]{8}", token)
    return token, outcome


def test_the_key_is_printed_once_alone_on_standard_output(lakehouse: Run) -> None:
    token, created = create(lakehouse, "--permissions", "write", "-d", "car 7", "--expires-at", "2127-01-31")
    fingerprint = token[-8:]
    assert fingerprint in created.stderr
    assert token not in created.stderr
    for shown in (lakehouse("api-key", "list"), lakehouse("api-key", "status", fingerprint)):
        assert shown.returncode == 0
        assert token[5:37] not in shown.stdout
        for fact in (fingerprint, "read|write", "valid", "2127-01-31 00:00:00", "car 7"):
            assert fact in shown.stdout
    (listed,) = json.loads(lakehouse("api-key", "list", "--json").stdout)
    assert listed == json.loads(lakehouse("api-key", "status", fingerprint, "--json").stdout)
    assert listed["permissions"] == ["read", "write"]
    assert listed["expires_at_ns"] - listed["created_at_ns"] > 0


@pytest.mark.parametrize(
    ("options", "permissions"),
    [
        ([], ["read"]),
        (["--permissions", "manage"], ["read", "write", "delete", "manage"]),
        (["--permissions", "read|delete"], ["read", "delete"]),
        (["--permissions", "delete", "--exact"], ["delete"]),
    ],
)
def test_permissions(lakehouse: Run, options: list[str], permissions: list[str]) -> None:
    token, _ = create(lakehouse, *options)
    assert json.loads(lakehouse("api-key", "status", token[-8:], "--json").stdout)["permissions"] == permissions


def test_revoking_several_at_once_names_the_missing(lakehouse: Run) -> None:
    one, two = (create(lakehouse)[0][-8:] for _ in range(2))
    outcome = lakehouse("api-key", "revoke", one, "00000000", two)
    assert outcome.returncode == 1
    assert outcome.stdout.split() == ["revoked", one, "revoked", two]
    assert "'00000000' not found" in outcome.stderr
    assert json.loads(lakehouse("api-key", "list", "--json").stdout) == []
    assert lakehouse("api-key", "status", one).returncode == 1


def test_purging(lakehouse: Run) -> None:
    kept, _ = create(lakehouse, "--expires-in", "P1D")
    assert lakehouse("api-key", "purge").stdout == "Nothing to remove.\n"
    assert lakehouse("api-key", "purge", "-A").stdout == f"removed {kept[-8:]}\n"
    assert lakehouse("api-key", "list").stdout == "No keys: try `lakehouse api-key create`.\n"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["create", "--permissions", "admin"], "'admin' is no permission"),
        (["create", "--expires-in", "30"], "no ISO 8601 duration"),
        (["create", "--expires-at", "tomorrow"], "no RFC 3339 instant"),
        (["create", "--expires-at", "1999-12-31"], "in the future"),
        (["create", "--expires-in", "P1D", "--expires-at", "2127-01-01"], "exclude one another"),
        (["status", "msco_s3l8gcdwuadege3pkhou0k0n2t5omfij_f9010b9e"], "the last eight characters"),
        (["revoke", "deadbeef"], "not found"),
    ],
)
def test_mistakes_are_explained_and_never_repeat_a_key(lakehouse: Run, arguments: list[str], reason: str) -> None:
    outcome = lakehouse("api-key", *arguments)
    assert (outcome.returncode, outcome.stdout) == (1, "")
    assert reason in outcome.stderr
    assert "s3l8gcdwuadege" not in outcome.stderr
