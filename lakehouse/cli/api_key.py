"""`lakehouse api-key`: who may call a gateway that was started with `--api-key`."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from lakehouse.catalog.errors import BadRequestError, NotFoundError
from lakehouse.cli.formatting import human_time, wide_console
from lakehouse.cli.help_style import App

if TYPE_CHECKING:
    from lakehouse.catalog.access.api_keys import ApiKeyRecord, ApiKeys

Fingerprint = Annotated[str, typer.Argument(metavar="FINGERPRINT", help="The last eight characters of the key.")]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]

app = App(
    help=(
        "Create, list and revoke the keys that callers of the gateway need.\n\n"
        "A gateway asks for them when it was started with `lakehouse run --api-key`. Keys are named by their "
        "fingerprint, the last eight characters. Changes hold at once in all gateways of the same database."
    ),
)


@app.command("create")
def create(
    permissions: Annotated[
        str,
        typer.Option(
            metavar="read|write|delete|manage",
            help=(
                "What the key allows. A single word includes those before it; several, joined by '|', are taken "
                "as they are."
            ),
        ),
    ] = "read",
    exact: Annotated[
        bool, typer.Option("--exact", help="Take a single permission as it is too: `delete` then cannot read.")
    ] = False,
    description: Annotated[str, typer.Option("--description", "-d", help="What the key is for.")] = "",
    expires_in: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="End of the key, as ISO 8601 duration from now: P30D, PT12H, P1Y."),
    ] = None,
    expires_at: Annotated[
        str | None,
        typer.Option(metavar="INSTANT", help="End of the key, as RFC 3339: 2027-01-31T12:00:00Z, or a date alone."),
    ] = None,
) -> None:
    """Make a key and print it, once: only a hash of it is stored.

    Standard output holds the key and nothing else. Clients send it with every call; the SDK does so after
    `MosaicoClient.connect(..., api_key=...)` or with MOSAICO_API_KEY in its environment.
    """
    from lakehouse.catalog.access import expiry
    from lakehouse.catalog.access.permissions import parse_permissions

    now_ns = time.time_ns()
    granted = parse_permissions(permissions, exact=exact)
    if expires_in is not None and expires_at is not None:
        raise BadRequestError("--expires-in and --expires-at exclude one another")
    expires_at_ns = None
    if expires_in is not None:
        expires_at_ns = expiry.expires_in(expires_in, now_ns)
    elif expires_at is not None:
        expires_at_ns = expiry.expires_at(expires_at, now_ns)
    with _api_keys() as keys:
        token, record = keys.create(granted, description, expires_at_ns)
    for name, value in _described(record, now_ns).items():
        typer.echo(f"{name:<12} {value}", err=True)
    typer.echo(token.reveal())


@app.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """List all keys that were not revoked, the oldest first."""
    with _api_keys() as keys:
        records = keys.all()
    if as_json:
        typer.echo(json.dumps([_as_dict(record) for record in records], indent=2))
        return
    if not records:
        typer.echo("No keys: try `lakehouse api-key create`.")
        return
    now_ns = time.time_ns()
    table = Table(*_described(records[0], now_ns), box=None, header_style="bold")
    for record in records:
        table.add_row(*_described(record, now_ns).values())
    wide_console().print(table)


@app.command("status")
def status(fingerprint: Fingerprint, as_json: AsJson = False) -> None:
    """Show one key: what it allows, when it ends, whether it is valid."""
    with _api_keys() as keys:
        record = keys.get(fingerprint)
    if as_json:
        typer.echo(json.dumps(_as_dict(record), indent=2))
        return
    for name, value in _described(record, time.time_ns()).items():
        typer.echo(f"{name:<12} {value}")


@app.command("revoke")
def revoke(
    fingerprints: Annotated[
        list[str], typer.Argument(metavar="FINGERPRINT", help="The last eight characters of each key.")
    ],
) -> None:
    """End keys for good: no call that begins afterwards succeeds with them, in any gateway."""
    missing: list[str] = []
    with _api_keys() as keys:
        for fingerprint in fingerprints:
            try:
                keys.revoke(fingerprint)
            except NotFoundError:
                missing.append(fingerprint)
            else:
                typer.echo(f"revoked {fingerprint}")
    if missing:
        raise NotFoundError("API key", " ".join(missing))


@app.command("purge")
def purge(
    everything: Annotated[bool, typer.Option("--all", "-A", help="Remove all keys, valid ones too.")] = False,
) -> None:
    """Remove the keys that have expired."""
    with _api_keys() as keys:
        removed = keys.purge(everything=everything)
    for fingerprint in removed:
        typer.echo(f"removed {fingerprint}")
    if not removed:
        typer.echo("Nothing to remove.")


@contextmanager
def _api_keys() -> "Iterator[ApiKeys]":
    """The keys of the lake. Only its database is opened: a key can be revoked while the object store is down."""
    # Imported when the command runs: the libraries behind it take a second, `--help` should not.
    from lakehouse.catalog.access.api_keys import ApiKeys
    from lakehouse.catalog.control_plane.migrate import open_database
    from lakehouse.catalog.settings import Settings

    database = open_database(Settings.load())
    try:
        yield ApiKeys(database)
    finally:
        database.close()


def _described(record: "ApiKeyRecord", now_ns: int) -> dict[str, str]:
    from lakehouse.catalog.access.permissions import format_permissions

    return {
        "fingerprint": record.fingerprint,
        "permissions": format_permissions(record.permissions),
        "state": "expired" if record.has_expired(now_ns) else "valid",
        "created": human_time(record.created_at_ns),
        "expires": "never" if record.expires_at_ns is None else human_time(record.expires_at_ns),
        "description": record.description or "-",
    }


def _as_dict(record: "ApiKeyRecord") -> dict[str, object]:
    from lakehouse.catalog.access.permissions import LADDER

    return {
        "fingerprint": record.fingerprint,
        "permissions": [permission for permission in LADDER if permission in record.permissions],
        "expired": record.has_expired(time.time_ns()),
        "created_at_ns": record.created_at_ns,
        "expires_at_ns": record.expires_at_ns,
        "description": record.description,
    }
