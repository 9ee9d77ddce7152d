"""Behaviour of the Intel-compatible API that the recorded contract (tests/rest_contract) cannot express."""

import http.client
import json
import os
import socket
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.polling import eventually
from tests.products import Product, running_up
from tests.temporary_folders import accessible_folder

MIB = 1024 * 1024
BOUNDARY = "----------------boundary"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
ZIP = "application/zip"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with accessible_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def product(folder: Path) -> Iterator[Product]:
    with running_up(folder, unary_timeout_seconds=10) as product:
        yield product


@pytest.fixture
def rest(product: Product) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=product.rest_url, timeout=60) as client:
        yield client


def objects(folder: Path) -> set[Path]:
    """Return every file in the artifact store."""
    return {path for path in (folder / "data" / "artifacts").rglob("*") if path.is_file()}


def new_id() -> str:
    return f"rest-{uuid.uuid4()}"


def texts(**fields: str) -> bytes:
    """Return the text parts of a form."""
    return b"".join(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    )


def file_head(content_type: str = ZIP) -> bytes:
    """Return the headers of the file's part."""
    return (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="model.zip"\r\n'
        f"Content-Type: {content_type}\r\n\r\n"
    ).encode()


END = f"--{BOUNDARY}--\r\n".encode()


def register(rest: httpx.Client, data: bytes = b"weights", **fields: str) -> str:
    fields = {"name": new_id(), "version": "1"} | fields
    answer = rest.post("/models", data=fields, files={"file": ("model.zip", data, ZIP)})
    assert answer.status_code == 201, answer.text
    return answer.text


@contextmanager
def slow_upload(product: Product, beginning: bytes, length: int = 1024 * MIB) -> Iterator[socket.socket]:
    """Send only the beginning of a POST /models."""
    with closing(socket.create_connection(("127.0.0.1", product.rest_port), timeout=20)) as connection:
        head = f"POST /models HTTP/1.1\r\nHost: registry\r\nContent-Type: {FORM}\r\nContent-Length: {length}\r\n\r\n"
        connection.sendall(head.encode() + beginning)
        yield connection


def answer_of(connection: socket.socket) -> tuple[int, str]:
    reply = http.client.HTTPResponse(connection)
    reply.begin()
    return reply.status, reply.read().decode()


# ---- Registration


def test_text_fields_may_follow_a_large_file(rest: httpx.Client) -> None:
    model_id, data = new_id(), os.urandom(20 * MIB)
    body = file_head() + data + b"\r\n" + texts(name=new_id(), version="7", id=model_id, precision="INT8") + END
    answer = rest.post("/models", content=body, headers={"Content-Type": FORM})
    assert (answer.status_code, answer.text) == (201, model_id)
    model = rest.get(f"/models/{model_id}").json()
    assert (model["version"], model["precision"], model["size"]) == ("7", ["int8"], len(data))
    assert rest.get(f"/models/{model_id}/files").content == data


def test_a_form_may_arrive_byte_by_byte(product: Product, rest: httpx.Client) -> None:
    body = texts(name=new_id(), version="1") + file_head() + b"weights\r\n--not the boundary\r\n" + END
    with slow_upload(product, b"", len(body)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(len(body)):
            connection.sendall(body[i : i + 1])
        status, model_id = answer_of(connection)
    assert status == 201
    assert rest.get(f"/models/{model_id}/files").content == b"weights\r\n--not the boundary"


@pytest.mark.parametrize(
    ("fields", "content_type", "status"),
    [
        ({"score": "high"}, ZIP, 422),
        ({"overview": "words"}, ZIP, 422),
        ({"precision": "fp64"}, ZIP, 400),
        ({"id": "short"}, ZIP, 400),
        ({"colour": "red"}, ZIP, 422),
        ({"name": "n" * 5001}, ZIP, 422),
        ({}, "text/plain", 422),
    ],
)
def test_an_invalid_field_is_refused_before_the_file_arrives(
    product: Product, folder: Path, fields: dict[str, str], content_type: str, status: int
) -> None:
    before = objects(folder)
    beginning = texts(**{"name": new_id(), "version": "1", **fields}) + file_head(content_type)
    with slow_upload(product, beginning) as connection:
        assert answer_of(connection)[0] == status
    assert objects(folder) == before


def test_a_taken_id_is_refused_before_the_file_arrives(product: Product, rest: httpx.Client) -> None:
    model_id = register(rest, id=new_id())
    with slow_upload(product, texts(name=new_id(), version="1", id=model_id) + file_head()) as connection:
        status, text = answer_of(connection)
    assert status == 409
    assert model_id in text


def test_a_taken_name_is_refused_once_more_of_the_file_arrives(product: Product, rest: httpx.Client) -> None:
    name = new_id()
    model_id = register(rest, name=name)
    with slow_upload(product, texts(name=name, version="1") + file_head()) as connection:
        connection.sendall(bytes(2 * MIB))
        status, text = answer_of(connection)
    assert status == 409
    assert model_id in text


def test_a_project_after_the_file_makes_the_model_another_one(rest: httpx.Client) -> None:
    name = new_id()
    register(rest, name=name)
    body = texts(name=name, version="1") + file_head() + b"weights\r\n" + texts(project_name="Other") + END
    assert rest.post("/models", content=body, headers={"Content-Type": FORM}).status_code == 201


def test_an_invalid_field_is_reported_with_those_after_the_file(rest: httpx.Client, folder: Path) -> None:
    before = objects(folder)
    body = texts(score="high") + file_head() + b"weights\r\n" + texts(name="x") + END
    answer = rest.post("/models", content=body, headers={"Content-Type": FORM})
    assert answer.status_code == 422
    found = {(item["type"], item["loc"][1]) for item in answer.json()["detail"]}
    assert found == {("missing", "version"), ("float_parsing", "score")}
    assert objects(folder) == before


def test_the_first_of_two_files_leaves_no_bytes(rest: httpx.Client, folder: Path) -> None:
    before = len(objects(folder))
    body = texts(name=new_id(), version="1") + file_head() + bytes(9 * MIB) + b"\r\n" + file_head() + b"last\r\n" + END
    answer = rest.post("/models", content=body, headers={"Content-Type": FORM})
    assert rest.get(f"/models/{answer.text}/files").content == b"last"
    assert len(objects(folder)) == before + 1


def test_a_registration_whose_client_disconnects_leaves_nothing(
    product: Product, folder: Path, rest: httpx.Client
) -> None:
    before = objects(folder)
    model_id = new_id()
    with slow_upload(product, texts(name=new_id(), version="1", id=model_id) + file_head()) as connection:
        connection.sendall(bytes(20 * MIB))
        eventually(lambda: objects(folder) != before, what="the upload's first part")
    eventually(lambda: objects(folder) == before, what="the end of what it left")
    assert rest.get(f"/models/{model_id}").status_code == 404


def test_one_of_the_concurrent_registrations_of_a_model_wins(rest: httpx.Client, folder: Path) -> None:
    before = len(objects(folder))
    name = new_id()

    def attempt(n: int) -> int:
        files = {"file": ("model.zip", bytes([n]) * 1000, ZIP)}
        return rest.post("/models", data={"name": name, "version": "1"}, files=files).status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(attempt, range(8)))
    assert statuses == [201] + [409] * 7
    assert len(objects(folder)) == before + 1


def test_an_upload_takes_constant_memory_and_delays_no_other_client(product: Product, rest: httpx.Client) -> None:
    size = 200 * MIB
    model_id = new_id()
    head = texts(name=new_id(), version="1", id=model_id) + file_head()
    tail = b"\r\n" + END
    process = psutil.Process(product.processes()[0].pid)
    before = process.memory_info().rss
    with slow_upload(product, head, len(head) + size + len(tail)) as connection:
        piece = os.urandom(MIB)
        for n in range(size // MIB):
            connection.sendall(piece)
            if n % 40 == 0:
                assert rest.get("/health").status_code == 200
                assert rest.get(f"/models/{model_id}").status_code == 404
        grown = process.memory_info().rss - before
        connection.sendall(tail)
        assert answer_of(connection) == (201, model_id)
    assert grown < 100 * MIB
    assert rest.get(f"/models/{model_id}").json()["size"] == size


def test_uploads_over_the_concurrency_limit_wait(rest: httpx.Client) -> None:
    with ThreadPoolExecutor(48) as pool:
        ids = list(pool.map(lambda _: register(rest, bytes(1000)), range(96)))
    assert len(set(ids)) == 96


# ---- Downloads


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
def test_a_failing_download_closes_its_connection(
    product: Product, rest: httpx.Client, folder: Path, http2: bool
) -> None:
    before = objects(folder)
    model_id = register(rest, bytes(30 * MIB))
    (stored,) = objects(folder) - before
    os.truncate(stored, 20 * MIB)
    with (
        httpx.Client(base_url=product.rest_url, http1=not http2, http2=http2, timeout=20) as client,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        client.get(f"/models/{model_id}/files")


@pytest.mark.parametrize(("path", "status"), [("/models/{}/files", 404), ("/v1/models/{}/artifact", 500)])
@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
def test_a_download_of_damaged_bytes_is_cut_off_before_its_end(
    product: Product, rest: httpx.Client, folder: Path, http2: bool, path: str, status: int
) -> None:
    before = objects(folder)
    small, large = register(rest, bytes(10)), register(rest, bytes(3 * MIB))
    for stored in objects(folder) - before:
        with stored.open("r+b") as file:
            file.write(b"x")
    received: list[int] = []
    with httpx.Client(base_url=product.rest_url, http1=not http2, http2=http2, timeout=20) as client:
        assert client.get(path.format(small)).status_code == status
        with client.stream("GET", path.format(large)) as answer, pytest.raises(httpx.RemoteProtocolError):
            received.extend(map(len, answer.iter_raw()))
    assert sum(received) < 3 * MIB


def test_a_missing_artifact_is_not_found(rest: httpx.Client, folder: Path) -> None:
    before = objects(folder)
    model_id = register(rest)
    (stored,) = objects(folder) - before
    stored.unlink()
    answer = rest.get(f"/models/{model_id}/files")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "text/plain; charset=utf-8")
    assert rest.delete(f"/models/{model_id}").status_code == 204


def test_downloads_support_ranges_and_conditions(rest: httpx.Client) -> None:
    data = os.urandom(3 * MIB)
    path = f"/models/{register(rest, data)}/files"
    whole = rest.get(path)
    etag, modified = whole.headers["etag"], whole.headers["last-modified"]
    assert whole.headers["content-length"] == str(len(data))
    assert whole.headers["content-disposition"] == 'attachment; filename="model.zip"'

    head = rest.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert {name: head.headers[name] for name in ("content-length", "content-type", "etag")} == {
        "content-length": str(len(data)),
        "content-type": ZIP,
        "etag": etag,
    }

    part = rest.get(path, headers={"Range": "bytes=1000000-1999999"})
    assert (part.status_code, part.headers["content-type"]) == (206, ZIP)
    assert part.headers["content-range"] == f"bytes 1000000-1999999/{len(data)}"
    assert part.content == data[1_000_000:2_000_000]
    assert rest.get(path, headers={"Range": "bytes=-10"}).content == data[-10:]
    assert rest.get(path, headers={"Range": f"bytes={len(data)}-"}).status_code == 416

    assert rest.get(path, headers={"Range": "bytes=0-9", "If-Range": etag}).status_code == 206
    assert rest.get(path, headers={"Range": "bytes=0-9", "If-Range": '"other"'}).status_code == 200
    for condition in ({"If-None-Match": etag}, {"If-Modified-Since": modified}):
        unchanged = rest.get(path, headers=condition)
        assert (unchanged.status_code, unchanged.content) == (304, b"")
    for wanted in (etag, "*"):
        assert rest.get(path, headers={"If-Match": wanted}).content == data
    for method in ("GET", "HEAD"):
        other = rest.request(method, path, headers={"If-Match": '"other"'})
        assert (other.status_code, other.content) == (412, b"")


def test_head_of_an_unknown_model_is_404_without_a_body(rest: httpx.Client) -> None:
    answer = rest.head(f"/models/{new_id()}/files")
    assert (answer.status_code, answer.content) == (404, b"")


# ---- Changes


def test_an_update_ignores_a_large_file(rest: httpx.Client) -> None:
    model_id = register(rest, origin="before")
    answer = rest.put(f"/models/{model_id}", data={"origin": "after"}, files={"file": ("x", bytes(40 * MIB), ZIP)})
    assert answer.json() == {"status": "completed"}
    assert rest.get(f"/models/{model_id}").json()["origin"] == "after"


def test_every_update_advances_the_modification_date(rest: httpx.Client) -> None:
    model_id = register(rest, origin="same")
    first = rest.get(f"/models/{model_id}").json()
    assert rest.put(f"/models/{model_id}", data={"origin": "same"}).status_code == 200
    second = rest.get(f"/models/{model_id}").json()
    assert second["last_updated_date"] > first["last_updated_date"]
    assert second["created_date"] == first["created_date"]


# ---- Precisions


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        (["bf16"], ["fp16"]),
        (["fp8", "fp32"], ["int8", "fp32"]),
        (["nf4"], ["int4"]),
        (["fp64"], ["fp32"]),
        (["mixed"], ["fp32"]),
        (["bf16", "fp16"], ["fp16"]),
        (["q4_k"], ["int4"]),
        (["int8", "fp32"], ["int8", "fp32"]),
    ],
    ids=",".join,
)
def test_a_precision_unknown_to_intels_clients_is_shown_as_the_nearest_known_one(
    product: Product, rest: httpx.Client, stored: list[str], shown: list[str]
) -> None:
    category = new_id()
    registered = product.client.register(name=new_id(), category=category, precisions=stored)
    other = product.client.register(
        name=new_id(), category=category, precisions=["fp16" if "fp16" not in shown else "int8"]
    )
    changed = product.client.update(other.id, ["precisions"], precisions=stored)
    assert list(changed.precisions) == list(registered.precisions) == stored
    for model_id in (registered.id, other.id):
        assert rest.get(f"/models/{model_id}").json()["precision"] == shown
    for precision in shown:
        found = rest.get("/models", params={"category": category, "precision": precision.upper()}).json()
        assert {model["id"] for model in found} == {registered.id, other.id}
    assert rest.put(f"/models/{other.id}", data={"precision": "INT4"}).status_code == 200
    assert rest.get(f"/models/{other.id}").json()["precision"] == ["int4"]
    assert list(product.client.get(other.id).precisions) == ["int4"]


# ---- Lists


def test_a_list_is_complete_and_ordered(rest: httpx.Client) -> None:
    category = new_id()
    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(lambda _: register(rest, id=new_id(), category=category), range(1_100)))
    found = rest.get("/models", params={"category": category.upper()})
    assert [model["id"] for model in found.json()] == sorted(ids)
    everything = [model["id"] for model in rest.get("/models").json()]
    assert set(ids) <= set(everything)
    assert everything == sorted(everything)


def test_an_integer_beyond_a_double_is_kept_and_shown_as_a_string_in_json_of_doubles(
    product: Product, rest: httpx.Client
) -> None:
    integers = {"a": 2**53 + 1, "b": -(2**63), "c": 10**100 + 1, "d": 2**53 - 1, "e": 2**60}
    overview = json.dumps({"exact": integers, "list": [2**64 - 1, 0.5]})
    model_id = register(rest, overview=overview)
    assert rest.get(f"/models/{model_id}").json()["overview"] == json.loads(overview)

    shown = {"a": str(2**53 + 1), "b": -(2.0**63), "c": str(10**100 + 1), "d": 2**53 - 1, "e": 2.0**60}
    typed = rest.get(f"/v1/models/{model_id}").json()
    assert typed["overview"] == {"exact": shown, "list": [str(2**64 - 1), 0.5]}
    [compared] = [
        field["values"]
        for field in rest.get("/v1/models:compare", params={"model_ids": [model_id, register(rest)]}).json()["fields"]
        if field["path"] == "overview.exact.a"
    ]
    assert compared == [str(2**53 + 1), None]
    events = rest.get("/v1/auditEvents", params={"filter": f'model_id = "{model_id}"'}).json()["audit_events"]
    assert events[0]["after"]["overview"] == typed["overview"]

    changed = rest.patch(f"/v1/models/{model_id}", params={"update_mask": "category"}, json={"category": "x"})
    assert changed.status_code == 200, changed.text
    assert rest.get(f"/models/{model_id}").json()["overview"] == json.loads(overview)


def test_long_texts_do_not_limit_a_list(rest: httpx.Client) -> None:
    category = new_id()
    overview = json.dumps({"text": "é" * 200_000})
    ids = {register(rest, category=category, overview=overview) for _ in range(12)}
    found = rest.get("/models", params={"category": category}).json()
    assert {model["id"] for model in found} == ids
    assert found[0]["overview"] == json.loads(overview)


def test_many_concurrent_lists_are_all_answered(rest: httpx.Client) -> None:
    with ThreadPoolExecutor(40) as pool:
        statuses = list(pool.map(lambda _: rest.get("/models", params={"name": ""}).status_code, range(80)))
    assert set(statuses) == {200}


def test_the_gateway_still_validates_queries_of_the_typed_api(rest: httpx.Client) -> None:
    assert rest.get("/v1/models", params={"bogus": "1"}).status_code == 400
    assert rest.get("/models", params={"bogus": "1"}).status_code == 422


@pytest.mark.parametrize("body", [b"", b"x=1", b"{", b'{"id": "another-model-00001"}', bytes(100_000)])
def test_an_unexpected_body_is_ignored(rest: httpx.Client, body: bytes) -> None:
    model_id = register(rest)
    for method, path in (("GET", ""), ("GET", "/files"), ("DELETE", "")):
        assert rest.request(method, f"/models/{model_id}{path}", content=body).is_success
    assert rest.request("GET", "/models", content=body).is_success


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_a_query_cannot_name_another_model(rest: httpx.Client, method: str) -> None:
    model_id, other = register(rest), register(rest, origin="untouched")
    answer = rest.request(method, f"/models/{model_id}", params={"id": other}, data={"origin": "x"})
    assert answer.is_success
    assert rest.get(f"/models/{other}").json()["origin"] == "untouched"


def test_a_path_whose_id_is_not_utf_8_has_an_invalid_id(rest: httpx.Client) -> None:
    answer = rest.get("/models/%E9%E9%E9%E9%E9%E9%E9%E9%E9%E9%E9%E9%E9%E9%E9%E9")
    assert (answer.status_code, answer.json()) == (400, {"detail": "Invalid format for model ID."})
