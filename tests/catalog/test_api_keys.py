"""API keys: the form of tokens, what permissions include, when keys end, and what the database keeps of them."""

import hmac
import time
import zlib
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import select, update

from lakehouse.catalog.access.api_keys import ApiKeys
from lakehouse.catalog.access.expiry import expires_at, expires_in
from lakehouse.catalog.access.permissions import Permission, format_permissions, parse_permissions
from lakehouse.catalog.access.tokens import Token, fingerprint_of
from lakehouse.catalog.control_plane.migrate import open_database
from lakehouse.catalog.control_plane.schema import api_keys, audit_log
from lakehouse.catalog.errors import BadRequestError, NotFoundError, PermissionDeniedError
from lakehouse.catalog.settings import Settings

READ, WRITE, DELETE, MANAGE = Permission.READ, Permission.WRITE, Permission.DELETE, Permission.MANAGE
DAY_NS = 86_400_000_000_000


@pytest.fixture
def keys(tmp_path: Path, database_url: str) -> Iterator[ApiKeys]:
    database = open_database(Settings.load(home=tmp_path, db_url=database_url))
    yield ApiKeys(database)
    database.close()


def test_the_check_values_of_the_protocol() -> None:
    assert fingerprint_of("vrfeceju4lqivysxgaseefa3tsxs0vrl") == "1b676530"
    documented = "msco_s3l8gcdwuadege3pkhou0k0n2t5omfij_f9010b9e"
    assert Token.parse(documented).reveal() == documented


@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=32, max_size=32))
def test_every_payload_makes_a_token_that_reads_back(payload: str) -> None:
    token = Token(payload)
    assert Token.parse(token.reveal()) == token
    assert token.reveal() == f"msco_{payload}_{zlib.crc32(payload.encode()):08x}"
    assert payload not in repr(token)


@given(st.data())
def test_any_single_wrong_character_is_noticed(data: st.DataObject) -> None:
    text = Token.generate().reveal()
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters().filter(lambda character: character != text[place]))
    with pytest.raises(PermissionDeniedError) as refused:
        Token.parse(text[:place] + other + text[place + 1 :])
    assert text[5:37] not in str(refused.value)


@pytest.mark.parametrize(
    "text", ["", "msco", "msco__", "msco_" + "a" * 32, "x" * 5000, "msco_" + "A" * 32 + "_00000000"]
)
def test_what_is_no_token(text: str) -> None:
    with pytest.raises(PermissionDeniedError):
        Token.parse(text)


@pytest.mark.parametrize(
    ("text", "exact", "granted"),
    [
        ("read", False, {READ}),
        ("write", False, {READ, WRITE}),
        ("delete", False, {READ, WRITE, DELETE}),
        ("manage", False, {READ, WRITE, DELETE, MANAGE}),
        ("delete", True, {DELETE}),
        ("read|delete", False, {READ, DELETE}),
        ("Write | READ", True, {READ, WRITE}),
    ],
)
def test_one_word_climbs_the_ladder_and_sets_are_exact(text: str, exact: bool, granted: set[Permission]) -> None:
    assert parse_permissions(text, exact=exact) == granted
    assert parse_permissions(format_permissions(granted), exact=True) == granted


@pytest.mark.parametrize("text", ["", "any", "admin", "read|", "read,write"])
def test_unknown_permissions_are_refused(text: str) -> None:
    with pytest.raises(BadRequestError, match="is no permission"):
        parse_permissions(text)


@pytest.mark.parametrize(
    ("text", "days"),
    [("P30D", 30), ("P2W", 14), ("P1Y", 365), ("P1M", 30), ("PT36H", 1.5), ("P1DT12H", 1.5), ("pt30m", 1 / 48)],
)
def test_durations(text: str, days: float) -> None:
    assert expires_in(text, 1_000) == 1_000 + days * DAY_NS


@pytest.mark.parametrize("text", ["", "P", "PT", "30D", "P-1D", "P1H", "PT1D", "P1.5D", "1 day", "PT0S", "P999999999Y"])
def test_what_is_no_duration_of_a_key(text: str) -> None:
    with pytest.raises(BadRequestError):
        expires_in(text, 1_000)


@given(st.datetimes(datetime(1971, 1, 1), datetime(2262, 1, 1), timezones=st.timezones()))
@example(datetime(2027, 1, 31, 12, tzinfo=UTC))
def test_instants_in_any_zone_with_whole_minutes(instant: datetime) -> None:
    offset = instant.utcoffset()
    assert offset is not None
    if offset.seconds % 60 or offset.microseconds:
        return  # local mean time: RFC 3339 cannot write it
    elapsed = instant.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    nanoseconds = ((elapsed.days * 86_400 + elapsed.seconds) * 1_000_000 + elapsed.microseconds) * 1000
    assert expires_at(instant.isoformat(), 0) == nanoseconds


def test_a_date_alone_is_the_beginning_of_the_day() -> None:
    assert expires_at("2027-01-31", 0) == expires_at("2027-01-31t00:00:00z", 0) == 20_849 * DAY_NS


@pytest.mark.parametrize(
    "text", ["", "2027", "2027-13-01", "2027-01-31T12:00:00", "20270131", "2027-01-31T12Z", "tomorrow", "1999-01-01"]
)
def test_what_is_no_instant_or_has_passed(text: str) -> None:
    with pytest.raises(BadRequestError):
        expires_at(text, time.time_ns())


def test_the_database_holds_salted_hashes_and_no_secret(keys: ApiKeys) -> None:
    token, record = keys.create(frozenset({READ}), "the only one")
    other, _ = keys.create(frozenset({READ}))
    with keys._database.snapshot() as connection:
        rows = {row.fingerprint: row for row in connection.execute(select(api_keys))}
        audited = [tuple(row) for row in connection.execute(select(audit_log))]
    assert token.payload not in f"{rows}{audited}"
    assert {entry[2:4] for entry in audited} == {
        ("api_key_create", token.fingerprint),
        ("api_key_create", other.fingerprint),
    }
    mine, others = rows[token.fingerprint], rows[other.fingerprint]
    assert len(mine.payload_hash) == 32
    assert mine.salt != others.salt
    assert keys.authenticate(token.reveal()) == record


def test_known_and_unknown_keys_are_told_apart_by_the_same_steps(
    keys: ApiKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How long a refusal takes would tell otherwise which fingerprints exist: one look-up, one hash, one comparison."""
    known, _ = keys.create(frozenset({READ}))
    wrong, _ = keys.create(frozenset({READ}))
    with keys._database.transaction() as connection:
        connection.execute(
            update(api_keys).where(api_keys.c.fingerprint == wrong.fingerprint).values(payload_hash=bytes(32))
        )
    steps: list[str] = []
    find, digest, compare_digest = keys._find, hmac.digest, hmac.compare_digest

    def noted_comparison(ours: bytes, theirs: bytes) -> bool:
        steps.append(f"compare {len(ours)} and {len(theirs)} bytes")
        return compare_digest(ours, theirs)

    def noted_digest(salt: bytes, payload: bytes, name: str) -> bytes:
        steps.append(f"{name} of {len(salt)} and {len(payload)} bytes")
        return digest(salt, payload, name)

    monkeypatch.setattr(keys, "_find", lambda fingerprint: steps.append("find") or find(fingerprint))
    monkeypatch.setattr(hmac, "digest", noted_digest)
    monkeypatch.setattr(hmac, "compare_digest", noted_comparison)
    taken = []
    for token in (known, wrong, Token.generate()):
        with nullcontext() if token is known else pytest.raises(PermissionDeniedError, match="does not exist"):
            keys.authenticate(token.reveal())
        taken.append(tuple(steps))
        steps.clear()
    assert set(taken) == {("find", "sha256 of 16 and 32 bytes", "compare 32 and 32 bytes")}


def test_a_right_fingerprint_proves_nothing(keys: ApiKeys) -> None:
    """CRC-32 is linear: payloads of any fingerprint are found at once. Here the row of another key is under it."""
    token, _ = keys.create(frozenset({READ}))
    forged = Token.generate()
    with keys._database.transaction() as connection:
        connection.execute(update(api_keys).values(fingerprint=forged.fingerprint))
    for text in (forged.reveal(), token.reveal()):
        with pytest.raises(PermissionDeniedError, match="does not exist"):
            keys.authenticate(text)


def test_keys_end_when_they_expire_and_when_they_are_revoked(keys: ApiKeys) -> None:
    short, _ = keys.create(frozenset({WRITE}), expires_at_ns=time.time_ns() + 1_000_000)
    long, record = keys.create(frozenset({WRITE}), expires_at_ns=time.time_ns() + DAY_NS)
    revoked, _ = keys.create(frozenset({WRITE}))
    keys.revoke(revoked.fingerprint)
    time.sleep(0.002)
    with pytest.raises(PermissionDeniedError, match="has expired"):
        keys.authenticate(short.reveal())
    with pytest.raises(PermissionDeniedError, match="does not exist"):
        keys.authenticate(revoked.reveal())
    assert keys.authenticate(long.reveal()) == record == keys.get(long.fingerprint)
    assert [each.fingerprint for each in keys.all()] == [short.fingerprint, long.fingerprint]
    assert keys.purge() == [short.fingerprint]
    assert keys.purge() == []
    assert keys.purge(everything=True) == [long.fingerprint]
    assert keys.all() == []
    for end in (keys.revoke, keys.get):
        with pytest.raises(NotFoundError):
            end(revoked.fingerprint)


def test_a_whole_key_in_place_of_its_fingerprint_is_not_repeated(keys: ApiKeys) -> None:
    token, _ = keys.create(frozenset({READ}))
    for use in (keys.get, keys.revoke):
        with pytest.raises(BadRequestError) as refused:
            use(token.reveal())
        assert token.payload not in str(refused.value)
