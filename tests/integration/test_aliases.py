"""AliasService: aliases are set, read, listed and deleted."""

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from modelregistry.compat.v1 import compat_service_pb2 as rest
from modelregistry.v1 import alias_pb2, model_pb2
from modelregistry.v1 import alias_service_pb2 as pb
from sqlalchemy.exc import IntegrityError

from registry_service.domain.vocabulary import Action
from tests.integration.alias_calls import (
    ABORTED,
    INVALID,
    NO_GROUP,
    NOT_FOUND,
    PRECONDITION,
    Kind,
    alias_events,
    delete_alias,
    get_alias,
    history,
    register,
    rollback,
    set_alias,
    step_back,
    target,
)
from tests.registry import RunningRegistry
from tests.stub_client import Client, refused, sha256

LONG_AGO = "there-was-no-such-model"


def all_aliases(client: Client, **fields: Any) -> list[alias_pb2.Alias]:
    request = pb.ListAliasesRequest(**{"model_group_id": "-"} | fields)
    found: list[alias_pb2.Alias] = []
    while True:
        page = client.aliases.ListAliases(request)
        found += page.aliases
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


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
            assert refusal.message.startswith("The model p/yolo:1 (model_id) is not in the model group ")
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
        assert refusal.message == "The alias 'production' is not as expected: it points to the model yolo:1."
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
        assert "The model yolo:1 cannot be deleted while aliases point to it: best, production." in refusal.message
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
        assert "The model yolo:1 cannot move to another model group" in refusal.message
        updated = client.update(model.id, ["name", "version", "score"], name="yolo", version="2", score=0.5)
        assert (updated.version, updated.score) == ("2", 0.5)
        delete_alias(client)
        assert getattr(client.update(model.id, [field], **{field: "another"}), field) == "another"

    def test_the_database_refuses_an_alias_of_a_missing_model(self, registry: RunningRegistry) -> None:
        set_alias(registry.client, register(registry.client, "1").id)
        with pytest.raises(IntegrityError, match="fk_aliases_model_id"):
            registry.execute("DELETE FROM models")


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
