"""`lakehouse run`: starting, stopping and restarting the gateway as a process."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mosaicolabs import Integer32, Message, MosaicoClient
from pyarrow import flight

from tests.certificates import issue
from tests.flight_gateway.raw_client import SERVICE, RawClient, plain_batch, upload_messages
from tests.processes import free_port

LAKEHOUSE = str(Path(sys.executable).with_name("lakehouse"))


def environment(home: Path, **extra: str) -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("LAKEHOUSE_", "MOSAICOD_"))}
    return inherited | {"LAKEHOUSE_HOME": str(home), "LAKEHOUSE_STATUS_PORT": "0"} | extra


@contextmanager
def running(home: Path, port: int, *options: str, **extra: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [LAKEHOUSE, "run", "--port", str(port), *options]
    with (home / "log").open("ab") as log:
        process = subprocess.Popen(command, env=environment(home, **extra), cwd=home, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while b"listens on" not in (home / "log").read_bytes():
            assert process.poll() is None, (home / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        (home / "log").rename(home / f"log-{process.pid}")


def test_an_acknowledged_upload_survives_a_kill_and_can_be_finalized_afterwards(tmp_path: Path, name: str) -> None:
    port, status_port = free_port(), free_port()
    with running(tmp_path, port, LAKEHOUSE_STATUS_PORT=str(status_port)) as process:
        for page in ("health", "ready", "metrics"):
            with urllib.request.urlopen(f"http://127.0.0.1:{status_port}/{page}", timeout=30) as response:
                assert response.status == 200
        raw = RawClient(port)
        topic = raw.new_topic(name)
        raw.upload(topic, plain_batch(1, 2, 3))
        process.kill()
        raw.close()
    with running(tmp_path, port):
        raw = RawClient(port)
        assert raw.action("session_finalize", session_uuid=topic.session_uuid) is None
        endpoint = raw.describe(topic.locator).endpoints[0]
        assert json.loads(endpoint.app_metadata)["data_info"]["total_row_count"] == 3
        assert len(raw.get(endpoint.ticket.ticket)) == 2
        raw.close()


@pytest.mark.parametrize("stop_signal", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_gracefully(tmp_path: Path, name: str, stop_signal: signal.Signals) -> None:
    port = free_port()
    with running(tmp_path, port, "--log-format", "json") as process:
        raw = RawClient(port)
        topic = raw.new_topic(name)
        messages = upload_messages(topic, plain_batch(1, 2))

        def ending_after_the_signal() -> Iterator[bytes]:
            yield messages[0]
            process.send_signal(stop_signal)
            time.sleep(1)
            yield from messages[1:]

        assert list(raw.channel.stream_stream(SERVICE + "DoPut")(ending_after_the_signal())) == []
        assert process.wait(timeout=60) == 0
        lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
        raw.close()
    assert lines[0]["message"].endswith(f"{tmp_path / 'lakehouse.db'}")
    assert f"127.0.0.1:{port}" in lines[0]["message"]
    assert lines[-1]["message"] == "stopped"
    assert {line["level"] for line in lines} == {"info"}


def run_until_it_fails(home: Path, *options: str, **extra: str) -> str:
    finished = subprocess.run(
        [LAKEHOUSE, "run", *options], env=environment(home, **extra), cwd=home, capture_output=True, timeout=120
    )
    assert finished.returncode == 1
    (line,) = finished.stderr.decode().splitlines()
    assert line.startswith("error: ")
    return line


def test_an_encrypted_gateway_with_keys_is_found_through_the_environment(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the pages for operators have it: certificate files, a key of the command line, variables of the client."""
    files, port = issue(tmp_path / "tls"), free_port()
    tls = {"MOSAICOD_TLS_CERT_FILE": str(files.certificate), "MOSAICOD_TLS_PRIVATE_KEY_FILE": str(files.private_key)}
    create = [LAKEHOUSE, "api-key", "create", "--permissions", "write", "-d", "recorder"]
    key = subprocess.run(create, env=environment(tmp_path), cwd=tmp_path, capture_output=True, check=True, text=True)
    with running(tmp_path, port, "--tls", "--api-key", **tls):
        assert f"grpc+tls://127.0.0.1:{port}" in (tmp_path / "log").read_text()
        for variables in (
            {},
            {"MOSAICO_TLS_CERT_FILE": str(files.authority)},
            {"MOSAICO_API_KEY": key.stdout.strip()},
            {"MOSAICO_TLS_CERT_FILE": str(issue(tmp_path / "other").authority), "MOSAICO_API_KEY": key.stdout.strip()},
        ):
            with monkeypatch.context() as patch:
                _only(patch, variables)
                with pytest.raises(ConnectionError):
                    MosaicoClient.from_env("localhost", port, timeout=0)
        _only(monkeypatch, {"MOSAICO_TLS_CERT_FILE": str(files.authority), "MOSAICO_API_KEY": key.stdout.strip()})
        with MosaicoClient.from_env("localhost", port) as client:
            with client.sequence_create(name, {}) as writer:
                writer.topic_create("count", {}, Integer32).push(Message(timestamp_ns=1, data=Integer32(data=7)))
            handler = client.topic_handler(name, "count")
            assert handler is not None
            assert [message.data.data for message in handler.get_data_streamer()] == [7]
            with pytest.raises(flight.FlightUnauthorizedError):
                client.sequence_delete(name)
    (log,) = tmp_path.glob("log-*")
    assert key.stdout[5:37] not in log.read_text()


def _only(patch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name in ("MOSAICO_TLS_CERT_FILE", "MOSAICO_API_KEY"):
        patch.delenv(name, raising=False)
    for name, value in variables.items():
        patch.setenv(name, value)


def test_tls_without_its_files_is_an_error_that_names_them(tmp_path: Path) -> None:
    line = run_until_it_fails(tmp_path, "--port", "0", "--tls", MOSAICOD_TLS_CERT_FILE="tls.crt")
    assert "set MOSAICOD_TLS_CERT_FILE and MOSAICOD_TLS_PRIVATE_KEY_FILE" in line


def test_a_taken_port_is_an_error(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port}: the port is taken" in run_until_it_fails(tmp_path, "--port", str(port))


def test_an_unreachable_database_is_an_error_without_its_password(tmp_path: Path) -> None:
    url = f"postgresql://robot:secret@127.0.0.1:{free_port()}/lake"
    line = run_until_it_fails(tmp_path, "--port", "0", MOSAICOD_DB_URL=url)
    assert "database" in line
    assert "secret" not in line


def test_a_malformed_setting_is_named(tmp_path: Path) -> None:
    assert "MOSAICOD_MAX_GRPC_MESSAGE_SIZE" in run_until_it_fails(tmp_path, MOSAICOD_MAX_GRPC_MESSAGE_SIZE="lots")
