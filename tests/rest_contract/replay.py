"""Replay the recorded cases of the Intel-compatible API, and return the differences."""

import base64
import hashlib
import http.client
import io
import json
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

BOUNDARY = "----contract0boundary0contract"
_PLACEHOLDERS = {
    "<uuid>": r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "<datetime>": r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6} UTC",
    "<varies>": r".*",
}

Case = Mapping[str, Any]


def load() -> tuple[Sequence[Case], Mapping[str, bytes]]:
    """Return the cases in order, and the files that they send."""
    contract = json.loads(Path(__file__).with_name("cases.json").read_text(encoding="utf-8"))
    files = {name: _fixture(name, described) for name, described in contract["fixtures"].items()}
    return contract["cases"], files


def _fixture(name: str, described: Mapping[str, Any]) -> bytes:
    data = base64.b64decode(described["base64"]) if "base64" in described else _six_mib()
    assert hashlib.sha256(data).hexdigest() == described["sha256"], name
    return data


def _six_mib() -> bytes:
    size = 6 * 1024 * 1024
    noise = b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(size // 32 + 1))[:size]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo("model.bin", (2025, 1, 1, 0, 0, 0)), noise)
    return buffer.getvalue()


@dataclass(frozen=True)
class Reply:
    """A response."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Replay:
    """Sends cases to one registry, and keeps the ids of its responses."""

    host: str
    files: Mapping[str, bytes]
    ids: dict[str, str] = field(default_factory=dict)

    def send(self, request: Mapping[str, Any]) -> Reply:
        body, content_type = self._body(request.get("body", {"kind": "none"}))
        headers = dict(request.get("headers", {}))
        given = {name.lower() for name in headers}
        if content_type and "content-type" not in given:
            headers["Content-Type"] = content_type
        connection = http.client.HTTPConnection(self.host, timeout=60)
        path = str(self._value(request["path"]))
        connection.putrequest(request["method"], path, skip_accept_encoding=True, skip_host="host" in given)
        for key, value in headers.items():
            connection.putheader(key, value)
        if body is not None or request["method"] in {"POST", "PUT", "PATCH"}:
            connection.putheader("Content-Length", str(len(body or b"")))
        with suppress(BrokenPipeError, ConnectionResetError):  # a response before the end of the request counts
            connection.endheaders(body)
        answer = connection.getresponse()
        reply = Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        connection.close()
        return reply

    def differences(self, case: Case) -> list[str]:
        """Send a case, and return how the response differs from the expected one."""
        request, expect = case["request"], case.get("expect")
        reply = self.send(request)
        if request["method"] == "POST" and request["path"] == "/models" and reply.status == 201:
            self.ids[case["name"]] = reply.body.decode()
        if expect is None:
            return [f"status {reply.status}: {reply.body[:200]!r}"] if reply.status >= 500 else []
        found = []
        if reply.status != expect["status"]:
            found.append(f"status {reply.status}, not {expect['status']}: {reply.body[:200]!r}")
        found += _header_differences(expect, reply.headers)
        if request["method"] != "HEAD":
            found += _body_differences(expect["body"], reply.body)
        return found

    def empty(self) -> None:
        """Delete every model."""
        for model in json.loads(self.send({"method": "GET", "path": "/models"}).body):
            assert self.send({"method": "DELETE", "path": f"/models/{model['id']}"}).status == 204
        self.ids.clear()

    def register_a_hundred(self) -> None:
        """Register the models that the group `truncation` expects."""
        for n in range(1, 101):
            texts = {"name": f"Many {n:04}", "version": "1", "id": f"many-{n:04}-0000000", "category": "bulk"}
            file = {"field": "file", "name": "model.zip", "fixture": "model.zip", "content_type": "application/zip"}
            body = {"kind": "multipart", "fields": list(texts.items()), "file": file}
            assert self.send({"method": "POST", "path": "/models", "body": body}).status == 201

    def _value(self, value: Any) -> str | bytes:
        if isinstance(value, dict):
            if "repeat" in value:
                text, times = value["repeat"]
                return str(text) * int(times)
            return str(value["latin-1"]).encode("latin-1")
        return re.sub(r"\{id:([\w-]+)\}", lambda m: self.ids.get(m[1], "unknown-model-00001"), value)

    def _body(self, described: Mapping[str, Any]) -> tuple[bytes | None, str | None]:
        match described["kind"]:
            case "multipart":
                return self._multipart(described), f"multipart/form-data; boundary={BOUNDARY}"
            case "urlencoded":
                pairs = [(name, self._value(value)) for name, value in described["fields"]]
                return urlencode(pairs).encode(), "application/x-www-form-urlencoded"
            case "json":
                return json.dumps(described["json"]).encode(), "application/json"
            case "raw":
                return str(described["text"]).encode(), None
            case _:
                return None, None

    def _multipart(self, described: Mapping[str, Any]) -> bytes:
        out = bytearray()
        for name, given in described.get("fields", []):
            value = self._value(given)
            out += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode()
            out += (value if isinstance(value, bytes) else value.encode()) + b"\r\n"
        for file in described.get("files", [described["file"]] if "file" in described else []):
            file_name = "" if file["name"] is None else f'; filename="{file["name"]}"'
            out += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{file["field"]}"{file_name}\r\n'.encode()
            if file["content_type"] is not None:
                out += f"Content-Type: {file['content_type']}\r\n".encode()
            out += b"\r\n" + self.files[file["fixture"]] + b"\r\n"
        return bytes(out) + f"--{BOUNDARY}--\r\n".encode()


def _header_differences(expect: Mapping[str, Any], headers: Mapping[str, str]) -> list[str]:
    found = []
    kind, got = expect["body"]["kind"], headers.get("content-type")
    wanted = expect.get("content_type", got)
    if wanted is None and kind == "text":
        wanted = "text/plain; charset=utf-8"
    if got != wanted and not (kind == "empty" and got is None):
        found.append(f"content-type {got}, not {wanted}")
    for name, value in expect.get("headers", {}).items():
        answered = headers.get(name, "")
        if name == "allow":
            # Further methods may be allowed.
            is_same = set(value.split(", ")) <= set(answered.split(", "))
        elif name == "location":
            is_same = urlsplit(answered).path == urlsplit(value).path
        else:
            is_same = answered == value
        if not is_same:
            found.append(f"{name}: {answered!r}, not {value!r}")
    return found


def _body_differences(expect: Mapping[str, Any], body: bytes) -> list[str]:
    kind, text = expect["kind"], body.decode(errors="replace")
    is_same: dict[str, Callable[[], bool]] = {
        "any": lambda: True,
        "none": lambda: True,
        "empty": lambda: not body,
        "binary": lambda: hashlib.sha256(body).hexdigest() == expect["sha256"],
        "text": lambda: _matches(expect["value"], text),
        "ids": lambda: len(json.loads(body)) == expect["count"],
    }
    if kind != "json":
        return [] if is_same[kind]() else [f"the body is {text[:200]!r}, not {expect}"]
    got, wanted = json.loads(body), expect["value"]
    if isinstance(wanted, dict) and isinstance(wanted.get("detail"), list):
        return [] if _details(got) == _details(wanted) else [f"details {_details(got)}, not {_details(wanted)}"]
    if isinstance(wanted, list) and wanted and "id" in wanted[0]:
        # The recorded order depended on a locale.
        ids = [model["id"] for model in got]
        if ids != sorted(ids):
            return [f"not ordered by id: {ids}"]
        wanted = sorted(wanted, key=lambda model: str(model["id"]))
    return _json_differences(wanted, got, "$")


def _details(body: Any) -> list[tuple[str, tuple[str, ...]]]:
    return sorted((item["type"], tuple(map(str, item["loc"]))) for item in body["detail"])


def _matches(wanted: str, got: str) -> bool:
    pattern = re.escape(wanted)
    for name, regex in _PLACEHOLDERS.items():
        pattern = pattern.replace(re.escape(name), regex)
    return re.fullmatch(pattern, got, re.DOTALL) is not None


def _json_differences(wanted: Any, got: Any, where: str) -> list[str]:
    if isinstance(wanted, dict) and isinstance(got, dict) and set(wanted) == set(got):
        return [d for key in wanted for d in _json_differences(wanted[key], got[key], f"{where}.{key}")]
    if isinstance(wanted, list) and isinstance(got, list) and len(wanted) == len(got):
        pairs = enumerate(zip(wanted, got, strict=True))
        return [d for n, pair in pairs for d in _json_differences(*pair, f"{where}[{n}]")]
    if wanted == "<varies>":
        return []
    if isinstance(wanted, str) and isinstance(got, str):
        is_same = _matches(wanted, got)
    else:
        is_same = type(wanted) is type(got) and wanted == got
    return [] if is_same else [f"{where} is {got!r}, not {wanted!r}"]
