"""ResolveModel: a reference names one model, or the error names the part that is unknown or ambiguous."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, cast

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from hypothesis import given, settings
from hypothesis import strategies as st
from modelregistry.v1 import model_pb2, model_service_pb2

from registry_service.domain.access import Role
from registry_service.domain.errors import AmbiguousReferenceError, ReferenceNotFoundError
from registry_service.services.references import ReferenceService, Resolved
from registry_service.storage.sql.database import SqlDatabase
from registry_service.storage.sql.references import SqlReferenceRepository
from tests.integration.test_access import People, people
from tests.model_files import safetensors
from tests.plans import assert_few_rows, sent_to
from tests.registry import RunningRegistry
from tests.stub_client import Client, Refusal, refused

__all__ = ["people"]  # the fixture

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION

# Most of these have the same reference by their project.
ALIKE_PROJECTS: tuple[dict[str, Any], ...] = (
    {"project_id": "acme", "project_name": "Acme"},
    {"project_id": "acme", "project_name": "acme"},
    {"project_id": "acme"},
    {"project_id": "acme", "project_name": ""},
    {"project_name": "acme"},
    {},
    {"project_id": ""},
    {"project_name": ""},
    {"project_id": "", "project_name": ""},
)


def point(client: Client, model: model_pb2.Model, alias: str = "production") -> datetime:
    """Set an alias of the model's group, and return when that was."""
    moved = client.set_alias(model.id, alias)
    return moved.alias.update_time.ToDatetime(UTC)


@contextmanager
def refused_with(codes: set[grpc.StatusCode]) -> Iterator[None]:
    """Assert that the call in the block ends with one of these statuses."""
    with pytest.raises(grpc.RpcError) as caught:
        yield
    assert cast("grpc.Call", caught.value).code() in codes, caught.value


def candidates(refusal: Refusal) -> dict[str, str]:
    """Return the candidates of an ambiguous reference: descriptions by ids."""
    found = refusal.details(error_details_pb2.ResourceInfo)
    return {candidate.resource_name: candidate.description for candidate in found}


def at(time: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(time)
    return message


class TestNames:
    def test_a_name_means_the_latest_version_of_its_group(self, client: Client) -> None:
        client.register(name="vad", version="1.9", project_id="acme")
        newest = client.register(name="vad", version="1.10", project_id="acme")
        client.register(name="vad", version="1.2", project_id="acme")
        for reference in ("vad", "vad@latest", "acme/vad", "acme/vad@latest"):
            assert client.resolve(reference) == model_service_pb2.ResolveModelResponse(model=newest)

    def test_a_resolved_model_equals_that_of_get_model(self, client: Client) -> None:
        fields: dict[str, Any] = {"precisions": ["int8"], "tags": {"team": "audio"}, "metrics": {"f1": 0.5}}
        data = safetensors({"w": ("F32", [2], 8)})
        model = client.register(data, name="vad", artifact={"file_name": "vad.safetensors"}, **fields)
        assert client.get(model.id).HasField("signature")
        assert client.resolve("vad").model == client.get(model.id)
        basic = client.resolve("vad", view=model_pb2.MODEL_VIEW_BASIC).model
        assert basic == client.all()[0]
        assert not basic.HasField("signature")
        with refused(INVALID) as refusal:
            client.resolve("vad", view=99)
        assert refusal.fields == ["view"]

    def test_a_version_is_matched_exactly(self, client: Client) -> None:
        one = client.register(name="vad", version="1.0")
        other = client.register(name="vad", version="v1.0.0")
        local = client.register(name="vad", version="1.0+cu118")
        assert client.resolve("vad:1.0").model.id == one.id
        assert client.resolve("vad:v1.0.0").model.id == other.id
        assert client.resolve("vad:1.0+cu118").model.id == local.id
        with refused(NOT_FOUND, "REFERENCE_NOT_FOUND") as refusal:
            client.resolve("vad:1")
        assert refusal.metadata == {"reference": "vad:1", "part": "version"}

    def test_every_group_has_a_reference_that_names_it_alone(self, client: Client) -> None:
        models = [
            client.register(name="vad", tags={"n": str(number)}, **project)
            for number, project in enumerate(ALIKE_PROJECTS)
        ]
        for model in models:
            for reference in ("vad", "vad@latest", f"vad:{model.version}"):
                assert client.resolve(f"{model.model_group_id}/{reference}").model.id == model.id

    @pytest.mark.parametrize("first", [0, 3])
    def test_each_candidate_is_a_reference_to_its_group(self, client: Client, first: int) -> None:
        for number, project in enumerate(ALIKE_PROJECTS[first : first + 5]):
            client.register(name="vad", tags={"n": str(number)}, **project)
        with refused(PRECONDITION, "AMBIGUOUS_REFERENCE") as refusal:
            client.resolve("vad")
        found = candidates(refusal)
        assert len(found) == 5
        for group_id, reference in found.items():
            assert client.resolve(reference).model.model_group_id == group_id

    def test_a_candidate_names_the_group_by_its_project_if_that_is_unambiguous(self, client: Client) -> None:
        named = client.register(name="vad", project_id="acme", project_name="Acme")
        unnamed = client.register(name="vad", project_id="acme")
        other = client.register(name="vad", project_id="beta")
        with refused(PRECONDITION, "AMBIGUOUS_REFERENCE") as refusal:
            client.resolve("vad")
        assert candidates(refusal) == {
            named.model_group_id: f"{named.model_group_id}/vad@latest",
            unnamed.model_group_id: f"{unnamed.model_group_id}/vad@latest",
            other.model_group_id: "beta/vad@latest",
        }
        owners = {one.resource_name: one.owner for one in refusal.details(error_details_pb2.ResourceInfo)}
        assert owners == {
            named.model_group_id: "project_id 'acme', project_name 'Acme'",
            unnamed.model_group_id: "project_id 'acme'",
            other.model_group_id: "project_id 'beta'",
        }

    @pytest.mark.parametrize("selector", [":1", "@production"])
    def test_a_candidate_keeps_the_version_or_the_alias(self, client: Client, selector: str) -> None:
        for project in ("acme", "beta"):
            point(client, client.register(name="vad", version="1", project_id=project))
        with refused(PRECONDITION, "AMBIGUOUS_REFERENCE") as refusal:
            client.resolve(f"vad{selector}")
        assert sorted(candidates(refusal).values()) == [f"acme/vad{selector}", f"beta/vad{selector}"]

    def test_a_project_name_cannot_capture_a_reference_by_project_id(self, client: Client) -> None:
        model = client.register(name="vad", project_id="acme", project_name="Acme")
        references = ("acme/vad", f"{model.model_group_id}/vad")
        for name in ("acme", model.model_group_id):
            client.register(name="vad", version="9", project_id=f"not {name}", project_name=name)
        for reference in references:
            assert client.resolve(reference).model.id == model.id

    def test_a_project_id_cannot_capture_a_reference_by_group_id(self, client: Client) -> None:
        model = client.register(name="vad", project_id="acme")
        reference = f"{model.model_group_id}/vad"
        theirs = client.register(name="vad", version="9", project_id=model.model_group_id)
        assert client.resolve(reference).model.id == model.id
        client.delete(model.id)
        with refused(NOT_FOUND, "REFERENCE_NOT_FOUND"):
            client.resolve(reference)
        assert client.resolve(f"{theirs.model_group_id}/vad").model.id == theirs.id
        with refused(NOT_FOUND, "REFERENCE_NOT_FOUND") as refusal:
            client.resolve(f"{theirs.model_group_id}/other")
        assert refusal.metadata["part"] == "project"

    def test_a_project_is_found_by_id_before_name(self, client: Client) -> None:
        by_id = client.register(name="vad", project_id="acme", project_name="Acme Inc.")
        by_name = client.register(name="vad", project_id="p-17", project_name="zeta")
        assert client.resolve("acme/vad").model.id == by_id.id
        assert client.resolve("Acme%20Inc./vad").model.id == by_id.id
        assert client.resolve("zeta/vad").model.id == by_name.id
        # From now on, zeta is an id.
        client.register(name="other", project_id="zeta")
        with refused(NOT_FOUND, "REFERENCE_NOT_FOUND") as refusal:
            client.resolve("zeta/vad")
        assert refusal.metadata["part"] == "name"
        same_text = client.register(name="vad", project_id="zeta", version="7")
        assert client.resolve("zeta/vad").model.id == same_text.id

    @pytest.mark.parametrize("outside", [{}, {"project_id": ""}, {"project_name": ""}])
    def test_models_without_a_project_have_references(self, client: Client, outside: dict[str, Any]) -> None:
        client.register(name="vad", project_id="acme")
        model = client.register(name="vad", version="2", **outside)
        assert client.resolve("/vad").model.id == model.id
        with refused(NOT_FOUND, "REFERENCE_NOT_FOUND") as refusal:
            client.resolve("/other")
        assert refusal.metadata["part"] == "name"

    def test_a_group_of_one_of_many_projects_needs_its_project(self, client: Client) -> None:
        models = [client.register(name="vad", project_id=project) for project in ("acme", "zeta", "a/b")]
        models.append(client.register(name="vad"))
        with refused(PRECONDITION, "AMBIGUOUS_REFERENCE") as refusal:
            client.resolve("vad")
        found = refusal.details(error_details_pb2.ResourceInfo)
        assert {candidate.resource_type for candidate in found} == {"modelregistry.v1.ModelGroup"}
        references = [candidate.description for candidate in found]
        assert sorted(references) == ["/vad@latest", "a%2Fb/vad@latest", "acme/vad@latest", "zeta/vad@latest"]
        assert {client.resolve(reference).model.id for reference in references} == {model.id for model in models}
        assert all(reference in refusal.message for reference in references)

    def test_projects_with_the_same_name_are_distinguished_by_their_ids(self, client: Client) -> None:
        for project in ("p-1", "p-2"):
            client.register(name="vad", project_id=project, project_name="acme")
        with refused(PRECONDITION, "AMBIGUOUS_REFERENCE") as refusal:
            client.resolve("acme/vad")
        assert sorted(candidates(refusal).values()) == ["p-1/vad@latest", "p-2/vad@latest"]

    def test_only_some_of_many_candidates_are_named(self, client: Client) -> None:
        for number in range(12):
            client.register(name="猫" * 400, project_id=f"{number}" + "é" * 400)
        with refused(PRECONDITION, "AMBIGUOUS_REFERENCE") as refusal:
            client.resolve("猫" * 400)
        assert len(candidates(refusal)) == 5

    def test_reserved_characters_are_encoded(self, client: Client) -> None:
        model = client.register(name="a:b@c", version="1/2 x", project_id="50%/+")
        assert client.resolve("50%25%2F+/a%3Ab%40c:1%2F2%20x").model.id == model.id

    @pytest.mark.parametrize("name", ["é", "e\u0301", "YOLO", "yolo", "n" * 5000, "\U0001f600" * 450, "\\x41", "a'b"])
    def test_a_name_is_compared_by_code_points(self, client: Client, name: str) -> None:
        for other in ("é", "e\u0301", "YOLO", "yolo", "n" * 5000, "n" * 4999, "\U0001f600" * 450, "\\x41", "A", "a'b"):
            client.register(name=other, project_id="p", tags={"name": other[:9]})
        assert client.resolve(f"p/{name}").model.name == name
        assert client.resolve(name).model.name == name

    def test_a_very_long_version_is_found(self, client: Client) -> None:
        models = [client.register(name="vad", version="1." * 300 + end) for end in ("1", "2", "3")]
        for model in models:
            assert client.resolve(f"vad:{model.version}").model.id == model.id

    def test_a_group_without_models_is_not_found(self, client: Client) -> None:
        model = client.register(name="vad", project_id="acme")
        other = client.register(name="vad", project_id="zeta")
        client.delete(model.id)
        assert client.resolve("vad").model.id == other.id
        with refused(NOT_FOUND, "REFERENCE_NOT_FOUND") as refusal:
            client.resolve("acme/vad")
        assert refusal.metadata["part"] == "name"

    @pytest.mark.parametrize(
        ("reference", "part"),
        [
            ("nothing", "name"),
            ("/nothing", "name"),
            ("acme/nothing", "name"),
            ("nowhere/vad", "project"),
            ("acme/vad:9", "version"),
            ("acme/vad@staging", "alias"),
            ("no-such-model-0123456789", "name"),
        ],
    )
    def test_the_error_names_the_part_that_is_unknown(self, client: Client, reference: str, part: str) -> None:
        client.register(name="vad", project_id="acme")
        with refused(NOT_FOUND, "REFERENCE_NOT_FOUND") as refusal:
            client.resolve(reference)
        assert refusal.metadata == {"reference": reference, "part": part}

    @pytest.mark.parametrize(("reference", "position"), [("", "1"), ("a/b/c", "4"), ("vad:1.0 cu118", "8"), ("%", "1")])
    def test_an_invalid_reference_is_refused_with_its_position(
        self, client: Client, reference: str, position: str
    ) -> None:
        with refused(INVALID, "INVALID_REFERENCE") as refusal:
            client.resolve(reference)
        assert refusal.fields == ["reference"]
        assert refusal.metadata["position"] == position

    @given(
        st.text(st.characters(codec="utf-8"), max_size=20) | st.text("/:@%0aF éa", max_size=12),
        st.lists(st.text(st.characters(codec="utf-8"), max_size=6), max_size=3),
    )
    @settings(max_examples=200)
    def test_any_text_is_resolved_or_refused(self, client: Client, reference: str, precisions: list[str]) -> None:
        with refused_with({INVALID, NOT_FOUND}):
            client.resolve(reference, precisions=precisions)


class TestIds:
    def test_an_id_is_resolved_to_its_model(self, client: Client) -> None:
        model = client.register(name="vad", id="0123456789abcdef")
        assert client.resolve("0123456789abcdef").model.id == model.id

    def test_a_reference_that_is_an_id_and_a_name_is_ambiguous(self, client: Client) -> None:
        word = "0123456789abcdef"
        model = client.register(name="vad", id=word)
        group = client.register(name=word, project_id="acme")
        with refused(PRECONDITION, "AMBIGUOUS_REFERENCE") as refusal:
            client.resolve(word)
        found = refusal.details(error_details_pb2.ResourceInfo)
        assert [candidate.resource_type for candidate in found] == [
            "modelregistry.v1.Model",
            "modelregistry.v1.ModelGroup",
        ]
        assert found[0].resource_name == model.id
        assert client.resolve(f"{word}@latest").model.id == group.id
        assert client.resolve(found[1].description).model.id == group.id

    def test_only_a_reference_without_other_parts_is_an_id(self, client: Client) -> None:
        client.register(name="vad", id="0123456789abcdef")
        for reference in ("/0123456789abcdef", "0123456789abcdef:1", "0123456789abcdef@latest"):
            with refused(NOT_FOUND, "REFERENCE_NOT_FOUND"):
                client.resolve(reference)


class TestLatest:
    def test_a_release_is_the_latest_before_any_pre_release(self, client: Client) -> None:
        client.register(name="vad", version="2.0-rc.1")
        older = client.register(name="vad", version="2.0-beta")
        assert client.resolve("vad").model.version == "2.0-rc.1"
        release = client.register(name="vad", version="1.0")
        assert client.resolve("vad").model.id == release.id
        assert client.resolve("vad:2.0-beta").model.id == older.id
        client.delete(release.id)
        assert client.resolve("vad").model.version == "2.0-rc.1"

    def test_equal_versions_are_ordered_by_their_texts(self, client: Client) -> None:
        for version in ("v1.0", "1", "1.0.0"):
            client.register(name="vad", version=version)
        assert client.resolve("vad").model.version == "v1.0"

    def test_the_latest_version_is_the_last_in_the_version_order(self, client: Client) -> None:
        versions = [f"1.{minor}.{patch}" for minor in range(12) for patch in (0, 9, 10)]
        random.Random(1).shuffle(versions)
        for number, version in enumerate(versions[:12]):
            client.register(name="vad", version=version)
            if number % 3 == 0:
                listed = client.all('name = "vad"', order_by="version desc", page_size=1)
                assert client.resolve("vad").model.id == listed[0].id


class TestPrecisions:
    @pytest.fixture
    def models(self, client: Client) -> dict[str, model_pb2.Model]:
        wanted = (("1", ["fp32"]), ("1", ["int8"]), ("2", ["fp32"]), ("2", ["fp16", "int8"]))
        return {
            f"{version} {' '.join(precisions)}": client.register(name="vad", version=version, precisions=precisions)
            for version, precisions in wanted
        }

    def test_precisions_distinguish_models_of_a_version(
        self, client: Client, models: dict[str, model_pb2.Model]
    ) -> None:
        for reference in ("vad", "vad:2"):
            with refused(PRECONDITION, "AMBIGUOUS_REFERENCE") as refusal:
                client.resolve(reference)
            assert candidates(refusal) == {
                models[key].id: f"{models[key].id} ({precisions})"
                for key, precisions in (("2 fp32", "fp32"), ("2 fp16 int8", "fp16,int8"))
            }
            assert client.resolve(reference, precisions=["fp32"]).model.id == models["2 fp32"].id
            assert client.resolve(reference, precisions=["INT8", "fp16", "int8"]).model.id == models["2 fp16 int8"].id

    def test_precisions_are_filtered_before_the_latest_version_is_chosen(
        self, client: Client, models: dict[str, model_pb2.Model]
    ) -> None:
        assert client.resolve("vad", precisions=["int8"]).model.id == models["1 int8"].id

    @pytest.mark.usefixtures("models")
    @pytest.mark.parametrize("precision", ["", "int 8", "\0", "8", "é", "a" * 33])
    def test_an_invalid_precision_is_refused(self, client: Client, precision: str) -> None:
        with refused(INVALID) as refusal:
            client.resolve("vad", precisions=["fp32", precision])
        assert refusal.fields == ["precisions[1]"]

    @pytest.mark.parametrize("reference", ["vad", "vad:2"])
    @pytest.mark.usefixtures("models")
    def test_a_version_without_the_precisions_is_not_found(self, client: Client, reference: str) -> None:
        with refused(NOT_FOUND, "REFERENCE_NOT_FOUND") as refusal:
            client.resolve(reference, precisions=["int4"])
        assert refusal.metadata["part"] == "precisions"
        with refused(NOT_FOUND, "REFERENCE_NOT_FOUND") as refusal:
            client.resolve("vad:3", precisions=["int4"])
        assert refusal.metadata["part"] == "version"

    def test_the_model_of_an_alias_or_id_must_have_the_precisions(
        self, client: Client, models: dict[str, model_pb2.Model]
    ) -> None:
        model = models["2 fp16 int8"]
        point(client, model)
        for reference in ("vad@production", model.id):
            assert client.resolve(reference, precisions=["int8", "fp16"]).model.id == model.id
            with refused(PRECONDITION, "PRECISION_MISMATCH") as refusal:
                client.resolve(reference, precisions=["int8"])
            assert refusal.metadata == {
                "model_id": model.id,
                "precisions": "fp16,int8",
                "requested_precisions": "int8",
            }
            assert refusal.message == "The model vad:2 has the precisions fp16,int8, not int8."


class TestAliases:
    def test_an_alias_is_resolved_to_its_target(self, client: Client) -> None:
        model = client.register(name="vad", version="1", project_id="acme")
        client.register(name="vad", version="2", project_id="acme")
        point(client, model)
        for reference in ("acme/vad@production", "vad@production"):
            resolved = client.resolve(reference)
            assert (resolved.model.id, resolved.alias) == (model.id, "production")
        with refused(NOT_FOUND, "REFERENCE_NOT_FOUND") as refusal:
            client.resolve("vad@Production")
        assert refusal.metadata["part"] == "alias"

    def test_an_alias_is_resolved_to_its_target_at_a_time(self, client: Client) -> None:
        first, second = (client.register(name="vad", version=version) for version in ("1", "2"))
        before = datetime(2026, 1, 1, tzinfo=UTC)
        was_first = point(client, first)
        point(client, second)
        assert client.resolve("vad@production").model.id == second.id
        assert client.resolve("vad@production", at_time=at(was_first)).model.id == first.id
        with refused(NOT_FOUND, "REFERENCE_NOT_FOUND") as refusal:
            client.resolve("vad@production", at_time=at(before))
        assert refusal.metadata["part"] == "alias"

    @pytest.mark.parametrize("reference", ["vad", "vad:1", "vad@latest", "0123456789abcdef"])
    def test_a_time_needs_an_alias(self, client: Client, reference: str) -> None:
        with refused(INVALID) as refusal:
            client.resolve(reference, at_time=at(datetime(2026, 1, 1, tzinfo=UTC)))
        assert refusal.fields == ["at_time"]

    def test_a_future_time_is_refused(self, client: Client) -> None:
        point(client, client.register(name="vad"))
        for time in (at(datetime(2999, 1, 1, tzinfo=UTC)), Timestamp(seconds=10**12)):
            with refused(INVALID) as refusal:
                client.resolve("vad@production", at_time=time)
            assert refusal.fields == ["at_time"]

    def test_a_former_target_that_was_deleted_is_not_found(self, client: Client) -> None:
        first = client.register(b"one", name="vad", version="1", id="0123456789abcdef")
        time = point(client, first)
        point(client, client.register(name="vad", version="2"))
        client.delete(first.id)
        for _ in range(2):
            with refused(NOT_FOUND, "REFERENCE_NOT_FOUND") as refusal:
                client.resolve("vad@production", at_time=at(time))
            assert "was deleted" in refusal.message
            # Registered anew, the id has other bytes than the alias pointed to.
            if not client.all(f'id = "{first.id}"'):
                client.register(b"two", name="vad", version="3", id=first.id)


class TestAccess:
    @pytest.fixture
    def ours(self, people: People) -> model_pb2.Model:
        admin = people.a(Role.ADMIN)
        for project in ("theirs", None):
            hidden: dict[str, Any] = {} if project is None else {"project_id": project, "project_name": "ours"}
            model = admin.register(name="vad", version="9", **hidden)
            point(admin, model)
        model = admin.register(name="vad", version="1", project_id="p", project_name="ours")
        point(admin, model)
        return model

    def test_hidden_models_are_not_candidates(self, people: People, ours: model_pb2.Model) -> None:
        reader = people.a(Role.READER, "p")
        for reference in ("vad", "p/vad", "ours/vad", "vad@production", "vad:1", ours.id):
            assert reader.resolve(reference).model.id == ours.id
        with refused(PRECONDITION, "AMBIGUOUS_REFERENCE"):
            people.a(Role.READER).resolve("vad")

    def test_a_hidden_project_does_not_capture_a_name(self, people: People, ours: model_pb2.Model) -> None:
        people.a(Role.ADMIN).register(name="other", project_id="ours")
        assert people.a(Role.READER, "p").resolve("ours/vad").model.id == ours.id
        with refused(NOT_FOUND):
            people.a(Role.READER).resolve("ours/vad")

    @pytest.mark.parametrize("reference", ["theirs/vad", "theirs/vad:9", "theirs/vad@production", "/vad", "vad:9"])
    @pytest.mark.usefixtures("ours")
    def test_a_hidden_model_gets_the_error_of_a_missing_one(self, people: People, reference: str) -> None:
        reader = people.a(Role.READER, "p")
        with refused(NOT_FOUND, "REFERENCE_NOT_FOUND") as hidden:
            reader.resolve(reference)
        with refused(NOT_FOUND, "REFERENCE_NOT_FOUND") as missing:
            reader.resolve(reference.replace("theirs", "absent").replace("/vad", "/cat").replace("vad:9", "vad:8"))
        # The same error as for a missing model, including the unknown part.
        expected = missing.message.replace("absent", "theirs").replace("cat", "vad").replace("8", "9")
        assert hidden.message == expected
        assert hidden.metadata["part"] == missing.metadata["part"]

    def test_a_hidden_group_id_is_not_found(self, people: People) -> None:
        hidden = people.a(Role.ADMIN).register(name="vad", project_id="theirs").model_group_id
        with refused(NOT_FOUND, "REFERENCE_NOT_FOUND") as refusal:
            people.a(Role.READER, "p").resolve(f"{hidden}/vad")
        assert refusal.metadata["part"] == "project"

    def test_a_hidden_id_is_not_found(self, people: People) -> None:
        word = "0123456789abcdef"
        admin = people.a(Role.ADMIN)
        admin.register(name="hidden", id=word, project_id="theirs")
        model = admin.register(name=word, project_id="p")
        assert people.a(Role.READER, "p").resolve(word).model.id == model.id


class TestSpeed:
    def test_every_step_is_found_by_an_index(self, registry: RunningRegistry) -> None:
        """References to 10,000 models: half in one group, others in groups of one name, others in one project."""
        for first in range(1, 10_000, 2_000):
            registry.execute(f"""
                INSERT INTO models (id, name, version, project_id, project_name, precision, metrics, tags, provenance,
                    created_date, last_updated_date, create_time, update_time, revision, creator, file_name, media_type,
                    size, sha256, file_url, object_key)
                SELECT 'model-' || lpad(n::text, 12, '0'), CASE WHEN n % 4 = 3 THEN 'net-' || n ELSE 'vad' END,
                    '1.' || n, project, 'name of ' || project,
                    CASE n WHEN 4 THEN '{{fp16,int8}}' ELSE '{{fp32}}' END::text[],
                    '{{}}', '{{}}', '{{}}', '', '', now(), now(), 1, '', 'a', 'a/b', 1, repeat('0', 64), '', n::text
                FROM (SELECT n, CASE n % 4 WHEN 1 THEN 'p' || n WHEN 3 THEN 'wide' ELSE 'acme' END AS project
                    FROM generate_series({first}, {first + 1_999}) AS n) AS numbers
            """)
        registry.execute("ANALYZE")
        resolve = ReferenceService(SqlDatabase(registry.engine)).resolve
        with sent_to(registry.engine) as sent:
            self.resolves(registry, resolve)
        assert len(sent) >= 15
        with registry.engine.begin() as connection:
            for statement, parameters in sent:
                assert_few_rows(connection, statement, parameters, at_most=20)

    @staticmethod
    def resolves(registry: RunningRegistry, resolve: Callable[..., Resolved]) -> None:
        for reference, model_id in (
            ("acme/vad", "model-000000010000"),
            ("acme/vad:1.4", "model-000000000004"),
            ("p77/vad", "model-000000000077"),
            ("name%20of%20p77/vad", "model-000000000077"),
            ("wide/net-79", "model-000000000079"),
            ("name%20of%20wide/net-79", "model-000000000079"),
            ("net-79", "model-000000000079"),
            ("model-000000000077", "model-000000000077"),
        ):
            assert resolve(reference).model.id == model_id
        group_id = resolve("p77/vad").model.model_group_id
        assert resolve(f"{group_id}/vad").model.id == "model-000000000077"
        for reference in ("acme/vad", "acme/vad:1.4"):
            assert resolve(reference, precisions=["int8", "FP16"]).model.id == "model-000000000004"
            with pytest.raises(ReferenceNotFoundError):
                resolve(reference, precisions=["int8"])
        with pytest.raises(AmbiguousReferenceError):
            resolve("vad")
        for missing in ("absent/vad", "wide/vad", "name%20of%20wide/vad", "/vad", "nothing"):
            with pytest.raises(ReferenceNotFoundError):
                resolve(missing)
        with registry.engine.connect() as connection:
            references = SqlReferenceRepository(connection)
            for project, within in ((None, {"p77", "wide"}), ("wide", {"p77"}), ("p77", {"p77"}), ("absent", {"p77"})):
                found = references.groups("vad", project, limit=9, within=frozenset(within))
                assert [group.key.project_id for group in found] == ["p77"] * (project in {None, "p77"})
            assert not references.has_project("wide", within=frozenset({"p77"}))
