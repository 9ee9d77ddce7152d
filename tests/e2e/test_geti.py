"""Imports from Geti through the real gateway."""

import io
import json
import socket
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.fake_geti import CATTLE, MEMBERS, TOKEN, WELD, YOLOX, YOLOX_FP16, YOLOX_FP32, YOLOX_INT8, FakeGeti
from tests.polling import eventually
from tests.products import Product, running_up
from tests.temporary_folders import accessible_folder

MIB = 1024 * 1024
NOTE = "Note: Only OpenVINO optimized active models are supported at this time.\n"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with accessible_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def product(folder: Path, geti_server: FakeGeti) -> Iterator[Product]:
    # A short lease, so that the bytes of a killed server are collected soon.
    times = {"registration_lease_seconds": 12, "stream_idle_seconds": 5, "gc_interval_seconds": 1}
    with running_up(folder, min_log_level="DEBUG", **times, **geti_server.settings()) as product:
        yield product


@pytest.fixture
def rest(product: Product, geti: FakeGeti) -> Iterator[httpx.Client]:
    """A client of an empty registry, with Geti in its default state."""
    with httpx.Client(base_url=product.rest_url, timeout=60) as client:
        yield client
        for model in client.get("/models").json():
            client.delete(f"/models/{model['id']}")


def objects(folder: Path) -> list[Path]:
    """Return every file in the artifact store."""
    return [path for path in (folder / "data" / "artifacts").rglob("*") if path.is_file()]


def wanted(*model_ids: str, group_id: str = YOLOX) -> dict[str, Any]:
    return {"models": [{"id": model_id, "group_id": group_id} for model_id in model_ids]}


def typed(*model_ids: str) -> dict[str, Any]:
    """Return the same import as a request of the typed API."""
    return {"models": [{"model_id": model_id, "group_id": YOLOX} for model_id in model_ids]}


def imported(rest: httpx.Client, *model_ids: str) -> httpx.Response:
    return rest.post(f"/projects/{CATTLE}/geti-models/download", json=wanted(*model_ids))


class TestTypedApi:
    def test_projects_are_listed_and_read(self, rest: httpx.Client) -> None:
        first = rest.get("/v1/geti/projects", params={"page_size": 1}).json()
        assert [project["id"] for project in first["projects"]] == [CATTLE]
        second = rest.get("/v1/geti/projects", params={"page_token": first["next_page_token"]}).json()
        assert [project["id"] for project in second["projects"]] == [WELD]
        assert rest.get(f"/v1/geti/projects/{WELD}").json() == second["projects"][0]

    def test_progress_of_an_import_is_an_array(self, rest: httpx.Client) -> None:
        answer = rest.post(f"/v1/geti/projects/{CATTLE}:importModels", json=typed(YOLOX_FP16, YOLOX_FP32))
        assert answer.status_code == 200
        *messages, last = answer.json()
        assert last == {"result": {"registered_model_ids": [YOLOX_FP16, YOLOX_FP32], "failed_model_ids": []}}
        steps = [message["progress"] for message in messages]
        states = [(step["model_id"], step["state"]) for step in steps]
        assert states[0] == (YOLOX_FP16, "STATE_PREPARING")
        assert [step for step in states if step[1] == "STATE_REGISTERED"] == [
            (YOLOX_FP16, "STATE_REGISTERED"),
            (YOLOX_FP32, "STATE_REGISTERED"),
        ]
        assert steps[-1]["model"]["name"] == "YOLOX-S OpenVINO FP32"

    def test_progress_is_streamed_during_the_import(self, rest: httpx.Client, geti: FakeGeti) -> None:
        geti.behave(slow={"download": 2})
        with rest.stream("POST", f"/v1/geti/projects/{CATTLE}:importModels", json=typed(YOLOX_FP16)) as answer:
            pieces = answer.iter_raw()
            assert b"STATE_PREPARING" in next(pieces)
            assert rest.get(f"/models/{YOLOX_FP16}").status_code == 404
            assert b"STATE_REGISTERED" in b"".join(pieces)

    def test_a_query_cannot_name_another_project(self, rest: httpx.Client) -> None:
        for name in ("project_id", "projectId"):
            path = f"/v1/geti/projects/{CATTLE}:importModels"
            assert rest.post(path, params={name: WELD}, json=typed(YOLOX_FP16)).status_code == 400
        assert rest.get(f"/projects/{CATTLE}", params={"id": WELD}).json()["id"] == CATTLE

    def test_errors_have_their_status(self, rest: httpx.Client, geti: FakeGeti) -> None:
        assert rest.get("/v1/geti/projects/65f0a1b2c3d4e5f600000009").status_code == 404
        assert rest.get("/v1/geti/projects/short").status_code == 400
        geti.behave(token="another")
        assert rest.get("/v1/geti/projects").status_code == 403
        geti.behave(away=True)
        assert rest.get("/v1/geti/projects").status_code == 503


class TestCompatApi:
    def test_the_answer_lists_imported_and_failed_models(self, rest: httpx.Client, geti: FakeGeti) -> None:
        geti.behave(passing={"download": [500]})
        answer = imported(rest, YOLOX_FP16, YOLOX_FP32, YOLOX_INT8)
        assert (answer.status_code, answer.headers["content-type"]) == (207, "text/plain; charset=utf-8")
        assert answer.text == (
            f"Model(s): {YOLOX_FP32}, {YOLOX_INT8} registered.\n"
            f"Model {YOLOX_FP16} can not be registered: Geti does not answer as it should; try again later.\n{NOTE}"
        )
        assert {model["id"] for model in rest.get("/models").json()} == {YOLOX_FP32, YOLOX_INT8}

    def test_an_import_in_which_all_models_fail_leaves_nothing(
        self, rest: httpx.Client, geti: FakeGeti, folder: Path
    ) -> None:
        geti.behave(cut_short=True)
        answer = imported(rest, YOLOX_FP16, YOLOX_FP32)
        assert answer.status_code == 502
        assert answer.text.splitlines()[0] == "No model(s) registered."
        assert rest.get("/models").json() == []
        assert objects(folder) == []

    def test_a_path_whose_id_is_not_utf_8_has_an_invalid_id(self, rest: httpx.Client) -> None:
        answer = rest.get(f"/projects/{'%E9' * 16}")
        assert (answer.status_code, answer.json()) == (400, {"detail": "Invalid format for project ID."})

    def test_a_list_spans_several_pages_of_geti(self, rest: httpx.Client, geti: FakeGeti) -> None:
        geti.behave(more_projects=130)
        assert [project["id"] for project in rest.get("/projects").json()] == geti.project_ids()

    def test_the_artifact_is_the_folder_of_the_model(self, rest: httpx.Client) -> None:
        assert imported(rest, YOLOX_FP16).status_code == 201
        answer = rest.get(f"/models/{YOLOX_FP16}/files")
        assert answer.headers["content-disposition"] == 'attachment; filename="cattle-detection-v12.zip"'
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            assert {name: archive.read(f"cattle-detection-v12/{name}") for name in MEMBERS} == MEMBERS

    def test_a_changed_precision_is_shown_as_stored(self, rest: httpx.Client) -> None:
        imported(rest, YOLOX_FP16)
        path = f"/models/{YOLOX_FP16}"
        rest.put(path, data={"score": "0.5"})
        assert rest.get(path).json()["precision"] == ["FP16"]
        rest.put(path, data={"precision": "FP16"})
        assert rest.get(path).json()["precision"] == ["fp16"]
        rest.delete(path)
        imported(rest, YOLOX_FP16)
        assert rest.patch(f"/v1/models/{YOLOX_FP16}", json={"score": 1}).status_code == 200
        assert rest.get(path).json()["precision"] == ["FP16"]
        assert rest.patch(f"/v1/models/{YOLOX_FP16}", json={"precisions": ["int8"]}).status_code == 200
        assert rest.get(path).json()["precision"] == ["int8"]

    @pytest.mark.parametrize("behaviour", [{"token": "another"}, {"away": True}, {"not_json": True}])
    def test_errors_of_geti_reveal_nothing_about_it(
        self, rest: httpx.Client, geti: FakeGeti, behaviour: dict[str, Any]
    ) -> None:
        geti.behave(**behaviour)
        answer = rest.get("/projects")
        assert answer.status_code == 502
        for secret in (TOKEN, "127.0.0.1", geti.url.rpartition(":")[2], "httpx", "Traceback"):
            assert secret not in answer.text
        assert rest.get("/health").json() == {"status": "ok"}
        assert rest.get("/ready").status_code == 200

    def test_an_import_whose_client_disconnects_leaves_nothing(
        self, product: Product, rest: httpx.Client, geti: FakeGeti, folder: Path
    ) -> None:
        geti.behave(polls_until_final=10**9)
        body = json.dumps(wanted(YOLOX_FP16, YOLOX_FP32)).encode()
        head = f"POST /projects/{CATTLE}/geti-models/download HTTP/1.1\r\nHost: registry\r\nContent-Length: {len(body)}"
        with closing(socket.create_connection(("127.0.0.1", product.rest_port), timeout=20)) as connection:
            connection.sendall(head.encode() + b"\r\n\r\n" + body)
            eventually(lambda: geti.asked(":prepare"), what="the beginning of the import")
        eventually(lambda: '"code": "CANCELLED"' in log(folder), what="the end of the import")
        geti.behave()
        assert rest.get("/models").json() == []
        assert objects(folder) == []
        assert geti.requests == []

    def test_a_large_import_takes_little_memory(
        self, product: Product, rest: httpx.Client, geti: FakeGeti, folder: Path
    ) -> None:
        geti.behave(large=300)
        process = psutil.Process(product.processes()[0].pid)
        before = process.memory_info().rss
        assert imported(rest, YOLOX_FP16).status_code == 201
        assert process.memory_info().rss - before < 100 * MIB
        files = rest.get(f"/v1/models/{YOLOX_FP16}/files").json()["artifact_files"]
        assert [file["size_bytes"] for file in files if file["path"].endswith("/model.bin")] == [str(300 * MIB)]
        assert len(objects(folder)) == 1

    def test_an_import_on_a_killed_server_leaves_nothing(
        self, product: Product, rest: httpx.Client, geti: FakeGeti, folder: Path
    ) -> None:
        geti.behave(large=2000)
        with rest.stream("POST", f"/v1/geti/projects/{CATTLE}:importModels", json=typed(YOLOX_FP16)) as answer:
            assert answer.status_code == 200
            eventually(lambda: objects(folder), what="the first bytes")
            product.server.kill()
        geti.behave()
        product.server.start()
        product.wait_until_ready()
        eventually(lambda: objects(folder) == [], 60, "garbage collection")
        assert rest.get("/models").json() == []
        assert imported(rest, YOLOX_FP16).status_code == 201

    def test_the_api_key_is_never_logged(self, folder: Path) -> None:
        assert "Geti" in log(folder)
        assert TOKEN not in log(folder)


def log(folder: Path) -> str:
    return (folder / "data" / "registry.log").read_text(encoding="utf-8")
