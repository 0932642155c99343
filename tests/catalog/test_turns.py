"""Processes that commit take turns; whoever holds one up for too long, or dies with it, holds nobody up for ever."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from lakehouse.catalog.activity import Activity
from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.migrate import migrate
from lakehouse.catalog.control_plane.turns import Turns
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.settings import Settings
from tests.catalog.small_lake import SmallLake, child_environment
from tests.catalog.test_metadata_tables import record_session
from tests.forked import ForkedProgram

LONG_S = 600.0
SHORT_S = 0.3
PATHS = ["sensors/imu", "sensors/gps"]


def run_process(tmp_path: Path, database_url: str, *arguments: str) -> ForkedProgram:
    program = ("tests.catalog.committing_process", str(tmp_path), database_url, *arguments)
    return ForkedProgram(*program, environment=child_environment())


@contextmanager
def owner_of_the_turn(tmp_path: Path, database_url: str, longest_silence_s: float = LONG_S) -> Iterator[ForkedProgram]:
    """A process that has taken the turn and keeps it."""
    owner = run_process(tmp_path, database_url, "hold", str(longest_silence_s))
    try:
        while not (tmp_path / "held").exists():
            assert owner.poll() is None
            time.sleep(0.01)
        yield owner
    finally:
        owner.kill()
        owner.wait(60)


def turns_of(lake: SmallLake, patience_s: float) -> None:
    lake.committer.turns = Turns(lake.database, lake.activity, patience_s=patience_s)


def test_processes_that_commit_at_once_stage_nothing_in_vain(
    lake: SmallLake, tmp_path: Path, database_url: str
) -> None:
    tables = [lake.table(path) for path in PATHS]
    arguments = ("5", ",".join(PATHS), str(LONG_S))
    names = [f"process{number}" for number in range(3)]
    with Turns(lake.database, Activity(), longest_silence_s=LONG_S, longest_turn_s=LONG_S).taken():
        processes = [run_process(tmp_path, database_url, "append", name, *arguments) for name in names]
        while not all((tmp_path / f"{name}.ready").exists() for name in names):
            assert all(process.poll() is None for process in processes)
            time.sleep(0.01)
        time.sleep(SHORT_S)  # now they wait at the gate, which is the turn
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    counts = [json.loads((tmp_path / f"{name}.counts").read_text()) for name in names]
    assert [each["commits"] for each in counts] == [5, 5, 5]
    assert [each["commit_turns_missed"] for each in counts] == [0, 0, 0]
    assert [each["commit_conflicts"] for each in counts] == [0, 0, 0]
    assert sum(each["commit_turns_waited_for"] for each in counts) > 0
    assert len(lake.sequences_in(tables[0].identifier)) == 15


def test_a_process_that_wants_turn_after_turn_lets_others_have_theirs(
    lake: SmallLake, tmp_path: Path, database_url: str
) -> None:
    lake.table(PATHS[0])
    other = run_process(tmp_path, database_url, "append", "other", "5", PATHS[0], str(LONG_S))
    while other.poll() is None:
        with lake.committer.turns.taken():
            time.sleep(0.005)
    assert other.wait() == 0
    assert json.loads((tmp_path / "other.counts").read_text())["commit_turns_missed"] == 0


def test_whoever_comes_while_a_process_waits_for_its_turn_shares_the_commit(lake: SmallLake) -> None:
    table = lake.table()
    turns_of(lake, LONG_S)

    def commit(number: int) -> None:
        lake.append(table, f"drive-{number}")

    threads = [threading.Thread(target=commit, args=(number,)) for number in range(8)]
    with Turns(lake.database, Activity()).taken():
        for thread in threads:
            thread.start()
        while len(lake.committer._waiting) < len(threads):
            time.sleep(0.01)
    for thread in threads:
        thread.join()
    assert lake.sequences_in(table.identifier) == [f"drive-{number}" for number in range(8)]
    assert lake.activity.counts()["commits"] == 1


@contextmanager
def interrupted_when(condition: Callable[[], bool]) -> Iterator[None]:
    """The main thread, as by Ctrl-C, some time after the condition has come true."""

    def interrupt() -> None:
        while not condition():
            time.sleep(0.01)
        time.sleep(SHORT_S)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        yield
        time.sleep(60)
        pytest.fail("nothing was interrupted")
    except KeyboardInterrupt:
        pass
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)


def test_what_is_interrupted_before_its_turn_is_never_committed(lake: SmallLake) -> None:
    table = lake.table()
    turns_of(lake, LONG_S)
    with Turns(lake.database, Activity()).taken():
        with interrupted_when(lambda: len(lake.committer._waiting) >= 1):
            lake.append(table, "interrupted as leader")
        turns_of(lake, LONG_S)
        other = threading.Thread(target=lake.append, args=(table, "other"))
        other.start()
        while len(lake.committer._waiting) < 1:
            time.sleep(0.01)
        with interrupted_when(lambda: len(lake.committer._waiting) >= 2):
            lake.append(table, "interrupted behind a leader")
    other.join()
    # Nor does it keep a turn that came later.
    turns_of(lake, 60.0)
    missed = lake.activity.counts()["commit_turns_missed"]
    lake.append(table, "last")
    assert lake.activity.counts()["commit_turns_missed"] == missed
    assert lake.sequences_in(table.identifier) == ["last", "other"]


def test_a_killed_owner_of_the_turn_lets_others_go_on(lake: SmallLake, tmp_path: Path, database_url: str) -> None:
    table = lake.table()
    turns_of(lake, LONG_S)
    with owner_of_the_turn(tmp_path, database_url) as owner:
        commit = threading.Thread(target=lake.append, args=(table, "drive"))
        commit.start()
        commit.join(SHORT_S)
        assert commit.is_alive(), "it waits for its turn"
        owner.kill()
        commit.join()
    assert lake.sequences_in(table.identifier) == ["drive"]
    assert lake.activity.counts()["commit_turns_missed"] == 0


def test_an_owner_that_hangs_is_passed_when_patience_ends(lake: SmallLake, tmp_path: Path, database_url: str) -> None:
    table = lake.table()
    turns_of(lake, SHORT_S)
    with owner_of_the_turn(tmp_path, database_url) as owner:
        os.kill(owner.pid, signal.SIGSTOP)
        lake.append(table, "first")
        lake.append(table, "second")
        assert lake.sequences_in(table.identifier) == ["first", "second"]
        assert lake.activity.counts()["commit_turns_missed"] == 2
    # With its end the order is restored, at the latest when who has waited in vain is told of it.
    for number in range(100):
        missed = lake.activity.counts()["commit_turns_missed"]
        lake.append(table, f"third-{number}")
        if lake.activity.counts()["commit_turns_missed"] == missed:
            break
    else:
        pytest.fail("turns do not come any more")


def test_on_postgresql_the_server_ends_the_turn_of_an_owner_that_is_stopped(tmp_path: Path, postgres_url: str) -> None:
    with SmallLake(tmp_path, postgres_url) as lake:
        table = lake.table()
        turns_of(lake, LONG_S)
        with owner_of_the_turn(tmp_path, postgres_url, longest_silence_s=SHORT_S) as owner:
            os.kill(owner.pid, signal.SIGSTOP)
            lake.append(table, "drive")
        assert lake.sequences_in(table.identifier) == ["drive"]
        assert lake.activity.counts()["commit_turns_missed"] == 0


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database(database_url)
    migrate(opened)
    yield opened
    opened.close()


def test_an_owner_that_works_for_long_keeps_its_turn(database: Database) -> None:
    activity = Activity()
    with Turns(database, activity, longest_silence_s=2.0).taken():  # shows life four times as often
        with Turns(database, activity, patience_s=3.0).taken():
            assert activity.counts()["commit_turns_missed"] == 1
        with Turns(database, activity, patience_s=0).taken():
            assert activity.counts()["commit_turns_missed"] == 2
    assert database.connections()[0] == 0


def test_on_postgresql_an_owner_that_comes_to_no_end_gives_its_turn_back(postgres_url: str) -> None:
    database = Database(postgres_url)
    turns = Turns(database, activity := Activity(), longest_silence_s=SHORT_S, longest_turn_s=SHORT_S)
    with turns.taken(), Turns(database, activity, patience_s=LONG_S).taken():
        pass
    with turns.taken():
        assert activity.counts()["commit_turns_missed"] == 0
    assert database.connections()[0] == 0
    database.close()


@pytest.mark.parametrize("longest_silence_s", [SHORT_S, LONG_S])
def test_whoever_loses_the_turn_to_the_server_keeps_its_other_connections(
    postgres_url: str, longest_silence_s: float
) -> None:
    database = Database(postgres_url)
    turns = Turns(database, activity := Activity(), longest_silence_s=longest_silence_s)
    with turns.taken():
        with database.transaction() as connection:
            mine = connection.scalar(text("SELECT pg_backend_pid()"))
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid, 60000) "
                    "FROM pg_locks JOIN pg_database ON database = pg_database.oid "
                    "WHERE locktype = 'advisory' AND datname = current_database()"
                )
            )
        with Turns(database, activity, patience_s=LONG_S).taken():
            time.sleep(SHORT_S)  # whether its owner finds out now or at the end
    with turns.taken(), database.transaction() as connection:
        assert connection.scalar(text("SELECT count(*) FROM pg_stat_activity WHERE pid = :mine"), {"mine": mine}) == 1
    assert activity.counts()["commit_turns_missed"] == 0
    assert database.connections()[0] == 0
    database.close()


def test_where_no_turns_can_be_taken_commits_go_on_without(tmp_path: Path) -> None:
    (tmp_path / "lakehouse.db-turn").mkdir()
    with SmallLake(tmp_path, f"sqlite:///{tmp_path / 'lakehouse.db'}") as lake:
        lake.append(table := lake.table(), "drive")
        assert lake.sequences_in(table.identifier) == ["drive"]


def test_a_pool_of_two_connections_is_left_to_work_with(tmp_path: Path, postgres_url: str) -> None:
    settings = Settings.load(home=tmp_path, db_url=postgres_url, store_endpoint="", max_db_connections=2)
    with Lakehouse.open(settings) as lakehouse:
        lakehouse.sequences.create("drive", {})
        session = record_session(lakehouse, "drive", "a")
        with lakehouse.committer.turns.taken():
            assert lakehouse.database.connections() == (0, 2)
        lakehouse.sessions.finalize(session.uuid)
