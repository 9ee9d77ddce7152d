"""GetiService: projects of Geti, and imports that are complete or leave nothing."""

import io
import json
import logging
import threading
import zipfile
from collections.abc import Iterable
from functools import partial
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2
from modelregistry.geti.v1 import geti_service_pb2 as pb

from registry_service.domain.errors import ArtifactStoreUnavailableError
from registry_service.geti import client
from registry_service.geti.client import HttpGeti, Timeouts
from registry_service.logs import JsonFormatter
from registry_service.storage.artifacts.local import LocalArtifactStore
from tests.fake_geti import CATTLE, MEMBERS, TOKEN, WELD, YOLOX, YOLOX_FP16, YOLOX_FP32, YOLOX_INT8, FakeGeti
from tests.polling import eventually
from tests.registry import RunningRegistry, StartRegistry
from tests.stub_client import refused, zip_of

State = pb.ImportProgress
FAST = Timeouts(retry=0.01, connect=1, read=2, listing=10, poll=0.02, max_poll=0.1, deployment=5)


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch, start_registry: StartRegistry, geti: FakeGeti) -> StartRegistry:
    """Start a registry that is connected to a fake Geti."""
    monkeypatch.setattr(client, "HttpGeti", partial(HttpGeti, timeouts=FAST))
    return partial(start_registry, **geti.settings())


@pytest.fixture
def connected(connect: StartRegistry) -> RunningRegistry:
    return connect()


def begin(registry: RunningRegistry, *model_ids: str, project_id: str = CATTLE, group_id: str = YOLOX) -> Any:
    models = [pb.ModelToImport(model_id=model_id, group_id=group_id) for model_id in model_ids]
    return registry.client.projects.ImportModels(
        pb.ImportModelsRequest(project_id=project_id, models=models), timeout=60
    )


def imported(registry: RunningRegistry, *model_ids: str, **address: str) -> dict[str, pb.ImportProgress]:
    """Import models, and return the outcome of each."""
    return ended(begin(registry, *model_ids, **address))


def ended(messages: Iterable[pb.ImportModelsResponse]) -> dict[str, pb.ImportProgress]:
    """Return the outcome of each model; the last message must agree."""
    *steps, last = messages
    found = {step.progress.model_id: step.progress for step in steps}
    assert list(last.result.registered_model_ids) == [
        name for name, progress in found.items() if progress.state == State.STATE_REGISTERED
    ]
    assert list(last.result.failed_model_ids) == [
        name for name, progress in found.items() if progress.state == State.STATE_FAILED
    ]
    return found


def reason_of(progress: pb.ImportProgress) -> str:
    """Return the reason of a failed import."""
    (info,) = (detail for detail in progress.error.details if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR))
    found = error_details_pb2.ErrorInfo()
    info.Unpack(found)
    return str(found.reason)


def failure(registry: RunningRegistry) -> pb.ImportProgress:
    """Import a model in vain, assert that nothing is left of it, and return the reason."""
    (answer,) = imported(registry, YOLOX_FP16).values()
    assert answer.state == State.STATE_FAILED
    assert_nothing_is_left(registry)
    return answer


def assert_nothing_is_left(registry: RunningRegistry) -> None:
    assert registry.objects() == []
    assert (registry.count("models"), registry.count("unreferenced_objects")) == (0, 0)


class TestProjects:
    def test_a_project_has_its_models(self, connected: RunningRegistry) -> None:
        project = connected.client.projects.GetProject(pb.GetProjectRequest(project_id=CATTLE))
        assert (project.name, list(project.task_types)) == ("Cattle Detection v1.2", ["detection"])
        assert [group.name for group in project.model_groups] == ["YOLOX-S", "MobileNetV2-ATSS", "SSD"]
        newest = project.model_groups[0].versions[1]
        assert [model.id for model in newest.openvino_models] == [YOLOX_FP32, YOLOX_INT8]

    def test_pages_have_every_project_once(self, connected: RunningRegistry, geti: FakeGeti) -> None:
        geti.behave(more_projects=150)
        request = pb.ListProjectsRequest(page_size=60)
        found: list[str] = []
        while True:
            page = connected.client.projects.ListProjects(request)
            assert len(page.projects) <= 60
            found += [project.id for project in page.projects]
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        assert found == geti.project_ids()

    def test_a_page_requests_only_the_models_of_its_own_projects(
        self, connected: RunningRegistry, geti: FakeGeti
    ) -> None:
        geti.behave(more_projects=50)
        connected.client.projects.ListProjects(pb.ListProjectsRequest(page_size=3))
        assert geti.asked("/model_groups") == 3

    def test_invalid_requests_are_refused(self, connected: RunningRegistry) -> None:
        projects = connected.client.projects
        with refused(grpc.StatusCode.NOT_FOUND, "GETI_PROJECT_NOT_FOUND"):
            projects.GetProject(pb.GetProjectRequest(project_id="65f0a1b2c3d4e5f600000009"))
        with refused(grpc.StatusCode.INVALID_ARGUMENT):
            projects.GetProject(pb.GetProjectRequest(project_id="short"))
        with refused(grpc.StatusCode.INVALID_ARGUMENT):
            projects.ListProjects(pb.ListProjectsRequest(page_token="nonsense"))

    @pytest.mark.parametrize(
        ("behaviour", "code", "reason"),
        [
            ({"token": "another"}, grpc.StatusCode.PERMISSION_DENIED, "GETI_DENIED"),
            ({"away": True}, grpc.StatusCode.UNAVAILABLE, "GETI_UNAVAILABLE"),
            ({"not_json": True}, grpc.StatusCode.UNAVAILABLE, "GETI_UNAVAILABLE"),
            ({"status": {"model": 500}}, grpc.StatusCode.UNAVAILABLE, "GETI_UNAVAILABLE"),
            ({"status": {"projects": 404}}, grpc.StatusCode.UNAVAILABLE, "GETI_UNAVAILABLE"),
        ],
    )
    def test_an_error_of_geti_is_not_an_empty_list(
        self, connected: RunningRegistry, geti: FakeGeti, behaviour: Any, code: grpc.StatusCode, reason: str
    ) -> None:
        geti.behave(**behaviour)
        with refused(code, reason):
            connected.client.projects.ListProjects(pb.ListProjectsRequest())

    def test_without_a_geti_nothing_else_is_affected(self, registry: RunningRegistry) -> None:
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "GETI_NOT_CONFIGURED"):
            registry.client.projects.ListProjects(pb.ListProjectsRequest())
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "GETI_NOT_CONFIGURED"):
            registry.client.projects.GetProject(pb.GetProjectRequest(project_id=CATTLE))
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "GETI_NOT_CONFIGURED"):
            imported(registry, YOLOX_FP16)
        assert registry.client.download(registry.client.register().id) == b"weights"

    def test_an_incomplete_configuration_disables_geti_with_a_warning(
        self, start_registry: StartRegistry, geti: FakeGeti, caplog: pytest.LogCaptureFixture
    ) -> None:
        registry = start_registry(**geti.settings(geti_organization_id="", geti_workspace_id=" "))
        assert "GETI_ORGANIZATION_ID, GETI_WORKSPACE_ID must be set" in caplog.text
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "GETI_NOT_CONFIGURED"):
            registry.client.projects.ListProjects(pb.ListProjectsRequest())


class TestImports:
    def test_progress_is_streamed_up_to_the_registered_model(self, connected: RunningRegistry) -> None:
        *answers, last = list(begin(connected, YOLOX_FP16))
        assert list(last.result.registered_model_ids) == [YOLOX_FP16]
        answers = [answer.progress for answer in answers]
        states = [answer.state for answer in answers]
        assert states[0] == State.STATE_PREPARING
        assert set(states[1:-1]) == {State.STATE_DOWNLOADING}
        assert states[-1] == State.STATE_REGISTERED
        assert answers[-2].downloaded_bytes > 0
        assert answers[-1].model == connected.client.get(YOLOX_FP16)

    def test_a_model_is_registered_with_the_metadata_of_geti(self, connected: RunningRegistry) -> None:
        model = imported(connected, YOLOX_FP16)[YOLOX_FP16].model
        assert (model.id, model.name, model.version) == (YOLOX_FP16, "YOLOX-S OpenVINO FP16", "1")
        assert (model.project_id, model.project_name, model.category) == (CATTLE, "Cattle Detection v1.2", "Detection")
        assert (model.origin, model.format, model.architecture) == ("Geti", "openvino", "YOLOX-S")
        assert (list(model.precisions), model.score, model.target_device) == (["fp16"], 0.79, "CPU")
        assert not model.HasField("target_device_type")
        assert [label["name"] for label in MessageToDict(model)["labels"]] == ["cow", "sheep"]
        assert connected.client.names('precisions : "FP16" AND origin = "Geti"') == [model.name]

    def test_the_file_is_one_folder_named_after_the_project(self, connected: RunningRegistry) -> None:
        imported(connected, YOLOX_FP16)
        with zipfile.ZipFile(io.BytesIO(connected.client.download(YOLOX_FP16))) as archive:
            assert archive.namelist()[0] == "cattle-detection-v12/"
            assert {name: archive.read(f"cattle-detection-v12/{name}") for name in MEMBERS} == MEMBERS
        files = connected.client.files(YOLOX_FP16).artifact_files
        assert {file.path for file in files} >= {f"cattle-detection-v12/{name}" for name in MEMBERS}
        assert connected.client.verify(YOLOX_FP16).intact

    @pytest.mark.parametrize(
        ("task_type", "category"),
        [
            (None, "Detection_Classification"),
            ("instance_segmentation", "Instance_Segmentation"),
            ("ANOMALY", "Anomaly"),
        ],
    )
    def test_any_task_type_becomes_the_category(
        self, connected: RunningRegistry, geti: FakeGeti, task_type: str | None, category: str
    ) -> None:
        geti.behave(task_type=task_type)
        project, model_id, group_id = (
            (WELD, "66c20000000000000000b111", "66a2000000000000000000b1")
            if task_type is None
            else (CATTLE, YOLOX_FP16, YOLOX)
        )
        answers = imported(connected, model_id, project_id=project, group_id=group_id)
        assert answers[model_id].model.category == category

    def test_metadata_missing_in_geti_stays_unset(self, connected: RunningRegistry, geti: FakeGeti) -> None:
        names = ("size", "labels", "optimization_capabilities", "target_device", "architecture", "creation_date")
        geti.behave(model_fields={**dict.fromkeys(names), "performance": None, "target_device_type": "edge"})
        model = imported(connected, YOLOX_FP16)[YOLOX_FP16].model
        for name in ("labels", "target_device", "architecture", "score"):
            assert not model.HasField(name)
        assert model.target_device_type == "edge"
        assert "None" not in str(model)

    def test_a_project_is_read_once_per_import(self, connected: RunningRegistry, geti: FakeGeti) -> None:
        imported(connected, YOLOX_FP16, YOLOX_FP32, YOLOX_INT8)
        assert geti.asked(f"/projects/{CATTLE}") == 1
        assert geti.asked("/model_groups") == 1
        assert geti.asked(f"/models/{YOLOX_FP16}") == 1

    def test_models_are_imported_although_others_fail(self, connected: RunningRegistry, geti: FakeGeti) -> None:
        geti.behave(passing={"download": [500]})
        answers = imported(connected, YOLOX_FP16, YOLOX_FP32, YOLOX_INT8, YOLOX_INT8)
        assert [answer.state for answer in answers.values()] == [
            State.STATE_FAILED,
            State.STATE_REGISTERED,
            State.STATE_REGISTERED,
        ]
        assert answers[YOLOX_FP16].error.code == grpc.StatusCode.UNAVAILABLE.value[0]
        assert (connected.count("models"), connected.count("unreferenced_objects")) == (2, 0)
        assert len(connected.objects()) == 2

    def test_models_may_be_requested_with_a_wrong_group(self, connected: RunningRegistry) -> None:
        models = [
            pb.ModelToImport(model_id=YOLOX_FP16, group_id="../x"),
            pb.ModelToImport(model_id=YOLOX_FP32, group_id=YOLOX),
        ]
        request = pb.ImportModelsRequest(project_id=CATTLE, models=models)
        answers = ended(connected.client.projects.ImportModels(request))
        assert reason_of(answers[YOLOX_FP16]) == "GETI_REFUSED"
        assert answers[YOLOX_FP32].state == State.STATE_REGISTERED

    def test_nothing_is_imported_if_a_model_is_unknown_or_already_registered(
        self, connected: RunningRegistry, geti: FakeGeti
    ) -> None:
        with refused(grpc.StatusCode.NOT_FOUND, "GETI_MODEL_NOT_FOUND") as refusal:
            imported(connected, YOLOX_FP16, "66b100000000000000000a11")
        assert refusal.metadata["model_id"] == "66b100000000000000000a11"
        assert_nothing_is_left(connected)
        imported(connected, YOLOX_FP32)
        geti.behave()
        with refused(grpc.StatusCode.ALREADY_EXISTS, "MODELS_REGISTERED") as refusal:
            imported(connected, YOLOX_FP16, YOLOX_FP32)
        assert YOLOX_FP32 in refusal.message
        assert geti.asked(":prepare") == 0
        with refused(grpc.StatusCode.NOT_FOUND, "GETI_PROJECT_NOT_FOUND"):
            imported(connected, YOLOX_FP16, project_id="65f0a1b2c3d4e5f600000009")

    @pytest.mark.parametrize("count", [0, 101])
    def test_the_number_of_models_is_bounded(self, connected: RunningRegistry, count: int) -> None:
        with refused(grpc.StatusCode.INVALID_ARGUMENT) as refusal:
            imported(connected, *[YOLOX_FP16] * count)
        assert refusal.fields == ["models"]

    def test_a_model_with_the_same_name_and_version_is_a_conflict(self, connected: RunningRegistry) -> None:
        other = connected.client.register(
            name="YOLOX-S OpenVINO FP16",
            version="1",
            precisions=["fp16"],
            project_id=CATTLE,
            project_name="Cattle Detection v1.2",
        )
        (answer,) = imported(connected, YOLOX_FP16).values()
        assert (answer.state, reason_of(answer)) == (State.STATE_FAILED, "MODEL_ALREADY_EXISTS")
        assert other.id in answer.error.message
        assert (connected.count("models"), len(connected.objects())) == (1, 1)


BAD_MEMBERS = zip_of({"../up": b"1"})
BOMB = zip_of({"model.bin": bytes(2_000_000)})


class TestFailures:
    @pytest.mark.parametrize(
        ("behaviour", "code", "reason"),
        [
            ({"status": {"prepare": 500}}, grpc.StatusCode.UNAVAILABLE, "GETI_UNAVAILABLE"),
            ({"status": {"prepare": 404}}, grpc.StatusCode.FAILED_PRECONDITION, "GETI_REFUSED"),
            ({"status": {"prepare": 403}}, grpc.StatusCode.PERMISSION_DENIED, "GETI_DENIED"),
            ({"status": {"deployment": 500}}, grpc.StatusCode.UNAVAILABLE, "GETI_UNAVAILABLE"),
            ({"status": {"download": 500}}, grpc.StatusCode.UNAVAILABLE, "GETI_UNAVAILABLE"),
            ({"status": {"download": 401}}, grpc.StatusCode.PERMISSION_DENIED, "GETI_DENIED"),
            ({"final_state": "FAILED"}, grpc.StatusCode.FAILED_PRECONDITION, "GETI_DEPLOYMENT_FAILED"),
            ({"cut_short": True}, grpc.StatusCode.UNAVAILABLE, "GETI_UNAVAILABLE"),
            ({"cut_short": True, "large": 20}, grpc.StatusCode.UNAVAILABLE, "GETI_UNAVAILABLE"),
            ({"bad_zip": True}, grpc.StatusCode.FAILED_PRECONDITION, "GETI_DEPLOYMENT_FAILED"),
            ({"download": b""}, grpc.StatusCode.FAILED_PRECONDITION, "GETI_DEPLOYMENT_FAILED"),
            ({"download": BAD_MEMBERS}, grpc.StatusCode.FAILED_PRECONDITION, "GETI_DEPLOYMENT_FAILED"),
            ({"model_fields": {"precision": ["FP 64"]}}, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT"),
            ({"model_fields": {"size": -1}}, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT"),
            ({"model_fields": {"name": "x" * 5001}}, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT"),
            ({"model_fields": {"name": "\0"}}, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT"),
            ({"model_fields": {"name": None}}, grpc.StatusCode.UNAVAILABLE, "GETI_UNAVAILABLE"),
            ({"model_fields": {"performance": {"score": "high"}}}, grpc.StatusCode.UNAVAILABLE, "GETI_UNAVAILABLE"),
        ],
    )
    def test_each_failure_is_reported_and_leaves_nothing(
        self, connected: RunningRegistry, geti: FakeGeti, behaviour: Any, code: grpc.StatusCode, reason: str
    ) -> None:
        geti.behave(**behaviour)
        told = failure(connected)
        assert (told.error.code, reason_of(told)) == (code.value[0], reason)
        geti.behave()
        assert imported(connected, YOLOX_FP16)[YOLOX_FP16].state == State.STATE_REGISTERED

    @pytest.mark.parametrize("behaviour", [{"large": 3}, {"download": BOMB}])
    def test_a_too_large_model_leaves_nothing(self, connect: StartRegistry, geti: FakeGeti, behaviour: Any) -> None:
        registry = connect(artifact_max_bytes=1_000_000)
        geti.behave(**behaviour)
        assert reason_of(failure(registry)) == "ARTIFACT_TOO_LARGE"

    def test_an_outage_of_the_store_is_reported_and_its_bytes_are_collected(
        self, connected: RunningRegistry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def away(*_: object, **__: object) -> None:
            raise ArtifactStoreUnavailableError

        with monkeypatch.context() as patched:
            patched.setattr(LocalArtifactStore, "write", away)
            (answer,) = imported(connected, YOLOX_FP16).values()
        assert reason_of(answer) == "ARTIFACT_STORE_UNAVAILABLE"
        connected.parts.services.garbage_collector.collect()
        assert_nothing_is_left(connected)

    def test_the_error_of_a_failed_import_is_its_last_message(
        self, connected: RunningRegistry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: object, **__: object) -> None:
            raise ValueError("a secret")

        received: list[pb.ImportModelsResponse] = []
        with monkeypatch.context() as patched, refused(grpc.StatusCode.INTERNAL, "INTERNAL") as refusal:
            patched.setattr(LocalArtifactStore, "write", broken)
            for message in begin(connected, YOLOX_FP16, YOLOX_FP32):
                received.append(message)  # noqa: PERF402 - extend() would drop those before the error
        assert {message.progress.model_id for message in received[:-1]} == {YOLOX_FP16}
        assert received[-1].WhichOneof("payload") == "error"
        assert received[-1].error == refusal.status
        assert "a secret" not in str(received[-1])

    @pytest.mark.parametrize("behaviour", [{"polls_until_final": 10**9}, {"slow": {"download": 0.5}}, {"large": 200}])
    def test_an_import_whose_client_leaves_stops_and_leaves_nothing(
        self, connected: RunningRegistry, geti: FakeGeti, behaviour: Any
    ) -> None:
        geti.behave(**behaviour)
        call = begin(connected, YOLOX_FP16, YOLOX_FP32)
        next(iter(call))
        call.cancel()
        eventually(_is_over, what="the end of the import")
        assert_nothing_is_left(connected)
        assert geti.asked(f"/models/{YOLOX_FP32}") == 0

    def test_an_import_counts_as_a_stream(self, connect: StartRegistry, geti: FakeGeti) -> None:
        registry = connect(max_streams=1, max_waiting_seconds=0.2)
        geti.behave(polls_until_final=10**9)
        call = begin(registry, YOLOX_FP16)
        next(iter(call))
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED):
            imported(registry, YOLOX_FP32)
        call.cancel()
        geti.behave()
        eventually(lambda: imported(registry, YOLOX_FP32), what="a stream for another import")

    def test_the_api_key_is_in_no_answer_and_no_log(
        self, connected: RunningRegistry, geti: FakeGeti, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.DEBUG):
            for behaviour in ({"token": "x"}, {"away": True}, {"not_json": True}):
                geti.behave(**behaviour)
                with pytest.raises(grpc.RpcError) as caught:
                    connected.client.projects.ListProjects(pb.ListProjectsRequest())
                assert TOKEN not in str(caught.value)
                assert geti.url not in str(caught.value)
            geti.behave(cut_short=True)
            failure(connected)
        lines = [JsonFormatter().format(record) for record in caplog.records]
        assert any("Geti" in json.loads(line)["message"] for line in lines)
        assert not any(TOKEN in line for line in lines)


def _is_over() -> bool:
    return not any(thread.name == "reporting" for thread in threading.enumerate())
