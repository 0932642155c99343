"""Passwords of the database and the store are in no listing and in no error text."""

from pathlib import Path

import pytest

from lakehouse.catalog.errors import ConfigurationError
from lakehouse.catalog.settings import Settings
from tests.cli.conftest import Run

PASSWORD = "hunter2-of-the-database"
SECRETS = {
    "MOSAICOD_STORE_ACCESS_KEY": "access-key-of-the-store",
    "MOSAICOD_STORE_SECRET_KEY": "secret-key-of-the-store",
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
