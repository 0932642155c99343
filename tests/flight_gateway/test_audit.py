"""What is done through the gateway is in the audit log with the caller's address."""

from mosaicolabs import MosaicoClient

from lakehouse.catalog.audit import latest_entries
from tests.flight_gateway.conftest import Served


def test_a_deletion_is_recorded_with_the_address_it_came_from(served: Served, sdk: MosaicoClient, name: str) -> None:
    served.lakehouse.sequences.create(name)
    sdk.sequence_delete(name)
    with served.lakehouse.database.snapshot() as connection:
        (entry,) = latest_entries(connection, limit=5, resource=name)
    assert (entry.operation, entry.actor, entry.door) == ("sequence_delete", "anybody", "gateway")
    assert entry.origin.startswith(("ipv4:127.0.0.1:", "ipv4:127.0.0.1%3A"))
