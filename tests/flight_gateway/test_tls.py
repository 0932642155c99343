"""Encrypted connections: the SDK over TLS, certificates renewed while the gateway runs, files that are wrong."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from mosaicolabs import MosaicoClient

from lakehouse.catalog.errors import ConfigurationError
from lakehouse.catalog.settings import Settings
from lakehouse.flight_gateway.server import Gateway
from lakehouse.flight_gateway.tls import TlsFiles
from tests.certificates import IssuedFiles, issue
from tests.flight_gateway.conftest import Served
from tests.flight_gateway.raw_client import RawClient, plain_batch


@pytest.fixture
def issued(tmp_path: Path) -> IssuedFiles:
    return issue(tmp_path / "tls")


@pytest.fixture
def encrypted_port(served: Served, issued: IssuedFiles) -> Iterator[int]:
    with Gateway(served.lakehouse, port=0, tls=TlsFiles(issued.certificate, issued.private_key)) as gateway:
        assert gateway.uri.startswith("grpc+tls://127.0.0.1:")
        yield int(gateway.uri.rpartition(":")[2])


def connect(port: int, authority: Path, host: str = "localhost") -> MosaicoClient:
    return MosaicoClient.connect(host, port, timeout=0, tls_cert_path=str(authority))


def test_the_sdk_reads_over_tls_what_was_written(
    raw: RawClient, encrypted_port: int, issued: IssuedFiles, name: str
) -> None:
    topic = raw.new_topic(name)
    raw.upload(topic, plain_batch(*range(1000)))
    raw.action("session_finalize", session_uuid=topic.session_uuid)
    for host in ("localhost", "127.0.0.1"):
        with connect(encrypted_port, issued.authority, host) as client:
            handler = client.topic_handler(name, "imu/front")
            assert handler is not None
            assert sum(1 for _ in handler.get_data_streamer()) == 1000


def test_neither_plain_nor_distrustful_clients_get_in(encrypted_port: int, tmp_path: Path) -> None:
    with pytest.raises(ConnectionError):
        MosaicoClient.connect("localhost", encrypted_port, timeout=0)
    with pytest.raises(ConnectionError):
        connect(encrypted_port, issue(tmp_path / "somebody else's").authority)


def test_a_renewed_certificate_is_used_without_restart(
    encrypted_port: int, issued: IssuedFiles, name: str, tmp_path: Path
) -> None:
    old_authority = tmp_path / "old-ca.crt"
    old_authority.write_bytes(issued.authority.read_bytes())
    with connect(encrypted_port, issued.authority) as before:
        issue(issued.certificate.parent)
        with connect(encrypted_port, issued.authority) as after:
            assert after.list_sequences() == before.list_sequences()
        with pytest.raises(ConnectionError):
            connect(encrypted_port, old_authority)


def test_a_renewal_that_goes_wrong_changes_nothing(
    encrypted_port: int, issued: IssuedFiles, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = issued.private_key.read_bytes()
    breakages = [
        lambda: issued.private_key.write_bytes(issue(tmp_path / "other").private_key.read_bytes()),
        lambda: issued.private_key.write_bytes(b"nonsense"),
        lambda: issued.private_key.unlink(),
    ]
    for number, breakage in enumerate(breakages, start=1):
        breakage()
        with caplog.at_level(logging.WARNING):
            connect(encrypted_port, issued.authority).close()
        assert caplog.text.count("the renewed TLS certificate is not used") >= number
    issued.private_key.write_bytes(key)
    connect(encrypted_port, issued.authority).close()


def test_wrong_files_are_configuration_errors_that_name_the_variable(
    served: Served, issued: IssuedFiles, tmp_path: Path
) -> None:
    text = tmp_path / "text"
    text.write_text("no certificate")
    locked = issue(tmp_path / "locked", password=b"secret")
    other = issue(tmp_path / "other")
    for certificate, key, reason in [
        (tmp_path / "none", issued.private_key, "MOSAICOD_TLS_CERT_FILE: there is no such file"),
        (issued.certificate, tmp_path, "MOSAICOD_TLS_PRIVATE_KEY_FILE: there is no such file"),
        (text, issued.private_key, "no certificate and unencrypted private key in PEM form"),
        (issued.certificate, issued.certificate, "no certificate and unencrypted private key in PEM form"),
        (locked.certificate, locked.private_key, "no certificate and unencrypted private key in PEM form"),
        (issued.certificate, other.private_key, "the private key does not belong to the certificate"),
    ]:
        with pytest.raises(ConfigurationError, match=reason) as refused:
            Gateway(served.lakehouse, port=0, tls=TlsFiles(certificate, key))
        assert str(tmp_path) not in str(refused.value)


def test_tls_without_files_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="set MOSAICOD_TLS_CERT_FILE and MOSAICOD_TLS_PRIVATE_KEY_FILE"):
        TlsFiles.of_settings(Settings.load(home=tmp_path, tls_cert_file="a.pem", tls_private_key_file=""))
