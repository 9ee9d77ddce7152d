"""Idempotency keys: a repeated write gets the first answer, and changes nothing."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodDescriptorProto, MethodOptions
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from modelregistry.v1 import (
    alias_service_pb2,
    model_group_pb2,
    model_group_service_pb2,
    model_pb2,
    model_service_pb2,
    upload_pb2,
    upload_service_pb2,
)
from sqlalchemy import text

from registry_service import wiring
from registry_service.domain.access import Role
from registry_service.domain.caller import acting_as_registry
from registry_service.domain.idempotency import MAX_ANSWER_BYTES, MAX_KEYS_PER_CALLER, KeyedCall
from registry_service.services.authentication import CachedAuthenticator
from registry_service.services.idempotency import IdempotencyService
from registry_service.transport.grpc.alias_servicer import AliasServicer
from registry_service.transport.grpc.model_group_servicer import ModelGroupServicer
from registry_service.transport.grpc.model_servicer import ModelServicer
from registry_service.transport.grpc.upload_servicer import UploadServicer
from registry_service.transport.http_routes import http_routes
from tests.integration.test_access import People
from tests.polling import eventually
from tests.registry import RunningRegistry, StartRegistry
from tests.streams import Feed, expect
from tests.stub_client import Client, refused, registration, sha256, spec

ABORTED, PRECONDITION, INVALID = (
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
)
RUNNING, REUSED = "IDEMPOTENT_CALL_RUNNING", "IDEMPOTENCY_KEY_REUSED"
DATA = b"weights"


@pytest.fixture
def people(start_registry: StartRegistry, monkeypatch: pytest.MonkeyPatch) -> Iterator[People]:
    """Callers of a server that looks up the token of every call."""
    monkeypatch.setattr(wiring, "CachedAuthenticator", partial(CachedAuthenticator, seconds=0))
    people = People(start_registry(auth_mode="token"))
    yield people
    people.close()


def register(client: Client, key: str, data: bytes = DATA, **fields: Any) -> model_pb2.Model:
    return client.models.RegisterModel(keyed(registration(spec(**fields), [data]), key)).model


def keyed(
    requests: Iterator[model_service_pb2.RegisterModelRequest], key: str
) -> Iterator[model_service_pb2.RegisterModelRequest]:
    for i, request in enumerate(requests):
        if i == 0:
            request.idempotency_key = key
        yield request


def update(client: Client, model_id: str, key: str, **fields: Any) -> model_pb2.Model:
    return client.models.UpdateModel(
        model_service_pb2.UpdateModelRequest(model=model_pb2.Model(id=model_id, **fields), idempotency_key=key)
    )


def delete(client: Client, model_id: str, key: str, **fields: Any) -> None:
    client.models.DeleteModel(model_service_pb2.DeleteModelRequest(model_id=model_id, idempotency_key=key, **fields))


def events(registry: RunningRegistry) -> int:
    return registry.count("audit_events")


def key_counts(registry: RunningRegistry) -> list[int]:
    """Return the number of new keys per caller."""
    with registry.engine.connect() as connection:
        return list(connection.execute(text("SELECT key_count FROM idempotency_usage")).scalars())


class TestRepeatedCalls:
    def test_a_repeated_update_gets_the_first_answer_and_changes_nothing(self, registry: RunningRegistry) -> None:
        model = registry.client.register()
        first = update(registry.client, model.id, "key", score=0.5)
        registry.client.update(model.id, score=0.7)
        seen = events(registry)
        assert update(registry.client, model.id, "key", score=0.5) == first
        assert registry.client.get(model.id).score == 0.7
        assert events(registry) == seen

    def test_a_repeated_registration_is_one_model(self, registry: RunningRegistry) -> None:
        first = register(registry.client, "key")
        assert register(registry.client, "key") == first
        assert registry.client.all() == registry.client.all(f'id = "{first.id}"')
        assert len(registry.objects()) == 1

    def test_a_repeated_registration_with_a_declared_digest_needs_no_bytes(self, client: Client) -> None:
        artifact = {"sha256": sha256(DATA)}
        first = register(client, "key", artifact=artifact)
        feed = Feed(*keyed(registration(spec(artifact=artifact), []), "key"))
        assert client.models.RegisterModel(feed).model == first
        feed.end()

    def test_a_repeated_deletion_happens_once(self, client: Client) -> None:
        model = client.register()
        delete(client, model.id, "key")
        delete(client, model.id, "key")
        with refused(grpc.StatusCode.NOT_FOUND):
            delete(client, model.id, "another key")

    def test_repeated_calls_create_complete_and_cancel_an_upload_once(self, registry: RunningRegistry) -> None:
        uploads = registry.client.uploads
        creation = upload_service_pb2.CreateUploadRequest(
            upload=upload_pb2.Upload(spec=spec()), idempotency_key="creation"
        )
        upload = uploads.CreateUpload(creation)
        assert uploads.CreateUpload(creation) == upload
        assert registry.count("uploads") == 1
        registry.client.write_upload(upload.id, 0, DATA)
        completion = upload_service_pb2.CompleteUploadRequest(upload_id=upload.id, idempotency_key="completion")
        model = uploads.CompleteUpload(completion).model
        registry.client.update(model.id, score=0.5)
        assert uploads.CompleteUpload(completion).model == model
        other = registry.client.create_upload(name="other")
        cancellation = upload_service_pb2.CancelUploadRequest(upload_id=other.id, idempotency_key="cancellation")
        assert uploads.CancelUpload(cancellation) == uploads.CancelUpload(cancellation)

    def test_concurrent_repeated_registrations_are_one_model(self, registry: RunningRegistry) -> None:
        def attempt(_: int) -> str:
            while True:
                try:
                    return register(registry.client, "key").id
                except grpc.RpcError as error:
                    expect(error, ABORTED)

        with ThreadPoolExecutor(8) as threads:
            assert len(set(threads.map(attempt, range(16)))) == 1
        assert registry.count("models") == 1

    @pytest.mark.parametrize("size", [1_000, 5_000])
    def test_an_answer_too_large_to_keep_is_read_again(self, registry: RunningRegistry, size: int) -> None:
        model = registry.client.register()
        first = update(registry.client, model.id, "key", overview={"string_value": "x" * size})
        assert update(registry.client, model.id, "key", overview={"string_value": "x" * size}) == first
        with registry.engine.connect() as connection:
            kept = connection.execute(text("SELECT answer IS NOT NULL FROM idempotency_keys")).scalar_one()
        assert kept == (size < MAX_ANSWER_BYTES)

    def test_an_answer_that_was_not_kept_shows_the_present_resource(self, registry: RunningRegistry) -> None:
        client = registry.client
        model = client.register()
        large: dict[str, Any] = {"overview": {"string_value": "x" * 5_000}}
        update(client, model.id, "key", **large)
        client.update(model.id, score=0.7)
        seen = events(registry)
        assert update(client, model.id, "key", **large) == client.get(model.id)
        assert client.get(model.id).score == 0.7
        assert events(registry) == seen
        client.delete(model.id)
        with refused(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"):
            update(client, model.id, "key", **large)

    def test_such_answers_show_the_present_group_and_upload(self, registry: RunningRegistry) -> None:
        client = registry.client
        group_id = client.register().model_group_id
        change = model_group_service_pb2.UpdateModelGroupRequest(
            model_group=model_group_pb2.ModelGroup(id=group_id, description="x" * 5_000), idempotency_key="key"
        )
        client.groups.UpdateModelGroup(change)
        other = model_group_service_pb2.UpdateModelGroupRequest(
            model_group=model_group_pb2.ModelGroup(id=group_id, owner="audio")
        )
        changed = client.groups.UpdateModelGroup(other)
        assert client.groups.UpdateModelGroup(change) == changed
        creation = upload_service_pb2.CreateUploadRequest(
            upload=upload_pb2.Upload(spec=spec(name="other", description="x" * 5_000)), idempotency_key="key"
        )
        upload = client.uploads.CreateUpload(creation)
        client.write_upload(upload.id, 0, DATA)
        repeated = client.uploads.CreateUpload(creation)
        assert (repeated.id, repeated.committed_size) == (upload.id, len(DATA))
        completion = upload_service_pb2.CompleteUploadRequest(upload_id=upload.id, idempotency_key="key")
        model = client.uploads.CompleteUpload(completion).model
        current = client.update(model.id, score=0.5)
        assert client.uploads.CompleteUpload(completion).model == current

    def test_a_failed_call_can_be_repeated(self, client: Client) -> None:
        in_the_way = client.register(name="taken")
        with refused(grpc.StatusCode.ALREADY_EXISTS):
            register(client, "key", name="taken", version="1")
        client.delete(in_the_way.id)
        assert register(client, "key", name="taken", version="1").id != in_the_way.id

    def test_a_call_that_changed_nothing_is_executed_again(self, client: Client) -> None:
        delete(client, "a-model-that-comes-later", "key", allow_missing=True)
        client.models.RegisterModel(registration(spec(id="a-model-that-comes-later"), [DATA]))
        delete(client, "a-model-that-comes-later", "key", allow_missing=True)
        with refused(grpc.StatusCode.NOT_FOUND):
            client.get("a-model-that-comes-later")


class TestKeys:
    @pytest.mark.parametrize(
        "repeat",
        [
            lambda client: update(client, "the-first-of-the-two", "key", score=0.25),
            lambda client: update(client, "the-other-of-the-two", "key", score=0.5),
        ],
    )
    def test_a_key_with_another_request_is_refused(self, client: Client, repeat: Callable[[Client], Message]) -> None:
        for model_id in ("the-first-of-the-two", "the-other-of-the-two"):
            client.models.RegisterModel(registration(spec(id=model_id, name=model_id), [DATA]))
        update(client, "the-first-of-the-two", "key", score=0.5)
        with refused(PRECONDITION, REUSED) as refusal:
            repeat(client)
        assert refusal.metadata == {"idempotency_key": "key"}

    def test_a_key_with_other_bytes_is_refused(self, client: Client) -> None:
        first = register(client, "key", b"some")
        with refused(PRECONDITION, REUSED):
            register(client, "key", b"others")
        assert [model.id for model in client.all()] == [first.id]

    def test_each_method_has_its_own_keys(self, client: Client) -> None:
        model = register(client, "key")
        update(client, model.id, "key", score=0.5)
        delete(client, model.id, "key")
        assert client.all() == []

    def test_each_caller_has_its_own_keys(self, people: People) -> None:
        one = register(people.a(Role.WRITER, name="one"), "key", name="one")
        other = register(people.a(Role.WRITER, name="other"), "key", name="other")
        assert one.id != other.id

    @pytest.mark.parametrize("key", ["x" * 129, "é", "a\n", "\x7f"])
    def test_a_malformed_key_is_refused(self, client: Client, key: str) -> None:
        with refused(INVALID) as refusal:
            register(client, key)
        assert refusal.fields == ["idempotency_key"]
        assert client.all() == []

    def test_the_header_and_the_field_are_equivalent(self, client: Client) -> None:
        model = client.register()
        request = model_service_pb2.UpdateModelRequest(model=model_pb2.Model(id=model.id, score=0.5))
        header = (("idempotency-key", "key"),)
        first = client.models.UpdateModel(request, metadata=header)
        assert client.models.UpdateModel(request, metadata=header) == first
        assert update(client, model.id, "key", score=0.5) == first
        request.idempotency_key = "another"
        with refused(INVALID) as refusal:
            client.models.UpdateModel(request, metadata=header)
        assert refusal.fields == ["idempotency_key"]

    def test_a_key_is_valid_until_it_expires_and_gc_removes_it(self, registry: RunningRegistry) -> None:
        model = registry.client.register()
        update(registry.client, model.id, "key", score=0.5)
        update(registry.client, model.id, "other", score=0.6)
        registry.execute("UPDATE idempotency_keys SET expire_time = now() - interval '1 second'")
        # Whether the row is deleted or not.
        assert update(registry.client, model.id, "key", score=0.25).score == 0.25
        with acting_as_registry():
            registry.parts.services.garbage_collector.collect()
        assert registry.count("idempotency_keys") == 1
        assert update(registry.client, model.id, "other", score=0.125).score == 0.125

    def test_a_caller_that_lost_its_role_gets_no_kept_answer(self, people: People) -> None:
        writer = people.a(Role.WRITER, "p1", name="writer")
        model = register(writer, "key", project_id="p1")
        assert register(writer, "key", project_id="p1") == model
        people.running.execute("UPDATE tokens SET project_id = 'p2'")
        with refused(grpc.StatusCode.PERMISSION_DENIED, "PROJECT_DENIED"):
            register(writer, "key", project_id="p1")


class TestLimit:
    @pytest.fixture
    def spent(self, registry: RunningRegistry) -> model_pb2.Model:
        """A model whose registration used its caller's last new key."""
        model = register(registry.client, "key")
        registry.execute(f"UPDATE idempotency_usage SET key_count = {MAX_KEYS_PER_CALLER}")
        return model

    def test_a_new_key_beyond_the_limit_is_refused_before_anything_changes(
        self, registry: RunningRegistry, spent: model_pb2.Model
    ) -> None:
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_IDEMPOTENCY_KEYS") as refusal:
            update(registry.client, spent.id, "new", score=0.5)
        assert refusal.metadata == {"limit": "100000"}
        assert 0 < refusal.detail(error_details_pb2.RetryInfo).retry_delay.seconds <= 24 * 3600
        assert registry.client.get(spent.id) == spent
        assert registry.count("idempotency_keys") == 1

    def test_known_keys_and_calls_without_keys_are_not_affected(
        self, registry: RunningRegistry, spent: model_pb2.Model
    ) -> None:
        assert register(registry.client, "key") == spent
        assert registry.client.update(spent.id, score=0.5).score == 0.5

    def test_other_callers_are_not_affected(self, people: People) -> None:
        one, other = (people.a(Role.WRITER, name=name) for name in ("one", "other"))
        model = register(one, "key")
        people.running.execute(f"UPDATE idempotency_usage SET key_count = {MAX_KEYS_PER_CALLER}")
        assert update(other, model.id, "key", score=0.5).score == 0.5
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED):
            update(one, model.id, "new", score=0.25)

    def test_the_limit_ends_with_its_window(self, registry: RunningRegistry, spent: model_pb2.Model) -> None:
        registry.execute("UPDATE idempotency_usage SET window_end_time = now() - interval '1 second'")
        assert update(registry.client, spent.id, "new", score=0.5).score == 0.5
        assert key_counts(registry) == [1]

    def test_concurrent_calls_are_all_counted(self, registry: RunningRegistry) -> None:
        model = registry.client.register()
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda number: update(registry.client, model.id, f"{number}", score=0.5), range(40)))
        assert key_counts(registry) == [40]

    def test_failed_and_repeated_calls_are_not_counted(self, registry: RunningRegistry) -> None:
        model = registry.client.register()
        for _ in range(3):
            update(registry.client, model.id, "key", score=0.5)
            with refused(grpc.StatusCode.NOT_FOUND):
                update(registry.client, "no-such-model-0123", "other", score=0.5)
        assert key_counts(registry) == [1]

    @pytest.mark.usefixtures("spent")
    def test_gc_removes_the_counts_of_windows_that_ended(self, registry: RunningRegistry) -> None:
        with acting_as_registry():
            registry.parts.services.garbage_collector.collect()
        assert registry.count("idempotency_usage") == 1
        registry.execute("UPDATE idempotency_usage SET window_end_time = now() - interval '1 second'")
        with acting_as_registry():
            registry.parts.services.garbage_collector.collect()
        assert registry.count("idempotency_usage") == 0


class TestRunningCalls:
    def test_a_repeated_call_is_refused_while_the_first_runs(self, registry: RunningRegistry) -> None:
        feed = Feed(*keyed(registration(spec(), [DATA]), "key"))
        first = registry.client.models.RegisterModel.future(feed)
        eventually(lambda: registry.count("idempotency_keys") == 1, what="the first call")
        with refused(ABORTED, RUNNING) as refusal:
            register(registry.client, "key")
        assert refusal.detail(error_details_pb2.RetryInfo).retry_delay.seconds == 1
        with refused(PRECONDITION, REUSED):
            register(registry.client, "key", name="another")
        feed.end()
        model = first.result().model
        assert register(registry.client, "key") == model

    def test_a_call_whose_client_leaves_frees_its_key(self, registry: RunningRegistry) -> None:
        feed = Feed(*keyed(registration(spec(), [DATA]), "key"))
        first = registry.client.models.RegisterModel.future(feed)
        eventually(lambda: registry.count("idempotency_keys") == 1, what="the first call")
        first.cancel()
        feed.end()
        eventually(lambda: registry.count("idempotency_keys") == 0, what="the end of the first call")
        register(registry.client, "key")

    def test_a_call_that_lost_its_key_commits_nothing(self, registry: RunningRegistry) -> None:
        feed = Feed(*keyed(registration(spec(), [DATA]), "key"))
        first = registry.client.models.RegisterModel.future(feed)
        eventually(lambda: registry.count("idempotency_keys") == 1, what="the first call")
        registry.execute("UPDATE idempotency_keys SET lease_time = now() - interval '1 second'")
        model = register(registry.client, "key")
        registry.client.delete(model.id)  # so that only the key conflicts
        feed.end()
        with refused(ABORTED, RUNNING):
            first.result()
        assert registry.client.all() == []
        assert register(registry.client, "key") == model

    def test_a_long_call_keeps_its_key(self, registry: RunningRegistry) -> None:
        attempt = IdempotencyService(registry.parts.database, lease=timedelta(seconds=0.3)).attempt

        def leases() -> list[datetime]:
            with registry.engine.connect() as connection:
                return list(connection.execute(text("SELECT lease_time FROM idempotency_keys")).scalars())

        call = KeyedCall(caller="", method="/m", key="key", digest=bytes(32), encode=lambda _: b"")
        with attempt(call) as kept:
            assert kept is None
            [first] = leases()
            eventually(lambda: leases()[0] > first + timedelta(seconds=0.3), what="a renewed lease")
        assert leases() == []


class TestAliasesAndGroups:
    def test_repeated_calls_move_roll_back_and_delete_an_alias_once(self, registry: RunningRegistry) -> None:
        client, aliases = registry.client, registry.client.aliases
        first, second, third = (client.register(version=str(i), data=bytes([i])) for i in range(1, 4))
        alias: dict[str, Any] = {"model_group_id": first.model_group_id, "alias": "production"}
        for model in (first, second):
            aliases.SetAlias(alias_service_pb2.SetAliasRequest(model_id=model.id, **alias))
        move = alias_service_pb2.SetAliasRequest(model_id=third.id, idempotency_key="move", **alias)
        moved = aliases.SetAlias(move)
        assert moved.changed
        back = alias_service_pb2.RollbackAliasRequest(etag=moved.alias.etag, idempotency_key="back", **alias)
        rolled_back = aliases.RollbackAlias(back)
        assert rolled_back.alias.model_id == second.id
        seen = events(registry)
        assert aliases.SetAlias(move) == moved
        assert aliases.RollbackAlias(back) == rolled_back
        removal = alias_service_pb2.DeleteAliasRequest(idempotency_key="removal", **alias)
        removed = aliases.DeleteAlias(removal)
        assert removed.before.model_id == second.id
        assert aliases.DeleteAlias(removal) == removed
        assert events(registry) == seen + 1

    def test_a_repeated_move_that_changed_nothing_does_not_move_the_alias_later(self, client: Client) -> None:
        first, second = (client.register(version=str(i), data=bytes([i])) for i in range(2))
        alias: dict[str, Any] = {"model_group_id": first.model_group_id, "alias": "production"}
        client.aliases.SetAlias(alias_service_pb2.SetAliasRequest(model_id=first.id, **alias))
        same = alias_service_pb2.SetAliasRequest(model_id=first.id, idempotency_key="key", **alias)
        assert not client.aliases.SetAlias(same).changed
        client.aliases.SetAlias(alias_service_pb2.SetAliasRequest(model_id=second.id, **alias))
        assert not client.aliases.SetAlias(same).changed
        assert client.aliases.GetAlias(alias_service_pb2.GetAliasRequest(**alias)).model_id == second.id

    def test_repeated_calls_update_and_delete_a_group_once(self, registry: RunningRegistry) -> None:
        client, groups = registry.client, registry.client.groups
        model = client.register()
        change = model_group_service_pb2.UpdateModelGroupRequest(
            model_group=model_group_pb2.ModelGroup(id=model.model_group_id, owner="vision"), idempotency_key="key"
        )
        changed = groups.UpdateModelGroup(change)
        change_back = model_group_service_pb2.UpdateModelGroupRequest(
            model_group=model_group_pb2.ModelGroup(id=model.model_group_id, owner="audio")
        )
        groups.UpdateModelGroup(change_back)
        assert groups.UpdateModelGroup(change) == changed
        client.delete(model.id)
        removal = model_group_service_pb2.DeleteModelGroupRequest(
            model_group_id=model.model_group_id, idempotency_key="key"
        )
        groups.DeleteModelGroup(removal)
        groups.DeleteModelGroup(removal)

    def test_validate_only_keeps_no_answer(self, registry: RunningRegistry) -> None:
        model = registry.client.register()
        request = alias_service_pb2.SetAliasRequest(
            model_group_id=model.model_group_id,
            alias="production",
            model_id=model.id,
            validate_only=True,
            idempotency_key="key",
        )
        assert registry.client.aliases.SetAlias(request).changed
        request.validate_only = False
        assert registry.client.aliases.SetAlias(request).changed
        assert registry.client.aliases.SetAlias(request).changed
        assert registry.count("alias_moves") == 1


WITHOUT_KEYS = {
    # The offset identifies the bytes, and the upload's committed size shows whether they arrived.
    "UploadService/WriteUpload",
    "UploadService/WriteUploadContent",
    "ArtifactService/VerifyArtifact",
    # Each model is imported once, since its id comes from Geti.
    "GetiService/ImportModels",
}
SERVICERS = (ModelServicer, ModelGroupServicer, UploadServicer, AliasServicer)


def writes() -> Iterator[MethodDescriptor]:
    """Return the writing methods of the typed API."""
    pool = descriptor_pool.Default()
    for name in http_routes().services:
        for method in pool.FindServiceByName(name).methods:
            proto = MethodDescriptorProto()
            method.CopyToProto(proto)
            if proto.options.idempotency_level != MethodOptions.NO_SIDE_EFFECTS and ".compat." not in name:
                yield method


def test_every_write_accepts_a_key() -> None:
    without = {
        f"{method.containing_service.name}/{method.name}"
        for method in writes()
        if "idempotency_key" not in method.input_type.fields_by_name
    }
    assert without == WITHOUT_KEYS


def test_every_write_that_accepts_a_key_uses_it() -> None:
    methods = {name: method for servicer in SERVICERS for name, method in vars(servicer).items()}
    heeding = {name for name, method in methods.items() if hasattr(method, "__wrapped__")}
    assert heeding == {method.name for method in writes() if "idempotency_key" in method.input_type.fields_by_name}
