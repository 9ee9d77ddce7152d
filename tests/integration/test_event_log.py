"""The event log: every change has one event, in order, and tampering is detected."""

import threading

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from registry_service.domain.events import GENESIS_HASH, BrokenLink, Change, Event, LogHead
from registry_service.domain.filter import Subject, parse
from registry_service.domain.models import GroupKey
from registry_service.domain.vocabulary import Action
from registry_service.storage.sql.database import SqlDatabase
from tests.registry import RunningRegistry

FORGED = """
    INSERT INTO audit_events
    SELECT 6, time, 'mallory', '', 'x', NULL, NULL, '', '', '', '', NULL, NULL, previous_hash, hash
    FROM audit_events WHERE sequence = 5
"""
START = LogHead(sequence=0, hash=GENESIS_HASH)


@pytest.fixture
def database(engine: Engine) -> SqlDatabase:
    return SqlDatabase(engine)


def record(database: SqlDatabase, *names: str) -> None:
    with database.transaction() as transaction:
        for name in names:
            transaction.events.record(
                Change(
                    action=Action.MODEL_REGISTERED,
                    group_key=GroupKey(name=name),
                    model_id="m",
                    after={"é": [1.0, None]},
                )
            )


def events(database: SqlDatabase) -> list[Event]:
    with database.transaction() as transaction:
        return list(transaction.events.after(0, limit=1000))


def verify(database: SqlDatabase, limit: int = 1000) -> BrokenLink | None:
    """Verify the whole log, this many events at a time."""
    good = START
    while True:
        with database.transaction() as transaction:
            reached, broken = transaction.events.verify(good, limit=limit)
        if broken is not None or reached == good:
            return broken
        good = reached


def tamper(engine: Engine, statement: str) -> None:
    """Change the log as an owner of the database could."""
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text(statement))


class TestChain:
    def test_events_are_numbered_and_chained(self, database: SqlDatabase) -> None:
        record(database, "a")
        record(database, "b", "c")
        found = events(database)
        assert [event.sequence for event in found] == [1, 2, 3]
        assert [event.group_key.name for event in found] == ["a", "b", "c"]
        assert [event.previous_hash for event in found] == [GENESIS_HASH, found[0].hash, found[1].hash]
        assert [event.time for event in found] == sorted(event.time for event in found)
        with database.transaction() as transaction:
            assert transaction.events.head() == LogHead(sequence=3, hash=found[2].hash)
        assert verify(database) is None
        assert verify(database, limit=1) is None

    def test_an_empty_log_is_valid(self, database: SqlDatabase) -> None:
        assert verify(database) is None

    def test_a_transaction_that_fails_leaves_no_event_and_no_gap(self, database: SqlDatabase) -> None:
        def fail() -> None:
            with database.transaction() as transaction:
                transaction.events.record(
                    Change(action=Action.MODEL_DELETED, group_key=GroupKey(name="a"), model_id="m")
                )
                raise ValueError("stop")

        with pytest.raises(ValueError, match="stop"):
            fail()
        record(database, "b")
        assert [(event.sequence, event.group_key.name) for event in events(database)] == [(1, "b")]

    def test_numbers_follow_the_order_of_the_commits(self, database: SqlDatabase) -> None:
        begun, go_on = threading.Event(), threading.Event()

        def slow() -> None:
            with database.transaction() as transaction:
                transaction.events.record(
                    Change(action=Action.MODEL_DELETED, group_key=GroupKey(name="slow"), model_id="m")
                )
                begun.set()
                assert go_on.wait(30)

        thread = threading.Thread(target=slow)
        thread.start()
        assert begun.wait(30)
        record(database, "fast")
        go_on.set()
        thread.join()
        assert [event.group_key.name for event in events(database)] == ["fast", "slow"]
        assert verify(database) is None

    def test_many_writers_make_one_chain(self, database: SqlDatabase) -> None:
        threads = [threading.Thread(target=record, args=(database, f"w{i}", f"w{i}")) for i in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [event.sequence for event in events(database)] == list(range(1, 25))
        assert verify(database) is None


class TestTampering:
    @pytest.fixture
    def log(self, database: SqlDatabase) -> SqlDatabase:
        record(database, *"abcde")
        return database

    @pytest.mark.parametrize(
        "statement",
        ["UPDATE audit_events SET actor = 'x'", "DELETE FROM audit_events", "TRUNCATE audit_events"],
    )
    def test_the_database_refuses_changes(self, log: SqlDatabase, engine: Engine, statement: str) -> None:
        with pytest.raises(DBAPIError, match="can only be added"), engine.begin() as connection:
            connection.execute(text(statement))
        assert len(events(log)) == 5

    @pytest.mark.parametrize(
        ("statement", "sequence", "description"),
        [
            ("UPDATE audit_events SET actor = 'mallory' WHERE sequence = 3", 3, "is not as it was written."),
            ("UPDATE audit_events SET after = '{}' WHERE sequence = 2", 2, "is not as it was written."),
            (
                "UPDATE audit_events SET time = time + interval '1 us' WHERE sequence = 1",
                1,
                "is not as it was written.",
            ),
            ("DELETE FROM audit_events WHERE sequence = 4", 4, "is missing."),
            ("DELETE FROM audit_events WHERE sequence = 5", 5, "is missing."),
            ("DELETE FROM audit_events", 1, "is missing."),
            ("UPDATE audit_events SET hash = repeat('a', 64) WHERE sequence = 5", 5, "is not as it was written."),
            (
                "UPDATE audit_events SET previous_hash = repeat('a', 64) WHERE sequence = 2",
                2,
                "does not follow the event before it.",
            ),
            (
                FORGED,
                6,
                "does not follow the event before it.",
            ),
            ("UPDATE audit_head SET sequence = 4", 5, "is not where the log was left."),
            ("DELETE FROM audit_head", 1, "cannot follow: the log has no head."),
            (
                "UPDATE audit_events SET sequence = -1 WHERE sequence = 1",
                -1,
                "is before the first event.",
            ),
        ],
    )
    @pytest.mark.parametrize("limit", [2, 1000])
    def test_the_first_broken_link_is_named(
        self, log: SqlDatabase, engine: Engine, statement: str, sequence: int, description: str, limit: int
    ) -> None:
        tamper(engine, statement)
        assert verify(log, limit) == BrokenLink(sequence=sequence, description=description)


class TestPages:
    """Reading the log in pages."""

    @pytest.fixture
    def log(self, database: SqlDatabase) -> SqlDatabase:
        for number in range(1, 8):
            with database.transaction() as transaction:
                transaction.events.record(
                    Change(
                        action=Action.MODEL_UPDATED,
                        group_key=GroupKey(name="even" if number % 2 == 0 else "odd"),
                        model_id="m",
                        after={"overview": "x" * 1000},
                    )
                )
        return database

    @pytest.mark.parametrize(
        ("max_bytes", "expected"), [(1, [3]), (1500, [3, 4]), (2500, [3, 4, 5]), (10**6, [3, 4, 5, 6])]
    )
    def test_a_page_is_bounded_in_bytes_and_has_one_event_at_least(
        self, log: SqlDatabase, max_bytes: int, expected: list[int]
    ) -> None:
        with log.transaction() as transaction:
            after = transaction.events.after(2, limit=4, max_bytes=max_bytes)
            before = transaction.events.before(6, limit=4, max_bytes=max_bytes)
        assert [event.sequence for event in after] == expected
        assert [event.sequence for event in before] == [8 - sequence for sequence in expected]

    def test_a_page_ends_at_a_given_sequence(self, log: SqlDatabase) -> None:
        node = parse("name = odd", Subject.EVENT)
        with log.transaction() as transaction:
            assert [event.sequence for event in transaction.events.after(1, until=5, limit=9, filter=node)] == [3, 5]
            assert [event.sequence for event in transaction.events.before(5, limit=9, filter=node)] == [3, 1]

    def test_an_event_of_a_move_is_found_once_by_both_projects(self, log: SqlDatabase) -> None:
        moved = Change(
            action=Action.MODEL_UPDATED,
            group_key=GroupKey(name="here", project_id="b"),
            model_id="m",
            before={"name": "there", "project_id": "a", "project_name": None},
            after={"name": "here", "project_id": "b", "project_name": "B"},
        )
        with log.transaction() as transaction:
            transaction.events.record(moved)
        both = frozenset({"a", "b"})
        with log.transaction() as transaction:
            node = parse("project_id:*", Subject.EVENT)
            for within in (None, both, frozenset({"a"}), frozenset({"b"})):
                [newest] = transaction.events.before(None, limit=1, filter=node, within=within)
                [oldest] = transaction.events.after(0, limit=1, filter=node, within=within)
                assert newest == oldest
                assert newest.before == moved.before
            assert len(transaction.events.before(None, limit=9, within=both)) == 1
            assert transaction.events.before(None, limit=9, within=frozenset({"c"})) == []
            assert transaction.events.before(None, limit=9, within=frozenset()) == []
            pages = [transaction.events.after(n, limit=1, filter=parse("name:*", Subject.EVENT)) for n in range(7)]
            assert [event.sequence for [event] in pages] == [1, 2, 3, 4, 5, 6, 7]


class TestModels:
    def test_each_change_of_a_model_is_an_event(self, registry: RunningRegistry) -> None:
        client = registry.client
        model = client.register(name="yolo", version="1", project_id="p")
        client.update(model.id, ["score"], score=0.5)
        client.delete(model.id)
        registered, updated, deleted = events(registry.parts.database)
        assert [e.action for e in (registered, updated, deleted)] == [
            Action.MODEL_REGISTERED,
            Action.MODEL_UPDATED,
            Action.MODEL_DELETED,
        ]
        assert {e.model_id for e in (registered, updated, deleted)} == {model.id}
        assert {e.group_key for e in (registered, updated, deleted)} == {GroupKey(name="yolo", project_id="p")}
        assert all(e.request_id for e in (registered, updated, deleted))
        assert registered.before is None
        assert registered.after is not None
        assert registered.after["sha256"] == model.artifact.sha256
        assert "object_key" not in registered.after
        assert updated.before is not None
        assert updated.after is not None
        assert (updated.before["score"], updated.after["score"]) == (0, 0.5)
        assert set(updated.after) == {"score", "update_time", "last_updated_date", "revision"}
        assert deleted.after is None
        assert deleted.before is not None
        assert deleted.before["revision"] == 2

    def test_an_update_without_changes_leaves_no_event(self, registry: RunningRegistry) -> None:
        model = registry.client.register()
        registry.client.update(model.id, ["score"], score=0)
        assert len(events(registry.parts.database)) == 1
