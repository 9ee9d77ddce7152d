"""A database and artifacts of revision 0009, the last before model groups, in this program."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from modelregistry.v1 import (
    alias_pb2,
    alias_service_pb2,
    audit_service_pb2,
    model_group_service_pb2,
    model_service_pb2,
    upload_service_pb2,
)
from sqlalchemy import Engine

from registry_service.storage.sql.schema import migrate
from tests.registry import RunningRegistry, StartRegistry
from tests.stub_client import Client, refused
from tests.watch_client import Watch

FOLDER = Path(__file__).parent.parent / "upgrade"
FACTS: dict[str, Any] = json.loads((FOLDER / "facts.json").read_text(encoding="utf-8"))
"""What the program of that time answered."""
FIRST, SECOND, CANDIDATE = "vad-version-one-0000", "vad-version-two-0000", "vad-release-cand-000"


def upgrade(database: Engine) -> None:
    """Restore the recorded database, and migrate it to the present schema."""
    migrate(database, "0009")
    with database.begin() as connection:
        # Without triggers, which would renumber and rehash the events.
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        connection.exec_driver_sql((FOLDER / "revision_0009.sql").read_text(encoding="utf-8").replace("%", "%%"))
        connection.exec_driver_sql("UPDATE uploads SET expire_time = now() + interval '1 day'")
    migrate(database)


@pytest.fixture
def upgraded(empty_database: Engine, start_registry: StartRegistry, tmp_path: Path) -> RunningRegistry:
    upgrade(empty_database)
    artifacts = tmp_path / "found"
    shutil.copytree(FOLDER / "objects", artifacts / "artifacts")
    return start_registry(psql_database=empty_database.url.database, artifact_dir=artifacts)


@pytest.fixture
def client(upgraded: RunningRegistry) -> Client:
    return upgraded.client


def group_id(client: Client, model_id: str = FIRST) -> str:
    return client.get(model_id).model_group_id


def test_all_models_keep_their_metadata_and_bytes(client: Client) -> None:
    assert {model.id: model.version for model in client.all()} == {
        model_id: facts["version"] for model_id, facts in FACTS["models"].items()
    }
    for model_id, facts in FACTS["models"].items():
        assert hashlib.sha256(client.download(model_id)).hexdigest() == facts["sha256"]


def test_models_of_one_name_in_one_project_are_in_one_group(client: Client) -> None:
    groups = {model.id: model.model_group_id for model in client.all()}
    assert groups[FIRST] == groups[SECOND] == groups[CANDIDATE]
    assert len(set(groups.values())) == 3
    listed = client.groups.ListModelGroups(model_group_service_pb2.ListModelGroupsRequest()).model_groups
    assert {group.id: group.version_count for group in listed} == {
        groups[FIRST]: 3,
        groups["vad-without-project0"]: 1,
        groups["vad-of-empty-project"]: 1,
    }
    [group] = [group for group in listed if group.id == groups[FIRST]]
    assert (group.name, group.project_id, group.project_name) == ("vad", "audio", "Audio team")
    assert (group.latest_version, group.latest_model_id) == ("1.10", SECOND)


def test_a_group_without_models_exists_for_the_history_of_its_aliases(client: Client) -> None:
    request = model_group_service_pb2.ListModelGroupsRequest(show_empty=True, filter='name = "gone"')
    [group] = client.groups.ListModelGroups(request).model_groups
    assert group.version_count == 0
    moves = client.aliases.ListAliasMoves(
        alias_service_pb2.ListAliasMovesRequest(model_group_id=group.id, alias="lonely")
    ).alias_moves
    assert [alias_pb2.AliasMove.Kind.Name(move.kind) for move in moves] == ["KIND_DELETED", "KIND_SET"]


def test_aliases_keep_their_targets_and_history(client: Client) -> None:
    production = client.aliases.GetAlias(
        alias_service_pb2.GetAliasRequest(model_group_id=group_id(client), alias="production")
    )
    assert (production.model_id, production.revision) == (FACTS["production"]["model_id"], 3)
    moves = client.aliases.ListAliasMoves(
        alias_service_pb2.ListAliasMovesRequest(model_group_id=group_id(client), alias="production")
    ).alias_moves
    assert [
        [
            move.revision,
            alias_pb2.AliasMove.Kind.Name(move.kind),
            move.after.model_id,
            move.reason,
            move.actor,
            move.move_time.ToJsonString(),
        ]
        for move in moves
    ] == FACTS["history"]
    request = alias_service_pb2.GetAliasRequest(model_group_id=group_id(client), alias="production")
    request.at_time.FromJsonString(FACTS["second_time"])
    assert client.aliases.GetAlias(request).model_id == SECOND
    assert list(client.get(FIRST).aliases) == ["production"]
    assert list(client.get(CANDIDATE).aliases) == ["candidate"]


@pytest.mark.parametrize(
    ("filter_", "token"),
    [
        (FACTS["resume_filter"], FACTS["resume_token"]),
        (FACTS["resume_filter_by_time"], FACTS["resume_token_by_time"]),
        (FACTS["resume_filter_by_time"].replace("time", "event_time"), FACTS["resume_token_by_time"]),
    ],
)
def test_a_watch_resumes_from_an_earlier_token(client: Client, filter_: str, token: str) -> None:
    with Watch(client, filter=filter_, resume_token=token) as watch:
        seen = [(event.sequence, event.alias) for event in watch.events(5)]
    assert seen == [(9, "production"), (10, "candidate"), (11, "old"), (12, "old"), (16, "production")]
    # Tokens of this version also contain the client's filter.
    with Watch(client, filter=filter_, resume_token=watch.token) as watch:
        client.register(name="vad", version="3")
        assert watch.event().sequence > 16


def test_only_an_earlier_token_allows_the_former_name_of_a_field(client: Client) -> None:
    renamed = FACTS["resume_filter_by_time"]
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FILTER"), Watch(client, filter=renamed) as watch:
        watch.message()
    other = renamed.replace("01-31", "01-30")
    token = FACTS["resume_token_by_time"]
    for filter_ in (other, other.replace("time", "event_time")):
        with (
            refused(grpc.StatusCode.INVALID_ARGUMENT) as refusal,
            Watch(client, filter=filter_, resume_token=token) as watch,
        ):
            watch.message()
        assert refusal.fields == ["resume_token"]


def test_the_audit_log_is_valid_and_continues(client: Client) -> None:
    anchor = FACTS["audit"]
    before = client.audit.VerifyAuditLog(audit_service_pb2.VerifyAuditLogRequest(anchor=anchor))
    assert (before.valid, before.head.sequence, before.head.hash) == (True, anchor["sequence"], anchor["hash"])
    client.register(name="new")
    after = client.audit.VerifyAuditLog(audit_service_pb2.VerifyAuditLogRequest(anchor=anchor))
    assert (after.valid, after.head.sequence) == (True, anchor["sequence"] + 1)


def test_an_upload_resumes_at_its_committed_size(client: Client) -> None:
    upload = FACTS["upload"]
    found = client.uploads.GetUpload(upload_service_pb2.GetUploadRequest(upload_id=upload["id"]))
    assert found.committed_size == upload["committed_size"]

    def rest() -> Iterator[upload_service_pb2.WriteUploadRequest]:
        yield upload_service_pb2.WriteUploadRequest(upload_id=upload["id"], write_offset=8, data=b"the bytes")

    client.uploads.WriteUpload(rest())
    completed = client.uploads.CompleteUpload(upload_service_pb2.CompleteUploadRequest(upload_id=upload["id"]))
    assert client.download(completed.model.id) == b"half of the bytes"
    assert completed.model.model_group_id == group_id(client)


def test_tokens_created_before_the_upgrade_are_accepted(
    empty_database: Engine, start_registry: StartRegistry, tmp_path: Path
) -> None:
    upgrade(empty_database)
    client = start_registry(
        psql_database=empty_database.url.database, artifact_dir=tmp_path / "none", auth_mode="token"
    ).client
    metadata = (("authorization", f"Bearer {FACTS['tokens']['ada']}"),)
    found = client.models.GetModel(model_service_pb2.GetModelRequest(model_id=FIRST), metadata=metadata)
    assert found.id == FIRST
    with pytest.raises(grpc.RpcError) as refusal:
        client.models.GetModel(model_service_pb2.GetModelRequest(model_id="vad-without-project0"), metadata=metadata)
    assert refusal.value.code() == grpc.StatusCode.NOT_FOUND
