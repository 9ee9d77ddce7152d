"""A fake Intel Geti server: two projects, and any fault that a test asks for."""

import io
import itertools
import json
import re
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

TOKEN = "t0p-s3cr3t-geti-key"
VERSION, ORGANIZATION, WORKSPACE = "v1", "an-organization", "a-workspace"
ROOT = f"/api/{VERSION}/organizations/{ORGANIZATION}/workspaces/{WORKSPACE}"

CATTLE, WELD = "65f0a1b2c3d4e5f600000001", "65f0a1b2c3d4e5f600000002"
YOLOX, SSD, D_FINE = "66a1000000000000000000a1", "66a1000000000000000000a3", "66a2000000000000000000b1"
YOLOX_FP16, YOLOX_FP32, YOLOX_INT8 = (f"66c10000000000000000{end}" for end in ("a111", "a121", "a122"))

# Project: name, creation time, and the labels of its tasks.
_PROJECTS: Mapping[str, tuple[str, str, Mapping[str, Mapping[str, str]]]] = {
    CATTLE: (
        "Cattle Detection v1.2",
        "2025-03-12T09:41:07.582000+00:00",
        {"detection": {"cow": "#25a18eff", "sheep": "#f15b85ff"}},
    ),
    WELD: (
        "Weld Defects (Line 2)",
        "2025-06-30T16:05:00+00:00",
        {
            "detection": {"seam": "#00a5cfff"},
            "crop": {},
            "classification": {"good": "#80e9afff", "porosity": "#ff5662ff", "crack": "#ffe270ff"},
        },
    ),
}
# Group: project, name, position of its task; then versions by id, with their models: format, precision, size, score.
_GROUPS: Mapping[str, tuple[str, str, int, Mapping[str, Mapping[str, tuple[str, str, int, float]]]]] = {
    YOLOX: (
        CATTLE,
        "YOLOX-S",
        1,
        {
            "66b100000000000000000a11": {
                YOLOX_FP16: ("OpenVINO", "FP16", 18350080, 0.79),
                "66c10000000000000000a112": ("ONNX", "FP32", 36700160, 0.79),
            },
            "66b100000000000000000a12": {
                YOLOX_FP32: ("OpenVINO", "FP32", 36700161, 0.84),
                YOLOX_INT8: ("OpenVINO", "INT8", 9437184, 0.83),
                "66c10000000000000000a123": ("PyTorch", "FP32", 40370176, 0.84),
            },
        },
    ),
    "66a1000000000000000000a2": (
        CATTLE,
        "MobileNetV2-ATSS",
        1,
        {"66b100000000000000000a21": {"66c10000000000000000a211": ("ONNX", "FP32", 9961472, 0.71)}},
    ),
    SSD: (CATTLE, "SSD", 1, {}),
    D_FINE: (
        WELD,
        "D-Fine X",
        1,
        {"66b200000000000000000b11": {"66c20000000000000000b111": ("OpenVINO", "FP16", 124780544, 0.91)}},
    ),
    "66a2000000000000000000b2": (
        WELD,
        "EfficientNet-B0",
        3,
        {
            "66b200000000000000000b21": {
                "66c20000000000000000b211": ("OpenVINO", "FP16", 8388608, 0.97),
                "66c20000000000000000b212": ("OpenVINO", "INT8", 4299161, 0.965),
            }
        },
    ),
}

MEMBERS: Mapping[str, bytes] = {
    "README.md": b"# A deployment\n",
    "deployment/project.json": b"{}",
    "deployment/model/model.xml": b'<net name="model"/>',
    "deployment/model/model.bin": bytes(range(256)) * 64,
}


def zipped(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, (2025, 7, 1, 10, 20, 30)), data)
    return buffer.getvalue()


@dataclass
class Behaviour:
    """The faults that a test can ask for. `_CALLS` has the names of the calls."""

    status: Mapping[str, int | None] = field(default_factory=dict)
    """By call: the status of every response."""
    passing: dict[str, list[int]] = field(default_factory=dict)
    """By call: the statuses of the next responses, one each; 0 closes the connection without a response."""
    slow: Mapping[str, float] = field(default_factory=dict)
    """By call: the delay of the response, in seconds."""
    not_json: bool = False
    """Whether the list of projects is paged."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """By call: the body to send instead."""
    token: str = TOKEN
    away: bool = False
    """Close every connection without a response."""
    more_projects: int = 0
    """The number of further projects, without models."""
    page_size: int = 100
    """The largest page of projects, whatever size the request names."""
    ignores_skip: bool = False
    next_page: str | None = None
    """The link to the next page; `own` is a correct one."""
    task_type: str | None = None
    """The type of all tasks of models."""
    model_fields: Mapping[str, Any] = field(default_factory=dict)
    """Fields of an optimized model to replace."""
    final_state: str = "DONE"
    polls_until_final: int = 1
    bad_zip: bool = False
    download: bytes | None = None
    """The download, instead of the usual ZIP archive."""
    large: int = 0
    """The size of a further, uncompressed member of the download, in MiB."""
    cut_short: bool = False
    """Whether the download ends halfway."""
    drips: float | None = None
    """Send every response byte by byte, with this delay between bytes, in seconds."""


class FakeGeti:
    """The server, which runs in threads of this process."""

    def __init__(self) -> None:
        self.behaviour = Behaviour()
        self.requests: list[tuple[str, str]] = []
        """Method and URL, with the query, of each request."""
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._polls: dict[str, int] = {}
        geti = self

        class Handler(_Handler):
            fake = geti

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def settings(self, **changes: str) -> dict[str, Any]:
        """Return the registry's settings for this server."""
        return {
            "geti_host": self.url,
            "geti_token": TOKEN,
            "geti_server_api_version": VERSION,
            "geti_organization_id": ORGANIZATION,
            "geti_workspace_id": WORKSPACE,
            **changes,
        }

    def behave(self, **changes: Any) -> None:
        """Replace the faults by these."""
        self.behaviour = Behaviour(**changes)
        self.requests.clear()
        self.most_at_once = 0

    def asked(self, ending: str) -> int:
        """Return how many requests had a URL with this end, query included."""
        return sum(address.endswith(ending) for _, address in self.requests)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @contextmanager
    def counted(self) -> Iterator[None]:
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            yield
        finally:
            with self._lock:
                self._at_once -= 1

    # ---- responses

    def projects(self, query: Mapping[str, str]) -> Mapping[str, Any]:
        behaviour = self.behaviour
        everything = [self.project(project_id) for project_id in self.project_ids()]
        skip = 0 if behaviour.ignores_skip else int(query.get("skip", "0"))
        page = everything[skip : skip + min(int(query["limit"]), behaviour.page_size)]
        answer: dict[str, Any] = {"projects": page, "project_page_count": len(page)}
        if behaviour.next_page is None:
            answer["project_counts"] = len(everything)
        elif skip + len(page) < len(everything):
            own = f"{ROOT}/projects?limit=100&skip={skip + len(page)}"
            answer["next_page"] = own if behaviour.next_page == "own" else behaviour.next_page
        return answer

    def project_ids(self) -> list[str]:
        return [*_PROJECTS, *(f"65f0a1b2c3d4e5f7{n:08}" for n in range(self.behaviour.more_projects))]

    def project(self, project_id: str) -> Mapping[str, Any] | None:
        if project_id not in self.project_ids():
            return None
        name, created, tasks = _PROJECTS.get(project_id, (project_id, "2025-01-01T00:00:00+00:00", {}))
        kinds = [
            kind if kind == "crop" or self.behaviour.task_type is None else self.behaviour.task_type for kind in tasks
        ]
        return {
            "id": project_id,
            "name": name,
            "creation_time": created,
            "pipeline": {
                "tasks": [
                    {"id": _task_id(project_id, i), "title": kind.title(), "task_type": kind}
                    for i, kind in enumerate(["dataset", *kinds])
                ],
                "connections": [],
            },
        }

    def model_groups(self, project_id: str) -> Mapping[str, Any] | None:
        if project_id not in self.project_ids():
            return None
        return {
            "model_groups": [
                {
                    "id": group_id,
                    "name": name,
                    "task_id": _task_id(project_id, task),
                    "models": [{"id": version_id, "name": name} for version_id in versions],
                }
                for group_id, (owner, name, task, versions) in _GROUPS.items()
                if owner == project_id
            ]
        }

    def model(self, project_id: str, group_id: str, wanted: str) -> Mapping[str, Any] | None:
        owner, name, task, versions = _GROUPS.get(group_id, ("", "", 0, {}))
        for number, (version_id, models) in enumerate(versions.items(), 1):
            if owner != project_id or wanted not in {version_id, *models}:
                continue
            optimized = {
                model_id: self._optimized(project_id, task, name, number, model_id, described)
                for model_id, described in models.items()
            }
            if wanted in optimized:
                return {**optimized[wanted], **self.behaviour.model_fields}
            return {"id": version_id, "name": name, "version": number, "optimized_models": list(optimized.values())}
        return None

    def _optimized(
        self, project_id: str, task: int, name: str, number: int, model_id: str, described: tuple[str, str, int, float]
    ) -> Mapping[str, Any]:
        kind, precision, size, score = described
        labels = list(_PROJECTS[project_id][2].values())[task - 1]
        return {
            "id": model_id,
            "name": f"{name} {kind} {precision}",
            "version": number,
            "creation_date": "2025-07-01T10:20:30.405000+00:00",
            "model_format": kind,
            "precision": [precision],
            "target_device": "CPU",
            "target_device_type": None,
            "optimization_capabilities": {"is_nncf_supported": False},
            "performance": {"score": score},
            "size": size,
            "architecture": name,
            "labels": [
                {
                    "id": f"{_task_id(project_id, task)[:-2]}{0xA0 + i:02x}",
                    "name": label,
                    "is_empty": False,
                    "color": color,
                }
                for i, (label, color) in enumerate(labels.items())
            ],
        }

    def prepare(self, project_id: str, body: Any) -> Mapping[str, Any] | None:
        if not all(self.model(project_id, wanted["model_group_id"], wanted["model_id"]) for wanted in body["models"]):
            return None
        deployment_id = f"67d0{next(self._numbers):020x}"
        self._polls[deployment_id] = 0
        return {"id": deployment_id, "state": "PRE_PREPARING", "progress": 0}

    def deployment(self, deployment_id: str) -> Mapping[str, Any] | None:
        if deployment_id not in self._polls:
            return None
        self._polls[deployment_id] += 1
        is_final = self._polls[deployment_id] > self.behaviour.polls_until_final
        return {"id": deployment_id, "state": self.behaviour.final_state if is_final else "PREPARING"}

    def download(self) -> Iterator[bytes]:
        behaviour = self.behaviour
        if behaviour.large:
            yield from _large_zip(behaviour.large)
        elif behaviour.bad_zip:
            yield b"this is no ZIP"
        else:
            yield behaviour.download if behaviour.download is not None else zipped(MEMBERS)


def _task_id(project_id: str, position: int) -> str:
    return f"{project_id[:16]}0000{project_id[-2:]}d{position}"


def _large_zip(pieces: int) -> Iterator[bytes]:
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        info = zipfile.ZipInfo("model.bin")
        info.file_size = pieces << 20
        with archive.open(info, "w") as member:
            for n in range(pieces):
                member.write(bytes([n % 256]) * (1 << 20))
                yield sink.take()
    yield sink.take()


class _Sink(io.RawIOBase):
    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self.data += data
        return len(data)

    def take(self) -> bytes:
        data = bytes(self.data)
        self.data.clear()
        return data


class _Server(ThreadingHTTPServer):
    """A server that does not log clients that disconnect."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


_CALLS = tuple(
    (call, re.compile(pattern.replace("*", "([^/]+)")))
    for call, pattern in {
        "projects": "projects",
        "project": "projects/*",
        "model_groups": "projects/*/model_groups",
        "model": "projects/*/model_groups/*/models/*",
        "prepare": "projects/*/code_deployments:prepare",
        "deployment": "projects/*/code_deployments/*",
        "download": "projects/*/code_deployments/*/download",
    }.items()
)


class _Handler(BaseHTTPRequestHandler):
    """Handles the requests of one connection, one after the other."""

    fake: FakeGeti
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        with self.fake.counted():
            self._answer(None)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.fake.counted():
            self._answer(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def _answer(self, body: Any) -> None:
        fake, behaviour = self.fake, self.fake.behaviour
        fake.requests.append((self.command, self.path))
        address = urlsplit(self.path)
        if behaviour.away:
            self.close_connection = True
        elif self.headers["x-api-key"] != behaviour.token:
            self._error(401)
        elif not address.path.startswith(f"{ROOT}/"):
            self._error(403)
        else:
            self._judged(address.path.removeprefix(f"{ROOT}/"), address.query, body)

    def _judged(self, path: str, query: str, body: Any) -> None:
        fake, behaviour = self.fake, self.fake.behaviour
        call, names = next((call, found.groups()) for call, pattern in _CALLS if (found := pattern.fullmatch(path)))
        time.sleep(behaviour.slow.get(call, 0))
        statuses = behaviour.passing.get(call)
        status = statuses.pop(0) if statuses else behaviour.status.get(call)
        if status == 0:
            self.close_connection = True
        elif status is not None:
            self._error(status)
        elif call == "download":
            self._send_download()
        elif call == "projects" and behaviour.not_json:
            self._send(200, b"<html>Maintenance</html>", "text/html")
        else:
            own: Mapping[str, Callable[..., Mapping[str, Any] | None]] = {
                "projects": lambda: fake.projects({name: values[-1] for name, values in parse_qs(query).items()}),
                "project": fake.project,
                "model_groups": fake.model_groups,
                "model": fake.model,
                "prepare": lambda project_id: fake.prepare(project_id, body),
                "deployment": lambda _, deployment_id: fake.deployment(deployment_id),
            }
            value = behaviour.values[call] if call in behaviour.values else own[call](*names)
            if value is None:
                self._error(404)
            else:
                self._send(200, json.dumps(value).encode(), "application/json")

    def _send_download(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/zip")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in self.fake.download():
            if self.fake.behaviour.cut_short:
                self.wfile.write(b"%x\r\n%b" % (len(piece), piece[: len(piece) // 2]))
                self.close_connection = True
                return
            for part in self._parts(piece):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")

    def _parts(self, data: bytes) -> Iterator[bytes]:
        if self.fake.behaviour.drips is None:
            yield data
            return
        for byte in data:
            time.sleep(self.fake.behaviour.drips or 0)
            yield bytes([byte])

    def _error(self, status: int) -> None:
        answer = {"error_code": "an_error", "message": f"This says {self.path}.", "http_status": status}
        self._send(status, json.dumps(answer).encode(), "application/json")

    def _send(self, status: int, data: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        for part in self._parts(data):
            self.wfile.write(part)


@pytest.fixture(scope="session")
def geti_server() -> Iterator[FakeGeti]:
    """The fake server, shared by all tests of the session."""
    fake = FakeGeti()
    yield fake
    fake.close()


@pytest.fixture
def geti(geti_server: FakeGeti) -> Iterator[FakeGeti]:
    """The fake server, without faults."""
    geti_server.behave()
    yield geti_server
    geti_server.behave()
