"""A real S3 server for tests: versitygw, which keeps each object as a file below a directory.

Chosen because it is one small program, stores to disk, and speaks what object stores are used for here: multipart
uploads, listing, ranges and conditional requests.
"""

import contextlib
import itertools
import os
import re
import secrets
import signal
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pyarrow.fs import S3FileSystem

from engines.install import ensure
from engines.processes import server_process
from tests.processes import die_with_parent, free_port

START_TIMEOUT_S = 30
# A line of the server's access log, in the format of AWS's own server access logs.
_LOGGED = re.compile(
    r" (?:s3_)?(?P<operation>[A-Z]\w+) (?P<key>\S+) (?P<path>/\S*) (?P<status>\d{3}) \S+ (?P<sent>\d+) "
)
_numbers = itertools.count()


@dataclass(frozen=True)
class Request:
    """One request that the server answered.

    Attributes:
        operation: Such as GetObject.
        path: Bucket and key.
        sent: Bytes of the answer.
    """

    operation: str
    path: str
    status: int
    sent: int


@dataclass(frozen=True)
class S3Server:
    """A running server.

    Attributes:
        port: On 127.0.0.1.
        root: Its directory; `root / BUCKET / KEY` is an object's file.
        access_key, secret_key: Of its only user.
        scheme: http or https.
    """

    port: int
    root: Path
    access_key: str
    secret_key: str
    region: str = "us-east-1"
    scheme: str = "http"

    @property
    def endpoint(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def file_system(self) -> S3FileSystem:
        return S3FileSystem(
            access_key=self.access_key,
            secret_key=self.secret_key,
            endpoint_override=f"127.0.0.1:{self.port}",
            scheme=self.scheme,
            region=self.region,
            allow_bucket_creation=True,
        )

    def new_bucket(self) -> str:
        """Create an empty bucket that nobody else in this process or another gets."""
        name = f"lake-{os.getpid()}-{next(_numbers)}"
        (self.root / name).mkdir()
        return name

    def requests(self, bucket: str = "") -> list[Request]:
        """All requests so far, or those about one bucket. Lines appear a moment after their answers."""
        log, size = self.root.with_name("access.log"), -1
        while size != (size := log.stat().st_size):
            time.sleep(0.2)
        found = [match.groupdict() for line in log.read_text().splitlines() if (match := _LOGGED.search(line))]
        requests = [Request(each["operation"], each["path"], int(each["status"]), int(each["sent"])) for each in found]
        return [request for request in requests if request.path.startswith(f"/{bucket}")]

    @contextlib.contextmanager
    def counted(self, bucket: str) -> Iterator[list[Request]]:
        """A list that holds, after the block, the requests about a bucket that were answered inside."""
        before, inside = len(self.requests(bucket)), list[Request]()
        yield inside
        inside += self.requests(bucket)[before:]

    def settings(self, bucket: str) -> dict[str, str]:
        """Settings, by the names of `Settings`, of a lake whose warehouse is the bucket."""
        return {
            "store_endpoint": self.endpoint,
            "store_bucket": bucket,
            "store_access_key": self.access_key,
            "store_secret_key": self.secret_key,
        }


@contextlib.contextmanager
def s3_server(
    root: Path | None = None,
    *,
    port: int | None = None,
    region: str = "us-east-1",
    certificate: tuple[Path, Path] | None = None,
    keys: tuple[str, str] | None = None,
) -> Iterator[S3Server]:
    """Run a server until the end of the block; it goes down with this process even if that is killed.

    Args:
        root: Where it keeps objects; None: a temporary directory that is removed afterwards.
        port: On 127.0.0.1; None: any free one.
        region: What requests must be signed for.
        certificate: Files with certificate and private key, for https.
        keys: Access and secret key; None: new ones.
    """
    with contextlib.ExitStack() as stack:
        if root is None:
            directory = tempfile.TemporaryDirectory(prefix="lakehouse-s3-", ignore_cleanup_errors=True)
            root = Path(stack.enter_context(directory))
        access_key, secret_key = keys or (f"key{secrets.token_hex(8)}", secrets.token_hex(20))
        server = S3Server(
            port or free_port(), root / "objects", access_key, secret_key, region, "https" if certificate else "http"
        )
        server.root.mkdir(parents=True, exist_ok=True)
        command = [str(ensure("s3-server") / "versitygw"), "--port", f"127.0.0.1:{server.port}", "--region", region]
        # No --keep-alive: with it, this version now and then misreads a request that follows another (`Expect: 100`).
        command += ["--quiet", "--access-log", str(root / "access.log")]
        if certificate:
            command += ["--cert", str(certificate[0]), "--key", str(certificate[1])]
        command += ["posix", *_metadata_options(root), str(server.root)]
        environment: Mapping[str, str] = {
            **os.environ,
            "ROOT_ACCESS_KEY": access_key,
            "ROOT_SECRET_KEY": secret_key,
        }
        running = server_process(
            "the S3 server",
            command,
            log=root / "server.log",
            is_ready=lambda: _is_listening(server.port),
            start_timeout_s=START_TIMEOUT_S,
            environment=environment,
            before_start=die_with_parent(signal.SIGKILL),
        )
        stack.enter_context(running)
        yield server


def _metadata_options(root: Path) -> list[str]:
    """Where it keeps what is no content: in extended attributes, or beside the objects where those do not work."""
    probe = root / "probe"
    probe.touch()
    try:
        os.setxattr(probe, "user.probe", b"1")
    except OSError:
        (root / "metadata").mkdir(exist_ok=True)
        return ["--sidecar", str(root / "metadata")]
    finally:
        probe.unlink()
    return []


def _is_listening(port: int) -> bool:
    socket.create_connection(("127.0.0.1", port), timeout=1).close()
    return True
