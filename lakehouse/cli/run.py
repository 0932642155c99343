"""`lakehouse run`: serve the lake over Arrow Flight until told to stop."""

import ipaddress
import logging
import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from lakehouse import __version__
from lakehouse.catalog.errors import ConfigurationError, StorageError
from lakehouse.flight_gateway import DEFAULT_HOST, DEFAULT_PORT

if TYPE_CHECKING:
    from lakehouse.catalog.lakehouse import Lakehouse
    from lakehouse.catalog.settings import Settings
    from lakehouse.flight_gateway.server import Gateway
    from lakehouse.flight_gateway.status_server import StatusServer

# How long running calls may go on after the signal to stop; below the 30 s that orchestrators usually wait.
GRACE_SECONDS = 10.0
TLS_VARIABLES = "MOSAICOD_TLS_CERT_FILE and MOSAICOD_TLS_PRIVATE_KEY_FILE"

_log = logging.getLogger("lakehouse.run")


def run(
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = DEFAULT_HOST,
    port: Annotated[
        int, typer.Option(metavar="PORT", help="Port to listen on; 0 picks a free one.", min=0, max=65535)
    ] = DEFAULT_PORT,
    tls: Annotated[bool, typer.Option("--tls", help=f"Encrypt, with the PEM files that {TLS_VARIABLES} name.")] = False,
    api_key: Annotated[
        bool, typer.Option("--api-key", help="Ask every caller for an API key; see `lakehouse api-key`.")
    ] = False,
) -> None:
    """Serve the lake over Arrow Flight until SIGTERM or Ctrl-C.

    Clients connect with the official SDK: `MosaicoClient.connect("127.0.0.1", 6726)`. To be reached from other
    machines, listen on `--host 0.0.0.0`. Unless `--api-key` asks for keys, everybody who reaches it may do everything.
    Running calls get ten seconds to end when the gateway stops.
    """
    # Imported when the command runs: the libraries behind it take a second, `--help` should not.
    from lakehouse.catalog.settings import Settings
    from lakehouse.flight_gateway.authorizer import AllowAll, KeyRequired
    from lakehouse.flight_gateway.server import Gateway
    from lakehouse.flight_gateway.tls import TlsFiles

    settings = Settings.load()
    stopped = _stop_signal()
    with _opened(settings) as lakehouse:
        if resumed := lakehouse.recovery.resume_all():
            _log.info("%d interrupted commits were carried through", resumed)
        if settings.gateway_contract_policy != "report":
            from lakehouse.contracts.gate import guard

            guard(lakehouse, settings.gateway_contract_policy)
        authorizer = KeyRequired(lakehouse.api_keys) if api_key else AllowAll()
        gateway = Gateway(lakehouse, host, port, authorizer, tls=TlsFiles.of_settings(settings) if tls else None)
        gateway.start()
        status = status_server(gateway, lakehouse)
        lakehouse.maintenance.start()
        if api_key and not tls and not _is_loopback(host):
            _log.warning("keys and data travel unencrypted: add --tls, or a proxy that encrypts")
        if api_key and not lakehouse.api_keys.all():
            _log.warning("there is no API key yet, so nobody can call: see `lakehouse api-key create`")
        _log.info(
            "lakehouse %s listens on %s; data in %s, database %s",
            __version__,
            gateway.uri,
            settings.warehouse_uri,
            settings.database_name,
        )
        stopped.wait()
        if status is not None:
            status.announce_stop()
        _log.info("stopping: running calls have %g seconds to end", GRACE_SECONDS)
        gateway.stop(GRACE_SECONDS)
        if status is not None:
            status.stop()
    _log.info("stopped")


def _opened(settings: "Settings") -> "Lakehouse":
    from lakehouse.catalog.lakehouse import Lakehouse

    try:
        return Lakehouse.open(settings)
    except StorageError as error:
        raise ConfigurationError(
            f"the lake cannot be opened: {error.message} (database {settings.database_name}, "
            f"warehouse {settings.warehouse_uri})"
        ) from error


def status_server(gateway: "Gateway", lakehouse: "Lakehouse") -> "StatusServer | None":
    """Health and metrics, unless they are turned off.

    Raises:
        ConfigurationError: If the port that was asked for is taken. The default port is nobody's wish: the gateway
            then serves without.
    """
    from lakehouse.flight_gateway.readiness import Readiness
    from lakehouse.flight_gateway.status_server import StatusServer

    settings = lakehouse.settings
    if settings.status_port == 0:
        return None
    server = StatusServer(gateway.metrics, Readiness(lakehouse), settings.status_host, settings.status_port)
    try:
        port = server.start()
    except ConfigurationError as error:
        if "status_port" in settings.model_fields_set:
            raise
        _log.warning("no health page, no metrics: %s", error.message)
        return None
    _log.info("health and metrics at http://%s:%d/health, /ready, /metrics", settings.status_host, port)
    return server


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _stop_signal() -> threading.Event:
    """An event set by the first SIGTERM or SIGINT; a second one ends the process at once."""
    stopped = threading.Event()

    def stop(signal_number: int, frame: FrameType | None) -> None:
        signal.signal(signal_number, signal.SIG_DFL)
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    return stopped
