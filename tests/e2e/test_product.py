"""The product as users run it: over gRPC, HTTP and grpcurl, embedded and on a real S3."""

import importlib.util
import json
import os
import socket
import statistics
import subprocess
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2

from tests.polling import eventually
from tests.products import Product, grpcurl
from tests.stub_client import Client, as_listed, pieces, refused, sha256, writes, zip_of

MIB = 1024 * 1024


def resnet50() -> bytes:
    """A real model from the onnx package."""
    found = importlib.util.find_spec("onnx")
    assert found is not None
    assert found.origin is not None
    return (Path(found.origin).parent / "backend" / "test" / "data" / "light" / "light_resnet50.onnx").read_bytes()


def deployable() -> bytes:
    """The same model as a deployable ZIP with its settings."""
    return zip_of({"model/resnet50.onnx": resnet50(), "model/config.json": b'{"input": [1, 3, 224, 224]}'})


@pytest.fixture
def http(product: Product) -> Iterator[httpx.Client]:
    """An HTTP client of the product's REST gateway."""
    with httpx.Client(base_url=product.rest_url, timeout=60, trust_env=False) as client:
        yield client


# ---- gRPC ----


def test_a_model_is_registered_used_updated_and_deleted_over_grpc(product: Product) -> None:
    client, data = product.client, resnet50()
    metrics = {"top1": 0.761, "top5": 0.929}
    model = client.register(
        data,
        name="resnet50",
        version="1.0",
        project_name="through-grpc",
        format="onnx",
        score=0.761,
        metrics=metrics,
        tags={"team": "vision"},
        artifact={"file_name": "resnet50.onnx", "size_bytes": len(data), "sha256": sha256(data)},
    )
    assert (model.artifact.size_bytes, model.artifact.sha256) == (len(data), sha256(data))
    assert [(found.name, list(found.shape)) for found in model.signature.inputs] == [("gpu_0/data_0", [1, 3, 224, 224])]
    assert not model.warnings
    assert client.get(model.id) == model
    wanted = 'project_name = "through-grpc" AND format = "onnx" AND metrics.top1 > 0.7 AND tags.team = "vision"'
    assert client.all(wanted) == [as_listed(model)]
    assert client.all(wanted.replace("0.7", "0.8")) == []

    assert client.download(model.id) == data
    assert client.download(model.id, read_offset=1000, read_limit=999) == data[1000:1999]
    verified = client.verify(model.id)
    assert verified.intact
    assert verified.actual_sha256 == sha256(data)

    updated = client.update(
        model.id, ["score", "tags.stage"], score=0.77, tags={"stage": "production"}, etag=model.etag
    )
    assert (updated.score, updated.revision) == (0.77, 2)
    assert dict(updated.tags) == {"team": "vision", "stage": "production"}
    with refused(grpc.StatusCode.ABORTED, "ETAG_MISMATCH"):
        client.update(model.id, ["score"], score=0.1, etag=model.etag)
    with refused(grpc.StatusCode.ABORTED, "ETAG_MISMATCH"):
        client.delete(model.id, etag=model.etag)

    client.delete(model.id, etag=updated.etag)
    with refused(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"):
        client.get(model.id)
    with refused(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"):
        client.download(model.id)
    assert client.all('project_name = "through-grpc"') == []


def test_the_files_of_a_zip_are_listed_and_read_one_by_one(product: Product) -> None:
    client, data = product.client, deployable()
    model = client.register(data, name="zipped", artifact={"media_type": "application/zip"})
    assert model.artifact.file_name == "model.zip"
    assert [(file.path, file.size_bytes) for file in client.files(model.id).artifact_files] == [
        ("model/resnet50.onnx", len(resnet50())),
        ("model/config.json", 27),
    ]
    assert client.download_file(model.id, "model/resnet50.onnx") == resnet50()
    assert client.download(model.id) == data
    client.delete(model.id)


def test_an_artifact_of_many_parts_is_downloaded_unchanged(product: Product) -> None:
    data = os.urandom(20 * MIB + 1)
    model = product.client.register(data, name="many-parts")
    assert model.artifact.sha256 == sha256(data)
    assert product.client.download(model.id) == data
    assert product.client.verify(model.id).intact
    product.client.delete(model.id)


def test_a_resumable_upload_over_grpc_becomes_a_model(product: Product) -> None:
    client, data = product.client, os.urandom(9 * MIB)
    upload = client.create_upload(name="in-pieces", artifact={"size_bytes": len(data)})
    assert client.write_upload(upload.id, 0, data[: MIB + 1]).committed_size == MIB + 1
    with refused(grpc.StatusCode.OUT_OF_RANGE) as refusal:
        client.write_upload(upload.id, 0, data)
    assert refusal.metadata["committed_size"] == str(MIB + 1)
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        client.complete_upload(upload.id)
    assert client.write_upload(upload.id, MIB + 1, data[MIB + 1 :]).committed_size == len(data)
    model = client.complete_upload(upload.id, sha256=sha256(data))
    assert client.complete_upload(upload.id) == model
    assert client.download(model.id) == data
    client.delete(model.id)


def test_grpc_works_on_the_port_of_the_gateway(product: Product) -> None:
    client, data = Client(f"127.0.0.1:{product.rest_port}"), os.urandom(9 * MIB)
    try:
        model = client.register(data, name="through-the-gateway")
        assert client.get(model.id) == model == product.client.get(model.id)
        assert client.download(model.id) == data
        with refused(grpc.StatusCode.ALREADY_EXISTS, "MODEL_ALREADY_EXISTS") as refusal:
            client.register(data, name="through-the-gateway")
        assert refusal.metadata == {"model_id": model.id, "conflict": "identity"}
        check = client.channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        assert check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
        client.delete(model.id)
    finally:
        client.close()


def test_reads_stay_fast_during_a_large_upload(product: Product) -> None:
    client, chunk = product.client, os.urandom(MIB)
    model = client.register(b"small", name="read-meanwhile")
    upload = client.create_upload(name="large-meanwhile")
    seconds: list[float] = []
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(
            lambda: client.uploads.WriteUpload(writes(upload.id, 0, (chunk for _ in range(256)))).upload
        )
        while not writing.done():
            started = time.monotonic()
            assert client.get(model.id) == model
            assert client.names('name = "read-meanwhile"') == ["read-meanwhile"]
            seconds.append(time.monotonic() - started)
        assert writing.result().committed_size == 256 * MIB
    client.cancel_upload(upload.id)
    client.delete(model.id)
    p95 = statistics.quantiles(seconds, n=20)[-1]
    print(f"{product.kind}: {len(seconds)} pairs of reads during an upload of 256 MiB, p95 {p95 * 1000:.0f} ms")  # noqa: T201 (prints a measurement)
    assert len(seconds) >= 10
    assert p95 < 1


# ---- HTTP ----


def test_a_view_is_accepted_in_any_case(product: Product, http: httpx.Client) -> None:
    model = product.client.register(deployable(), name="viewed", artifact={"file_name": "resnet50.zip"})
    full = http.get(f"/v1/models/{model.id}").json()
    basic = {name: value for name, value in full.items() if name != "signature"}
    assert basic != full
    for view, shown in (("MODEL_VIEW_BASIC", basic), ("model_view_basic", basic), ("model_view_full", full)):
        assert http.get(f"/v1/models/{model.id}", params={"view": view}).json() == shown
        found = http.get("/v1/models", params={"view": view, "filter": f'id = "{model.id}"'})
        assert found.json()["models"] == [shown]
    assert http.get(f"/v1/models/{model.id}", params={"view": "everything"}).status_code == 400


def test_a_model_is_registered_used_updated_and_deleted_over_http(product: Product, http: httpx.Client) -> None:
    data = deployable()
    created = http.post(
        "/v1/uploads",
        json={
            "spec": {
                "model": {
                    "name": "resnet50 for the edge",
                    "version": "1.0",
                    "project_name": "through-http",
                    "precisions": ["FP16"],
                    "format": "onnx",
                    "tags": {"team": "vision", "owner": "ada"},
                    "metrics": {"top1": 0.761},
                    "provenance": {"hyperparameters": {"epochs": 90, "optimizer": "sgd"}},
                },
                "artifact": {
                    "file_name": "resnet50.zip",
                    "media_type": "application/zip",
                    "size_bytes": str(len(data)),
                },
            }
        },
    )
    assert created.status_code == 200
    upload = created.json()
    assert (upload["state"], upload["committed_size"]) == ("STATE_ACTIVE", "0")
    path = f"/v1/uploads/{upload['id']}"

    written = http.put(f"{path}/content", content=data)
    assert written.json()["upload"]["committed_size"] == str(len(data))
    assert http.get(path).json()["committed_size"] == str(len(data))
    completed = http.post(f"{path}:complete", json={"sha256": sha256(data)})
    assert completed.status_code == 200
    model = completed.json()["model"]
    assert model["id"] == upload["model_id"]
    assert model["precisions"] == ["fp16"]
    assert model["artifact"]["sha256"] == sha256(data)
    assert model["provenance"]["hyperparameters"] == {"epochs": 90, "optimizer": "sgd"}
    assert model["signature"]["path"] == "model/resnet50.onnx"
    assert model["signature"]["inputs"] == [
        {"name": "gpu_0/data_0", "element_type": "FLOAT", "shape": [1, 3, 224, 224]}
    ]
    assert model["warnings"] == ["The precisions are fp16, but the weights are fp32."]
    assert http.get(path).json()["state"] == "STATE_COMPLETED"
    assert http.post(f"{path}:complete", json={}).json()["model"] == model
    assert product.client.get(model["id"]).etag == model["etag"]

    resource = f"/v1/models/{model['id']}"
    assert http.get(resource).json() == model
    listed = {name: value for name, value in model.items() if name != "signature"}
    for wanted in (
        "/v1/models?filter=name+%3D+%22resnet50+for+the+edge%22",
        "/v1/models?filter=name%20%3D%20%22resnet50%20for%20the%20edge%22&order_by=create_time%20desc&page_size=5",
        "/v1/models?filter=project_name=%22through-http%22+AND+metrics.top1%3E0.5",
    ):
        assert http.get(wanted).json() == {"models": [listed], "next_page_token": ""}

    files = http.get(f"{resource}/files?page_size=1").json()
    assert [file["path"] for file in files["artifact_files"]] == ["model/resnet50.onnx"]
    files = http.get(f"{resource}/files", params={"page_token": files["next_page_token"]}).json()
    assert [file["path"] for file in files["artifact_files"]] == ["model/config.json"]
    assert files["next_page_token"] == ""
    progress, verified = http.post(f"{resource}/artifact:verify", json={}).json()
    assert progress == {"progress": {"verified_bytes": "0", "size_bytes": str(len(data))}}
    assert verified["result"]["intact"] is True
    model["artifact"]["verify_time"] = verified["result"]["verify_time"]
    assert http.get(resource).json() == model

    changed = http.patch(
        f"{resource}?update_mask=score,tags.team", json={"score": 0.8, "tags": {"team": "edge"}, "etag": model["etag"]}
    )
    assert changed.status_code == 200
    assert changed.json()["score"] == 0.8
    assert changed.json()["tags"] == {"team": "edge", "owner": "ada"}
    assert changed.json()["revision"] == "2"
    assert http.get(resource).json() == changed.json()

    assert http.delete(f"{resource}?etag={model['etag']}").status_code == 409
    assert http.delete(f"{resource}?etag={changed.json()['etag']}").json() == {}
    assert http.get(resource).status_code == 404
    assert http.delete(resource).status_code == 404
    assert http.delete(f"{resource}?allow_missing=true").status_code == 200


def test_http_downloads_support_ranges_conditions_and_head(product: Product, http: httpx.Client) -> None:
    data = os.urandom(9 * MIB + 5)
    digest = sha256(data)
    model = product.client.register(data, name="http-download", artifact={"file_name": "näme.bin"})
    path = f"/v1/models/{model.id}/artifact"

    whole = http.get(path)
    assert whole.status_code == 200
    assert whole.content == data
    assert whole.headers["content-length"] == str(len(data))
    assert whole.headers["content-type"] == "application/octet-stream"
    assert whole.headers["etag"] == f'"{digest}"'
    assert "filename*=UTF-8''n%C3%A4me.bin" in whole.headers["content-disposition"]

    for wanted, first, end in (
        ("bytes=0-99", 0, 100),
        ("bytes=9000000-", 9_000_000, len(data)),
        ("bytes=-7", len(data) - 7, len(data)),
    ):
        part = http.get(path, headers={"range": wanted})
        assert part.status_code == 206
        assert part.headers["content-range"] == f"bytes {first}-{end - 1}/{len(data)}"
        assert part.content == data[first:end]
    past = http.get(path, headers={"range": f"bytes={len(data)}-"})
    assert past.status_code == 416
    assert past.headers["content-range"] == f"bytes */{len(data)}"
    assert info(past) == ("RANGE_NOT_SATISFIABLE", {"model_id": model.id, "size": str(len(data))})
    stale = http.get(path, headers={"range": "bytes=0-9", "if-range": '"another"'})
    assert (stale.status_code, stale.content) == (200, data)

    known = http.get(path, headers={"if-none-match": f'"{digest}"'})
    assert (known.status_code, known.content) == (304, b"")
    assert http.get(path, headers={"if-match": f'"{digest}"'}).content == data
    for method in ("GET", "HEAD"):
        other = http.request(method, path, headers={"if-match": '"another"', "range": "bytes=0-9"})
        assert (other.status_code, other.headers["etag"]) == (412, f'"{digest}"')
        assert other.content == b"" if method == "HEAD" else info(other) == ("ETAG_MISMATCH", {"model_id": model.id})
    changed = http.get(path, headers={"if-unmodified-since": "Sun, 01 Mar 2020 12:00:00 GMT"})
    assert (changed.status_code, changed.headers["etag"]) == (412, f'"{digest}"')
    assert info(changed) == ("ETAG_MISMATCH", {"model_id": model.id})
    head = http.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(data))
    with httpx.Client(base_url=product.rest_url, http1=False, http2=True, timeout=60, trust_env=False) as http2:
        assert http2.get(path).content == data
        assert http2.head(path).headers["content-length"] == str(len(data))
    product.client.delete(model.id)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/models/no-such-model-0000/artifact", 404),
        ("/v1/models/no-such-model-0000/files/a", 404),
        ("/v1/models/x/artifact", 400),
        ("/models/no-such-model-0000/files", 404),
        ("/models/x/files", 400),
    ],
)
def test_an_error_has_no_body_for_head(http: httpx.Client, path: str, status: int) -> None:
    # The client would read a body as the beginning of the next answer.
    with httpx.Client(base_url=http.base_url, limits=httpx.Limits(max_connections=1), trust_env=False) as client:
        for _ in range(2):
            answer = client.head(path)
            assert (answer.status_code, answer.content) == (status, b"")
        assert answer.headers["content-length"] == client.get(path).headers["content-length"]


MEMBERS = {
    "model/weights.bin": os.urandom(5 * MIB + 3),
    "model/": b"",
    "räder ☃/a b+c%2f": b"odd",
    "verify:artifact": b"colon",
    "a//b": b"slashes",
    "./a": b"dot",
    "a?b#c&path=x": b"query",
    " ": b"blank",
}


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_a_file_of_an_artifact_is_downloaded_over_http(product: Product, http: httpx.Client, compression: int) -> None:
    artifact = {"file_name": "files.bin"}  # a declared ZIP with these names would be refused
    model = product.client.register(zip_of(MEMBERS, compression), name=f"files-{compression}", artifact=artifact)
    folder = f"/v1/models/{model.id}/files"
    for path, data in MEMBERS.items():
        answer = http.get(f"{folder}/{quote(path, safe='')}")
        assert (answer.status_code, answer.content) == (200, data), path
        assert answer.headers["content-length"] == str(len(data))

    path = f"{folder}/model/weights.bin"
    data = MEMBERS["model/weights.bin"]
    whole = http.get(path)
    assert whole.content == data
    assert whole.headers["content-type"] == "application/octet-stream"
    assert whole.headers["cache-control"] == "private, immutable"
    assert whole.headers["content-disposition"] == 'attachment; filename="weights.bin"'
    etag = whole.headers["etag"]
    for wanted, first, end in (
        ("bytes=0-0", 0, 1),
        ("bytes=1048570-3145740", 1_048_570, 3_145_741),
        ("bytes=5000000-", 5_000_000, len(data)),
        ("bytes=-7", len(data) - 7, len(data)),
    ):
        part = http.get(path, headers={"range": wanted, "if-range": etag})
        assert (part.status_code, part.content) == (206, data[first:end])
        assert part.headers["content-range"] == f"bytes {first}-{end - 1}/{len(data)}"
    stale = http.get(path, headers={"range": "bytes=0-9", "if-range": f'"{model.artifact.sha256}"'})
    assert (stale.status_code, stale.content) == (200, data)
    past = http.get(path, headers={"range": f"bytes={len(data)}-"})
    assert (past.status_code, past.headers["content-range"]) == (416, f"bytes */{len(data)}")
    assert info(past) == ("RANGE_NOT_SATISFIABLE", {"model_id": model.id, "size": str(len(data))})
    other = http.get(path, headers={"if-match": f'"{model.artifact.sha256}"'})
    assert (other.status_code, other.headers["etag"]) == (412, etag)
    assert info(other) == ("ETAG_MISMATCH", {"model_id": model.id})
    known = http.get(path, headers={"if-none-match": etag})
    assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", etag)
    head = http.head(path)
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", etag)
    assert head.headers["content-length"] == str(len(data))
    product.client.delete(model.id)


def test_a_path_that_names_no_single_file_is_an_error(product: Product, http: httpx.Client) -> None:
    doubled = zip_of({"a": b"first", "b": b"second"}, zipfile.ZIP_STORED).replace(b"b", b"a")
    model = product.client.register(doubled, name="doubled", artifact={"file_name": "doubled.bin"})
    folder = f"/v1/models/{model.id}/files"
    refusal = http.get(f"{folder}/a")
    assert (refusal.status_code, info(refusal)) == (400, ("NOT_AN_ARCHIVE", {"path": "a"}))
    missing = http.get(f"{folder}/model.xml")
    assert missing.status_code == 404
    assert info(missing) == ("ARTIFACT_FILE_NOT_FOUND", {"model_id": model.id, "path": "model.xml"})
    assert http.get(f"{folder}/%FF").status_code == 400
    assert http.get(f"{folder}/a?path=b").status_code == 400
    # The gateway normalizes the path before it is matched.
    assert info(http.get(f"{folder}/x/../model.xml")) == info(missing)
    assert http.get(f"{folder}/../../{model.id}").json() == http.get(f"/v1/models/{model.id}").json()
    product.client.delete(model.id)


def test_a_download_of_a_damaged_file_fails_before_its_last_byte(product: Product, http: httpx.Client) -> None:
    data = os.urandom(3 * MIB)
    archive = bytearray(zip_of({"small": b"bytes", "large": data}, zipfile.ZIP_STORED))
    archive[archive.index(b"bytes")] ^= 1
    archive[archive.index(data[:100])] ^= 1
    model = product.client.register(bytes(archive), name="damaged-files", artifact={"file_name": "damaged.bin"})
    small = http.get(f"/v1/models/{model.id}/files/small")
    assert (small.status_code, info(small)[0]) == (500, "DATA_LOSS")
    received = bytearray()

    def download() -> None:
        with http.stream("GET", f"/v1/models/{model.id}/files/large") as answer:
            for piece in answer.iter_bytes():
                received.extend(piece)

    with pytest.raises(httpx.RemoteProtocolError):
        download()
    assert 0 < len(received) < len(data)
    product.client.delete(model.id)


def test_json_answers_are_cached_only_with_revalidation(product: Product, http: httpx.Client) -> None:
    model = product.client.register(name="caching")
    for path in (f"/v1/models/{model.id}", "/v1/models", "/v1/models/no-such-model-0000", "/v1/models?filter=("):
        assert http.get(path).headers["cache-control"] == "private, no-cache", path
    assert "cache-control" not in http.get(f"/models/{model.id}").headers
    assert http.get(f"/v1/models/{model.id}/artifact").headers["cache-control"] == "private, immutable"
    product.client.delete(model.id)


def test_an_upload_over_http_is_streamed_and_resumed(product: Product, http: httpx.Client) -> None:
    data = os.urandom(20 * MIB)
    upload = begin_upload(http, "in-halves")
    path = f"/v1/uploads/{upload}/content"
    half = 11 * MIB + 3
    first = http.put(path, content=pieces(data[:half]))
    assert first.json()["upload"]["committed_size"] == str(half)
    again = http.put(path, content=data[:10])
    assert again.status_code == 400
    assert info(again) == ("OUT_OF_RANGE", {"upload_id": upload, "committed_size": str(half)})
    second = http.put(path, params={"write_offset": half}, content=data[half:])
    assert second.json()["upload"]["committed_size"] == str(len(data))
    model = http.post(f"/v1/uploads/{upload}:complete", json={}).json()["model"]
    assert model["artifact"]["sha256"] == sha256(data)
    assert http.get(f"/v1/models/{model['id']}/artifact").content == data
    assert http.delete(f"/v1/models/{model['id']}").status_code == 200


def test_the_bytes_of_an_interrupted_put_are_kept(product: Product, http: httpx.Client) -> None:
    data = os.urandom(40 * MIB)
    upload = begin_upload(http, "broken-put")
    with socket.create_connection(("127.0.0.1", product.rest_port)) as connection:
        head = f"PUT /v1/uploads/{upload}/content HTTP/1.1\r\nHost: registry\r\nContent-Length: {len(data)}\r\n\r\n"
        connection.sendall(head.encode() + data[: 30 * MIB])
    committed = eventually(lambda: committed_size(http, upload), what="a commit of what came")
    assert committed <= 30 * MIB

    def go_on() -> int:
        """Retry the write: while bytes of the broken request still arrive, the next one may come too early."""
        start = committed_size(http, upload)
        answer = http.put(f"/v1/uploads/{upload}/content", params={"write_offset": start}, content=data[start:])
        if answer.status_code == 200:
            return start
        assert answer.status_code in {400, 409}, answer.text
        return 0

    resumed_at = eventually(go_on, what="the rest of the upload")
    assert 0 < committed <= resumed_at <= 30 * MIB
    model = http.post(f"/v1/uploads/{upload}:complete", json={"sha256": sha256(data)}).json()["model"]
    assert http.get(f"/v1/models/{model['id']}/artifact").content == data
    assert http.delete(f"/v1/models/{model['id']}").status_code == 200


def test_the_idempotency_key_header_makes_a_write_over_http_repeatable(product: Product, http: httpx.Client) -> None:
    model = product.client.register(name="repeated", project_name="through http")
    key = {"Idempotency-Key": "a key of mine"}
    first = http.patch(f"/v1/models/{model.id}", json={"score": 0.5}, headers=key)
    product.client.update(model.id, score=0.75)
    again = http.patch(f"/v1/models/{model.id}", json={"score": 0.5}, headers=key)
    assert (again.status_code, again.json()) == (200, first.json())
    other = http.patch(f"/v1/models/{model.id}", json={"score": 0.25}, headers=key)
    assert (other.status_code, other.json()["details"][0]["reason"]) == (400, "IDEMPOTENCY_KEY_REUSED")
    created = [
        http.post("/v1/uploads", json={"spec": {"model": {"name": "r", "version": "1"}}}, headers=key).json()
        for _ in range(2)
    ]
    assert created[0] == created[1]
    deleted = [http.delete(f"/v1/models/{model.id}?idempotency_key=k") for _ in range(2)]
    assert [(answer.status_code, answer.json()) for answer in deleted] == [(200, {})] * 2


def test_an_upload_is_cancelled_over_http(product: Product, http: httpx.Client) -> None:
    upload = begin_upload(http, "cancelled")
    assert http.put(f"/v1/uploads/{upload}/content", content=bytes(10)).status_code == 200
    assert http.delete(f"/v1/uploads/{upload}").json() == {}
    assert http.get(f"/v1/uploads/{upload}").status_code == 404
    upload = begin_upload(http, "cancelled again")
    assert upload in [listed["id"] for listed in http.get("/v1/uploads").json()["uploads"]]
    assert http.post(f"/v1/uploads/{upload}:cancel").json() == {}
    assert upload not in [listed["id"] for listed in http.get("/v1/uploads").json()["uploads"]]
    assert http.post(f"/v1/uploads/{upload}:cancel", json={}).status_code == 404


def test_errors_over_http_are_json_with_details(product: Product, http: httpx.Client) -> None:
    model = product.client.register(name="errors")
    missing = http.get("/v1/models/no-such-model-0000")
    assert missing.status_code == 404
    assert missing.headers["content-type"] == "application/json"
    assert missing.json()["code"] == 5
    assert missing.json()["message"] == "No model has the id 'no-such-model-0000'."
    assert info(missing) == ("MODEL_NOT_FOUND", {"model_id": "no-such-model-0000"})
    assert http.get("/v1/models/no-such-model-0000/artifact").status_code == 404

    duplicate = http.post("/v1/uploads", json={"spec": {"model": {"name": "errors", "version": "1"}}})
    assert duplicate.status_code == 409
    assert info(duplicate) == ("MODEL_ALREADY_EXISTS", {"model_id": model.id, "conflict": "identity"})

    unreadable = http.get("/v1/models", params={"filter": 'name = "a" AND'})
    assert unreadable.status_code == 400
    reason, metadata = info(unreadable)
    assert reason == "INVALID_FILTER"
    assert metadata["position"] == "15"  # counted from 1
    bad_request = next(d for d in unreadable.json()["details"] if d["@type"].endswith("BadRequest"))
    assert [violation["field"] for violation in bad_request["field_violations"]] == ["filter"]

    stale = http.patch(f"/v1/models/{model.id}?update_mask=score", json={"score": 1, "etag": "stale"})
    assert stale.status_code == 409
    assert info(stale)[0] == "ETAG_MISMATCH"
    assert product.client.get(model.id).revision == 1

    unknown = http.patch(f"/v1/models/{model.id}?update_mask=nothing", json={"score": 1})
    assert unknown.status_code == 400
    assert info(unknown)[0] == "INVALID_ARGUMENT"
    product.client.delete(model.id)


def test_probes_and_unknown_paths_are_answered_in_json(product: Product, http: httpx.Client) -> None:
    assert http.get("/health").json() == {"status": "ok"}
    assert http.get("/ready").json() == {"status": "ok"}
    unknown = http.get("/v1/nothing")
    assert (unknown.status_code, unknown.json()["message"]) == (404, "Not Found")
    wrong = http.put("/v1/models")
    assert (wrong.status_code, wrong.json()["message"]) == (405, "Method Not Allowed")
    assert wrong.headers["allow"] == "GET"
    redirect = http.get("/v1/models/?page_size=1")
    assert redirect.status_code == 307
    assert http.get(redirect.headers["location"]).json().keys() == {"models", "next_page_token"}


@pytest.mark.parametrize("key", ["id", "%69d", "Id", "i_d", "id+", "model.id"])
def test_a_query_cannot_name_another_model(product: Product, http: httpx.Client, key: str) -> None:
    kept = product.client.register(name="kept", version=key)
    named = product.client.register(name="named", version=key)
    try:
        for method, path in (("GET", ""), ("DELETE", ""), ("PATCH", ""), ("GET", "/artifact"), ("GET", "/files")):
            for query in (f"{key}={kept.id}", f"filter=x&{key}={kept.id}", f"model%5Fid={kept.id}"):
                answer = http.request(method, f"/v1/models/{named.id}{path}?{query}")
                assert answer.status_code == 400, f"{method} {path} {query}: {answer.text}"
        assert product.client.get(kept.id) == kept
        assert product.client.get(named.id) == named
    finally:
        product.client.delete(kept.id)
        product.client.delete(named.id)


def begin_upload(http: httpx.Client, name: str) -> str:
    answer = http.post("/v1/uploads", json={"spec": {"model": {"name": name, "version": "1"}}})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def committed_size(http: httpx.Client, upload: str) -> int:
    return int(http.get(f"/v1/uploads/{upload}").json()["committed_size"])


def info(answer: httpx.Response) -> tuple[str, dict[str, str]]:
    """Return reason and metadata of an error's google.rpc.ErrorInfo."""
    found = [d for d in answer.json()["details"] if d["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"]
    assert [d["domain"] for d in found] == ["modelregistry"]
    return found[0]["reason"], found[0]["metadata"]


# ---- grpcurl, which has only reflection ----


def call_grpcurl(*arguments: str) -> str:
    command = [grpcurl(), "-plaintext", "-max-time", "30", *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


@pytest.mark.parametrize("port", ["grpc_port", "rest_port"])
def test_grpcurl_describes_and_calls_services_by_reflection(product: Product, port: str) -> None:
    address = f"127.0.0.1:{getattr(product, port)}"
    services = call_grpcurl(address, "list").split()
    assert set(services) >= {
        "grpc.health.v1.Health",
        "modelregistry.compat.v1.CompatService",
        "modelregistry.geti.v1.GetiService",
        "modelregistry.v1.ArtifactService",
        "modelregistry.v1.ModelService",
        "modelregistry.v1.SystemService",
        "modelregistry.v1.UploadService",
    }
    described = call_grpcurl(address, "describe", "modelregistry.v1.ModelService")
    assert "rpc RegisterModel ( stream .modelregistry.v1.RegisterModelRequest )" in described
    assert 'get: "/v1/models/{model_id}"' in described
    assert "provenance = 21" in call_grpcurl(address, "describe", "modelregistry.v1.Model")


def test_grpcurl_gets_lists_and_checks(product: Product) -> None:
    address = product.grpc_address
    model = product.client.register(name="grpcurl", tags={"team": "vision"})

    def call(method: str, **request: object) -> Any:
        return json.loads(call_grpcurl("-d", json.dumps(request), address, method))

    assert call("modelregistry.v1.ModelService/GetModel", model_id=model.id)["tags"] == {"team": "vision"}
    listed = call("modelregistry.v1.ModelService/ListModels", filter='name = "grpcurl" AND tags.team = "vision"')
    assert [found["id"] for found in listed["models"]] == [model.id]
    assert call("modelregistry.v1.ModelService/ListModels", filter='name = "grpcurl" AND score > 1') == {}
    assert call("grpc.health.v1.Health/Check") == {"status": "SERVING"}
    assert call("grpc.health.v1.Health/Check", service="modelregistry.v1.ModelService") == {"status": "SERVING"}
    product.client.delete(model.id)
