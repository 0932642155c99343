"""TLS from two PEM files, which may be renewed at any time: every new connection gets what lies there then."""

import logging
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path

import grpc

from lakehouse.catalog.errors import ConfigurationError
from lakehouse.catalog.settings import Settings

CERTIFICATE_VARIABLE = "MOSAICOD_TLS_CERT_FILE"
PRIVATE_KEY_VARIABLE = "MOSAICOD_TLS_PRIVATE_KEY_FILE"

_log = logging.getLogger(__name__)
# What tells one version of a file from the next: renewals replace files, or the directory behind a symbolic link.
_State = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where the certificate (with its chain) and its private key lie, both PEM."""

    certificate: Path
    private_key: Path

    @classmethod
    def of_settings(cls, settings: Settings) -> "TlsFiles":
        """The files that the settings name.

        Raises:
            ConfigurationError: If one is not named.
        """
        if not settings.tls_cert_file or not settings.tls_private_key_file:
            raise ConfigurationError(f"TLS needs two PEM files: set {CERTIFICATE_VARIABLE} and {PRIVATE_KEY_VARIABLE}")
        return cls(Path(settings.tls_cert_file), Path(settings.tls_private_key_file))


class RenewedCredentials:
    """Credentials of a server that follow the files.

    Files that do not fit together, as in the middle of a renewal, change nothing until they do.
    """

    def __init__(self, files: TlsFiles) -> None:
        """Read the files.

        Raises:
            ConfigurationError: If one is missing, is no PEM, or they do not belong together.
        """
        self._files = files
        self._lock = threading.Lock()
        self._seen = self._state()
        self._current = self._read()

    def for_server(self) -> grpc.ServerCredentials:
        """What gRPC asks for at every new connection."""
        return grpc.dynamic_ssl_server_credentials(self._current, self._latest)

    def _latest(self) -> grpc.ServerCertificateConfiguration:
        # Called by gRPC for every new connection; an exception here would refuse it.
        with self._lock:
            try:
                state = self._state()
                if state != self._seen:
                    self._seen = state
                    self._current = self._read()
                    _log.info("the TLS certificate was renewed")
            except ConfigurationError as error:
                _log.warning("the renewed TLS certificate is not used: %s", error.message)
            return self._current

    def _state(self) -> _State:
        return tuple(
            (state.st_ino, state.st_size, state.st_mtime_ns)
            for variable, path in self._named_paths()
            for state in [_readable(variable, path).stat()]
        )

    def _read(self) -> grpc.ServerCertificateConfiguration:
        certificate, key = (_content(variable, path) for variable, path in self._named_paths())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self._files.certificate, self._files.private_key, password=_no_password)
        except (ssl.SSLError, ValueError, OSError) as error:
            reason = error.reason if isinstance(error, ssl.SSLError) else None
            explanation = _REASONS.get(reason or "", "they are no certificate and unencrypted private key in PEM form")
            raise ConfigurationError(f"{CERTIFICATE_VARIABLE}, {PRIVATE_KEY_VARIABLE}: {explanation}") from None
        return grpc.ssl_server_certificate_configuration([(key, certificate)])

    def _named_paths(self) -> list[tuple[str, Path]]:
        return [(CERTIFICATE_VARIABLE, self._files.certificate), (PRIVATE_KEY_VARIABLE, self._files.private_key)]


_REASONS = {"KEY_VALUES_MISMATCH": "the private key does not belong to the certificate"}


def _no_password() -> bytes:
    """OpenSSL would ask on the terminal otherwise."""
    return b""


def _readable(variable: str, path: Path) -> Path:
    if not path.is_file():
        raise ConfigurationError(f"{variable}: there is no such file")
    return path


def _content(variable: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{variable}: the file cannot be read: {error.strerror}") from None
