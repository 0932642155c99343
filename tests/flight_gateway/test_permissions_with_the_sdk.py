"""What the official client hears of keys and permissions, call by call (protocol section 4, checklist item 18)."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mosaicolabs import GPS, IMU, MosaicoClient, QueryOntologyCatalog, QuerySequence
from mosaicolabs.query.response import QueryResponseItem
from pyarrow.flight import FlightUnauthorizedError
from sqlalchemy import update

from lakehouse.catalog.access.permissions import Permission, parse_permissions
from lakehouse.catalog.access.tokens import Token
from lakehouse.catalog.control_plane.schema import api_keys
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.records import TopicState
from lakehouse.catalog.settings import Settings
from lakehouse.flight_gateway.authorizer import AllowAll, Authorizer, Headers, KeyRequired
from lakehouse.flight_gateway.server import Gateway
from tests.flight_gateway.test_query_sdk import MILLISECOND, gps, imu

READ, WRITE, DELETE = Permission.READ, Permission.WRITE, Permission.DELETE
ROWS = 20


class LateRequirement:
    """Lets everybody in until keys are required, as a gateway does that is started again with `--api-key`."""

    def __init__(self, lakehouse: Lakehouse) -> None:
        self._required: Authorizer = KeyRequired(lakehouse.api_keys)
        self.requires_keys = True

    def check(self, permission: Permission, headers: Headers) -> str:
        return (self._required if self.requires_keys else AllowAll()).check(permission, headers)


@dataclass(frozen=True)
class Guarded:
    """A gateway that asks for keys."""

    lakehouse: Lakehouse
    authorizer: LateRequirement
    port: int

    def key(self, permissions: str, *, exact: bool = True) -> str:
        return self.lakehouse.api_keys.create(parse_permissions(permissions, exact=exact))[0].reveal()

    def client(self, key: str | None) -> MosaicoClient:
        return MosaicoClient.connect("127.0.0.1", self.port, timeout=0, api_key=key)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    home: Path = tmp_path_factory.mktemp("lake")
    with Lakehouse.open(Settings.load(home=home, db_url="", store_endpoint="")) as lakehouse:
        authorizer = LateRequirement(lakehouse)
        gateway = Gateway(lakehouse, port=0, authorizer=authorizer)
        yield Guarded(lakehouse, authorizer, gateway.start())
        gateway.stop(grace=2)


@pytest.fixture(scope="module")
def admin(guarded: Guarded) -> Iterator[MosaicoClient]:
    with guarded.client(guarded.key("manage", exact=False)) as client:
        yield client


@pytest.fixture
def drive(admin: MosaicoClient, name: str) -> str:
    """A sequence with a finalized session of two topics."""
    with admin.sequence_create(name, {}) as writer:
        front, position = writer.topic_create("imu/front", {}, IMU), writer.topic_create("gps", {}, GPS)
        for tick in range(ROWS):
            front.push(imu(tick, x=float(tick)))
            position.push(gps(tick, satellites=tick))
    return name


def write(client: MosaicoClient, drive: str) -> None:
    with client.sequence_create(f"{drive}-new", {}) as writer:
        writer.topic_create("imu/front", {}, IMU).push(imu(1, x=1.0))


def add_session(client: MosaicoClient, drive: str) -> None:
    with client.sequence_update(drive) as updater:
        updater.topic_create("imu/rear", {}, IMU).push(imu(1, x=1.0))


def fail_while_writing(client: MosaicoClient, drive: str) -> None:
    """The client then leaves notifications at the topic and the sequence."""
    try:
        with client.sequence_create(f"{drive}-failed", {}) as writer:
            writer.topic_create("imu/front", {}, IMU).push(imu(1, x=1.0))
            raise RuntimeError("the recorder broke")
    except RuntimeError:
        return


def found(client: MosaicoClient, drive: str) -> QueryResponseItem:
    response = client.query(
        QuerySequence().with_name(drive),
        QueryOntologyCatalog(IMU.Q.acceleration.x.geq(10.0), GPS.Q.status.satellites.geq(15)),
    )
    assert response is not None
    (item,) = response
    return item


def stream_topic(client: MosaicoClient, drive: str) -> int:
    handler = client.topic_handler(drive, "imu/front")
    assert handler is not None
    return sum(1 for _ in handler.get_data_streamer())


def stream_sequence(client: MosaicoClient, drive: str) -> int:
    handler = client.sequence_handler(drive)
    assert handler is not None
    return sum(1 for _ in handler.get_data_streamer())


Call = Callable[[MosaicoClient, str], object]

# Every call of the client that reaches a server, in an order in which none takes from the next what it needs.
CALLS: list[tuple[Permission, Call]] = [
    (READ, lambda client, drive: client.list_sequences().index(drive)),
    (READ, lambda client, drive: client.sequence_handler(drive)),
    (READ, lambda client, drive: client.topic_handler(drive, "imu/front")),
    (READ, stream_topic),
    (READ, stream_sequence),
    (READ, found),
    (READ, lambda client, drive: found(client, drive).topics[0].clusterize()),
    (READ, lambda client, drive: found(client, drive).clusterize_all()),
    (READ, lambda client, drive: found(client, drive).intersect()),
    (READ, lambda client, drive: client.list_sequence_notifications(drive)),
    (READ, lambda client, drive: client.list_topic_notifications(drive, "imu/front")),
    (WRITE, write),
    (WRITE, add_session),
    (WRITE, fail_while_writing),
    (DELETE, lambda client, drive: client.clear_topic_notifications(drive, "imu/front")),
    (DELETE, lambda client, drive: client.clear_sequence_notifications(drive)),
]


def test_the_calls_do_what_they_say(guarded: Guarded, admin: MosaicoClient, drive: str) -> None:
    """Otherwise it would tell nothing that one is refused."""
    assert (stream_topic(admin, drive), stream_sequence(admin, drive)) == (ROWS, 2 * ROWS)
    for topic in found(admin, drive).topics:
        assert len(topic.clusterize(clustering_dt_ns=MILLISECOND)) == 1
    write(admin, drive)
    add_session(admin, drive)
    fail_while_writing(admin, drive)
    assert stream_sequence(admin, f"{drive}-new") == 1
    assert len(admin.list_sequence_notifications(f"{drive}-failed")) == 1
    admin.clear_sequence_notifications(f"{drive}-failed")
    assert admin.list_sequence_notifications(f"{drive}-failed") == []


@pytest.mark.parametrize("granted", ["read", "write", "delete", "manage", "read|delete", "write|delete"])
def test_an_exact_key_opens_its_calls_and_is_told_that_it_may_not_do_the_others(
    guarded: Guarded, admin: MosaicoClient, drive: str, granted: str
) -> None:
    handler = admin.sequence_handler(drive)
    assert handler is not None
    session = handler.sessions[0].locator
    guarded.lakehouse.sequences.create(f"{drive}-doomed")
    permissions = parse_permissions(granted, exact=True)
    calls = [
        *CALLS,
        (DELETE, lambda client, _: client.session_delete(session)),
        (DELETE, lambda client, drive: client.sequence_delete(f"{drive}-doomed")),
    ]
    with guarded.client(guarded.key(granted)) as client:
        for permission, call in calls:
            if permission in permissions:
                call(client, drive)
            else:
                with pytest.raises(FlightUnauthorizedError, match=f"lacks the permission '{permission}'"):
                    call(client, drive)
        assert client.sequence_exists(drive) == (READ in permissions)
        assert client.topic_exists(drive, "imu/front") == ({READ} <= permissions and DELETE not in permissions)
    for name, exists in {
        f"{drive}-new": WRITE in permissions,
        f"{drive}-failed": WRITE in permissions,
        f"{drive}-doomed": DELETE not in permissions,
    }.items():
        assert (name in guarded.lakehouse.sequences.names()) == exists, name


def assert_every_call_is_refused(client: MosaicoClient, drive: str, reason: str) -> None:
    for _, call in CALLS:
        with pytest.raises(FlightUnauthorizedError, match=reason):
            call(client, drive)
    for destructive in (client.sequence_delete, client.session_delete):
        with pytest.raises(FlightUnauthorizedError, match=reason):
            destructive(drive)
    assert not client.sequence_exists(drive)
    assert not client.topic_exists(drive, "imu/front")


CREDENTIALS = {
    "none": (None, "an API key is missing"),
    "unknown": (Token.generate().reveal(), "does not exist"),
    "malformed": ("hunter2", "the API key is malformed"),
    "cut off": (Token.generate().reveal()[:-1], "the API key is malformed"),
}


@pytest.mark.parametrize("credential", CREDENTIALS)
def test_without_a_valid_key_every_call_is_unauthorized_and_none_says_not_found(
    guarded: Guarded, drive: str, credential: str
) -> None:
    key, reason = CREDENTIALS[credential]
    with pytest.raises(ConnectionError, match=f"Unauthorized: .*{reason}"):
        guarded.client(key)
    guarded.authorizer.requires_keys = False
    try:
        client = guarded.client(key)
        assert client.sequence_exists(drive)
    finally:
        guarded.authorizer.requires_keys = True
    with client:
        assert_every_call_is_refused(client, drive, reason)
    assert guarded.lakehouse.sequences.get(drive)


def end(guarded: Guarded, key: str, how: str) -> None:
    fingerprint = key[-8:]
    if how == "revoked":
        guarded.lakehouse.api_keys.revoke(fingerprint)
        return
    with guarded.lakehouse.database.transaction() as connection:
        is_it = api_keys.c.fingerprint == fingerprint
        connection.execute(update(api_keys).where(is_it).values(expires_at_ns=time.time_ns()))


def write_until_the_key_ends(
    guarded: Guarded, client: MosaicoClient, topic: TopicLocator, end_key: Callable[[], None]
) -> None:
    """The key ends when the upload was let in, and before the session is finalized."""
    with client.sequence_create(topic.sequence, {}) as writer:
        writer.topic_create(topic.path, {}, IMU).push(imu(1, x=1.0))
        while guarded.lakehouse.topics.get(topic).state is not TopicState.UPLOADING:
            time.sleep(0.01)
        end_key()


@pytest.mark.parametrize(("how", "reason"), [("revoked", "does not exist"), ("expired", "has expired")])
def test_a_key_that_ends_while_its_client_is_connected_ends_everything_the_client_holds(
    guarded: Guarded, drive: str, how: str, reason: str
) -> None:
    key, begun = guarded.key("manage", exact=False), TopicLocator(f"{drive}-new", "imu/front")
    with guarded.client(key) as client:
        handler, topic = client.sequence_handler(drive), client.topic_handler(drive, "imu/front")
        item = found(client, drive)
        assert handler is not None
        assert topic is not None
        running = topic.get_data_streamer()
        # The client wraps what it hears when it finalizes.
        with pytest.raises(Exception, match=f"unauthorized error, with message: Unauthorized: .*{reason}"):
            write_until_the_key_ends(guarded, client, begun, lambda: end(guarded, key, how))
        assert sum(1 for _ in running) == ROWS, "a stream that is running goes on to its end"
        for held in (handler, topic):
            # And when it opens a stream.
            with pytest.raises(ConnectionError, match=reason):
                held.get_data_streamer()
        with pytest.raises(FlightUnauthorizedError, match=reason):
            handler.reload()
        for ask in (item.topics[0].clusterize, item.intersect):
            with pytest.raises(FlightUnauthorizedError, match=reason):
                ask()
        client.clear_sequence_handlers_cache()
        client.clear_topic_handlers_cache()
        assert_every_call_is_refused(client, drive, reason)
    with pytest.raises(ConnectionError, match=reason):
        guarded.client(key)
    # The upload had begun in time; what it brought waits for somebody who may finalize it.
    uploaded = guarded.lakehouse.topics.get(begun)
    assert (uploaded.row_count, uploaded.session_is_finalized) == (1, False)
