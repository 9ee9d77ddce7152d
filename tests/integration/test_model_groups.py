"""ModelGroupService: groups are created with their first model, stay when empty, and have shared metadata."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from modelregistry.v1 import alias_service_pb2, audit_pb2, audit_service_pb2, model_group_pb2, model_pb2
from modelregistry.v1 import model_group_service_pb2 as pb
from sqlalchemy import text

from registry_service.domain.errors import InvalidArgumentError
from registry_service.domain.filter import Subject, parse
from registry_service.domain.model_groups import SORTABLE_FIELDS, GroupQuery, group_sort_values, parse_group_order
from registry_service.storage.sql.database import SqlDatabase
from tests.plans import assert_few_rows, sent_to
from tests.registry import RunningRegistry
from tests.stub_client import Client, refused

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
ABORTED = grpc.StatusCode.ABORTED
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
MAXIMIZE, MINIMIZE = model_group_pb2.METRIC_GOAL_MAXIMIZE, model_group_pb2.METRIC_GOAL_MINIMIZE
NO_GROUP = "there-was-no-such-group"


def register(client: Client, version: str = "1", **fields: Any) -> model_pb2.Model:
    return client.register(version.encode(), version=version, **fields)


def group_of(client: Client, model: model_pb2.Model) -> model_group_pb2.ModelGroup:
    return client.group(model.model_group_id)


def set_alias(client: Client, model: model_pb2.Model, alias: str = "production") -> None:
    client.aliases.SetAlias(
        alias_service_pb2.SetAliasRequest(model_group_id=model.model_group_id, alias=alias, model_id=model.id)
    )


def events_of(client: Client, group_id: str) -> list[audit_pb2.AuditEvent]:
    request = audit_service_pb2.ListAuditEventsRequest(filter=f'model_group_id = "{group_id}"')
    return list(client.audit.ListAuditEvents(request).audit_events)


class TestCreation:
    def test_the_first_model_creates_the_group(self, client: Client) -> None:
        model = register(client, "1.0", project_id="p", project_name="")
        group = group_of(client, model)
        assert (group.id, group.name, group.project_id, group.project_name) == (model.model_group_id, "yolo", "p", "")
        assert group.HasField("project_name")
        assert (group.version_count, group.latest_version, group.latest_model_id) == (1, "1.0", model.id)
        assert (group.description, group.owner, dict(group.tags), dict(group.metric_goals)) == ("", "", {}, {})
        assert group.update_time == group.create_time
        assert abs(group.create_time.ToNanoseconds() - model.create_time.ToNanoseconds()) < 10 * 10**9
        assert group.etag

    def test_later_models_join_the_group(self, client: Client) -> None:
        first = register(client, "1")
        etag = group_of(client, first).etag
        second = register(client, "2")
        assert second.model_group_id == first.model_group_id
        group = group_of(client, first)
        assert (group.version_count, group.etag) == (2, etag)

    @pytest.mark.parametrize(
        "fields", [{"name": "yolo2"}, {"project_id": ""}, {"project_id": "p"}, {"project_name": ""}, {"name": "Yolo"}]
    )
    def test_another_name_or_project_is_another_group(self, client: Client, fields: dict[str, str]) -> None:
        assert register(client).model_group_id != register(client, **fields).model_group_id

    def test_names_and_projects_with_equal_concatenations_are_different_groups(self, client: Client) -> None:
        identities = [
            {"name": "a", "project_id": "b"},
            {"name": "a", "project_name": "b"},
            {"name": "ab"},
            {"name": "a'b"},
            {"name": "a\\b"},
            {"name": "a\\000b"},
            {"name": "a", "project_id": "\\001b"},
            {"name": "a,b"},
            {"name": "NULL"},
            {"name": "a", "project_id": "NULL"},
        ]
        groups = [register(client, **fields).model_group_id for fields in identities]
        assert len(set(groups)) == len(groups)

    def test_concurrent_first_models_create_one_group(self, registry: RunningRegistry) -> None:
        barrier = threading.Barrier(8)

        def register_one(number: int) -> str:
            barrier.wait()
            return register(registry.client, str(number)).model_group_id

        with ThreadPoolExecutor(8) as threads:
            [group_id] = set(threads.map(register_one, range(8)))
        assert registry.client.group(group_id).version_count == 8
        assert registry.count("model_groups") == 1

    def test_a_failed_registration_creates_no_group(self, registry: RunningRegistry) -> None:
        model = register(registry.client)
        with refused(grpc.StatusCode.ALREADY_EXISTS):
            register(registry.client, "2", name="other", id=model.id)
        assert registry.count("model_groups") == 1

    def test_every_answer_with_a_model_has_its_group(self, client: Client) -> None:
        model = register(client)
        assert client.get(model.id).model_group_id == model.model_group_id != ""
        assert client.update(model.id, ["score"], score=0.5).model_group_id == model.model_group_id
        assert [found.model_group_id for found in client.all()] == [model.model_group_id]
        upload = client.create_upload(version="2")
        client.write_upload(upload.id, 0, b"2")
        assert client.complete_upload(upload.id).model_group_id == model.model_group_id


class TestCounting:
    def test_deletions_lower_the_count_and_an_empty_group_stays(self, registry: RunningRegistry) -> None:
        client = registry.client
        one, two = register(client, "1"), register(client, "2")
        client.delete(two.id)
        group = group_of(client, one)
        assert (group.version_count, group.latest_model_id) == (1, one.id)
        client.update_group(group.id, description="stays", owner="ada")
        client.delete(one.id)
        empty = group_of(client, one)
        assert (empty.version_count, empty.latest_version, empty.latest_model_id) == (0, "", "")
        assert (empty.description, empty.owner) == ("stays", "ada")
        assert register(client, "3").model_group_id == group.id
        assert group_of(client, one).version_count == 1

    def test_a_renamed_model_moves_to_another_group(self, client: Client) -> None:
        one, two = register(client, "1"), register(client, "2")
        moved = client.update(two.id, ["project_id"], project_id="p")
        assert moved.model_group_id != one.model_group_id
        assert client.get(two.id).model_group_id == moved.model_group_id
        assert (group_of(client, one).version_count, group_of(client, moved).version_count) == (1, 1)
        back = client.update(two.id, ["project_id"])
        assert back.model_group_id == one.model_group_id
        assert (group_of(client, one).version_count, group_of(client, moved).version_count) == (2, 0)
        assert client.update(two.id, ["name", "version"], name="yolo", version="3").model_group_id == one.model_group_id

    def test_counts_are_right_after_concurrent_changes(self, registry: RunningRegistry) -> None:
        client = registry.client

        def live(number: int) -> None:
            model = register(client, str(number), name=f"model {number % 2}")
            if number % 3 == 0:
                client.update(model.id, ["name"], name=f"model {(number + 1) % 2}")
            if number % 4 == 0:
                client.delete(model.id)

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(live, range(24)))
        with registry.engine.connect() as connection:
            rows = connection.execute(text("SELECT name, count(*) AS models FROM models GROUP BY name"))
            counts = {row.name: row.models for row in rows}
        assert sum(counts.values()) == 18
        assert {group.name: group.version_count for group in client.all_groups()} == counts

    def test_the_latest_version_is_the_newest_release(self, client: Client) -> None:
        for version in ("1.9", "1.10", "1.2", "2.0-rc1"):
            latest = register(client, version)
        group = group_of(client, latest)
        assert group.latest_version == "1.10"
        assert client.get(group.latest_model_id).version == "1.10"
        for model in client.all('version != "2.0-rc1"'):
            client.delete(model.id)
        assert group_of(client, latest).latest_version == "2.0-rc1"


class TestGetting:
    def test_a_missing_group_is_not_found(self, client: Client) -> None:
        for call in (
            lambda: client.group(NO_GROUP),
            lambda: client.update_group(NO_GROUP, owner="ada"),
            lambda: client.delete_group(NO_GROUP),
        ):
            with refused(NOT_FOUND, "MODEL_GROUP_NOT_FOUND") as refusal:
                call()
            assert refusal.metadata == {"model_group_id": NO_GROUP}

    @pytest.mark.parametrize("group_id", ["", "-", "a b", "a/b", "é", "a" * 257, "a\0"])
    def test_invalid_ids_are_refused(self, client: Client, group_id: str) -> None:
        for call, field in (
            (lambda: client.group(group_id), "model_group_id"),
            (lambda: client.update_group(group_id, owner="ada"), "model_group.id"),
            (lambda: client.delete_group(group_id), "model_group_id"),
        ):
            with refused(INVALID) as refusal:
                call()
            assert refusal.fields == [field]


class TestUpdating:
    def test_all_fields_of_a_group_can_be_updated(self, client: Client) -> None:
        model = register(client)
        before = group_of(client, model)
        goals = {"mAP50": MAXIMIZE, "latency.ms": MINIMIZE}
        changed = client.update_group(
            before.id, description="# YOLO", owner="vision", tags={"team": "v", "a.b": "c"}, metric_goals=goals
        )
        assert (changed.description, changed.owner) == ("# YOLO", "vision")
        assert (dict(changed.tags), dict(changed.metric_goals)) == ({"team": "v", "a.b": "c"}, goals)
        assert changed.etag != before.etag
        assert changed.update_time.ToNanoseconds() > before.update_time.ToNanoseconds()
        assert (changed.create_time, changed.version_count, changed.latest_model_id) == (
            before.create_time,
            1,
            model.id,
        )
        assert group_of(client, model) == changed
        assert client.get(model.id).etag == model.etag

    def test_only_the_fields_of_the_mask_change(self, client: Client) -> None:
        group = group_of(client, register(client))
        client.update_group(group.id, description="d", tags={"a": "1", "b": "2"}, metric_goals={"m": MAXIMIZE})
        changed = client.update_group(
            group.id, ["tags.a", "tags.c", "metric_goals.m"], owner="no", tags={"c": "3"}, metric_goals={"m": MINIMIZE}
        )
        assert (changed.owner, dict(changed.tags)) == ("", {"b": "2", "c": "3"})
        assert dict(changed.metric_goals) == {"m": MINIMIZE}
        assert client.update_group(group.id, ["description"]).description == ""
        everything = client.update_group(group.id, ["*"], owner="ada")
        assert (everything.owner, dict(everything.tags), dict(everything.metric_goals)) == ("ada", {}, {})

    @pytest.mark.parametrize(
        "path", ["id", "name", "project_id", "version_count", "latest_version", "etag", "nothing", "owner.x", "tags."]
    )
    def test_other_fields_cannot_be_changed(self, client: Client, path: str) -> None:
        group = group_of(client, register(client))
        with refused(INVALID) as refusal:
            client.update_group(group.id, [path], owner="ada")
        assert refusal.fields == ["update_mask"]
        assert group_of(client, register(client, "2")).owner == ""

    @pytest.mark.parametrize(
        ("fields", "wrong"),
        [
            ({"description": "é" * 32 * 1024 + "x"}, "model_group.description"),
            ({"description": "\0"}, "model_group.description"),
            ({"owner": "x" * 5001}, "model_group.owner"),
            ({"owner": "a\u202eb"}, "model_group.owner"),
            ({"tags": {"": "x"}}, "model_group.tags"),
            ({"tags": {"k" * 257: "x"}}, "model_group.tags"),
            ({"tags": {"k": "\0"}}, "model_group.tags.k"),
            ({"tags": {"k": "x" * 256 * 1024}}, "model_group.tags"),
            ({"metric_goals": {"m": 0}}, "model_group.metric_goals.m"),
            ({"metric_goals": {"m": 7}}, "model_group.metric_goals.m"),
        ],
    )
    def test_too_long_values_are_refused(self, client: Client, fields: dict[str, Any], wrong: str) -> None:
        group = group_of(client, register(client))
        with refused(INVALID) as refusal:
            client.update_group(group.id, **fields)
        assert refusal.fields == [wrong]
        assert client.group(group.id) == group

    def test_the_longest_values_are_kept(self, client: Client) -> None:
        group = group_of(client, register(client))
        text = "é" * 32 * 1024
        changed = client.update_group(group.id, description=text, owner="x" * 5000, tags={"k": "x" * 200_000})
        assert (changed.description, len(changed.owner), len(changed.tags["k"])) == (text, 5000, 200_000)

    def test_an_etag_of_an_earlier_state_is_refused(self, client: Client) -> None:
        group = group_of(client, register(client))
        client.update_group(group.id, owner="ada", etag=group.etag)
        with refused(ABORTED, "ETAG_MISMATCH") as refusal:
            client.update_group(group.id, owner="bob", etag=group.etag)
        assert refusal.metadata == {"model_group_id": group.id}
        assert refusal.message == f"The model group {group.name!r} has changed since its etag was read."
        assert client.group(group.id).owner == "ada"

    def test_one_of_the_concurrent_updates_with_the_same_etag_succeeds(self, client: Client) -> None:
        group = group_of(client, register(client))

        def update(number: int) -> bool:
            try:
                client.update_group(group.id, owner=str(number), etag=group.etag)
            except grpc.RpcError as error:
                assert error.code() is ABORTED  # noqa: PT017 - it must be this reason
                return False
            return True

        with ThreadPoolExecutor(4) as threads:
            assert sum(threads.map(update, range(4))) == 1

    def test_an_update_without_changes_keeps_the_revision(self, client: Client) -> None:
        group = group_of(client, register(client))
        first = client.update_group(group.id, owner="ada")
        assert client.update_group(group.id, owner="ada") == first
        assert len(events_of(client, group.id)) == 2


class TestDeleting:
    def test_an_empty_group_is_deleted_with_its_aliases(self, registry: RunningRegistry) -> None:
        client = registry.client
        model, other = register(client), register(client, project_id="p")
        set_alias(client, model)
        set_alias(client, other)
        client.delete(model.id, force=True)
        client.delete_group(model.model_group_id, etag=group_of(client, model).etag)
        with refused(NOT_FOUND, "MODEL_GROUP_NOT_FOUND"):
            group_of(client, model)
        assert (registry.count("aliases"), registry.count("alias_moves")) == (1, 1)
        again = register(client)
        assert again.model_group_id != model.model_group_id
        assert group_of(client, other).version_count == 1
        # The history is kept.
        actions = [event.action for event in events_of(client, model.model_group_id)]
        kinds = audit_pb2.AuditEvent.Action
        assert actions == [
            kinds.ACTION_MODEL_GROUP_DELETED,
            kinds.ACTION_MODEL_DELETED,
            kinds.ACTION_ALIAS_DELETED,
            kinds.ACTION_ALIAS_SET,
            kinds.ACTION_MODEL_REGISTERED,
        ]

    def test_a_group_with_models_cannot_be_deleted(self, client: Client) -> None:
        model = register(client)
        for fields in ({}, {"validate_only": True}, {"allow_missing": True}):
            with refused(PRECONDITION, "MODEL_GROUP_NOT_EMPTY") as refusal:
                client.delete_group(model.model_group_id, **fields)
            assert refusal.metadata == {"model_group_id": model.model_group_id}
            assert f"The model group {model.name!r} has models" in refusal.message
        assert group_of(client, model).version_count == 1

    def test_allow_missing_accepts_a_missing_group(self, client: Client) -> None:
        client.delete_group(NO_GROUP, allow_missing=True)

    def test_a_stale_etag_deletes_nothing(self, client: Client) -> None:
        model = register(client)
        etag = group_of(client, model).etag
        client.update_group(model.model_group_id, owner="ada")
        client.delete(model.id)
        with refused(ABORTED, "ETAG_MISMATCH"):
            client.delete_group(model.model_group_id, etag=etag)
        assert group_of(client, model).owner == "ada"

    def test_validate_only_deletes_nothing(self, client: Client) -> None:
        model = register(client)
        client.delete(model.id)
        client.delete_group(model.model_group_id, validate_only=True)
        assert group_of(client, model).id == model.model_group_id

    def test_a_registration_during_a_deletion_never_loses_its_group(self, registry: RunningRegistry) -> None:
        client = registry.client
        for number in range(12):
            first = register(client, f"first {number}")
            client.delete(first.id)
            barrier = threading.Barrier(2)

            def delete(group_id: str = first.model_group_id, barrier: threading.Barrier = barrier) -> None:
                barrier.wait()
                try:
                    client.delete_group(group_id)
                except grpc.RpcError as error:
                    assert error.code() is PRECONDITION  # noqa: PT017 - it must be this reason

            with ThreadPoolExecutor(1) as threads:
                deletion = threads.submit(delete)
                barrier.wait()
                model = register(client, f"second {number}")
                deletion.result()
            assert group_of(client, model).version_count == 1
            assert client.get(model.id).model_group_id == model.model_group_id
            client.delete(model.id)


class TestListing:
    @pytest.fixture
    def groups(self, client: Client) -> dict[str, model_group_pb2.ModelGroup]:
        """Four groups by name, the last one empty."""
        for number, name in enumerate(("detect", "classify", "segment", "track")):
            for version in range(number + 1):
                model = register(client, str(version), name=name, project_id=f"p{number % 2}")
            client.update_group(model.model_group_id, owner=f"o{3 - number}", tags={"n": str(number)})
        for found in client.all('name = "track"'):
            client.delete(found.id)
        return {group.name: group for group in client.all_groups(show_empty=True)}

    @pytest.mark.parametrize(
        ("order", "names"),
        [
            ("", ["segment", "classify", "detect"]),
            ("name", ["classify", "detect", "segment"]),
            ("name desc", ["segment", "detect", "classify"]),
            ("create_time", ["detect", "classify", "segment"]),
            ("update_time desc", ["segment", "classify", "detect"]),
            ("version_count desc", ["segment", "classify", "detect"]),
            ("owner", ["segment", "classify", "detect"]),
            ("project_id, name", ["detect", "segment", "classify"]),
            ("project_id desc, name desc", ["classify", "segment", "detect"]),
            ("project_name, name desc", ["segment", "detect", "classify"]),
        ],
    )
    def test_groups_are_listed_in_any_order_page_by_page(
        self, client: Client, groups: dict[str, model_group_pb2.ModelGroup], order: str, names: list[str]
    ) -> None:
        expected = [groups[name] for name in names]
        assert client.all_groups(order_by=order) == expected
        assert client.all_groups(order_by=order, page_size=1) == expected
        assert client.all_groups(order_by=order, page_size=2) == expected

    @pytest.mark.usefixtures("groups")
    def test_empty_groups_are_listed_on_request(self, client: Client) -> None:
        assert [group.name for group in client.all_groups(order_by="name")] == ["classify", "detect", "segment"]
        everything = client.all_groups(order_by="name", show_empty=True, page_size=1)
        assert [(group.name, group.version_count) for group in everything] == [
            ("classify", 2),
            ("detect", 1),
            ("segment", 3),
            ("track", 0),
        ]
        assert [group.name for group in client.all_groups("version_count = 0", show_empty=True)] == ["track"]
        assert client.all_groups("version_count = 0") == []

    @pytest.mark.parametrize(
        ("filter", "names"),
        [
            ('name = "detect"', {"detect"}),
            ("seg", {"segment"}),
            ('name : "ECT"', {"detect"}),
            ('name = "*t"', {"detect", "segment"}),
            ('NOT name = "detect"', {"classify", "segment"}),
            ('project_id = "p0"', {"detect", "segment"}),
            ("project_name = null", {"detect", "classify", "segment"}),
            ("project_name : *", set()),
            ('owner = "o1"', {"segment"}),
            ("owner : *", {"detect", "classify", "segment"}),
            ("description : *", set()),
            ("tags.n = 1", {"classify"}),
            ("tags : n", {"detect", "classify", "segment"}),
            ('metric_goals.m = "maximize"', set()),
            ("version_count > 1 AND version_count <= 3", {"classify", "segment"}),
            ('create_time > "2020-01-01T00:00:00Z"', {"detect", "classify", "segment"}),
            ('update_time < "2020-01-01T00:00:00Z"', set()),
        ],
    )
    @pytest.mark.usefixtures("groups")
    def test_groups_are_found_by_every_field(self, client: Client, filter: str, names: set[str]) -> None:  # noqa: A002 - AIP-160's name
        assert {group.name for group in client.all_groups(filter)} == names

    def test_groups_are_found_by_id_and_by_goals(
        self, client: Client, groups: dict[str, model_group_pb2.ModelGroup]
    ) -> None:
        detect = groups["detect"]
        assert client.all_groups(f'id = "{detect.id}"') == [detect]
        client.update_group(detect.id, metric_goals={"m": MAXIMIZE})
        for goal in ("maximize", "METRIC_GOAL_MAXIMIZE", "METRIC_GOAL_MAX*"):
            assert [group.id for group in client.all_groups(f'metric_goals.m = "{goal}"')] == [detect.id]
        with refused(INVALID, "INVALID_FILTER") as refusal:
            client.all_groups('metric_goals.m = "bigger"')
        assert refusal.metadata == {"field": "filter", "position": "18"}

    @pytest.mark.parametrize(
        ("fields", "wrong"),
        [
            ({"filter": "score > 1"}, "filter"),
            ({"filter": "latest_version = 1"}, "filter"),
            ({"order_by": "score"}, "order_by"),
            ({"order_by": "tags"}, "order_by"),
            ({"order_by": "name, name desc"}, "order_by"),
            ({"order_by": "name down"}, "order_by"),
            ({"order_by": "name, version_count", "show_empty": True}, "order_by"),
            ({"page_size": -1}, "page_size"),
            ({"page_token": "nonsense"}, "page_token"),
        ],
    )
    def test_invalid_requests_are_refused(self, client: Client, fields: dict[str, Any], wrong: str) -> None:
        with refused(INVALID) as refusal:
            client.groups.ListModelGroups(pb.ListModelGroupsRequest(**fields))
        assert refusal.fields == [wrong]

    @pytest.mark.parametrize(
        ("order", "description"),
        [
            ("name,  nmae desc", "unknown field nmae; did you mean name? (position 8)."),
            ("xyzzy", "unknown field xyzzy; the fields are id, name, project_id, project_name, owner, version_count, "),
            ("id, -name", "write name desc instead of -name (position 5)."),
            ("name down", "expected asc, desc or a comma after name (position 5)."),
            ("owner, id,owner desc", "owner appears twice (position 11)."),
            ("name,,id", "missing name of a field (position 6)."),
        ],
    )
    def test_an_invalid_order_is_refused_with_its_position(self, order: str, description: str) -> None:
        with pytest.raises(InvalidArgumentError) as refused_order:
            parse_group_order(order)
        assert refused_order.value.message.startswith(f"order_by: {description}")

    def test_the_wildcard_is_not_a_group(self, client: Client) -> None:
        with refused(INVALID) as refusal:
            client.groups.GetModelGroup(pb.GetModelGroupRequest(model_group_id="-"))
        assert refusal.fields == ["model_group_id"]
        assert "- is all of them" in refusal.message

    @pytest.mark.usefixtures("groups")
    def test_a_page_token_works_for_its_own_list_only(self, client: Client) -> None:
        token = client.groups.ListModelGroups(pb.ListModelGroupsRequest(page_size=1)).next_page_token
        for other in ({"show_empty": True}, {"filter": "detect"}, {"order_by": "name"}):
            with refused(INVALID) as refusal:
                client.groups.ListModelGroups(pb.ListModelGroupsRequest(page_size=1, page_token=token, **other))
            assert refusal.fields == ["page_token"]

    @pytest.mark.usefixtures("groups")
    def test_the_total_size_is_returned_if_known(self, client: Client) -> None:
        whole = client.groups.ListModelGroups(pb.ListModelGroupsRequest())
        assert (whole.HasField("total_size"), whole.total_size) == (True, 3)
        first = client.groups.ListModelGroups(pb.ListModelGroupsRequest(page_size=2))
        assert not first.HasField("total_size")
        rest = client.groups.ListModelGroups(pb.ListModelGroupsRequest(page_size=2, page_token=first.next_page_token))
        assert not rest.HasField("total_size")

    def test_a_page_is_bounded_in_bytes(self, client: Client) -> None:
        for number in range(10):
            model = register(client, name=f"large {number}")
            client.update_group(model.model_group_id, description="x" * 64 * 1024, tags={"k": "x" * 250_000})
        page = client.groups.ListModelGroups(pb.ListModelGroupsRequest(page_size=1000)).model_groups
        assert 1 < len(page) < 10
        assert len(client.all_groups(page_size=1000)) == 10


class TestModelsOfGroups:
    def test_a_model_shows_the_aliases_that_point_to_it(self, client: Client) -> None:
        one, two = register(client, "1"), register(client, "2")
        assert list(one.aliases) == []
        for alias in ("b", "a", "C"):
            set_alias(client, one, alias)
        assert list(client.get(one.id).aliases) == ["C", "a", "b"]
        assert client.get(one.id).etag == one.etag
        set_alias(client, two, "a")
        assert {model.version: list(model.aliases) for model in client.all()} == {"1": ["C", "b"], "2": ["a"]}
        assert list(client.update(one.id, ["score"], score=1).aliases) == ["C", "b"]

    def test_models_are_found_by_group_and_by_alias(self, client: Client) -> None:
        one, two, other = register(client, "1"), register(client, "2"), register(client, "3", project_id="p")
        set_alias(client, one, "production")
        set_alias(client, other, "production")
        set_alias(client, two, "best")

        def versions(filter: str) -> set[str]:  # noqa: A002 - AIP-160's name
            return {model.version for model in client.all(filter)}

        assert versions(f'model_group_id = "{one.model_group_id}"') == {"1", "2"}
        assert versions(f'model_group_id != "{one.model_group_id}"') == {"3"}
        assert versions(f'model_group_id = "{one.model_group_id[:-1]}*"') == {"1", "2"}
        assert versions(f'model_group_id = "{NO_GROUP}"') == set()
        assert versions('aliases : "production"') == {"1", "3"}
        assert versions('aliases = "prod*"') == {"1", "3"}
        assert versions("aliases : *") == {"1", "2", "3"}
        assert versions('NOT aliases : "production"') == {"2"}
        assert versions(f'aliases : "production" AND model_group_id = "{other.model_group_id}"') == {"3"}
        assert versions("aliases : latest") == set()


class TestAudit:
    def test_changes_of_a_group_are_events(self, registry: RunningRegistry) -> None:
        client = registry.client
        group = group_of(client, register(client, project_id="p"))
        request = pb.UpdateModelGroupRequest(
            model_group=model_group_pb2.ModelGroup(id=group.id, owner="ada", metric_goals={"m": MAXIMIZE})
        )
        client.groups.UpdateModelGroup(request, metadata=(("x-actor", "bob"), ("x-request-id", "change-1")))
        updated, registered = events_of(client, group.id)
        assert registered.action == audit_pb2.AuditEvent.ACTION_MODEL_REGISTERED
        assert updated.action == audit_pb2.AuditEvent.ACTION_MODEL_GROUP_UPDATED
        assert (updated.actor, updated.request_id, updated.model_id, updated.alias) == ("bob", "change-1", "", "")
        assert (updated.name, updated.project_id, updated.model_group_id) == ("yolo", "p", group.id)
        assert (updated.before["owner"], updated.after["owner"]) == ("", "ada")
        assert MessageToDict(updated.after)["metric_goals"] == {"m": "METRIC_GOAL_MAXIMIZE"}
        assert str(updated.after["update_time"]).endswith("Z")
        assert "tags" not in updated.after

    def test_the_group_is_hashed_and_events_without_one_still_verify(self, registry: RunningRegistry) -> None:
        client = registry.client
        register(client)

        def broken() -> str:
            found = client.audit.VerifyAuditLog(audit_service_pb2.VerifyAuditLogRequest(), timeout=60)
            return found.broken.description

        assert broken() == ""
        tamper = "UPDATE audit_events SET model_group_id = {}"
        for value in ("'another'", "NULL"):
            with registry.engine.begin() as connection:
                connection.execute(text("SET LOCAL session_replication_role = replica"))
                connection.execute(text(tamper.format(value)))
            assert broken() == "is not as it was written."

    @pytest.mark.parametrize("filter", ["ACTION_MODEL_GROUP_UPDATED", "ACTION_MODEL_GROUP_*", "model_group.updated"])
    def test_events_are_found_by_their_action(self, client: Client, filter: str) -> None:  # noqa: A002 - AIP-160's name
        group = group_of(client, register(client))
        client.update_group(group.id, owner="ada")
        request = audit_service_pb2.ListAuditEventsRequest(filter=f'action = "{filter}"')
        [event] = client.audit.ListAuditEvents(request).audit_events
        assert event.model_group_id == group.id


def test_update_times_never_decrease(registry: RunningRegistry) -> None:
    client = registry.client
    group = group_of(client, register(client))
    registry.execute("UPDATE model_groups SET update_time = now() + interval '1 day'")
    later = client.update_group(group.id, owner="ada").update_time.ToDatetime(tzinfo=UTC)
    assert later > datetime.now(UTC) + timedelta(hours=23)


class TestSpeed:
    def test_every_page_is_found_by_an_index(self, registry: RunningRegistry) -> None:
        """Pages of 20,000 groups, of which the older half has one owner and one project."""
        registry.execute("""
            INSERT INTO model_groups (name, owner, project_id, project_name, create_time)
            SELECT md5(n::text), kind, kind, kind, timestamptz '2026-01-01Z' + n * interval '1 minute'
            FROM (
                SELECT n, CASE WHEN n <= 10000 THEN 'most' WHEN n <= 10100 THEN 'few' ELSE 'one of ' || n END AS kind
                FROM generate_series(1, 20000) AS n
            ) AS numbers
        """)
        registry.execute("INSERT INTO model_group_counts SELECT id, 1 + abs(hashtext(id)) % 1000 FROM model_groups")
        registry.execute("ANALYZE")
        filters = [
            f'{field} = "{kind}"{more}'
            for field in ("owner", "project_id", "project_name")
            for kind in ("most", "few")
            for more in ("", f' AND {field} = "{kind}"')
        ]
        orders = [field + direction for field in SORTABLE_FIELDS for direction in ("", " desc")]
        queries = [(wanted, "") for wanted in filters] + [("", order) for order in orders]
        for wanted, order_by in queries:
            order = parse_group_order(order_by)
            first = GroupQuery(
                filter=parse(wanted, Subject.MODEL_GROUP), show_empty=False, order=order, after=None, limit=40
            )
            with SqlDatabase(registry.engine).transaction() as transaction:
                last = transaction.groups.list(first).groups[-1]
            with sent_to(registry.engine) as sent, SqlDatabase(registry.engine).transaction() as transaction:
                for query in (first, replace(first, after=group_sort_values(last, order))):
                    assert len(transaction.groups.list(query).groups) == 40
            with registry.engine.begin() as connection:
                for statement, parameters in sent:
                    assert_few_rows(connection, statement, parameters, at_most=100)
