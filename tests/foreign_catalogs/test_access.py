"""Access to a REST catalog: tokens that are given or asked for, what happens when they are refused, and no leaks.

The catalog is a real one that checks every token; those of the tests come from an authorization server of their own.
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lakehouse.catalog.commits import stepwise
from lakehouse.catalog.errors import CatalogAccessError, ConfigurationError, LakehouseError
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.records import SessionState
from lakehouse.catalog.settings import Settings
from lakehouse.cli.main import app
from lakehouse.flight_gateway.readiness import Readiness
from tests.authorization_server import AuthorizationServer
from tests.foreign_catalogs.foreign_lake import ForeignLake, rows_read
from tests.nessie_server import NessieServer
from tests.rebuild.test_rebuild import record

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("rest-catalog")]

NO_ACCESS: dict[str, Any] = {"catalog_credential": "", "catalog_oauth2_server_uri": ""}


@pytest.fixture
def authorization(nessie: NessieServer) -> Iterator[AuthorizationServer]:
    server = nessie.authorization
    usual = server.told_lifetime_s
    server.given.clear()
    yield server
    server.stale, server.told_lifetime_s = 0, usual


def readiness(lakehouse: Lakehouse) -> dict[str, str]:
    """What the page `/ready` tells."""
    with contextlib.closing(Readiness(lakehouse, patience_s=60)) as looks:
        return looks.look()


def test_a_token_that_was_given_opens_the_catalog(on_nessie: ForeignLake, authorization: AuthorizationServer) -> None:
    with on_nessie.open(**NO_ACCESS, catalog_token=authorization.token()) as lakehouse:
        lakehouse.sequences.create("drive", {})
        record(lakehouse, "drive", "a")
        assert rows_read(lakehouse, "drive", "a") == 4
    assert authorization.given == []
    assert on_nessie.engine_rows("plain.a") == ["drive"] * 4


def test_one_token_serves_until_it_is_about_to_expire(
    on_nessie: ForeignLake, authorization: AuthorizationServer
) -> None:
    with on_nessie.open() as lakehouse:
        lakehouse.sequences.create("drive", {})
        record(lakehouse, "drive", "a")
    assert len(authorization.given) == 1
    authorization.told_lifetime_s = 0
    with on_nessie.open() as lakehouse:
        before = len(authorization.given)
        record(lakehouse, "drive", "b")
    assert len(authorization.given) > before
    assert on_nessie.engine_rows("plain.b") == ["drive"] * 4


@pytest.mark.parametrize(
    ("access", "told"),
    [
        (NO_ACCESS, "LAKEHOUSE_CATALOG_TOKEN or _CREDENTIAL: the catalog refuses"),
        (
            {**NO_ACCESS, "catalog_token": "no-such-token"},
            "LAKEHOUSE_CATALOG_TOKEN or _CREDENTIAL: the catalog refuses",
        ),
        ({"catalog_credential": "lakehouse:no-such-secret"}, r"LAKEHOUSE_CATALOG_CREDENTIAL.*\(invalid_client\)"),
        ({"catalog_credential": "no-such-secret"}, r"LAKEHOUSE_CATALOG_CREDENTIAL.*\(invalid_client\)"),
        ({"catalog_scope": "everything"}, r"LAKEHOUSE_CATALOG_CREDENTIAL.*\(invalid_scope\)"),
        ({"catalog_oauth2_server_uri": "http://127.0.0.1:9/"}, "LAKEHOUSE_CATALOG_OAUTH2_SERVER_URI"),
    ],
    ids=["none", "wrong token", "wrong secret", "no id", "wrong scope", "nobody there"],
)
def test_a_lake_that_gets_no_access_does_not_open_and_says_by_which_setting(
    on_nessie: ForeignLake, access: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigurationError, match=told) as refusal:
        on_nessie.open(**access)
    assert "no-such" not in refusal.value.message


def test_a_token_that_is_refused_before_its_time_is_replaced_in_the_middle_of_a_commit(
    on_nessie: ForeignLake, authorization: AuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each request asks for a token; of those from here on, the first has expired.
    authorization.told_lifetime_s = 0
    met: list[str] = []

    def spoil(point: str) -> None:
        if point.startswith("table-commit:"):
            met.append(point)
            authorization.stale = 1

    with on_nessie.open() as lakehouse:
        lakehouse.sequences.create("drive", {})
        record(lakehouse, "drive", "a", "b", finalize=False)
        monkeypatch.setattr(stepwise.crash_points, "reach", spoil)
        (session,) = lakehouse.sequences.describe("drive").sessions
        lakehouse.sessions.finalize(session.uuid)
        assert len(met) > 3
        assert [rows_read(lakehouse, "drive", path) for path in "ab"] == [4, 4]
        assert authorization.stale == 0
    assert on_nessie.engine_rows("mosaico.sessions") == ["drive"]


def test_a_commit_that_loses_access_in_the_middle_is_carried_through_once_it_is_back(
    on_nessie: ForeignLake, authorization: AuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    authorization.told_lifetime_s = 0

    def lock_out(point: str) -> None:
        if point == "table-commit:after":
            authorization.stale = 1_000

    with on_nessie.open() as lakehouse:
        lakehouse.sequences.create("drive", {})
        record(lakehouse, "drive", "a", "b", finalize=False)
        (session,) = lakehouse.sequences.describe("drive").sessions
        with monkeypatch.context() as patched:
            patched.setattr(stepwise.crash_points, "reach", lock_out)
            with pytest.raises(CatalogAccessError, match="LAKEHOUSE_CATALOG_CREDENTIAL"):
                lakehouse.sessions.finalize(session.uuid)
        (session,) = lakehouse.sequences.describe("drive").sessions
        assert session.state is SessionState.COMMITTING
        assert readiness(lakehouse) == {"database": "ok", "warehouse": "ok", "catalog": "unreachable"}
        authorization.stale = 0
        assert on_nessie.engine_rows("plain.a") == ["drive"] * 4
        assert on_nessie.engine_rows("plain.b") == []
        assert readiness(lakehouse) == {"database": "ok", "warehouse": "ok", "catalog": "ok"}
        assert lakehouse.recovery.resume_all() == 1
        assert [rows_read(lakehouse, "drive", path) for path in "ab"] == [4, 4]
    assert on_nessie.engine_rows("plain.b") == on_nessie.engine_rows("plain.a") == ["drive"] * 4


def test_no_secret_is_logged_or_shown(
    on_nessie: ForeignLake,
    authorization: AuthorizationServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    authorization.told_lifetime_s = 0
    shown: list[str] = []
    with on_nessie.open() as lakehouse:
        lakehouse.sequences.create("drive", {})
        record(lakehouse, "drive", "a")
        authorization.stale = 1_000
        with pytest.raises(LakehouseError) as refusal:
            record(lakehouse, "drive", "b")
        logging.getLogger("test").error("as doors log it", exc_info=refusal.value)
        authorization.stale = 0
    for name, value in on_nessie.server.environment(on_nessie.catalog).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LAKEHOUSE_HOME", str(on_nessie.home))
    shown.append(CliRunner().invoke(app, ["info"]).output)
    assert "LAKEHOUSE_CATALOG_CREDENTIAL" in shown[0]
    monkeypatch.setenv("LAKEHOUSE_CATALOG_SCOPE", "everything")
    failed = CliRunner().invoke(app, ["sequences"])
    assert isinstance(failed.exception, ConfigurationError)
    shown += [failed.output, failed.exception.message, repr(Settings.load()), caplog.text]
    tokens = authorization.given
    assert len(tokens) > 5
    for text in shown:
        assert authorization.client_secret not in text
        assert not [token for token in tokens if token in text]


def test_access_is_not_written_into_addresses(tmp_path: Path) -> None:
    for name in ("catalog_uri", "catalog_oauth2_server_uri"):
        with pytest.raises(ConfigurationError, match="must not contain credentials") as refusal:
            Settings.load(home=tmp_path, **{name: "https://me:hidden@catalog.example.org/"})
        assert "hidden" not in refusal.value.message
