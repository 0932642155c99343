"""Passwords, keys and tokens are in no listing and in no error text, whatever refuses them."""

import logging
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from lakehouse.catalog.errors import ConfigurationError
from lakehouse.catalog.settings import Settings
from lakehouse.cli.log_output import WithoutSecrets
from tests.cli.conftest import Run
from tests.refusing_catalog import refusing_catalog
from tests.s3_server import S3Server

PASSWORD = "hunter2-of-the-database"
SECRETS = {
    "MOSAICOD_STORE_ACCESS_KEY": "access-key-of-the-store",
    "MOSAICOD_STORE_SECRET_KEY": "secret-key-of-the-store",
    "LAKEHOUSE_CATALOG_TOKEN": "token-of-the-catalog",
    "LAKEHOUSE_CATALOG_CREDENTIAL": "somebody:credential-of-the-catalog",
    "LAKEHOUSE_NOTIFY_WEBHOOK": "https://hooks.example.org/token-of-the-webhook",
}


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://robot:{PASSWORD}@127.0.0.1:1/lake",
        f"postgresql://robot@127.0.0.1:1/lake?password={PASSWORD}&sslpassword={PASSWORD}",
        f"mysql://robot:{PASSWORD}@127.0.0.1/lake",
        f"postgresql:{PASSWORD}",
        f"postgresql://robot:{PASSWORD}@127.0.0.1:port/lake",
    ],
)
def test_no_command_shows_the_password_of_the_database(
    lakehouse: Run, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    for variable, value in {**SECRETS, "MOSAICOD_DB_URL": url}.items():
        monkeypatch.setenv(variable, value)
    for arguments in (["info"], ["sequences"], ["api-key", "list"]):
        ended = lakehouse(*arguments)
        assert "Traceback" not in ended.stderr
        for secret in (PASSWORD, *SECRETS.values()):
            assert secret not in ended.stdout + ended.stderr


DEBUG = ["--log-level", "debug"]


def test_no_command_shows_the_keys_that_a_store_refuses(
    lakehouse: Run, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOSAICOD_STORE_ENDPOINT", s3.endpoint)
    monkeypatch.setenv("MOSAICOD_STORE_BUCKET", s3.new_bucket())
    for variable, value in {**SECRETS, "MOSAICOD_STORE_ACCESS_KEY": s3.access_key}.items():
        monkeypatch.setenv(variable, value)
    refused = lakehouse("sequences", *DEBUG)
    assert refused.returncode == 1
    assert "the object store refuses" in refused.stderr
    shown = lakehouse("info", *DEBUG)
    assert s3.endpoint in shown.stdout
    for secret in (*SECRETS.values(), s3.access_key):
        assert secret not in refused.stdout + refused.stderr + shown.stdout + shown.stderr


@pytest.mark.parametrize("variable", ["LAKEHOUSE_CATALOG_TOKEN", "LAKEHOUSE_CATALOG_CREDENTIAL"])
def test_no_command_shows_what_a_catalog_refuses(
    lakehouse: Run, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    secret = SECRETS[variable].rpartition(":")[2]
    with refusing_catalog() as catalog:
        monkeypatch.setenv("LAKEHOUSE_CATALOG_URI", catalog.uri)
        monkeypatch.setenv(variable, SECRETS[variable])
        outcomes = [lakehouse(*each, *DEBUG) for each in (["info"], ["sql", "SELECT 1 FROM imu.front"], ["cleanup"])]
        assert secret in catalog.shown, "it was really used"
    assert [outcome.returncode for outcome in outcomes] == [0, 1, 1]
    for outcome in outcomes:
        assert secret not in outcome.stdout + outcome.stderr
        assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize(
    ("credential", "secret"),
    [
        ("somebody:one:two/three=", "one:two/three="),
        ("one/two three=", "one/two three="),
        ("somebody:secret", "secret"),
    ],
)
def test_logs_hide_secrets_also_as_they_are_in_addresses_and_forms(
    monkeypatch: pytest.MonkeyPatch, credential: str, secret: str
) -> None:
    monkeypatch.setenv("LAKEHOUSE_CATALOG_CREDENTIAL", credential)
    monkeypatch.setenv("MOSAICOD_DB_URL", "postgresql://robot:hunter%2F2%40db@127.0.0.1:1/lake")
    for shown in (secret, quote(secret, safe=""), quote_plus(secret), "hunter/2@db", "hunter%2F2%40db"):
        record = logging.makeLogRecord({"msg": f"refused <{shown}>"})
        assert WithoutSecrets(logging.Formatter("%(message)s")).format(record) == "refused <***>"


def test_settings_do_not_show_secrets_when_printed_and_refuse_them_in_the_endpoint(tmp_path: Path) -> None:
    url = f"postgresql://robot:{PASSWORD}@db/lake"
    settings = Settings.load(home=tmp_path, db_url=url, store_secret_key="secret-key-of-the-store")
    assert settings.database_name == "postgresql+psycopg://robot:***@db/lake"
    for shown in (repr(settings), str(settings)):
        assert PASSWORD not in shown
        assert "secret-key" not in shown
    with pytest.raises(ConfigurationError, match="must not contain credentials") as refused:
        Settings.load(store_endpoint=f"https://me:{PASSWORD}@s3.example.org")
    assert PASSWORD not in str(refused.value)
    with pytest.raises(ConfigurationError, match="must not contain credentials") as refused:
        Settings.load(catalog_uri=f"https://me:{PASSWORD}@catalog.example.org")
    assert PASSWORD not in str(refused.value)
