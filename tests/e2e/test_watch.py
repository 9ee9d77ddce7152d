"""Audit log and watches through the whole product: over HTTP, across several servers, and across crashes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from modelregistry.v1 import audit_service_pb2

from registry_service.embedded.postgres import PostgresAddress
from tests.postgres_server import create_database, drop_database
from tests.products import Product, running_server, s3_settings
from tests.s3_server import S3Server, new_bucket_name
from tests.stub_client import refused, zip_of
from tests.watch_client import Watch, sequences


class JsonArray:
    """The elements of a JSON array that is streamed."""

    def __init__(self, pieces: Iterator[str]) -> None:
        self._pieces = pieces
        self._text = ""

    def __next__(self) -> Any:
        while True:
            start = self._text.lstrip("[, \n")
            try:
                element, end = json.JSONDecoder().raw_decode(start)
            except json.JSONDecodeError:
                self._text += next(self._pieces)
                continue
            self._text = start[end:]
            return element


def register(product: Product, name: str, **headers: str) -> str:
    """Register a model over the Intel-compatible API."""
    answer = httpx.post(
        f"{product.rest_url}/models",
        data={"name": name, "version": "1"},
        files={"file": ("model.zip", zip_of({"a": b"x"}), "application/zip")},
        headers=headers,
    )
    assert answer.status_code == 201, answer.text
    return answer.text.strip('"')


class TestHttp:
    @pytest.mark.parametrize("path", ["/v1/auditEvents:watch", "/v1/models:watch"])
    def test_a_watch_is_a_json_array_that_grows(self, product: Product, path: str) -> None:
        name = f"watched by {path}"
        parameters = {"filter": f"name = '{name}'"}
        address = f"{product.rest_url}{path}"
        with httpx.stream("GET", address, params=parameters, timeout=60) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "application/json"
            elements = JsonArray(answer.iter_text())
            first = next(elements)
            assert first.get("event") is None
            model_id = register(product, name, **{"x-actor": "Ada Lovelace"})
            message = next(elements)
        assert message["event"]["model_id"] == model_id
        assert message["event"]["action"] == "ACTION_MODEL_REGISTERED"
        assert message["event"]["actor"] == "Ada Lovelace"
        product.client.update(model_id, ["score"], score=0.5)
        with httpx.stream(
            "GET", address, params=parameters | {"resume_token": message["resume_token"]}, timeout=60
        ) as answer:
            elements = JsonArray(answer.iter_text())
            assert next(elements).get("event") is None
            assert next(elements)["event"]["action"] == "ACTION_MODEL_UPDATED"

    def test_errors_have_their_status(self, product: Product) -> None:
        answer = httpx.get(f"{product.rest_url}/v1/auditEvents:watch", params={"resume_token": "nonsense"})
        assert answer.status_code == 400
        assert answer.json()["details"][2]["field_violations"][0]["field"] == "resume_token"

    def test_the_caller_of_post_models_is_the_creator(self, product: Product) -> None:
        model_id = register(product, "has a creator", **{"x-actor": "Ada Lovelace"})
        assert product.client.get(model_id).creator == "Ada Lovelace"
        assert product.client.get(register(product, "has none")).creator == ""
        odd = {b"x-actor": "Zoë ☃".encode()}
        answer = httpx.patch(
            f"{product.rest_url}/v1/models/{model_id}",
            headers=odd,
            json={"score": 0.5},
            params={"update_mask": "score"},
        )
        assert answer.status_code == 200

    def test_the_log_is_listed_and_verified(self, product: Product) -> None:
        model_id = register(product, "is listed")
        listed = httpx.get(
            f"{product.rest_url}/v1/auditEvents", params={"filter": f'model_id = "{model_id}"', "page_size": 1}
        ).json()
        assert [event["name"] for event in listed["audit_events"]] == ["is listed"]
        assert listed["audit_events"][0]["after"]["name"] == "is listed"
        answer = httpx.post(f"{product.rest_url}/v1/auditEvents:verify").json()
        assert answer["valid"] is True
        again = httpx.post(f"{product.rest_url}/v1/auditEvents:verify", json={"anchor": answer["head"]}).json()
        assert again["valid"] is True


@pytest.fixture
def settings(postgres: PostgresAddress, s3_server: S3Server) -> Iterator[dict[str, object]]:
    """Settings of servers on one database and one bucket."""
    name = "watched"
    create_database(postgres, name, "template1")
    yield s3_settings(postgres, name, s3_server, new_bucket_name())
    drop_database(postgres, name)


class TestServers:
    def test_a_change_on_one_server_is_visible_on_another(self, settings: dict[str, object], tmp_path: Path) -> None:
        folders = [tmp_path / "one", tmp_path / "other"]
        for folder in folders:
            folder.mkdir()
        with running_server(folders[0], settings) as one, running_server(folders[1], settings) as other:
            with Watch(one.client) as watch:
                watch.message()
                for number in range(20):
                    (one if number % 2 else other).client.register(name=f"model {number}")
                events = watch.events(20)
                assert [event.name for event in events] == [f"model {number}" for number in range(20)]
                assert sequences(events) == list(range(1, 21))
            one.client.register(name="for the other")
            with Watch(other.client, resume_token=watch.token) as watch:
                assert watch.event().name == "for the other"

    def test_nothing_is_lost_or_repeated_across_crashes_and_drains(
        self, settings: dict[str, object], tmp_path: Path
    ) -> None:
        seen: list[str] = []
        with running_server(tmp_path, settings) as product:
            with Watch(product.client) as watch:
                token = watch.message().resume_token
            for round_number in range(4):
                with Watch(product.client, resume_token=token) as watch:
                    watch.message()
                    for number in range(10):
                        product.client.register(name=f"{round_number}.{number}")
                        # Half of them have not been received when the server stops.
                        if number % 2:
                            seen.append(watch.event().name)
                    token = watch.token
                    if round_number % 2:
                        assert product.server.stop(seconds=15) == 0
                        with refused(grpc.StatusCode.UNAVAILABLE, "SERVER_STOPPING"):
                            watch.read_to_end()
                    else:
                        product.server.kill()
                        with refused(grpc.StatusCode.UNAVAILABLE):
                            watch.read_to_end()
                product.server.start()
                product.wait_until_ready()
            with Watch(product.client, resume_token=token) as watch:
                seen += [watch.event().name for _ in range(40 - len(seen))]
            assert product.client.audit.VerifyAuditLog(audit_service_pb2.VerifyAuditLogRequest()).checked_count == 40
        assert seen == [f"{round_number}.{number}" for round_number in range(4) for number in range(10)]
