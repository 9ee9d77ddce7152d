"""AliasService: aliases move atomically between models, and keep their history."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import ListValue
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from modelregistry.compat.v1 import compat_service_pb2 as rest
from modelregistry.v1 import alias_pb2, model_pb2
from modelregistry.v1 import alias_service_pb2 as pb
from sqlalchemy.exc import IntegrityError

from registry_service.domain.events import Event
from registry_service.domain.signature import Signature, Tensor
from registry_service.domain.vocabulary import Action
from registry_service.storage.sql import rows, tables
from tests.client import Client, refused, registration, sha256, spec
from tests.polling import eventually
from tests.registry import RunningRegistry
from tests.streams import Feed, serving

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
ABORTED = grpc.StatusCode.ABORTED
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION

Kind = alias_pb2.AliasMove
LONG_AGO = "there-was-no-such-model"
NO_GROUP = "there-was-no-such-group"


def register(client: Client, version: str, data: bytes | None = None, **fields: Any) -> model_pb2.Model:
    """Register a version of yolo with distinct bytes."""
    return client.register(data or version.encode(), version=version, **fields)


def group_id(client: Client) -> str:
    """Return the id of the group of yolo without a project, even if it is empty, or an unused id."""
    found = client.all_groups('name = "yolo" AND project_id = null AND project_name = null', show_empty=True)
    return found[0].id if found else NO_GROUP


def set_alias(client: Client, model_id: str, alias: str = "production", **fields: Any) -> pb.SetAliasResponse:
    metadata = as_actor(fields)
    fields.setdefault("model_group_id", group_id(client))
    return client.aliases.SetAlias(pb.SetAliasRequest(alias=alias, model_id=model_id, **fields), metadata=metadata)


def as_actor(fields: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Move the actor from the fields of a request to the metadata of the call."""
    return (("x-actor", fields.pop("actor")),) if "actor" in fields else ()


def named(client: Client, alias: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a request with defaults for an alias of yolo."""
    return {"alias": alias, "model_group_id": fields.get("model_group_id") or group_id(client)} | fields


def rollback(client: Client, alias: str = "production", **fields: Any) -> pb.RollbackAliasResponse:
    metadata = as_actor(fields)
    return client.aliases.RollbackAlias(pb.RollbackAliasRequest(**named(client, alias, fields)), metadata=metadata)


def step_back(client: Client, **fields: Any) -> pb.RollbackAliasResponse:
    """Roll back from the state that the client sees."""
    return rollback(client, etag=get_alias(client).etag, **fields)


def delete_alias(client: Client, alias: str = "production", **fields: Any) -> pb.DeleteAliasResponse:
    metadata = as_actor(fields)
    return client.aliases.DeleteAlias(pb.DeleteAliasRequest(**named(client, alias, fields)), metadata=metadata)


def get_alias(client: Client, alias: str = "production", **fields: Any) -> alias_pb2.Alias:
    return client.aliases.GetAlias(pb.GetAliasRequest(**named(client, alias, fields)))


def history(client: Client, alias: str = "production", **fields: Any) -> list[alias_pb2.AliasMove]:
    """Read all moves page by page, oldest first."""
    request = pb.ListAliasMovesRequest(**named(client, alias, fields))
    moves: list[alias_pb2.AliasMove] = []
    while True:
        page = client.aliases.ListAliasMoves(request)
        moves += page.alias_moves
        if not page.next_page_token:
            return moves[::-1]
        request.page_token = page.next_page_token


def all_aliases(client: Client, **fields: Any) -> list[alias_pb2.Alias]:
    request = pb.ListAliasesRequest(**{"model_group_id": "-"} | fields)
    found: list[alias_pb2.Alias] = []
    while True:
        page = client.aliases.ListAliases(request)
        found += page.aliases
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


def target(model: model_pb2.Model) -> alias_pb2.AliasTarget:
    return alias_pb2.AliasTarget(model_id=model.id, version=model.version, sha256=model.artifact.sha256)


def alias_events(registry: RunningRegistry) -> list[Event]:
    with registry.parts.database.transaction() as transaction:
        return [event for event in transaction.events.after(0, limit=1000) if event.alias]


def give_signature(registry: RunningRegistry, model_id: str, signature: Signature) -> None:
    """Store a signature, as a registration would."""
    with registry.parts.database.transaction() as transaction:
        model = replace(transaction.models.get(model_id), signature=signature)
    with registry.engine.begin() as connection:
        values = {"schema": rows.model_values(model)["schema"]}
        connection.execute(tables.ModelRow.__table__.update().where(tables.ModelRow.id == model_id).values(values))  # type: ignore[attr-defined]


@pytest.fixture
def models(client: Client) -> list[model_pb2.Model]:
    """Five registered versions of yolo."""
    return [register(client, version) for version in "12345"]


class TestSet:
    def test_an_alias_points_to_a_model_of_its_group(self, client: Client) -> None:
        model = register(client, "1", project_id="p", project_name="")
        group = model.model_group_id
        answer = set_alias(client, model.id, model_group_id=group, reason="it is good", actor="ada")
        assert answer.changed
        assert not answer.HasField("before")
        alias = answer.alias
        assert (alias.alias, alias.model_group_id, alias.revision) == ("production", group, 1)
        assert (alias.model_id, alias.version, alias.sha256) == (model.id, "1", sha256(b"1"))
        assert (alias.actor, alias.reason) == ("ada", "it is good")
        assert alias.etag
        assert get_alias(client, model_group_id=group) == alias
        others: list[dict[str, Any]] = [{}, {"project_id": "p"}, {"project_id": "", "project_name": ""}]
        for other in others:
            neighbour = register(client, "1", **other).model_group_id
            assert neighbour != group
            with refused(NOT_FOUND, "ALIAS_NOT_FOUND"):
                get_alias(client, model_group_id=neighbour)

    def test_a_model_of_another_group_is_refused_as_target(self, client: Client) -> None:
        one, other = register(client, "1"), register(client, "1", project_id="p")
        for fields in ({}, {"validate_only": True}, {"requirements": {"verified": True}}):
            with refused(PRECONDITION, "MODEL_NOT_IN_GROUP") as refusal:
                set_alias(client, other.id, model_group_id=one.model_group_id, **fields)
            assert refusal.metadata == {"model_id": other.id, "model_group_id": one.model_group_id}
            assert "model_id" in refusal.message
        assert all_aliases(client) == []

    def test_an_alias_of_a_missing_group_is_not_found(self, registry: RunningRegistry) -> None:
        client = registry.client
        model = register(client, "1")
        for call in (
            lambda: set_alias(client, model.id, model_group_id=NO_GROUP),
            lambda: get_alias(client, model_group_id=NO_GROUP),
            lambda: get_alias(client, model_group_id=NO_GROUP, at_time=model.create_time),
            lambda: history(client, model_group_id=NO_GROUP),
            lambda: history(client, "-", model_group_id=NO_GROUP),
            lambda: rollback(client, model_group_id=NO_GROUP, expected_model_id=model.id),
            lambda: delete_alias(client, model_group_id=NO_GROUP, allow_missing=True),
            lambda: all_aliases(client, model_group_id=NO_GROUP),
        ):
            with refused(NOT_FOUND, "MODEL_GROUP_NOT_FOUND") as refusal:
                call()
            assert refusal.metadata == {"model_group_id": NO_GROUP}
        assert registry.count("aliases") == 0

    def test_an_alias_moves_to_another_model(self, client: Client, models: list[model_pb2.Model]) -> None:
        one, two = models[:2]
        first = set_alias(client, one.id).alias
        moved = set_alias(client, two.id, expected_model_id=one.id, etag=first.etag, reason="better")
        assert moved.changed
        assert moved.before == target(one)
        assert (moved.alias.model_id, moved.alias.revision) == (two.id, 2)
        assert moved.alias.etag != first.etag
        assert moved.alias.update_time.ToDatetime() > first.update_time.ToDatetime()
        assert get_alias(client) == moved.alias

    def test_setting_the_present_target_changes_nothing(self, registry: RunningRegistry) -> None:
        client = registry.client
        model = register(client, "1")
        first = set_alias(client, model.id)
        again = set_alias(client, model.id, reason="again")
        assert not again.changed
        assert again.alias == first.alias
        assert len(history(client)) == len(alias_events(registry)) == 1

    @pytest.mark.parametrize("expected", ["", LONG_AGO, "x"])
    def test_a_move_from_an_unexpected_state_is_refused(
        self, client: Client, models: list[model_pb2.Model], expected: str
    ) -> None:
        one, two = models[:2]
        set_alias(client, one.id, expected_model_id="")
        with refused(ABORTED, "ALIAS_CHANGED") as refusal:
            set_alias(client, two.id, expected_model_id=expected)
        assert refusal.metadata == {"alias": "production", "model_id": one.id}
        assert get_alias(client).model_id == one.id

    def test_an_etag_of_an_earlier_state_is_refused(self, client: Client, models: list[model_pb2.Model]) -> None:
        one, two = models[:2]
        etag = set_alias(client, one.id).alias.etag
        set_alias(client, two.id)
        set_alias(client, one.id)
        with refused(ABORTED, "ALIAS_CHANGED"):
            set_alias(client, two.id, etag=etag)
        with refused(ABORTED, "ALIAS_CHANGED"):
            rollback(client, etag=etag)
        with refused(ABORTED, "ALIAS_CHANGED"):
            delete_alias(client, etag=etag)
        with refused(ABORTED, "ALIAS_CHANGED"):
            set_alias(client, two.id, alias="new", etag=etag)

    def test_the_refusal_of_a_repeated_move_shows_that_the_first_succeeded(
        self, client: Client, models: list[model_pb2.Model]
    ) -> None:
        set_alias(client, models[0].id)
        set_alias(client, models[1].id, expected_model_id=models[0].id)
        with refused(ABORTED, "ALIAS_CHANGED") as refusal:
            set_alias(client, models[1].id, expected_model_id=models[0].id)
        assert refusal.metadata["model_id"] == models[1].id

    def test_a_missing_model_is_refused_as_target(self, registry: RunningRegistry) -> None:
        with refused(NOT_FOUND, "MODEL_NOT_FOUND"):
            set_alias(registry.client, LONG_AGO)
        assert registry.count("aliases") == 0

    def test_validate_only_answers_and_changes_nothing(self, registry: RunningRegistry) -> None:
        client = registry.client
        one, two = register(client, "1"), register(client, "2")
        would = set_alias(client, one.id, validate_only=True, actor="ada")
        assert would.changed
        assert (would.alias.model_id, would.alias.revision, would.alias.actor) == (one.id, 1, "ada")
        assert registry.count("aliases") == 0
        set_alias(client, one.id)
        would = set_alias(client, two.id, validate_only=True)
        assert (would.changed, would.alias.model_id, would.before) == (True, two.id, target(one))
        assert not set_alias(client, one.id, validate_only=True).changed
        with refused(ABORTED, "ALIAS_CHANGED"):
            set_alias(client, two.id, validate_only=True, expected_model_id="")
        with refused(NOT_FOUND, "MODEL_NOT_FOUND"):
            set_alias(client, LONG_AGO, validate_only=True)
        assert get_alias(client).model_id == one.id
        assert len(history(client)) == len(alias_events(registry)) == 1

    def test_an_alias_shows_the_present_version_of_its_model(self, client: Client) -> None:
        model = register(client, "1")
        set_alias(client, model.id)
        client.update(model.id, ["version"], version="1.0")
        assert get_alias(client).version == "1.0"
        assert [alias.version for alias in all_aliases(client)] == ["1.0"]
        [move] = history(client)
        assert move.after.version == "1"


class TestInput:
    @pytest.mark.parametrize(
        "alias", ["", "-a", ".a", "a b", "a/b", "é", "a:set", "a" * 129, "latest", "Latest", "a\n", "a\0"]
    )
    def test_invalid_alias_names_are_refused_everywhere(self, client: Client, alias: str) -> None:
        for call in (
            lambda: set_alias(client, LONG_AGO, alias),
            lambda: get_alias(client, alias),
            lambda: history(client, alias),
            lambda: rollback(client, alias),
            lambda: delete_alias(client, alias),
        ):
            with refused(INVALID) as refusal:
                call()
            assert refusal.fields == ["alias"]

    @pytest.mark.parametrize("alias", ["a", "0", "Production", "v1.2_rc-3", "a" * 128, "later", "latest-good"])
    def test_valid_alias_names_are_accepted(self, client: Client, alias: str) -> None:
        model = register(client, "1")
        assert set_alias(client, model.id, alias).alias.alias == alias
        assert get_alias(client, alias).model_id == model.id

    def test_alias_names_are_case_sensitive(self, client: Client, models: list[model_pb2.Model]) -> None:
        set_alias(client, models[0].id, "prod")
        set_alias(client, models[1].id, "Prod")
        assert get_alias(client, "prod").model_id == models[0].id

    @pytest.mark.parametrize("group", ["", "a b", "a/b", "é", "a" * 257, "a\0", "--"])
    def test_invalid_group_ids_are_refused_everywhere(self, client: Client, group: str) -> None:
        of_group: dict[str, Any] = {"model_group_id": group, "alias": "production"}
        for call in (
            lambda: client.aliases.SetAlias(pb.SetAliasRequest(model_id=LONG_AGO, **of_group)),
            lambda: client.aliases.GetAlias(pb.GetAliasRequest(**of_group)),
            lambda: client.aliases.ListAliasMoves(pb.ListAliasMovesRequest(**of_group)),
            lambda: client.aliases.RollbackAlias(pb.RollbackAliasRequest(**of_group)),
            lambda: client.aliases.DeleteAlias(pb.DeleteAliasRequest(**of_group)),
            lambda: client.aliases.ListAliases(pb.ListAliasesRequest(model_group_id=group)),
        ):
            with refused(INVALID) as refusal:
                call()
            assert refusal.fields == ["model_group_id"]

    def test_the_wildcard_group_is_accepted_by_lists_only(self, client: Client) -> None:
        of_all: dict[str, Any] = {"model_group_id": "-", "alias": "production"}
        for call in (
            lambda: client.aliases.SetAlias(pb.SetAliasRequest(model_id=LONG_AGO, **of_all)),
            lambda: client.aliases.GetAlias(pb.GetAliasRequest(**of_all)),
            lambda: client.aliases.RollbackAlias(pb.RollbackAliasRequest(**of_all)),
            lambda: client.aliases.DeleteAlias(pb.DeleteAliasRequest(**of_all)),
        ):
            with refused(INVALID) as refusal:
                call()
            assert refusal.fields == ["model_group_id"]

    @pytest.mark.parametrize(
        ("fields", "wrong"),
        [
            ({"reason": "x" * 5001}, ["reason"]),
            ({"reason": "\0"}, ["reason"]),
        ],
    )
    def test_reasons_are_bounded(self, client: Client, fields: dict[str, str], wrong: list[str]) -> None:
        for call in (
            lambda: set_alias(client, LONG_AGO, **fields),
            lambda: rollback(client, **fields),
            lambda: delete_alias(client, **fields),
        ):
            with refused(INVALID) as refusal:
                call()
            assert refusal.fields == wrong

    @pytest.mark.parametrize(
        ("requirements", "field"),
        [
            ({"max_verification_age": Duration(seconds=60)}, "requirements.max_verification_age"),
            *(
                ({"verified": True, "max_verification_age": age}, "requirements.max_verification_age")
                for age in (Duration(), Duration(seconds=-1), Duration(seconds=2**62))
            ),
            ({"metrics": [{}]}, "requirements.metrics[0].metric"),
            ({"metrics": [{"metric": "x" * 257}]}, "requirements.metrics[0].metric"),
            ({"metrics": [{"metric": "a"}, {"metric": "\0"}]}, "requirements.metrics[1].metric"),
            ({"metrics": [{"metric": "a", "min": float("nan")}]}, "requirements.metrics[0].min"),
            ({"metrics": [{"metric": "a", "max": float("inf")}]}, "requirements.metrics[0].max"),
            ({"metrics": [{"metric": "a", "min": 2, "max": 1}]}, "requirements.metrics[0].max"),
            ({"metrics": [{"metric": "a"}] * 101}, "requirements.metrics"),
        ],
    )
    def test_invalid_requirements_are_refused(self, client: Client, requirements: dict[str, Any], field: str) -> None:
        with refused(INVALID) as refusal:
            set_alias(client, LONG_AGO, requirements=requirements)
        assert refusal.fields == [field]

    @pytest.mark.parametrize("model_id", ["", "short", "with blanks in between", "x" * 257])
    def test_invalid_model_ids_are_refused(self, client: Client, model_id: str) -> None:
        with refused(INVALID) as refusal:
            set_alias(client, model_id)
        assert refusal.fields == ["model_id"]
        if model_id:
            with refused(INVALID) as refusal:
                rollback(client, to_model_id=model_id)
            assert refusal.fields == ["to_model_id"]

    @pytest.mark.parametrize("page", [{"page_size": -1}, {"page_token": "nonsense"}])
    def test_invalid_pages_are_refused(self, client: Client, page: dict[str, Any]) -> None:
        set_alias(client, register(client, "1").id)
        with refused(INVALID) as refusal:
            client.aliases.ListAliases(pb.ListAliasesRequest(model_group_id="-", **page))
        assert refusal.fields == list(page)
        with refused(INVALID) as refusal:
            history(client, **page)
        assert refusal.fields == list(page)

    @pytest.mark.parametrize("time", [Timestamp(seconds=10**12), Timestamp(seconds=-(10**12)), Timestamp(nanos=-1)])
    def test_invalid_times_are_refused(self, client: Client, time: Timestamp) -> None:
        with refused(INVALID) as refusal:
            get_alias(client, at_time=time)
        assert refusal.fields == ["at_time"]


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


class TestDelete:
    def test_a_deleted_alias_keeps_its_history(self, client: Client, models: list[model_pb2.Model]) -> None:
        one, two = models[:2]
        set_alias(client, one.id)
        answer = delete_alias(client, reason="retired", actor="ada", etag=get_alias(client).etag)
        assert answer.before == target(one)
        with refused(NOT_FOUND, "ALIAS_NOT_FOUND"):
            get_alias(client)
        with refused(NOT_FOUND, "ALIAS_NOT_FOUND"):
            rollback(client, expected_model_id=one.id)
        with refused(NOT_FOUND, "ALIAS_NOT_FOUND"):
            delete_alias(client)
        assert not delete_alias(client, allow_missing=True).HasField("before")
        assert all_aliases(client) == []
        assert [move.kind for move in history(client)] == [Kind.KIND_SET, Kind.KIND_DELETED]
        client.delete(one.id)

        # A new alias of that name continues the revision numbers.
        again = set_alias(client, two.id, expected_model_id="")
        assert again.alias.revision == 3
        with refused(PRECONDITION, "NO_PREVIOUS_TARGET"):
            step_back(client)
        with refused(PRECONDITION, "TARGET_GONE"):
            rollback(client, to_model_id=one.id)

    def test_deleting_a_missing_alias_leaves_no_trace(self, registry: RunningRegistry) -> None:
        register(registry.client, "1")
        delete_alias(registry.client, allow_missing=True)
        assert registry.count("aliases") == 0
        with refused(NOT_FOUND, "ALIAS_NOT_FOUND"):
            history(registry.client)


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


def before(time: Timestamp) -> Timestamp:
    """Return the time one microsecond earlier."""
    earlier = Timestamp()
    earlier.FromDatetime(time.ToDatetime(tzinfo=UTC) - timedelta(microseconds=1))
    return earlier


class TestList:
    def test_aliases_of_one_group_or_of_all_are_listed(self, client: Client) -> None:
        yolo, other = register(client, "1"), register(client, "1", project_id="p")
        for model, alias in ((yolo, "b"), (yolo, "a"), (other, "b"), (yolo, "c")):
            set_alias(client, model.id, alias, model_group_id=model.model_group_id)
        delete_alias(client, "c")
        everything = all_aliases(client)
        assert [(alias.alias, alias.model_id, alias.model_group_id) for alias in everything] == [
            ("b", yolo.id, yolo.model_group_id),
            ("a", yolo.id, yolo.model_group_id),
            ("b", other.id, other.model_group_id),
        ]
        assert all_aliases(client, page_size=1) == everything
        assert all_aliases(client, model_group_id=yolo.model_group_id) == everything[:2]
        assert all_aliases(client, model_group_id=other.model_group_id, page_size=1) == everything[2:]

    def test_moves_of_all_groups_and_aliases_are_listed_as_one_history(self, client: Client) -> None:
        yolo, other = register(client, "1"), register(client, "1", project_id="p")
        for model, alias in ((yolo, "b"), (other, "b"), (yolo, "a")):
            set_alias(client, model.id, alias, model_group_id=model.model_group_id)
        delete_alias(client, "b")
        both = yolo.model_group_id, other.model_group_id
        everything = history(client, "-", model_group_id="-")
        assert [(move.model_group_id, move.alias, move.revision) for move in everything] == [
            (both[0], "b", 1),
            (both[1], "b", 1),
            (both[0], "a", 1),
            (both[0], "b", 2),
        ]
        assert everything == sorted(everything, key=lambda move: move.move_time.ToNanoseconds())
        assert history(client, "-", model_group_id="-", page_size=1) == everything
        assert history(client, "b", model_group_id="-", page_size=1) == [everything[i] for i in (0, 1, 3)]
        assert history(client, "-", model_group_id=both[0], page_size=2) == [everything[i] for i in (0, 2, 3)]
        assert history(client, "b", page_size=1) == [everything[i] for i in (0, 3)]
        assert history(client, "never-set", model_group_id="-") == []
        with refused(NOT_FOUND, "ALIAS_NOT_FOUND"):
            history(client, "a", model_group_id=both[1])

    def test_a_page_token_works_for_its_own_list_only(self, client: Client) -> None:
        model = register(client, "1")
        for alias in "ab":
            set_alias(client, model.id, alias)
        token = client.aliases.ListAliases(pb.ListAliasesRequest(model_group_id="-", page_size=1)).next_page_token
        with refused(INVALID) as refusal:
            all_aliases(client, model_group_id=model.model_group_id, page_token=token)
        assert refusal.fields == ["page_token"]
        request = pb.ListAliasMovesRequest(model_group_id="-", alias="-", page_size=1)
        token = client.aliases.ListAliasMoves(request).next_page_token
        for of in ({"alias": "a"}, {"model_group_id": model.model_group_id}):
            with refused(INVALID) as refusal:
                history(client, **{"alias": "-", "model_group_id": "-", "page_token": token} | of)
            assert refusal.fields == ["page_token"]

    def test_aliases_are_listed_by_model(self, registry: RunningRegistry) -> None:
        client = registry.client
        one, two = register(client, "1"), register(client, "2")
        for alias in ("b", "a"):
            set_alias(client, one.id, alias)
        with registry.parts.database.transaction() as transaction:
            assert transaction.aliases.of_models([one.id, two.id, LONG_AGO]) == {one.id: ["a", "b"]}
            assert transaction.aliases.of_models([]) == {}


class TestModelsInUse:
    def test_a_model_that_aliases_point_to_cannot_be_deleted(self, client: Client) -> None:
        model = register(client, "1")
        set_alias(client, model.id)
        set_alias(client, model.id, "best")
        with refused(PRECONDITION, "MODEL_IN_USE") as refusal:
            client.delete(model.id)
        assert refusal.metadata == {"model_id": model.id, "aliases": "best, production"}
        assert client.download(model.id) == b"1"
        delete_alias(client)
        delete_alias(client, "best")
        client.delete(model.id)

    def test_force_deletes_the_model_and_its_aliases(self, registry: RunningRegistry) -> None:
        client = registry.client
        one, two = register(client, "1"), register(client, "2")
        set_alias(client, one.id)
        set_alias(client, two.id)
        set_alias(client, two.id, "best")
        client.delete(two.id, force=True)
        for alias in ("production", "best"):
            with refused(NOT_FOUND, "ALIAS_NOT_FOUND"):
                get_alias(client, alias)
            last = history(client, alias)[-1]
            assert (last.kind, last.before, last.reason) == (Kind.KIND_DELETED, target(two), "The model was deleted.")
        with registry.parts.database.transaction() as transaction:
            newest = transaction.events.before(None, limit=3)
        assert [event.action for event in newest] == [
            Action.MODEL_DELETED,
            Action.ALIAS_DELETED,
            Action.ALIAS_DELETED,
        ]
        assert len({event.request_id for event in newest}) == 1

    def test_a_forced_deletion_with_a_stale_etag_deletes_nothing(self, client: Client) -> None:
        model = register(client, "1")
        set_alias(client, model.id)
        with refused(ABORTED, "ETAG_MISMATCH"):
            client.delete(model.id, force=True, etag="another")
        assert get_alias(client).model_id == model.id

    @pytest.mark.parametrize("field", ["name", "project_id", "project_name"])
    def test_a_model_that_aliases_point_to_stays_in_its_group(self, client: Client, field: str) -> None:
        model = register(client, "1")
        set_alias(client, model.id)
        with refused(PRECONDITION, "MODEL_HAS_ALIASES") as refusal:
            client.update(model.id, [field], **{field: "another"})
        assert refusal.metadata == {"model_id": model.id, "aliases": "production"}
        updated = client.update(model.id, ["name", "version", "score"], name="yolo", version="2", score=0.5)
        assert (updated.version, updated.score) == ("2", 0.5)
        delete_alias(client)
        assert getattr(client.update(model.id, [field], **{field: "another"}), field) == "another"

    def test_the_database_refuses_an_alias_of_a_missing_model(self, registry: RunningRegistry) -> None:
        set_alias(registry.client, register(registry.client, "1").id)
        with pytest.raises(IntegrityError, match="fk_aliases_model_id"):
            registry.execute("DELETE FROM models")


class TestRequirements:
    def test_metrics_are_checked_against_bounds(self, client: Client) -> None:
        model = register(client, "1", metrics={"mAP50": 0.61, "latency": 12.5})
        bounds = [{"metric": "mAP50", "min": 0.61}, {"metric": "latency", "min": 0, "max": 20}, {"metric": "mAP50"}]
        answer = set_alias(client, model.id, requirements={"metrics": bounds})
        assert answer.changed
        assert [(c.requirement, c.passed) for c in answer.checks] == [
            ("metrics.mAP50", True),
            ("metrics.latency", True),
            ("metrics.mAP50", True),
        ]
        bounds = [{"metric": "mAP50", "min": 0.62}, {"metric": "latency", "max": 12}, {"metric": "recall", "min": 0}]
        with refused(PRECONDITION, "REQUIREMENTS_NOT_MET") as refusal:
            set_alias(client, model.id, "best", requirements={"metrics": bounds})
        violations = refusal.detail(error_details_pb2.PreconditionFailure).violations
        assert [(v.type, v.subject, v.description) for v in violations] == [
            ("REQUIREMENT", "metrics.mAP50", "is 0.61; must be at least 0.62."),
            ("REQUIREMENT", "metrics.latency", "is 12.5; must be at most 12."),
            ("REQUIREMENT", "metrics.recall", "the model has no such metric; must be at least 0."),
        ]
        with refused(NOT_FOUND, "ALIAS_NOT_FOUND"):
            get_alias(client, "best")

    def test_validate_only_lists_the_unmet_requirements(self, registry: RunningRegistry) -> None:
        client = registry.client
        model = register(client, "1")
        answer = set_alias(
            client, model.id, validate_only=True, requirements={"verified": True, "metrics": [{"metric": "mAP50"}]}
        )
        assert not answer.changed
        assert answer.alias.model_id == model.id
        assert [(c.requirement, c.passed) for c in answer.checks] == [("verified", True), ("metrics.mAP50", False)]
        assert registry.count("aliases") == 0

    def test_the_requirement_verified_reads_the_bytes_again(self, registry: RunningRegistry) -> None:
        client = registry.client
        model = register(client, "1")
        assert set_alias(client, model.id, requirements={"verified": True}).changed
        [artifact] = registry.objects()
        artifact.write_bytes(b"2")
        with refused(PRECONDITION, "REQUIREMENTS_NOT_MET") as refusal:
            set_alias(client, model.id, "best", requirements={"verified": True})
        [violation] = refusal.detail(error_details_pb2.PreconditionFailure).violations
        assert (violation.subject, sha256(b"2") in violation.description) == ("verified", True)
        artifact.unlink()
        [check] = set_alias(client, model.id, requirements={"verified": True}, validate_only=True).checks
        assert not check.passed

    def test_a_recent_verification_is_not_repeated(self, registry: RunningRegistry) -> None:
        client = registry.client
        model = register(client, "1")
        young = {"verified": True, "max_verification_age": Duration(seconds=3600)}
        # No stored verification exists yet, so the bytes are read.
        assert set_alias(client, model.id, "first", requirements=young).checks[0].passed
        time = client.get(model.id).artifact.verify_time
        assert time.seconds
        [artifact] = registry.objects()
        artifact.write_bytes(b"2")
        [check] = set_alias(client, model.id, "second", requirements=young).checks
        assert check.passed
        assert time.ToDatetime().isoformat(timespec="seconds") in check.description
        assert client.get(model.id).artifact.verify_time == time

    def test_an_old_verification_is_repeated(self, registry: RunningRegistry) -> None:
        client = registry.client
        model = register(client, "1")
        client.verify(model.id)
        registry.execute("UPDATE artifact_verifications SET time = time - interval '1 hour'")
        old = client.get(model.id).artifact.verify_time
        requirements = {"verified": True, "max_verification_age": Duration(seconds=3599)}
        assert set_alias(client, model.id, requirements=requirements).checks[0].passed
        assert client.get(model.id).artifact.verify_time.seconds >= old.seconds + 3600
        registry.execute("UPDATE artifact_verifications SET time = time - interval '1 hour'")
        [artifact] = registry.objects()
        artifact.write_bytes(b"2")
        with refused(PRECONDITION, "REQUIREMENTS_NOT_MET"):
            set_alias(client, model.id, "best", requirements=requirements)

    def test_a_recorded_damage_is_not_a_verification(self, registry: RunningRegistry) -> None:
        client = registry.client
        model = register(client, "1")
        client.verify(model.id)
        [artifact] = registry.objects()
        artifact.write_bytes(b"2")
        assert not client.verify(model.id).intact
        young = {"verified": True, "max_verification_age": Duration(seconds=3600)}
        with refused(PRECONDITION, "REQUIREMENTS_NOT_MET"):
            set_alias(client, model.id, requirements=young)
        artifact.write_bytes(b"1")
        assert set_alias(client, model.id, requirements=young).changed

    def test_a_move_that_reads_bytes_counts_as_a_stream(self, registry: RunningRegistry) -> None:
        model = register(registry.client, "1")
        verified = {"verified": True}
        with serving(registry, max_streams=1, max_waiting_seconds=0.2) as (_, client):
            feed = Feed(*registration(spec(name="uses the only stream"), [b"x"]))
            stream = client.models.RegisterModel.future(feed)
            eventually(lambda: registry.count("unreferenced_objects") == 1)
            assert set_alias(client, model.id).changed
            with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS"):
                set_alias(client, model.id, "best", requirements=verified)
            stream.cancel()
            answer = eventually(lambda: set_alias(client, model.id, "best", requirements=verified))
            assert answer.checks[0].passed

    def test_comparing_requirements_are_met_without_a_present_target(self, client: Client) -> None:
        same = {"same_inputs": True, "same_outputs": True, "same_labels": True}
        answer = set_alias(client, register(client, "1").id, requirements=same)
        assert answer.changed
        assert [(c.requirement, c.passed) for c in answer.checks] == [(name, True) for name in same]
        assert "no present target" in answer.checks[0].description

    def test_labels_are_compared_in_any_order(self, client: Client) -> None:
        def labels(*values: Any) -> ListValue:
            message = ListValue()
            message.extend(values)
            return message

        one = register(client, "1", labels=labels("cat", {"name": "dog", "n": 1}))
        same = register(client, "2", labels=labels({"n": 1.0, "name": "dog"}, "cat"))
        other = register(client, "3", labels=labels("cat", {"name": "dog", "n": True}, "cow"))
        set_alias(client, one.id)
        assert set_alias(client, same.id, requirements={"same_labels": True}).changed
        with refused(PRECONDITION, "REQUIREMENTS_NOT_MET") as refusal:
            set_alias(client, other.id, requirements={"same_labels": True})
        [violation] = refusal.detail(error_details_pb2.PreconditionFailure).violations
        assert violation.subject == "same_labels"
        assert "cow is new" in violation.description
        assert "{'n': 1, 'name': 'dog'} is missing" in violation.description

    def test_inputs_and_outputs_are_compared_by_name_type_and_shape(self, registry: RunningRegistry) -> None:
        client = registry.client
        image = Tensor(name="image", element_type="FLOAT", shape=("batch", 3, 640, 640))
        mask = Tensor(name="mask", element_type="BOOL", shape=None)
        boxes = Tensor(name="boxes", element_type="FLOAT", shape=(1, 8400, 84))
        signature = Signature(format="onnx", inputs=(image, mask), outputs=(boxes,))
        one, same, other, unknown = (register(client, version) for version in "1234")
        give_signature(registry, one.id, signature)
        give_signature(registry, same.id, replace(signature, inputs=(mask, image), producer="another"))
        larger = replace(image, shape=("batch", 3, 1280, 1280))
        give_signature(registry, other.id, replace(signature, inputs=(larger, mask)))
        both = {"same_inputs": True, "same_outputs": True}
        set_alias(client, one.id)
        assert set_alias(client, same.id, requirements=both).changed
        checks = set_alias(client, other.id, requirements=both, validate_only=True).checks
        assert [(c.requirement, c.passed) for c in checks] == [("same_inputs", False), ("same_outputs", True)]
        assert checks[0].description == (
            "image FLOAT [batch, 3, 1280, 1280] is new; image FLOAT [batch, 3, 640, 640] is missing."
        )
        with refused(PRECONDITION, "REQUIREMENTS_NOT_MET") as refusal:
            set_alias(client, unknown.id, requirements=both)
        violations = refusal.detail(error_details_pb2.PreconditionFailure).violations
        assert [v.description for v in violations] == [
            "the inputs of the model are not known.",
            "the outputs of the model are not known.",
        ]
        set_alias(client, unknown.id)
        checks = set_alias(client, same.id, requirements=both, validate_only=True).checks
        assert [c.description for c in checks][:1] == ["the inputs of the present target are not known."]


class TestCompatApi:
    def test_a_conflict_with_an_alias_is_a_409(self, client: Client) -> None:
        model = register(client, "1")
        set_alias(client, model.id)

        def answer(method: str, request: Any, *, streaming: bool) -> tuple[str | bytes, bytes]:
            kind: Any = client.channel.stream_unary if streaming else client.channel.unary_unary
            call = kind(
                f"/modelregistry.compat.v1.CompatService/{method}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=bytes,
            )
            body, ended = call.with_call(iter([request]) if streaming else request, timeout=20)
            return dict(ended.initial_metadata()).get("x-http-status", "200"), body

        status, body = answer("DeleteModel", rest.DeleteModelRequest(id=model.id), streaming=False)
        assert (status, b"production" in body) == ("409", True)
        form = rest.UpdateModelRequest(id=model.id)
        form.content.content_type = "application/x-www-form-urlencoded"
        form.content.data = b"name=another"
        status, body = answer("UpdateModel", form, streaming=True)
        assert (status, b"production" in body) == ("409", True)
        form.content.data = b"version=1.0"
        assert answer("UpdateModel", form, streaming=True)[0] == "200"
        assert get_alias(client).version == "1.0"
