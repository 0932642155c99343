"""Named leases: one owner at a time, over all processes; an owner that dies is replaced when its lease expires."""

import os
import socket
import threading
import time
import uuid

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.schema import leases

NANOSECONDS = 1_000_000_000


class Lease:
    """One name, wanted by one owner.

    Leases keep work from being done twice; they are no locks. Whatever is done under one must stay safe if the owner is
    stopped for so long that another takes over.
    """

    def __init__(self, database: Database, name: str, duration_s: float = 60.0) -> None:
        self._database = database
        self._name = name
        self._duration_ns = int(duration_s * NANOSECONDS)
        # Who: a person reading the table finds the process; the rest makes it unique.
        self.owner = f"{socket.gethostname()[:24]}:{os.getpid()}:{threading.get_native_id()}:{uuid.uuid4().hex[:8]}"

    def hold(self) -> bool:
        """Take the lease, or extend it; False if somebody else holds it."""
        now_ns = time.time_ns()
        values = {"owner": self.owner, "expires_at_ns": now_ns + self._duration_ns}
        with self._database.transaction() as connection:
            mine_or_expired = (leases.c.owner == self.owner) | (leases.c.expires_at_ns < now_ns)
            renewed = connection.execute(
                update(leases).where(leases.c.name == self._name, mine_or_expired).values(values)
            )
            return renewed.rowcount == 1 or (not self._exists(connection) and self._insert(connection, values))

    def release(self) -> None:
        """Give the lease up; nothing happens if it is somebody else's by now."""
        with self._database.transaction() as connection:
            connection.execute(delete(leases).where(leases.c.name == self._name, leases.c.owner == self.owner))

    def _exists(self, connection: Connection) -> bool:
        return connection.execute(select(leases.c.name).where(leases.c.name == self._name)).first() is not None

    def _insert(self, connection: Connection, values: dict[str, object]) -> bool:
        try:
            with connection.begin_nested():
                connection.execute(insert(leases).values(name=self._name, **values))
        except IntegrityError:
            return False
        return True
