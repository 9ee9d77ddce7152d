"""Access control of every method and role, and of every way to another project's models."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from typing import Any, cast

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from modelregistry.compat.v1 import compat_service_pb2, compat_service_pb2_grpc
from modelregistry.v1 import (
    alias_service_pb2,
    artifact_service_pb2,
    audit_pb2,
    audit_service_pb2,
    model_service_pb2,
)
from sqlalchemy import Engine, text

from registry_service import wiring
from registry_service.domain.access import Grant, Permission, Role
from registry_service.domain.caller import AccessRecheck
from registry_service.domain.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    ProjectNotFoundError,
    UnauthenticatedError,
)
from registry_service.geti.authorized import AuthorizedGeti
from registry_service.geti.port import Geti, ModelKey, ProjectSummary
from registry_service.methods import METHODS as POLICIES
from registry_service.methods import OpenTo
from registry_service.services.authentication import CachedAuthenticator
from registry_service.services.tokens import TokenService
from registry_service.storage.artifacts.local import LocalArtifactStore
from registry_service.storage.sql.database import SqlDatabase
from registry_service.transport.http_routes import http_routes
from tests.polling import eventually
from tests.registry import RunningRegistry, StartRegistry
from tests.streams import Feed
from tests.stub_client import Client, Refusal, refused, registration, spec
from tests.watch_client import Watch

DENIED, UNKNOWN, UNAUTHENTICATED = (
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNAUTHENTICATED,
)
COMPAT = "/modelregistry.compat.v1.CompatService/"
HEALTH = "/grpc.health.v1.Health/"
LIVE_ID, DELETED_ID, MOVED_ID = "a-model-that-is-there", "a-model-that-is-gone", "a-model-that-moved"


class Bearer(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Sends the `authorization` header and others with every call."""

    def __init__(self, *metadata: tuple[str, str]) -> None:
        self._metadata = metadata

    def _intercept(self, continuation: Any, details: Any, request: Any) -> Any:
        metadata = [*(details.metadata or ()), *self._metadata]
        return continuation(details._replace(metadata=metadata), request)

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return self._intercept(continuation, details, request)

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return self._intercept(continuation, details, request)

    def intercept_stream_unary(self, continuation: Any, details: Any, requests: Any) -> Any:
        return self._intercept(continuation, details, requests)

    def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        return self._intercept(continuation, details, requests)


class People:
    """Clients of one server, each with its own token."""

    def __init__(self, running: RunningRegistry) -> None:
        self.running = running
        self.tokens = TokenService(SqlDatabase(running.engine))
        self._clients: list[Client] = []

    def secret(self, role: Role, project: str | None = None, name: str = "") -> str:
        return self.tokens.create(Grant(role, project), name=name)[1]

    def who_has(self, *metadata: tuple[str, str]) -> Client:
        client = Client(self.running.client.address, Bearer(*metadata))
        self._clients.append(client)
        return client

    def a(self, role: Role, project: str | None = None, name: str = "") -> Client:
        return self.who_has(("authorization", f"Bearer {self.secret(role, project, name)}"))

    def close(self) -> None:
        for client in self._clients:
            client.close()


@pytest.fixture
def people(start_registry: StartRegistry) -> Iterator[People]:
    people = People(start_registry(auth_mode="token"))
    yield people
    people.close()


@pytest.fixture
def without_token_cache(start_registry: StartRegistry, monkeypatch: pytest.MonkeyPatch) -> Iterator[People]:
    """Clients of a server that looks up the token of every call."""
    monkeypatch.setattr(wiring, "CachedAuthenticator", partial(CachedAuthenticator, seconds=0))
    people = People(start_registry(auth_mode="token"))
    yield people
    people.close()


def methods() -> dict[str, descriptor_pb2.MethodDescriptorProto]:
    """Return every method of the server except those of reflection, by path."""
    found = {}
    pool = descriptor_pool.Default()
    for service in (*http_services(), "grpc.health.v1.Health"):
        for method in pool.FindServiceByName(service).methods:
            proto = descriptor_pb2.MethodDescriptorProto()
            method.CopyToProto(proto)
            found[f"/{service}/{method.name}"] = proto
    return found


def http_services() -> set[str]:
    return {
        f"{file.package}.{service.name}"
        for file in descriptor_pb2.FileDescriptorSet.FromString(http_routes().descriptor_set.read_bytes()).file
        if file.package.startswith("modelregistry.")
        for service in file.service
    }


METHODS = methods()


def call(client: Client, path: str, timeout: float = 30) -> tuple[grpc.StatusCode, str]:
    """Call a method with an empty request, and return its status and the HTTP status in its answer."""
    method = METHODS[path]
    pool = descriptor_pool.Default()
    request_type: type[Message] = message_factory.GetMessageClass(
        pool.FindMessageTypeByName(method.input_type.lstrip("."))
    )
    kind: Any = {
        (False, False): client.channel.unary_unary,
        (True, False): client.channel.stream_unary,
        (False, True): client.channel.unary_stream,
        (True, True): client.channel.stream_stream,
    }[method.client_streaming, method.server_streaming]
    stub: Any = kind(path, request_serializer=lambda message: message.SerializeToString(), response_deserializer=bytes)
    request = iter([request_type()]) if method.client_streaming else request_type()
    if method.server_streaming:
        answers = stub(request, timeout=timeout)
        try:
            # The first message is enough: a watch does not end.
            next(answers, None)
            initial = dict(answers.initial_metadata())
            if path.endswith(("Watch", "WatchAuditEvents")):
                answers.cancel()
                return grpc.StatusCode.OK, ""
            for _ in answers:
                pass
        except grpc.RpcError as error:
            return refusal_of(error).code, dict(answers.initial_metadata()).get("x-http-status", "")
        return grpc.StatusCode.OK, initial.get("x-http-status", "")
    try:
        _, finished = stub.with_call(request, timeout=timeout)
    except grpc.RpcError as error:
        return refusal_of(error).code, ""
    return grpc.StatusCode.OK, dict(finished.initial_metadata()).get("x-http-status", "")


def refusal_of(error: grpc.RpcError) -> Refusal:
    refusal = Refusal()
    refusal.error = error
    return refusal


def waits_for_a_lock(engine: Engine) -> bool:
    query = (
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')"
    )
    with engine.connect() as connection:
        return bool(connection.execute(text(query)).scalar_one())


class TestEveryMethod:
    def test_every_service_of_the_server_is_tested_here(self, people: People) -> None:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(people.a(Role.READER).channel)
        (answer,) = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        services = {service.name for service in answer.list_services_response.service}
        assert services == {
            *(path.split("/")[1] for path in METHODS),
            "grpc.reflection.v1alpha.ServerReflection",
        }

    def test_the_policy_table_has_exactly_the_methods_of_the_server(self) -> None:
        assert METHODS.keys() == POLICIES.keys() - {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"}

    def test_only_methods_open_to_everybody_work_without_credentials(self, people: People) -> None:
        anonymous = people.who_has()
        opened = set()
        for path in METHODS:
            code, http_status = call(anonymous, path, timeout=2 if path == f"{HEALTH}Watch" else 30)
            if path.startswith(COMPAT):
                assert (code, http_status) == (grpc.StatusCode.OK, "401"), path
            elif code is not UNAUTHENTICATED:
                opened.add(path)
        assert opened == {path for path, policy in POLICIES.items() if policy.access is OpenTo.EVERYBODY}

    def test_reflection_requires_credentials(self, people: People) -> None:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(people.who_has().channel)
        with refused(UNAUTHENTICATED):
            list(stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")])))

    @pytest.mark.parametrize("role", Role)
    def test_a_role_allows_exactly_the_methods_of_its_permissions(self, people: People, role: Role) -> None:
        client = people.a(role)
        allowed = {
            Role.READER: {Permission.READ},
            Role.WRITER: {Permission.READ, Permission.WRITE},
            Role.PROMOTER: {Permission.READ, Permission.PROMOTE},
            Role.ADMIN: set(Permission),
        }[role]
        for path in METHODS:
            required = POLICIES[path].access
            if isinstance(required, OpenTo):
                continue
            code, http_status = call(client, path)
            is_refused = "403" if path.startswith(COMPAT) else DENIED
            answer: object = http_status if path.startswith(COMPAT) else code
            assert (answer == is_refused) is (required not in allowed), path
            assert code is not UNAUTHENTICATED
            assert http_status != "401"

    def test_a_method_without_a_policy_is_refused_to_everybody(
        self, people: People, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delitem(cast(dict[str, Any], POLICIES), "/modelregistry.v1.ModelService/GetModel")
        with refused(DENIED, "ACCESS_DENIED"):
            people.a(Role.ADMIN).get("a-model-of-no-body")


class TestCredentials:
    @pytest.mark.parametrize(
        "metadata",
        [
            [("authorization", "Bearer mrt_" + "A" * 43)],
            [("authorization", "Bearer mrt_short")],
            [("authorization", "Bearer eyJhbGciOiJub25lIn0.e30.")],
            [("authorization", "Bearer ")],
            [("authorization", "")],
            [("authorization", "Basic YWRtaW46YWRtaW4=")],
            [("authorization", "Bearer " + "A" * 20_000)],
            [("authorization", "mrt_" + "A" * 43)],
        ],
    )
    def test_invalid_credentials_are_refused(self, people: People, metadata: list[tuple[str, str]]) -> None:
        with refused(UNAUTHENTICATED, "INVALID_CREDENTIALS") as refusal:
            people.who_has(*metadata).all()
        trailing = dict(refusal._call.trailing_metadata())
        assert trailing["www-authenticate"] == 'Bearer realm="model-registry", error="invalid_token"'

    def test_a_call_without_credentials_is_challenged(self, people: People) -> None:
        with refused(UNAUTHENTICATED, "UNAUTHENTICATED") as refusal:
            people.who_has().all()
        assert dict(refusal._call.trailing_metadata())["www-authenticate"] == 'Bearer realm="model-registry"'

    def test_two_tokens_in_one_call_are_refused(self, people: People) -> None:
        bearer = ("authorization", f"Bearer {people.secret(Role.ADMIN)}")
        with refused(UNAUTHENTICATED, "INVALID_CREDENTIALS"):
            people.who_has(bearer, bearer).all()

    def test_the_scheme_bearer_is_case_insensitive(self, people: People) -> None:
        assert people.who_has(("authorization", f"bEARER {people.secret(Role.READER)}")).all() == []

    def test_an_authenticated_caller_cannot_claim_another_actor(self, people: People) -> None:
        bearer = ("authorization", f"Bearer {people.secret(Role.ADMIN, name='ci')}")
        client = people.who_has(bearer, ("x-actor", "mallory"))
        model = client.register()
        client.set_alias(model.id)
        events = client.audit.ListAuditEvents(audit_service_pb2.ListAuditEventsRequest()).audit_events
        assert model.creator == "token:ci"
        assert {event.actor for event in events if event.model_id} == {"token:ci"}

    def test_without_authentication_every_call_is_allowed_and_the_actor_is_claimed(
        self, registry: RunningRegistry
    ) -> None:
        client = Client(registry.client.address, Bearer(("x-actor", "ada"), ("authorization", "Bearer nonsense")))
        model = client.register(project_id="p")
        assert model.creator == "ada"
        client.delete(model.id)
        client.close()

    def test_a_watch_ends_when_its_token_is_revoked(self, people: People) -> None:
        watcher = people.a(Role.READER, name="watcher")
        people.a(Role.WRITER).register()
        messages = watcher.audit.WatchAuditEvents(audit_service_pb2.WatchAuditEventsRequest(), timeout=60)
        assert next(messages).resume_token
        people.tokens.revoke("watcher")
        with refused(UNAUTHENTICATED, "INVALID_CREDENTIALS"):
            list(messages)

    def test_a_registration_whose_token_is_revoked_leaves_nothing(self, without_token_cache: People) -> None:
        writer, running = without_token_cache.a(Role.WRITER, name="writer"), without_token_cache.running
        feed = Feed(*registration(spec(), [b"x"]))
        call: Any = writer.models.RegisterModel.future(feed)
        eventually(lambda: running.count("unreferenced_objects") == 1)
        without_token_cache.tokens.revoke("writer")
        feed.send(model_service_pb2.RegisterModelRequest(chunk=b"y"))
        feed.end()
        assert call.code() is UNAUTHENTICATED
        assert running.count("models") == 0
        eventually(lambda: running.count("unreferenced_objects") == 0)
        assert running.objects() == []

    def test_an_endless_registration_ends_when_its_token_is_revoked(self, without_token_cache: People) -> None:
        writer = without_token_cache.a(Role.WRITER, name="writer")
        feed = Feed(*registration(spec(), [b"x"]))
        call: Any = writer.models.RegisterModel.future(feed)
        eventually(lambda: without_token_cache.running.count("unreferenced_objects") == 1)
        without_token_cache.tokens.revoke("writer")

        def is_refused() -> bool:
            feed.send(model_service_pb2.RegisterModelRequest(chunk=b"y"))
            return bool(call.done())

        eventually(is_refused)
        assert call.code() is UNAUTHENTICATED

    def test_a_completion_whose_token_is_revoked_creates_no_model(
        self, without_token_cache: People, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        writer, running = without_token_cache.a(Role.WRITER, name="writer"), without_token_cache.running
        upload = writer.create_upload()
        writer.write_upload(upload.id, 0, b"abc")
        put = LocalArtifactStore.put

        def revoked(self: LocalArtifactStore, key: str, data: bytes) -> None:
            without_token_cache.tokens.revoke("writer")
            put(self, key, data)

        monkeypatch.setattr(LocalArtifactStore, "put", revoked)
        with refused(UNAUTHENTICATED, "INVALID_CREDENTIALS"):
            writer.complete_upload(upload.id)
        assert running.count("models") == 0
        monkeypatch.undo()
        # Another writer can still complete the upload.
        assert without_token_cache.a(Role.WRITER).complete_upload(upload.id).artifact.size_bytes == 3

    def test_a_unary_call_that_has_committed_is_not_refused_afterwards(
        self, people: People, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        admin = people.a(Role.ADMIN)
        model = admin.register()

        def revoked(_: AccessRecheck) -> None:
            raise UnauthenticatedError

        monkeypatch.setattr(AccessRecheck, "__call__", revoked)
        admin.delete(model.id)

    def test_a_download_ends_when_its_token_is_revoked(self, without_token_cache: People) -> None:
        model = without_token_cache.a(Role.WRITER).register(bytes(64 * 1024 * 1024))
        reader = without_token_cache.a(Role.READER, name="reader")
        request = artifact_service_pb2.DownloadArtifactRequest(model_id=model.id)
        messages = reader.artifacts.DownloadArtifact(request, timeout=60)
        next(messages)
        without_token_cache.tokens.revoke("reader")
        threading.Event().wait(1.2)
        with refused(UNAUTHENTICATED, "INVALID_CREDENTIALS"):
            list(messages)

    @pytest.mark.parametrize("path", ["/modelregistry.v1.ModelService/DeleteModel", f"{COMPAT}DeleteModel"])
    def test_a_refused_call_is_logged_with_its_actor(
        self, people: People, caplog: pytest.LogCaptureFixture, path: str
    ) -> None:
        with caplog.at_level("INFO", "registry_service.calls"):
            call(people.a(Role.READER, name="curious"), path)
        [line] = [vars(record) for record in caplog.records if vars(record).get("method") == path]
        assert line["actor"] == "token:curious"

    def test_no_token_is_logged(self, people: People, caplog: pytest.LogCaptureFixture) -> None:
        secret = people.secret(Role.READER)
        client = people.who_has(("authorization", f"Bearer {secret}"))
        with caplog.at_level("DEBUG"):
            client.all()
            with refused(DENIED, "ROLE_MISSING"):
                client.register()
        lines = [json.dumps(vars(record), default=str) for record in caplog.records]
        assert lines
        assert not [line for line in lines if secret in line]


class TestUploads:
    def test_callers_list_only_their_own_uploads(self, people: People) -> None:
        root, ada, bob = people.a(Role.ADMIN), people.a(Role.WRITER, name="ada"), people.a(Role.WRITER, name="bob")
        uploads = {client: client.create_upload(name=name) for client, name in ((ada, "a"), (bob, "b"))}
        assert [upload.creator for upload in uploads.values()] == ["token:ada", "token:bob"]
        for client, upload in uploads.items():
            assert list(client.list_uploads().uploads) == [upload]
        assert not root.list_uploads().uploads
        # Not listed, but any caller with write access to the project can continue it.
        assert bob.get_upload(uploads[ada].id) == uploads[ada]
        with refused(DENIED, "ROLE_MISSING"):
            people.a(Role.READER).list_uploads()

    def test_an_upload_is_not_listed_once_its_creator_may_no_longer_write_there(self, people: People) -> None:
        creator = people.a(Role.WRITER, name="ada")
        own = creator.create_upload(name="a", project_id="own")
        creator.create_upload(name="b", project_id="other")
        creator.create_upload(name="c")
        people.running.execute("UPDATE tokens SET project_id = 'own' WHERE name = 'ada'")
        # A new caller, since the server caches the changed token for some seconds.
        fresh = people.a(Role.WRITER, "own", name="somebody")
        people.running.execute("UPDATE uploads SET creator = 'token:somebody'")
        assert [upload.id for upload in fresh.list_uploads().uploads] == [own.id]


class TestProjects:
    """Two projects, and what callers of one can learn about the other."""

    @pytest.fixture
    def root(self, people: People) -> Client:
        return people.a(Role.ADMIN, name="root")

    def test_a_model_of_another_project_is_not_found(self, people: People, root: Client) -> None:
        other = root.register(project_id="other")
        none = root.register()
        own = root.register(project_id="own")
        admin = people.a(Role.ADMIN, "own")
        for model in (other, none):
            for attempt in (
                admin.get,
                admin.download,
                admin.verify,
                admin.files,
                lambda model_id: admin.download_file(model_id, "x"),
                lambda model_id: admin.update(model_id, ["score"], score=1),
                admin.delete,
                admin.ancestors,
                admin.descendants,
                admin.manifest,
                lambda model_id: admin.compare(model_id, "no-such-model-here"),
                lambda model_id: admin.set_alias(model_id, model_group_id=own.model_group_id),
            ):
                with refused(UNKNOWN, "MODEL_NOT_FOUND") as hidden:
                    attempt(model.id)
                with refused(UNKNOWN, "MODEL_NOT_FOUND") as missing:
                    attempt("x" * len(model.id))
                # Word for word the answer about one that does not exist.
                assert hidden.message == missing.message.replace("x" * len(model.id), model.id)
        assert root.get(other.id).revision == 1

    def test_an_id_that_another_project_has_or_had_is_not_available(self, people: People, root: Client) -> None:
        client = people.a(Role.ADMIN, "own")
        refusals = []
        for model_id in (LIVE_ID, DELETED_ID, MOVED_ID):
            root.register(id=model_id, name=model_id, project_id="own" if model_id == MOVED_ID else "other")
        root.delete(DELETED_ID)
        root.update(MOVED_ID, ["project_id"], project_id="other")
        root.delete(MOVED_ID)
        for model_id in (LIVE_ID, DELETED_ID, MOVED_ID):
            for attempt in (client.register, client.create_upload):
                with refused(grpc.StatusCode.ALREADY_EXISTS, "MODEL_ALREADY_EXISTS") as refusal:
                    attempt(id=model_id, project_id="own", name="mine")
                assert refusal.metadata == {"model_id": model_id, "conflict": "id"}
                refusals.append(refusal.message.replace(model_id, "ID"))
        # The answer does not reveal whether the model exists or existed.
        assert set(refusals) == {"The id 'ID' is not available."}
        assert client.all() == []

    def test_an_id_stays_with_its_project_even_for_callers_of_all_projects(self, root: Client) -> None:
        for project in ("own", None):
            fields: dict[str, Any] = {} if project is None else {"project_id": project}
            model_id = f"registered-in-{project}"
            root.register(id=model_id, **fields)
            root.delete(model_id)
            with refused(grpc.StatusCode.ALREADY_EXISTS, "MODEL_ALREADY_EXISTS"):
                root.register(id=model_id, project_id="other")
            assert root.register(b"again", id=model_id, **fields).id == model_id
            root.delete(model_id)

    def test_an_id_deleted_during_a_registration_by_another_project_stays_with_its_project(
        self, people: People, root: Client
    ) -> None:
        root.register(id=LIVE_ID, project_id="other")
        parts, engine = people.running.parts, people.running.engine
        there = parts.services.models.get(LIVE_ID)
        taken = replace(there, project_id="own", artifact=replace(there.artifact, object_key="another"))

        def add() -> None:
            with parts.database.transaction() as transaction:
                transaction.models.add(taken)

        with engine.connect() as deleting, ThreadPoolExecutor(1) as threads:
            deleting.execute(text("DELETE FROM models"))
            adding = threads.submit(add)
            eventually(partial(waits_for_a_lock, engine), what="the insertion")
            deleting.commit()
            with pytest.raises(AlreadyExistsError, match="not available"):
                adding.result()
        assert root.all() == []

    def test_a_deletion_with_allow_missing_deletes_nothing_of_another_project(
        self, people: People, root: Client
    ) -> None:
        other = root.register(project_id="other")
        people.a(Role.ADMIN, "own").delete(other.id, allow_missing=True)
        assert root.get(other.id).id == other.id

    def test_lists_contain_only_the_callers_projects(self, people: People, root: Client) -> None:
        for project in ("own", "other", "Own", "own2", None):
            fields: dict[str, Any] = {} if project is None else {"project_id": project}
            root.register(name="yolo", **fields)
        client = people.a(Role.READER, "own")
        for wanted in (
            "",
            'name = "yolo"',
            'project_id = "other"',
            'NOT project_id = "own"',
            'name = "x" OR version = "1"',
        ):
            assert {model.project_id for model in client.all(wanted)} <= {"own"}
        assert len(client.all()) == 1

    def test_the_intel_compatible_list_contains_only_the_callers_projects(self, people: People, root: Client) -> None:
        own = root.register(name="yolo", project_id="own")
        root.register(name="yolo", project_id="other")
        stub = compat_service_pb2_grpc.CompatServiceStub(people.a(Role.READER, "own").channel)
        messages = stub.ListModels(compat_service_pb2.ListModelsRequest())
        assert [model["id"] for model in json.loads(b"".join(message.data for message in messages))] == [own.id]

    def test_models_can_be_registered_only_in_the_callers_project(self, people: People) -> None:
        writer = people.a(Role.WRITER, "own")
        assert writer.register(project_id="own").project_id == "own"
        elsewhere: list[dict[str, Any]] = [{"project_id": "other"}, {}, {"project_name": "own"}]
        for fields in elsewhere:
            with refused(DENIED, "PROJECT_DENIED"):
                writer.register(version="2", **fields)
            with refused(DENIED, "PROJECT_DENIED"):
                writer.create_upload(version="2", **fields)
        assert people.running.count("models") == 1

    def test_a_model_cannot_be_moved_into_another_project(self, people: People, root: Client) -> None:
        writer = people.a(Role.WRITER, "own")
        model = writer.register(project_id="own")
        with refused(DENIED, "PROJECT_DENIED"):
            writer.update(model.id, ["project_id"], project_id="other")
        with refused(DENIED, "PROJECT_DENIED"):
            writer.update(model.id, ["project_id"])
        assert root.get(model.id).project_id == "own"

    def test_an_upload_is_visible_to_writers_of_its_project(self, people: People) -> None:
        upload = people.a(Role.WRITER, "own").create_upload(project_id="own")
        anonymous, colleague = people.a(Role.WRITER, "other"), people.a(Role.WRITER, "own")
        for attempt in (
            lambda: anonymous.get_upload(upload.id),
            lambda: anonymous.complete_upload(upload.id, validate_only=True),
            lambda: anonymous.write_upload(upload.id, 0, b"data"),
            lambda: anonymous.complete_upload(upload.id),
            lambda: anonymous.cancel_upload(upload.id),
        ):
            with refused(UNKNOWN, "UPLOAD_NOT_FOUND"):
                attempt()
        colleague.write_upload(upload.id, 0, b"data")
        assert colleague.complete_upload(upload.id).project_id == "own"

    def test_ancestors_and_descendants_in_other_projects_are_hidden(self, people: People, root: Client) -> None:
        """Parent and grandparent are in another project; the children are in both."""
        secret = root.register(name="secret", project_id="other")
        base = root.register(name="base", project_id="other", provenance={"parent_model_ids": [secret.id]})
        own = root.register(name="own", project_id="own", provenance={"parent_model_ids": [base.id]})
        child = root.register(name="child", project_id="own", provenance={"parent_model_ids": [own.id]})
        root.register(name="hidden", project_id="other", provenance={"parent_model_ids": [own.id]})
        reader = people.a(Role.READER, "own")
        ancestors = reader.ancestors(own.id).nodes
        assert [(relative.model_id, relative.HasField("model")) for relative in ancestors] == [(base.id, False)]
        assert [relative.model_id for relative in reader.descendants(own.id).nodes] == [child.id]
        assert secret.id not in str(reader.manifest(child.id))

    def test_a_cycle_through_another_project_does_not_name_its_models(self, people: People, root: Client) -> None:
        own = root.register(name="own", project_id="own")
        hidden = root.register(name="hidden", project_id="other", provenance={"parent_model_ids": [own.id]})
        middle = root.register(name="middle", project_id="own", provenance={"parent_model_ids": [hidden.id]})
        writer = people.a(Role.WRITER, "own")
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "PROVENANCE_CYCLE") as refusal:
            writer.update(own.id, ["provenance"], provenance={"parent_model_ids": [middle.id]})
        assert refusal.metadata["model_ids"] == f"{own.id},{middle.id},{own.id}"
        assert "hidden" not in refusal.message
        assert f"own/own:{own.version} from own/middle:{middle.version} from own/own:{own.version}." in refusal.message

    def test_aliases_of_another_project_are_not_found(self, people: People, root: Client) -> None:
        own, other = (root.register(name="yolo", project_id=project) for project in ("own", "other"))
        for model in (own, other):
            root.set_alias(model.id)
        promoter = people.a(Role.PROMOTER, "own")
        everything = alias_service_pb2.ListAliasesRequest(model_group_id="-")
        assert [alias.model_id for alias in promoter.aliases.ListAliases(everything).aliases] == [own.id]
        for alias in ("-", "production"):
            moves = alias_service_pb2.ListAliasMovesRequest(model_group_id="-", alias=alias)
            found = promoter.aliases.ListAliasMoves(moves).alias_moves
            assert [move.model_group_id for move in found] == [own.model_group_id]
        assert [model.id for model in promoter.all("aliases : production")] == [own.id]
        named: dict[str, Any] = {"model_group_id": other.model_group_id, "alias": "production"}
        everything.model_group_id = other.model_group_id
        for attempt in (
            lambda: promoter.aliases.ListAliases(everything),
            lambda: promoter.set_alias(own.id, model_group_id=other.model_group_id),
            lambda: promoter.aliases.GetAlias(alias_service_pb2.GetAliasRequest(**named)),
            lambda: promoter.aliases.GetAlias(alias_service_pb2.GetAliasRequest(**named, at_time=own.create_time)),
            lambda: promoter.aliases.ListAliasMoves(alias_service_pb2.ListAliasMovesRequest(**named)),
            lambda: promoter.aliases.RollbackAlias(alias_service_pb2.RollbackAliasRequest(**named, etag="any")),
            lambda: promoter.aliases.DeleteAlias(alias_service_pb2.DeleteAliasRequest(**named)),
        ):
            with refused(UNKNOWN, "MODEL_GROUP_NOT_FOUND") as hidden:
                attempt()
            assert hidden.metadata == {"model_group_id": other.model_group_id}

    def test_groups_of_another_project_are_not_found(self, people: People, root: Client) -> None:
        own, other = (root.register(name="yolo", project_id=project) for project in ("own", "other"))
        none = root.register(name="yolo")
        root.delete(other.id)
        admin = people.a(Role.ADMIN, "own", name="groups-admin")
        assert [group.id for group in admin.all_groups(show_empty=True)] == [own.model_group_id]
        assert [group.id for group in admin.all_groups('project_id = "other"', show_empty=True)] == []
        for model in (other, none):
            for attempt in (
                admin.group,
                lambda group_id: admin.update_group(group_id, owner="mallory"),
                admin.delete_group,
                lambda group_id: admin.delete_group(group_id, validate_only=True),
            ):
                with refused(UNKNOWN, "MODEL_GROUP_NOT_FOUND") as hidden:
                    attempt(model.model_group_id)
                with refused(UNKNOWN, "MODEL_GROUP_NOT_FOUND") as missing:
                    attempt("x" * len(model.model_group_id))
                # Word for word the answer about one that does not exist.
                assert hidden.message == missing.message.replace("x" * len(model.model_group_id), model.model_group_id)
            assert admin.all(f'model_group_id = "{model.model_group_id}"') == []
            assert root.group(model.model_group_id).owner == ""
        assert admin.update_group(own.model_group_id, owner="ada").version_count == 1

    def test_writers_update_a_group_and_admins_delete_it(self, people: People, root: Client) -> None:
        group_id = root.register(name="yolo", project_id="own").model_group_id
        root.delete(root.all()[0].id)
        reader, writer = people.a(Role.READER, "own"), people.a(Role.WRITER, "own")
        assert reader.group(group_id).version_count == 0
        with refused(DENIED):
            reader.update_group(group_id, owner="mallory")
        assert writer.update_group(group_id, owner="ada").owner == "ada"
        with refused(DENIED):
            writer.delete_group(group_id)
        people.a(Role.ADMIN, "own").delete_group(group_id)

    def test_a_model_moves_only_between_the_callers_projects(self, people: People, root: Client) -> None:
        own = root.register(name="yolo", project_id="own")
        root.register(name="yolo", project_id="other", version="2")
        writer = people.a(Role.WRITER, "own")
        with refused(DENIED, "PROJECT_DENIED"):
            writer.update(own.id, ["project_id"], project_id="other")
        assert root.get(own.id).model_group_id == own.model_group_id

    def test_the_audit_log_shows_only_the_callers_project(self, people: People, root: Client) -> None:
        for project in ("own", "other"):
            root.register(project_id=project)
        admin = people.a(Role.ADMIN, "own", name="own-admin")
        for wanted in ("", 'project_id = "other"'):
            events = admin.audit.ListAuditEvents(audit_service_pb2.ListAuditEventsRequest(filter=wanted)).audit_events
            assert {event.project_id for event in events} <= {"own"}
        with refused(DENIED, "PROJECT_DENIED"):
            admin.audit.VerifyAuditLog(audit_service_pb2.VerifyAuditLogRequest())
        assert root.audit.VerifyAuditLog(audit_service_pb2.VerifyAuditLogRequest()).HasField("head")

    @pytest.mark.parametrize("origin", ["other", None])
    def test_the_event_of_a_model_that_moved_here_hides_its_origin(
        self, people: People, root: Client, origin: str | None
    ) -> None:
        names: dict[str, Any] = {} if origin is None else {"project_id": origin, "project_name": "Secret"}
        moved = root.register(name="hidden-before", **names)
        mask = ["project_id", "project_name", "name"]
        root.update(moved.id, mask, project_id="own", project_name="Own", name="seen")
        wanted = audit_service_pb2.ListAuditEventsRequest(filter='name = "seen"')
        listed = people.a(Role.ADMIN, "own").audit.ListAuditEvents(wanted)
        assert len(listed.audit_events) == 1
        request = audit_service_pb2.WatchAuditEventsRequest(from_beginning=True)
        messages = people.a(Role.READER, "own").audit.WatchAuditEvents(request, timeout=60)
        watched = next(message.event for message in messages if message.HasField("event"))
        messages.cancel()
        for event in (watched, *listed.audit_events):
            assert event.action == audit_pb2.AuditEvent.ACTION_MODEL_UPDATED
            assert event.after["name"] == "seen"
            assert not event.HasField("before")
        assert root.audit.ListAuditEvents(wanted).audit_events[0].before["name"] == "hidden-before"

    @pytest.mark.parametrize("target", ["other", None])
    def test_the_project_that_a_model_left_learns_only_that_it_moved_away(
        self, people: People, root: Client, target: str | None
    ) -> None:
        model = root.register(name="seen", project_id="own", project_name="Own", description="ours")
        root.register(name="secret", project_id=target, version="0")
        project = {} if target is None else {"project_id": target, "project_name": "Secret project"}
        mask = ["project_id", "project_name", "name", "description"]
        moved = root.update(model.id, mask, name="secret", description="secret plans", **project)
        root.update(model.id, ["description"], description="more secret plans")
        wanted = audit_service_pb2.ListAuditEventsRequest(filter="action = ACTION_MODEL_UPDATED")
        listed = people.a(Role.ADMIN, "own").audit.ListAuditEvents(wanted).audit_events
        with Watch(people.a(Role.READER, "own"), from_beginning=True) as watch:
            registered, left = watch.events(2)
            here = root.register(project_id="own")
            assert watch.event().model_id == here.id
        assert list(listed) == [left]
        assert registered.model_id == left.model_id == model.id
        assert left.moved_away
        assert (left.name, left.project_id, left.project_name) == ("seen", "own", "Own")
        assert (left.before["name"], left.before["description"]) == ("seen", "ours")
        assert not left.HasField("after")
        shown = str(left)
        assert "ecret" not in shown
        assert moved.model_group_id not in shown

    def test_a_filter_does_not_reveal_where_a_model_moved(self, people: People, root: Client) -> None:
        model = root.register(name="seen", project_id="own", project_name="Own")
        mask = ["project_id", "project_name", "name"]
        moved = root.update(model.id, mask, project_id="other", project_name="Secret", name="hidden")
        admin = people.a(Role.ADMIN, "own")

        def is_found(client: Client, filter_: str) -> bool:
            request = audit_service_pb2.ListAuditEventsRequest(filter=f"action = ACTION_MODEL_UPDATED AND ({filter_})")
            return bool(client.audit.ListAuditEvents(request).audit_events)

        before = ["name = seen", "project_id = own", "project_name = Own", "NOT model_group_id:*", "see"]
        after = ["name = hidden", "project_id = other", "project_name = Secret", "hid"]
        after += [f"model_group_id = {moved.model_group_id}", "NOT name = seen"]
        assert [filter_ for filter_ in before + after if is_found(admin, filter_)] == before
        assert [filter_ for filter_ in before + after if is_found(root, filter_)] == before + after

    def test_a_reader_of_all_projects_sees_both_sides_of_a_move(self, people: People, root: Client) -> None:
        model = root.register(name="yolo", project_id="own")
        root.update(model.id, ["project_id"], project_id="other")
        for project in ("own", "other"):
            filter_ = f"project_id = {project} AND action = ACTION_MODEL_UPDATED"
            with Watch(people.a(Role.READER), from_beginning=True, filter=filter_) as watch:
                event = watch.event()
            assert (event.project_id, event.moved_away) == ("other", False)
            assert (event.before["project_id"], event.after["project_id"]) == ("own", "other")

    def test_a_watch_shows_the_callers_models_and_no_tokens(self, people: People, root: Client) -> None:
        request = audit_service_pb2.WatchAuditEventsRequest(from_beginning=True)
        root.register(project_id="other")
        own = root.register(project_id="own")
        messages = people.a(Role.READER, "own").audit.WatchAuditEvents(request, timeout=60)
        assert next(message.event.model_id for message in messages if message.HasField("event")) == own.id
        messages.cancel()
        everything = root.audit.WatchAuditEvents(request, timeout=60)
        first = next(message.event for message in everything if message.HasField("event"))
        assert first.project_id == "other"
        everything.cancel()


class TestWithoutCaller:
    """Threads without the context of a caller, which most ways to start a thread do not copy."""

    def test_nothing_can_be_read_or_changed(self, registry: RunningRegistry) -> None:
        model = registry.client.register()
        services = registry.parts.services
        for attempt in (
            lambda: services.models.get(model.id),
            lambda: list(services.models.find(None)),
            lambda: services.audit.list(filter="", size=10, token=""),
            lambda: services.audit.verify(None, lambda: None),
            lambda: services.models.update(model.id, {"score": 0.5}),
            lambda: services.models.delete(model.id),
            services.garbage_collector.collect,
            lambda: services.garbage_collector.deletion.delete("a" * 32),
        ):
            with ThreadPoolExecutor(1) as threads, pytest.raises(AccessDeniedError, match="No caller"):
                threads.submit(attempt).result()
        assert registry.client.get(model.id).revision == 1

    def test_geti_is_not_called(self) -> None:
        class Untouched:
            def list_projects(self) -> list[ProjectSummary]:
                return []

        geti = AuthorizedGeti(cast("Geti", Untouched()))
        key = ModelKey(id="m", group_id="g")
        with ThreadPoolExecutor(1) as threads:
            assert threads.submit(geti.list_projects).result() == []
            for attempt in (
                lambda: geti.get_project("p"),
                lambda: geti.get_model("p", key),
                lambda: geti.prepare_deployment("p", key, lambda: None),
                lambda: geti.download_deployment("p", "d"),
            ):
                with pytest.raises(ProjectNotFoundError):
                    threads.submit(attempt).result()

    def test_a_copied_context_carries_the_caller(self, registry: RunningRegistry) -> None:
        model = registry.client.register()
        with ThreadPoolExecutor(1) as threads:
            found = threads.submit(copy_context().run, registry.parts.services.models.get, model.id).result()
        assert found.id == model.id


class TestTokenEvents:
    def test_creating_and_revoking_a_token_are_audit_events(self, people: People) -> None:
        people.secret(Role.WRITER, "own", name="ci")
        people.tokens.revoke("ci")
        people.tokens.revoke("ci")
        events = (
            people.a(Role.ADMIN, name="root")
            .audit.ListAuditEvents(audit_service_pb2.ListAuditEventsRequest(filter='project_id = "own"'))
            .audit_events
        )
        actions = [type(event).Action.Name(event.action) for event in events]
        assert actions == ["ACTION_TOKEN_REVOKED", "ACTION_TOKEN_CREATED"]
        assert dict(events[1].after)["token_name"] == "ci"
