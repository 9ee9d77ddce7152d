"""AuditService: the log of all changes, and the verification of its hash chain."""

import json
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from modelregistry.v1 import (
    alias_service_pb2,
    audit_pb2,
    audit_service_pb2,
    model_pb2,
    model_service_pb2,
    upload_service_pb2,
)
from sqlalchemy import Engine, text

from registry_service.domain.validation import MAX_JSON_DEPTH
from tests.polling import eventually
from tests.registry import RunningRegistry
from tests.streams import Feed, serving
from tests.stub_client import Client, refused, registration, spec, zip_of

Action = audit_pb2.AuditEvent.Action
INVALID = grpc.StatusCode.INVALID_ARGUMENT


def page(client: Client, **fields: Any) -> audit_service_pb2.ListAuditEventsResponse:
    return client.audit.ListAuditEvents(audit_service_pb2.ListAuditEventsRequest(**fields))


def sequences(client: Client, filter: str, **fields: Any) -> list[int]:  # noqa: A002 - AIP-160's name
    return [event.sequence for event in page(client, filter=filter, **fields).audit_events]


def verify(
    client: Client, anchor: audit_pb2.AuditLogPosition | None = None
) -> audit_service_pb2.VerifyAuditLogResponse:
    return client.audit.VerifyAuditLog(audit_service_pb2.VerifyAuditLogRequest(anchor=anchor))


CHANGED = "is not as it was written."
HUGE = "repeat('x', 300000000)"
LONG = "repeat('x', 100000)"
HUGE_JSON = "jsonb_build_object('a', repeat('x', 70000000))"
NESTED = "(repeat('{\"a\":', 1000) || '1' || repeat('}', 1000))::jsonb"
FREE = """
    ALTER TABLE audit_events ALTER COLUMN json_bytes DROP EXPRESSION, ALTER COLUMN json_bytes DROP NOT NULL,
        ALTER COLUMN hash DROP NOT NULL, ALTER COLUMN previous_hash DROP NOT NULL, ALTER COLUMN name DROP NOT NULL
"""
FREE_HEAD = "ALTER TABLE audit_head ALTER COLUMN sequence DROP NOT NULL, ALTER COLUMN hash DROP NOT NULL"


def tamper(engine: Engine, *statements: str) -> None:
    """Change the log as an owner of the database could."""
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        for statement in statements:
            connection.execute(text(statement))


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


class TestListing:
    def test_an_event_has_actor_action_time_and_reason(self, client: Client) -> None:
        model = client.register(name="yolo", version="1", project_id="p", project_name="")
        request = model_service_pb2.UpdateModelRequest(
            model=model_pb2.Model(id=model.id, score=0.5, overview={"struct_value": {}}),
            update_mask={"paths": ["score"]},
        )
        client.models.UpdateModel(request, metadata=(("x-actor", "Ada Lovelace"), ("x-request-id", "change-1")))
        client.delete(model.id)
        deleted, updated, registered = page(client).audit_events
        assert [event.sequence for event in (registered, updated, deleted)] == [1, 2, 3]
        assert [event.action for event in (registered, updated, deleted)] == [
            Action.ACTION_MODEL_REGISTERED,
            Action.ACTION_MODEL_UPDATED,
            Action.ACTION_MODEL_DELETED,
        ]
        assert (updated.actor, updated.request_id) == ("Ada Lovelace", "change-1")
        assert (updated.name, updated.project_id, updated.project_name) == ("yolo", "p", "")
        assert updated.HasField("project_name")
        assert updated.model_id == model.id
        assert (updated.before["score"], updated.after["score"]) == (0, 0.5)
        assert not registered.HasField("before")
        assert not deleted.HasField("after")
        assert MessageToDict(registered.after)["artifact"]["sha256"] == model.artifact.sha256
        assert registered.event_time.ToDatetime() <= updated.event_time.ToDatetime() <= deleted.event_time.ToDatetime()
        assert registered.previous_hash == "0" * 64
        assert [updated.previous_hash, deleted.previous_hash] == [registered.hash, updated.hash]

    def test_an_event_uses_the_field_names_of_a_model(self, client: Client) -> None:
        model = client.register(description="old", precisions=["bf16"])
        client.update(model.id, ["description", "precisions"], description="new", precisions=["fp8", "int8"])
        updated, registered = (MessageToDict(event) for event in page(client).audit_events)
        assert registered["after"]["precisions"] == ["bf16"]
        assert registered["after"]["artifact"]["size_bytes"] == model.artifact.size_bytes
        assert {name: updated["before"][name] for name in ("description", "precisions")} == {
            "description": "old",
            "precisions": ["bf16"],
        }
        assert {name: updated["after"][name] for name in ("description", "precisions")} == {
            "description": "new",
            "precisions": ["fp8", "int8"],
        }

    def test_a_registered_model_is_shown_as_the_json_of_a_model(self, client: Client) -> None:
        model = client.register(
            zip_of({"a": b"x"}),
            artifact={"kind": model_pb2.Artifact.KIND_FOLDER},
            precisions=["bf16"],
            project_id="p",
            labels=[{"string_value": "cat"}],
            metrics={"mAP50": 0.5},
            tags={"team": "vision"},
            provenance={"seed": 2**53 + 1, "datasets": [{"name": "coco"}], "hyperparameters": {"rate": 0.5}},
        )
        client.delete(model.id)
        deleted, registered = page(client).audit_events
        for name in ("model_group_id", "signature", "warnings", "aliases", "etag"):
            model.ClearField(name)
        after, before = MessageToDict(registered.after), MessageToDict(deleted.before)
        # Parsing refuses names that are not fields of a Model.
        assert ParseDict(after, model_pb2.Model()) == ParseDict(before, model_pb2.Model()) == model
        assert (after["create_time"], after["artifact"]["kind"]) == (model.create_time.ToJsonString(), "KIND_FOLDER")
        assert (after["revision"], after["artifact"]["size_bytes"]) == (1, model.artifact.size_bytes)
        assert after["provenance"]["seed"] == str(2**53 + 1)

    def test_an_update_event_shows_only_changed_fields(self, client: Client) -> None:
        model = client.register()
        new = client.update(model.id, ["score", "category"], score=0.5, category="Detection")
        shown = page(client).audit_events[0]
        assert MessageToDict(shown.before) == {
            "score": 0,
            "category": None,
            "update_time": model.update_time.ToJsonString(),
            "revision": 1,
        }
        assert MessageToDict(shown.after) == {
            "score": 0.5,
            "category": "Detection",
            "update_time": new.update_time.ToJsonString(),
            "revision": 2,
        }

    @pytest.mark.parametrize(
        ("stored", "shown"),
        [
            (
                {"documented_size": 7, "documented_precision": ["FP32"], "created_date": "x", "last_updated_date": "y"},
                {},
            ),
            (
                {"size": 7, "file_name": "a.bin", "score": 1},
                {"score": 1, "artifact": {"size_bytes": 7, "file_name": "a.bin"}},
            ),
            ({"file_url": "minio://b/i/a", "artifact_kind": "file"}, {"artifact": {"kind": "KIND_FILE"}}),
            ({"precision": ["fp16"], "media_type": "a/b"}, {"precisions": ["fp16"], "artifact": {"media_type": "a/b"}}),
            ({"update_time": "2026-01-31T12:30:00+00:00"}, {"update_time": "2026-01-31T12:30:00Z"}),
            ({"update_time": "then", "create_time": 1}, {"update_time": "then", "create_time": 1}),
            ({"update_time": "0001-01-01T00:00:00+14:00"}, {"update_time": "0001-01-01T00:00:00+14:00"}),
            ({"artifact_kind": "x", "sha256": {}}, {"artifact": {"kind": "x", "sha256": {}}}),
            ({"artifact_kind": [], "artifact": 1}, {"artifact": {"kind": []}}),
        ],
    )
    def test_events_in_older_formats_are_shown_in_the_present_one(
        self, registry: RunningRegistry, stored: dict[str, Any], shown: dict[str, Any]
    ) -> None:
        with registry.engine.begin() as connection:
            connection.execute(
                text(
                    "INSERT INTO audit_events (time, actor, request_id, action, name, model_id, alias, reason, after)"
                    " VALUES (now(), '', '', 'model.updated', 'n', 'm', '', '', CAST(:after AS jsonb))"
                ),
                {"after": json.dumps(stored)},
            )
        (event,) = page(registry.client).audit_events
        assert MessageToDict(event.after) == shown
        assert verify(registry.client).valid

    def test_an_alias_points_to_a_model_in_an_event(self, client: Client) -> None:
        model = client.register(name="yolo")
        client.aliases.SetAlias(
            alias_service_pb2.SetAliasRequest(model_group_id=model.model_group_id, alias="best", model_id=model.id)
        )
        assert MessageToDict(page(client).audit_events[0].after) == {
            "model_id": model.id,
            "version": model.version,
            "sha256": model.artifact.sha256,
        }

    def test_pages_lead_back_to_the_first_event(self, client: Client) -> None:
        model = client.register()
        for number in range(6):
            client.update(model.id, ["score"], score=number + 1)
        found, token = [], ""
        while True:
            answer = page(client, page_size=3, page_token=token)
            found.append([event.sequence for event in answer.audit_events])
            token = answer.next_page_token
            if not token:
                break
            # New events do not change the remaining pages.
            client.update(model.id, ["tags.n"], tags={"n": token})
        assert found == [[7, 6, 5], [4, 3, 2], [1]]
        assert page(client, page_size=1000).next_page_token == ""

    def test_a_page_fits_into_a_clients_message_limit(self, client: Client) -> None:
        text_of_half_a_mib = "x" * 512 * 1024
        for number in range(8):
            client.register(name=f"large {number}", overview={"string_value": text_of_half_a_mib})
        found: list[int] = []
        token = ""
        while not found or token:
            answer = page(client, page_token=token)
            assert 0 < answer.ByteSize() < 3 * 1024 * 1024
            found += [event.sequence for event in answer.audit_events]
            token = answer.next_page_token
        assert found == list(range(8, 0, -1))

    @pytest.mark.parametrize(
        ("filter_text", "expected"),
        [
            ("", [4, 3, 2, 1]),
            ("name = yolo", [4, 2, 1]),
            ("name = 'y*'", [4, 2, 1]),
            ("YOL", [4, 2, 1]),
            ("NOT name = yolo", [3]),
            ("project_id = p", [3]),
            ("NOT project_id:*", [4, 2, 1]),
            ("sequence > 1 AND sequence <= 3", [3, 2]),
            ("action = ACTION_MODEL_UPDATED", [2]),
            ("action = model.updated", [2]),
            ("action = 'ACTION_MODEL_*' AND action != ACTION_MODEL_REGISTERED", [4, 2]),
            ("actor = Ada", [2]),
            ("request_id : change", [2]),
            ("event_time >= 2020-01-01 AND event_time < 2020-01-02", []),
            ("event_time > 2020-01-01", [4, 3, 2, 1]),
            ("alias:* OR reason:*", []),
            ("model_id = '0123456789-other'", [3]),
        ],
    )
    def test_events_are_filtered(self, client: Client, filter_text: str, expected: list[int]) -> None:
        model = client.register(name="yolo")
        client.models.UpdateModel(
            model_service_pb2.UpdateModelRequest(model=model_pb2.Model(id=model.id, score=0.5)),
            metadata=(("x-actor", "Ada"), ("x-request-id", "change-1")),
        )
        client.register(name="other", project_id="p", id="0123456789-other")
        client.delete(model.id)
        assert sequences(client, filter_text) == expected

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"filter": "score > 1"}, "filter"),
            ({"filter": "after.score > 1"}, "filter"),
            ({"filter": "sequence = x"}, "filter"),
            ({"page_size": -1}, "page_size"),
            ({"page_token": "nonsense"}, "page_token"),
        ],
    )
    def test_invalid_fields_are_named(self, client: Client, fields: dict[str, Any], field: str) -> None:
        with refused(INVALID) as refusal:
            page(client, **fields)
        assert refusal.fields == [field]

    def test_a_page_token_works_for_its_own_filter_only(self, client: Client) -> None:
        model = client.register(name="yolo")
        client.update(model.id, ["score"], score=0.5)
        token = page(client, filter="yolo", page_size=1).next_page_token
        assert sequences(client, "yolo", page_token=token) == [1]
        with refused(INVALID) as refusal:
            page(client, filter="other", page_token=token)
        assert refusal.fields == ["page_token"]

    def test_metadata_of_maximal_depth_is_shown(self, client: Client) -> None:
        model = client.register(
            provenance={"hyperparameters": nested(MAX_JSON_DEPTH)}, overview={"struct_value": nested(MAX_JSON_DEPTH)}
        )
        (event,) = page(client).audit_events
        after = MessageToDict(event.after, preserving_proto_field_name=True)
        assert after["overview"] == MessageToDict(model.overview) == nested(MAX_JSON_DEPTH)

    def test_filters_by_name_and_id_use_an_index(self, registry: RunningRegistry) -> None:
        with registry.engine.begin() as connection:
            connection.execute(
                text(
                    "INSERT INTO audit_events (time, actor, request_id, action, name, model_id, alias, reason)"
                    " SELECT now(), '', '', 'model.updated', 'name ' || i, 'id ' || i, '', ''"
                    " FROM generate_series(1, 5000) i"
                )
            )
            connection.execute(text("ANALYZE audit_events"))
        for condition, index in (
            ("text_digest(name) = text_digest('name 7') AND name = 'name 7'", "ix_audit_events_name"),
            ("model_id = 'id 7'", "ix_audit_events_model_id"),
        ):
            with registry.engine.connect() as connection:
                plan = "\n".join(
                    connection.execute(
                        text(f"EXPLAIN SELECT * FROM audit_events WHERE {condition} ORDER BY sequence DESC LIMIT 50")
                    ).scalars()
                )
            assert index in plan
        assert sequences(registry.client, "name = 'name 7'") == sequences(registry.client, "model_id = 'id 7'") == [7]


class TestVerification:
    @pytest.fixture
    def log(self, registry: RunningRegistry) -> RunningRegistry:
        """A registry with five events in its log."""
        for number in range(5):
            registry.client.register(name=f"model {number}")
        return registry

    def test_an_unchanged_log_is_valid(self, log: RunningRegistry) -> None:
        answer = verify(log.client)
        assert answer.valid
        assert answer.checked_count == answer.head.sequence == 5
        assert answer.head.hash == page(log.client).audit_events[0].hash
        assert not answer.HasField("broken")
        log.client.register(name="one more")
        assert verify(log.client, answer.head).checked_count == 6

    def test_an_empty_log_is_valid(self, client: Client) -> None:
        answer = verify(client)
        assert answer.valid
        assert answer.head == audit_pb2.AuditLogPosition(sequence=0, hash="0" * 64)
        assert verify(client, answer.head).valid

    @pytest.mark.parametrize(
        ("statement", "sequence", "description"),
        [
            ("UPDATE audit_events SET actor = 'nobody' WHERE sequence = 3", 3, "is not as it was written."),
            ("DELETE FROM audit_events WHERE sequence = 2", 2, "is missing."),
            ("DELETE FROM audit_events WHERE sequence = 5", 5, "is missing."),
            ("DELETE FROM audit_events", 1, "is missing."),
            (f"{FREE}; UPDATE audit_events SET json_bytes = NULL, reason = 'x' WHERE sequence = 2", 2, CHANGED),
            (f"{FREE}; UPDATE audit_events SET json_bytes = NULL; DELETE FROM audit_events", 1, "is missing."),
            (f"{FREE}; UPDATE audit_events SET hash = NULL, json_bytes = NULL WHERE sequence > 1", 2, CHANGED),
            (f"{FREE}; UPDATE audit_events SET previous_hash = NULL WHERE sequence = 4", 4, "does not follow"),
            ("UPDATE audit_events SET action = 'model.stolen' WHERE sequence = 3", 3, CHANGED),
            ("UPDATE audit_events SET time = 'infinity' WHERE sequence = 1", 1, CHANGED),
            ("UPDATE audit_events SET time = '-infinity' WHERE sequence = 5", 5, CHANGED),
            ("UPDATE audit_events SET after = '{\"a\": 1e5000}' WHERE sequence = 2", 2, CHANGED),
            ("UPDATE audit_events SET before = '[1]' WHERE sequence = 2", 2, CHANGED),
            (
                "UPDATE audit_events SET reason = repeat('x', 300000000) WHERE sequence = 4",
                4,
                "is larger than any event.",
            ),
            (f"UPDATE audit_events SET hash = {LONG} WHERE sequence = 4", 4, "is larger than any event."),
            (f"UPDATE audit_events SET before = {HUGE_JSON} WHERE sequence = 3", 3, "is larger than any event."),
            ("ALTER TABLE audit_events RENAME COLUMN actor TO culprit", 1, "cannot be read: column"),
            ("ALTER TABLE audit_events DROP COLUMN json_bytes", 1, "cannot be read: column"),
            ("ALTER TABLE audit_events RENAME TO kept", 1, "cannot be read: relation"),
            (f"{FREE_HEAD}; UPDATE audit_head SET sequence = NULL", 5, "is not where"),
            (f"{FREE_HEAD}; UPDATE audit_head SET hash = NULL", 5, "is not where"),
            ("UPDATE audit_head SET hash = repeat('x', 100000)", 5, "is not where"),
        ],
    )
    def test_the_first_broken_link_is_named(
        self, log: RunningRegistry, statement: str, sequence: int, description: str
    ) -> None:
        tamper(log.engine, statement)
        answer = verify(log.client)
        assert not answer.valid
        assert answer.broken.sequence == sequence
        assert answer.broken.description.startswith(description)
        assert answer.checked_count == answer.head.sequence == (5 if description == "is not where" else sequence - 1)

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE audit_events SET action = 'model.stolen' WHERE sequence = 3",
            "UPDATE audit_events SET time = 'infinity' WHERE sequence = 3",
            "UPDATE audit_events SET time = '-infinity' WHERE sequence = 3",
            "UPDATE audit_events SET time = '20000-01-01Z' WHERE sequence = 3",
            "UPDATE audit_events SET after = '{\"a\": 1e400}' WHERE sequence = 3",
            "UPDATE audit_events SET after = '{\"a\": [-1e5000]}' WHERE sequence = 3",
            "UPDATE audit_events SET before = '[1]' WHERE sequence = 3",
            "UPDATE audit_events SET before = 'null' WHERE sequence = 3",
            f"UPDATE audit_events SET before = {NESTED} WHERE sequence = 3",
            f"UPDATE audit_events SET before = {HUGE_JSON} WHERE sequence = 3",
            f"{FREE}; UPDATE audit_events SET before = {HUGE_JSON}, json_bytes = 0 WHERE sequence = 3",
            f"UPDATE audit_events SET reason = {LONG} WHERE sequence = 3",
            f"UPDATE audit_events SET project_id = {LONG} WHERE sequence = 3",
            f"{FREE}; UPDATE audit_events SET hash = NULL, name = NULL, json_bytes = NULL WHERE sequence = 3",
        ],
    )
    def test_a_damaged_row_is_listed_as_damaged_among_the_others(self, log: RunningRegistry, statement: str) -> None:
        tamper(log.engine, statement)
        answers = [page(log.client)]
        while answers[-1].next_page_token:
            answers.append(page(log.client, page_token=answers[-1].next_page_token))
        found = [event for answer in answers for event in answer.audit_events]
        assert [event.sequence for event in found] == [5, 4, 3, 2, 1]
        assert [event.damaged for event in found] == [False, False, True, False, False]
        assert found[0].after.fields["name"].string_value == "model 4"

    @pytest.mark.parametrize(
        "statement",
        [
            "ALTER TABLE audit_events DROP COLUMN json_bytes",
            "ALTER TABLE audit_events RENAME COLUMN actor TO culprit",
            "ALTER TABLE audit_events RENAME TO kept",
            "ALTER TABLE audit_events ALTER COLUMN reason TYPE integer USING 0",
        ],
    )
    def test_a_log_with_an_altered_table_is_data_loss(self, log: RunningRegistry, statement: str) -> None:
        tamper(log.engine, statement)
        with refused(grpc.StatusCode.DATA_LOSS, "DATA_LOSS") as refusal:
            page(log.client)
        assert "VerifyAuditLog says what is broken" in refusal.message
        assert not verify(log.client).valid

    def test_every_double_survives_the_verification(self, client: Client) -> None:
        model = client.register(metrics={"large": 1.7e308, "small": -1.7e308})
        client.update(model.id, metrics={"large": 5e-324})
        assert [event.damaged for event in page(client).audit_events] == [False, False]

    def test_a_rewritten_log_is_detected_by_an_anchor(self, log: RunningRegistry) -> None:
        anchors = [
            audit_pb2.AuditLogPosition(sequence=event.sequence, hash=event.hash)
            for event in reversed(page(log.client).audit_events)
        ]
        # All events from the third on are deleted and written again by the trigger itself.
        with log.engine.begin() as connection:
            connection.execute(text("CREATE TEMPORARY TABLE kept AS SELECT * FROM audit_events WHERE sequence > 2"))
            connection.execute(text("ALTER TABLE kept DROP COLUMN json_bytes"))
            connection.execute(text("UPDATE kept SET actor = 'nobody' WHERE sequence = 3"))
            connection.execute(text("SET LOCAL session_replication_role = replica"))
            connection.execute(text("DELETE FROM audit_events WHERE sequence > 2"))
            connection.execute(
                text(
                    "UPDATE audit_head SET (sequence, hash, time) ="
                    " (SELECT sequence, hash, time FROM audit_events WHERE sequence = 2)"
                )
            )
            connection.execute(text("SET LOCAL session_replication_role = origin"))
            columns = "time, actor, request_id, action, name, model_id, alias, reason, after"
            connection.execute(
                text(f"INSERT INTO audit_events ({columns}) SELECT {columns} FROM kept ORDER BY sequence")
            )
        assert verify(log.client).valid
        assert [verify(log.client, anchor).valid for anchor in anchors] == [True, True, False, False, False]
        answer = verify(log.client, anchors[3])
        assert answer.broken.sequence == 4
        assert answer.broken.description == "is not the anchor: the log was written anew."

    def test_a_truncated_log_is_detected_by_an_anchor(self, log: RunningRegistry) -> None:
        anchor = verify(log.client).head
        tamper(
            log.engine,
            "DELETE FROM audit_events WHERE sequence > 3",
            "UPDATE audit_head SET (sequence, hash) = (SELECT sequence, hash FROM audit_events WHERE sequence = 3)",
        )
        assert verify(log.client).valid
        answer = verify(log.client, anchor)
        assert not answer.valid
        assert answer.broken.sequence == 4
        assert answer.broken.description == "is missing: the anchor is a later event."

    @pytest.mark.parametrize(
        ("anchor", "field"),
        [
            ({"sequence": -1, "hash": "0" * 64}, "anchor.sequence"),
            ({"sequence": 1, "hash": "A" * 64}, "anchor.hash"),
            ({"sequence": 1}, "anchor.hash"),
        ],
    )
    def test_an_invalid_anchor_is_refused(self, client: Client, anchor: dict[str, Any], field: str) -> None:
        with refused(INVALID) as refusal:
            verify(client, audit_pb2.AuditLogPosition(**anchor))
        assert refusal.fields == [field]

    def test_a_long_log_is_verified_in_batches_during_writes(self, registry: RunningRegistry) -> None:
        with registry.engine.begin() as connection:
            connection.execute(
                text(
                    "INSERT INTO audit_events (time, actor, request_id, action, name, model_id, alias, reason, after)"
                    " SELECT now(), '', '', 'model.updated', 'n', 'm', '', '', jsonb_build_object('i', i)"
                    " FROM generate_series(1, 3500) i"
                )
            )
        call = registry.client.audit.VerifyAuditLog.future(audit_service_pb2.VerifyAuditLogRequest())
        registry.client.register(name="meanwhile")
        answer = call.result()
        assert answer.valid
        assert answer.checked_count in {3500, 3501}

    def test_a_verification_counts_as_a_stream(self, registry: RunningRegistry) -> None:
        with serving(registry, max_streams=1, max_waiting_seconds=0.2) as (_, client):
            feed = Feed(*registration(spec(name="uses the only stream"), [b"x"]))
            call = client.models.RegisterModel.future(feed)
            eventually(lambda: registry.count("unreferenced_objects") == 1)
            with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS"):
                verify(client)
            feed.end()
            call.result()


class TestActors:
    @pytest.mark.parametrize(
        ("claimed", "known"),
        [("Ada Lovelace", "Ada Lovelace"), ("a" * 256, "a" * 256), ("a" * 257, ""), ("", "")],
    )
    def test_the_actor_of_a_registration_is_the_creator(self, client: Client, claimed: str, known: str) -> None:
        metadata = (("x-actor", claimed),)
        first = client.models.RegisterModel(registration(spec(name="a"), [b"x"]), metadata=metadata).model
        upload = client.create_upload(name="b")
        client.write_upload(upload.id, 0, b"x")
        second = client.uploads.CompleteUpload(
            upload_service_pb2.CompleteUploadRequest(upload_id=upload.id), metadata=metadata
        ).model
        assert first.creator == second.creator == client.get(first.id).creator == known
        assert [event.actor for event in page(client).audit_events] == [known, known]
        assert [event.after["creator"] for event in page(client).audit_events] == [known, known]

    def test_without_an_actor_the_creator_is_empty(self, client: Client) -> None:
        assert client.register().creator == ""
        assert page(client).audit_events[0].actor == ""
