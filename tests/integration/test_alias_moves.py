"""AliasService: rollbacks, and the history of an alias."""

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from modelregistry.v1 import alias_service_pb2 as pb
from modelregistry.v1 import model_pb2

from registry_service.domain.vocabulary import Action
from tests.integration.alias_calls import (
    ABORTED,
    INVALID,
    NOT_FOUND,
    PRECONDITION,
    Kind,
    alias_events,
    before,
    delete_alias,
    get_alias,
    history,
    named,
    register,
    rollback,
    set_alias,
    step_back,
    target,
)
from tests.registry import RunningRegistry
from tests.stub_client import Client, refused, sha256


@pytest.fixture
def models(client: Client) -> list[model_pb2.Model]:
    """Five registered versions of yolo."""
    return [register(client, version) for version in "12345"]


class TestRollback:
    def test_repeated_rollbacks_go_further_back(self, client: Client, models: list[model_pb2.Model]) -> None:
        one, two, three = models[:3]
        for model in (one, two, three):
            set_alias(client, model.id)
        answer = rollback(client, reason="trouble", actor="ada", expected_model_id=three.id)
        assert answer.changed
        assert answer.before == target(three)
        assert (answer.alias.model_id, answer.alias.version, answer.alias.sha256) == (two.id, "2", sha256(b"2"))
        assert (answer.alias.reason, answer.alias.actor, answer.alias.revision) == ("trouble", "ada", 4)
        assert step_back(client).alias.model_id == one.id
        with refused(PRECONDITION, "NO_PREVIOUS_TARGET"):
            step_back(client)
        assert get_alias(client).model_id == one.id

    def test_a_move_after_a_rollback_is_rolled_back_first(self, client: Client, models: list[model_pb2.Model]) -> None:
        one, two, three, four, _ = models
        for model in (one, two, three):
            set_alias(client, model.id)
        step_back(client)
        set_alias(client, four.id)
        assert [step_back(client).alias.model_id for _ in range(2)] == [two.id, one.id]

    def test_a_rollback_to_a_model_returns_to_its_last_time_as_target(
        self, client: Client, models: list[model_pb2.Model]
    ) -> None:
        one, two, three, four, five = models
        for model in (one, two, three, four):
            set_alias(client, model.id)
        assert rollback(client, to_model_id=two.id).alias.model_id == two.id
        assert step_back(client).alias.model_id == one.id
        # A named target may also be a later one.
        assert rollback(client, to_model_id=four.id).alias.model_id == four.id
        assert step_back(client).alias.model_id == three.id
        with refused(PRECONDITION, "NEVER_A_TARGET") as refusal:
            rollback(client, to_model_id=five.id)
        assert refusal.metadata == {"alias": "production", "model_id": five.id}
        assert refusal.message == "The alias 'production' never pointed to the model yolo:5."
        with refused(PRECONDITION, "NEVER_A_TARGET") as refusal:
            rollback(client, to_model_id="no-such-model-0000")
        assert refusal.message == "The alias 'production' never pointed to the model 'no-such-model-0000'."

    def test_a_rollback_to_the_present_target_changes_nothing(
        self, client: Client, models: list[model_pb2.Model]
    ) -> None:
        set_alias(client, models[0].id)
        answer = rollback(client, to_model_id=models[0].id)
        assert not answer.changed
        assert answer.alias == get_alias(client)
        assert len(history(client)) == 1

    def test_a_deleted_target_is_named_and_can_be_skipped(self, client: Client, models: list[model_pb2.Model]) -> None:
        one, two, three = models[:3]
        for model in (one, two, three):
            set_alias(client, model.id)
        client.delete(two.id)
        for fields in ({}, {"to_model_id": two.id}, {"validate_only": True}):
            with refused(PRECONDITION, "TARGET_GONE") as refusal:
                step_back(client, **fields)
            assert refusal.metadata == {"alias": "production", "model_id": two.id, "version": "2"}
            assert "cannot roll back to the model yolo:2" in refusal.message
            assert "Name another" in refusal.message
        assert rollback(client, to_model_id=one.id).alias.model_id == one.id

    def test_a_new_model_with_the_id_of_a_former_target_is_not_that_target(self, client: Client) -> None:
        one = register(client, "1", b"good", id="0123456789abcdef")
        set_alias(client, one.id)
        set_alias(client, register(client, "2").id)
        client.delete(one.id)
        register(client, "1", b"another", id=one.id)
        with refused(PRECONDITION, "TARGET_GONE"):
            step_back(client)

    def test_a_former_target_in_another_group_is_gone(self, client: Client) -> None:
        one = register(client, "1")
        set_alias(client, one.id)
        set_alias(client, register(client, "2").id)
        client.update(one.id, ["name"], name="another")
        with refused(PRECONDITION, "TARGET_GONE"):
            step_back(client)

    def test_an_alias_without_a_previous_target_cannot_be_rolled_back(
        self, client: Client, models: list[model_pb2.Model]
    ) -> None:
        with refused(NOT_FOUND, "ALIAS_NOT_FOUND"):
            rollback(client, expected_model_id=models[0].id)
        set_alias(client, models[0].id)
        with refused(PRECONDITION, "NO_PREVIOUS_TARGET"):
            step_back(client)

    def test_a_rollback_from_an_unexpected_state_is_refused(
        self, client: Client, models: list[model_pb2.Model]
    ) -> None:
        for model in models[:3]:
            set_alias(client, model.id)
        with refused(ABORTED, "ALIAS_CHANGED"):
            rollback(client, expected_model_id=models[1].id)
        assert rollback(client, etag=get_alias(client).etag).alias.model_id == models[1].id

    def test_validate_only_answers_and_changes_nothing(self, client: Client, models: list[model_pb2.Model]) -> None:
        one, two = models[:2]
        set_alias(client, one.id)
        set_alias(client, two.id)
        would = step_back(client, validate_only=True)
        assert (would.changed, would.alias.model_id, would.alias.revision) == (True, one.id, 3)
        assert get_alias(client).model_id == two.id
        assert len(history(client)) == 2

    def test_a_rollback_without_target_and_expected_state_is_refused(
        self, client: Client, models: list[model_pb2.Model]
    ) -> None:
        for model in models[:3]:
            set_alias(client, model.id)
        for fields in ({}, {"validate_only": True}, {"etag": "", "to_model_id": ""}):
            with refused(INVALID) as refusal:
                rollback(client, **fields)
            assert refusal.fields == ["to_model_id"]
            assert "etag and expected_model_id" in refusal.message
        assert get_alias(client).model_id == models[2].id
        # The answer is the same whether the alias exists or not.
        with refused(INVALID):
            rollback(client, alias="never-set")

    def test_a_repeated_rollback_never_goes_back_a_second_step(
        self, client: Client, models: list[model_pb2.Model]
    ) -> None:
        for model in models[:3]:
            set_alias(client, model.id)
        for expectation in ({"expected_model_id": models[2].id}, {"etag": get_alias(client).etag}):
            if get_alias(client).model_id == models[2].id:
                assert rollback(client, **expectation).alias.model_id == models[1].id
            with refused(ABORTED, "ALIAS_CHANGED") as refusal:
                rollback(client, **expectation)
            assert refusal.metadata == {"alias": "production", "model_id": models[1].id}
        assert rollback(client, to_model_id=models[0].id).changed
        assert not rollback(client, to_model_id=models[0].id).changed
        assert len(history(client)) == 5


class TestHistory:
    def test_every_move_is_recorded(self, registry: RunningRegistry) -> None:
        client = registry.client
        one, two = register(client, "1"), register(client, "2")
        set_alias(client, one.id, actor="ada", reason="first")
        set_alias(client, two.id, actor="bob", reason="second")
        step_back(client, actor="cyd", reason="third")
        delete_alias(client, actor="dan", reason="fourth")
        moves = history(client)
        assert [(m.revision, m.actor, m.reason) for m in moves] == [
            (1, "ada", "first"),
            (2, "bob", "second"),
            (3, "cyd", "third"),
            (4, "dan", "fourth"),
        ]
        assert [m.kind for m in moves] == [Kind.KIND_SET, Kind.KIND_SET, Kind.KIND_ROLLED_BACK, Kind.KIND_DELETED]
        assert [m.after for m in moves[:3]] == [target(one), target(two), target(one)]
        assert [m.before for m in moves[1:]] == [target(one), target(two), target(one)]
        assert not moves[0].HasField("before")
        assert not moves[3].HasField("after")

        events = alias_events(registry)
        assert [e.action for e in events] == [
            Action.ALIAS_SET,
            Action.ALIAS_SET,
            Action.ALIAS_ROLLED_BACK,
            Action.ALIAS_DELETED,
        ]
        assert [e.request_id for e in events] == [m.request_id for m in moves]
        assert [(e.actor, e.reason) for e in events] == [(m.actor, m.reason) for m in moves]
        assert [e.model_id for e in events] == [one.id, two.id, one.id, one.id]
        assert [e.after and e.after["version"] for e in events] == ["1", "2", "1", None]
        assert [e.before and e.before["sha256"] for e in events] == [
            None,
            one.artifact.sha256,
            two.artifact.sha256,
            one.artifact.sha256,
        ]

    def test_pages_of_any_size_have_every_move_once(self, client: Client, models: list[model_pb2.Model]) -> None:
        for model in (*models, *models):
            set_alias(client, model.id)
        for size in (1, 3, 10, 11):
            assert [move.revision for move in history(client, page_size=size)] == list(range(1, 11))

    def test_a_page_is_bounded_in_bytes(self, registry: RunningRegistry) -> None:
        set_alias(registry.client, register(registry.client, "1").id)
        registry.execute(
            "INSERT INTO alias_moves SELECT alias_id, number, kind, model_id, version, sha256, 1,"
            " time + number * interval '1 s', actor, repeat('☃', 5000), request_id"
            " FROM alias_moves, generate_series(2, 400) number"
        )
        registry.execute("UPDATE aliases SET revision = 400")
        request = pb.ListAliasMovesRequest(**named(registry.client, "production", {}), page_size=1000)
        page = registry.client.aliases.ListAliasMoves(request)
        assert 1 < len(page.alias_moves) < 400
        assert page.ByteSize() < 2.5 * 2**20
        assert len(history(registry.client, page_size=1000)) == 400


class TestTimes:
    def test_an_alias_can_be_read_as_of_a_time(self, client: Client, models: list[model_pb2.Model]) -> None:
        one, two = models[:2]
        first = set_alias(client, one.id, reason="first").alias
        second = set_alias(client, two.id).alias
        delete_alias(client)
        deleted = history(client)[-1].move_time
        for time, expected in (
            (first.update_time, first),
            (before(second.update_time), first),
            (second.update_time, second),
            (before(deleted), second),
        ):
            assert get_alias(client, at_time=time) == expected
        for time in (before(first.update_time), deleted, Timestamp()):
            with refused(NOT_FOUND, "ALIAS_NOT_FOUND") as refusal:
                get_alias(client, at_time=time)
            assert "at_time" in refusal.metadata

    def test_a_former_target_is_readable_after_the_deletion_of_its_model(self, client: Client) -> None:
        one = register(client, "1")
        first = set_alias(client, one.id).alias
        set_alias(client, register(client, "2").id)
        client.delete(one.id)
        assert get_alias(client, at_time=first.update_time) == first

    def test_a_future_time_is_refused(self, client: Client) -> None:
        set_alias(client, register(client, "1").id)
        later = Timestamp()
        later.FromDatetime(datetime.now(UTC) + timedelta(hours=1))
        with refused(INVALID) as refusal:
            get_alias(client, at_time=later)
        assert refusal.fields == ["at_time"]

    def test_times_of_moves_never_decrease(self, registry: RunningRegistry) -> None:
        client = registry.client
        one, two = register(client, "1"), register(client, "2")
        set_alias(client, one.id)
        registry.execute("UPDATE alias_moves SET time = now() + interval '1 day'")
        set_alias(client, two.id)
        first, second = history(client)
        assert second.move_time.ToDatetime() == first.move_time.ToDatetime() + timedelta(microseconds=1)
