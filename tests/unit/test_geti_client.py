"""The client of Geti, against a stand-in that misbehaves in every way."""

import logging
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from registry_service.domain.errors import (
    CallCancelledError,
    GetiDeniedError,
    GetiDeploymentError,
    GetiRefusedError,
    GetiUnavailableError,
    ProjectNotFoundError,
    RegistryError,
)
from registry_service.geti.client import HttpGeti, Timeouts, Workspace
from registry_service.geti.port import ModelKey
from registry_service.geti.responses import MalformedResponseError, parse
from tests.fake_geti import (
    CATTLE,
    MEMBERS,
    ORGANIZATION,
    SSD,
    TOKEN,
    VERSION,
    WELD,
    WORKSPACE,
    YOLOX,
    YOLOX_FP16,
    FakeGeti,
    zipped,
)

FAST = Timeouts(retry=0.01, connect=1, read=1, listing=5, poll=0.01, max_poll=0.05, deployment=1)
KEY = ModelKey(id=YOLOX_FP16, group_id=YOLOX)
CALLS = ("projects", "project", "model_groups", "model", "prepare", "deployment", "download")


def workspace(url: str) -> Workspace:
    return Workspace(host=url, api_version=VERSION, organization_id=ORGANIZATION, workspace_id=WORKSPACE, token=TOKEN)


@pytest.fixture
def client(geti: FakeGeti) -> Iterator[HttpGeti]:
    with HttpGeti(workspace(geti.url), FAST) as client:
        yield client


def never_cancelled() -> None:
    pass


def everything(client: HttpGeti) -> None:
    """Makes every call once."""
    client.with_models(client.list_projects())
    client.get_project(CATTLE)
    client.get_model(CATTLE, KEY)
    for _ in client.download_deployment(CATTLE, client.prepare_deployment(CATTLE, KEY, never_cancelled)):
        pass


class TestListing:
    def test_a_geti_that_says_nothing_keeps_few_threads_waiting(self) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=32) as silent:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}"
            timeouts = replace(FAST, attempts=1, read=3, slot=0.2)

            def listed(client: HttpGeti) -> float:
                started = time.monotonic()
                with pytest.raises(GetiUnavailableError):
                    client.list_projects()
                return time.monotonic() - started

            with HttpGeti(workspace(url), timeouts) as client, ThreadPoolExecutor(12) as threads:
                waits = sorted(threads.map(listed, [client] * 12))
        assert waits[3] < 2
        assert waits[4] >= 3

    def test_projects_come_with_their_models_for_openvino(self, client: HttpGeti) -> None:
        cattle, weld = client.with_models(client.list_projects())
        assert (cattle.name, cattle.task_types) == ("Cattle Detection v1.2", ("detection",))
        assert weld.task_types == ("detection", "classification")
        found = {
            (group.name, version.number): [model.name for model in version.openvino_models]
            for group in cattle.model_groups
            for version in group.versions
        }
        assert found == {
            ("YOLOX-S", 1): ["YOLOX-S OpenVINO FP16"],
            ("YOLOX-S", 2): ["YOLOX-S OpenVINO FP32", "YOLOX-S OpenVINO INT8"],
            ("MobileNetV2-ATSS", 1): [],
        }
        assert [(group.id, group.versions) for group in cattle.model_groups][-1] == (SSD, ())

    @pytest.mark.parametrize("page_size", [100, 30])
    @pytest.mark.parametrize("next_page", [None, "own"])
    def test_pages_are_read_to_the_end(
        self, client: HttpGeti, geti: FakeGeti, page_size: int, next_page: str | None
    ) -> None:
        geti.behave(more_projects=250, page_size=page_size, next_page=next_page)
        assert [project.id for project in client.list_projects()] == geti.project_ids()
        assert len(geti.requests) == -(-252 // page_size)

    def test_a_server_that_repeats_itself_is_not_asked_for_ever(self, client: HttpGeti, geti: FakeGeti) -> None:
        geti.behave(more_projects=120, ignores_skip=True)
        assert len(client.list_projects()) == 100
        assert len(geti.requests) == 2

    @pytest.mark.parametrize(
        "link", ["https://elsewhere.example/projects", "//elsewhere.example", "http://[", "http://127.0.0.1:1/"]
    )
    def test_a_link_that_leads_elsewhere_does_not_get_the_key(
        self, client: HttpGeti, geti: FakeGeti, link: str
    ) -> None:
        geti.behave(more_projects=120, next_page=link)
        with pytest.raises(GetiUnavailableError):
            client.list_projects()
        assert len(geti.requests) == 1

    def test_a_redirect_is_not_followed(self, client: HttpGeti, geti: FakeGeti) -> None:
        geti.behave(status={"projects": 302})
        with pytest.raises(GetiUnavailableError):
            client.list_projects()
        assert len(geti.requests) == 1

    def test_several_things_are_asked_at_once_but_not_too_many(self, client: HttpGeti, geti: FakeGeti) -> None:
        projects = list(client.list_projects()) * 10
        geti.behave(slow={"model_groups": 0.05, "model": 0.05})
        assert [project.id for project in client.with_models(projects)] == [CATTLE, WELD] * 10
        assert 2 < geti.most_at_once <= 8

    def test_it_ends_in_time(self, geti: FakeGeti) -> None:
        geti.behave(slow={"model": 0.1})
        with HttpGeti(workspace(geti.url), replace(FAST, listing=0.15)) as client:
            projects = list(client.list_projects()) * 20
            started = time.monotonic()
            with pytest.raises(GetiUnavailableError):
                client.with_models(projects)
        assert time.monotonic() - started < 2

    @pytest.mark.parametrize("status", [400, 404])
    def test_a_project_that_is_none_is_not_found(self, client: HttpGeti, geti: FakeGeti, status: int) -> None:
        geti.behave(status={"project": status})
        with pytest.raises(ProjectNotFoundError):
            client.get_project(CATTLE)

    def test_an_id_leads_nowhere_else(self, client: HttpGeti, geti: FakeGeti) -> None:
        with pytest.raises(ProjectNotFoundError):
            client.get_project(f"../{ORGANIZATION}?x=#")
        assert geti.requests[0][1].endswith(f"/projects/..%2F{ORGANIZATION}%3Fx%3D%23")


class TestFailures:
    @pytest.mark.parametrize("call", CALLS)
    @pytest.mark.parametrize(
        ("status", "error"),
        [(401, GetiDeniedError), (403, GetiDeniedError), (500, GetiUnavailableError), (503, GetiUnavailableError)],
    )
    def test_a_status_is_an_error_of_every_call(
        self, client: HttpGeti, geti: FakeGeti, call: str, status: int, error: type[RegistryError]
    ) -> None:
        geti.behave(status={call: status})
        with pytest.raises(error):
            everything(client)

    @pytest.mark.parametrize("call", CALLS[:-1])
    @pytest.mark.parametrize("value", [[], "text", 5, {}, {"id": 7}, {"projects": 1}, {"model_groups": [3]}])
    def test_an_answer_that_is_none_is_an_error_of_every_call(
        self, client: HttpGeti, geti: FakeGeti, call: str, value: Any
    ) -> None:
        geti.behave(values={call: value})
        with pytest.raises(GetiUnavailableError):
            everything(client)

    def test_a_page_is_no_list(self, client: HttpGeti, geti: FakeGeti) -> None:
        geti.behave(not_json=True)
        with pytest.raises(GetiUnavailableError):
            client.list_projects()

    @pytest.mark.parametrize(
        "data", [b"", b"{", b'{"a":NaN}', b'{"a":"\\ud800"}', b'{"a":1' + b"0" * 400 + b"}", b"[" * 10**6]
    )
    def test_what_could_not_be_stored_is_no_answer(self, data: bytes) -> None:
        with pytest.raises(MalformedResponseError):
            parse(data)

    def test_nobody_there_is_an_error(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # and nobody listens
            url = f"http://127.0.0.1:{taken.getsockname()[1]}"
            with HttpGeti(workspace(url), FAST) as client, pytest.raises(GetiUnavailableError):
                client.list_projects()

    def test_silence_is_an_error(self, geti: FakeGeti) -> None:
        geti.behave(slow={"projects": 0.3})
        with (
            HttpGeti(workspace(geti.url), replace(FAST, read=0.05)) as client,
            pytest.raises(GetiUnavailableError),
        ):
            client.list_projects()
        assert len(geti.requests) == 3

    def test_a_download_cut_short_is_an_error(self, client: HttpGeti, geti: FakeGeti) -> None:
        geti.behave(cut_short=True)
        deployment_id = client.prepare_deployment(CATTLE, KEY, never_cancelled)
        with pytest.raises(GetiUnavailableError):
            list(client.download_deployment(CATTLE, deployment_id))

    def test_an_answer_that_only_drips_is_an_error(self, client: HttpGeti, geti: FakeGeti) -> None:
        deployment_id = client.prepare_deployment(CATTLE, KEY, never_cancelled)
        # No pause is long enough to be one, and the whole would take minutes.
        geti.behave(drips=0.05)
        with HttpGeti(workspace(geti.url), replace(FAST, read=0.5)) as impatient:
            started = time.monotonic()
            with pytest.raises(GetiUnavailableError):
                list(impatient.download_deployment(CATTLE, deployment_id))
            with pytest.raises(GetiUnavailableError):
                impatient.list_projects()
            assert time.monotonic() - started < 30


class TestTimeouts:
    @pytest.mark.parametrize("statuses", [[0], [0, 0], [503], [502, 504], [429, 0]])
    @pytest.mark.parametrize("call", ["projects", "model", "deployment", "download"])
    def test_what_passes_is_waited_for(self, client: HttpGeti, geti: FakeGeti, call: str, statuses: list[int]) -> None:
        geti.behave(passing={call: statuses.copy()})
        everything(client)

    @pytest.mark.parametrize(("status", "attempts"), [(503, 3), (500, 1), (404, 1), (401, 1)])
    def test_tries_are_counted(self, client: HttpGeti, geti: FakeGeti, status: int, attempts: int) -> None:
        geti.behave(status={"projects": status})
        with pytest.raises(RegistryError):
            client.list_projects()
        assert len(geti.requests) == attempts

    @pytest.mark.parametrize(("statuses", "is_repeated"), [([503], True), ([429], True), ([0], False), ([502], False)])
    def test_what_geti_may_have_begun_is_not_asked_for_twice(
        self, client: HttpGeti, geti: FakeGeti, statuses: list[int], is_repeated: bool
    ) -> None:
        geti.behave(passing={"prepare": statuses})
        if is_repeated:
            client.prepare_deployment(CATTLE, KEY, never_cancelled)
        else:
            with pytest.raises(GetiUnavailableError):
                client.prepare_deployment(CATTLE, KEY, never_cancelled)
        assert geti.asked(":prepare") == 1 + is_repeated


class TestDeployments:
    def test_one_is_waited_for_with_pauses_and_downloaded(self, client: HttpGeti, geti: FakeGeti) -> None:
        geti.behave(polls_until_final=10)
        started = time.monotonic()
        deployment_id = client.prepare_deployment(CATTLE, KEY, never_cancelled)
        assert time.monotonic() - started > 0.2
        assert geti.asked(f"/{deployment_id}") == 11
        assert b"".join(client.download_deployment(CATTLE, deployment_id)) == zipped(MEMBERS)

    @pytest.mark.parametrize("state", ["FAILED", "failed", "ERROR"])
    def test_one_that_fails_is_not_waited_for(self, client: HttpGeti, geti: FakeGeti, state: str) -> None:
        geti.behave(final_state=state)
        with pytest.raises(GetiDeploymentError):
            client.prepare_deployment(CATTLE, KEY, never_cancelled)

    def test_one_that_never_ends_is_given_up(self, geti: FakeGeti) -> None:
        geti.behave(polls_until_final=10**9)
        with (
            HttpGeti(workspace(geti.url), replace(FAST, deployment=0.2)) as client,
            pytest.raises(GetiDeploymentError, match=r"within 0\.2 s"),
        ):
            client.prepare_deployment(CATTLE, KEY, never_cancelled)

    @pytest.mark.parametrize("status", [400, 404, 409, 422])
    def test_geti_may_refuse(self, client: HttpGeti, geti: FakeGeti, status: int) -> None:
        geti.behave(status={"prepare": status})
        with pytest.raises(GetiRefusedError):
            client.prepare_deployment(CATTLE, KEY, never_cancelled)

    def test_the_wait_ends_when_nobody_waits(self, client: HttpGeti, geti: FakeGeti) -> None:
        geti.behave(polls_until_final=10**9)
        with pytest.raises(CallCancelledError):
            client.prepare_deployment(CATTLE, KEY, _once(CallCancelledError()))


def _once(error: Exception) -> Callable[[], None]:
    calls = []

    def check_cancelled() -> None:
        calls.append(1)
        if len(calls) > 3:
            raise error

    return check_cancelled


@pytest.mark.parametrize(
    "behaviour",
    [
        {"token": "another"},
        {"away": True},
        {"not_json": True},
        {"status": {"projects": 500}},
        {"next_page": "//elsewhere", "more_projects": 200},
    ],
)
def test_the_key_stands_in_no_log_and_no_error(
    client: HttpGeti, geti: FakeGeti, caplog: pytest.LogCaptureFixture, behaviour: dict[str, Any]
) -> None:
    geti.behave(**behaviour)
    with caplog.at_level(logging.DEBUG), pytest.raises(RegistryError) as caught:
        client.list_projects()
    error: BaseException | None = caught.value
    while error is not None:
        assert TOKEN not in repr(error) + str(error)
        error = error.__cause__ or error.__context__
    assert len(caplog.records) > 0
    assert TOKEN not in caplog.text
    assert TOKEN not in repr(workspace(geti.url))
