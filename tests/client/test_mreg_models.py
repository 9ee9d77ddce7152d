"""Finding, changing and deleting models with `mreg`."""

import json
from datetime import datetime

import pytest
from modelregistry.v1 import model_pb2

from tests.client.mreg import Mreg
from tests.model_files import onnx_model
from tests.registry import RunningRegistry
from tests.stub_client import zip_of


@pytest.fixture
def versions(server: RunningRegistry, name: str) -> list[model_pb2.Model]:
    """Three versions of a model, the oldest first."""
    return [
        server.client.register(
            onnx_model().SerializeToString(),
            name=name,
            version=f"1.{number}",
            format="onnx",
            precisions=["int8"],
            metrics={"f1": number / 2},
            tags={"team": "audio"},
            artifact={"file_name": f"{name}.onnx"},
        )
        for number in range(3)
    ]


def test_ls_filters_orders_and_limits(mreg: Mreg, name: str, versions: list[model_pb2.Model]) -> None:
    best = mreg("ls", f"name = {name} AND metrics.f1 > 0.2", "--order-by", "metrics.f1 desc")
    one = mreg("ls", f"name = {name}", "--limit", "1")

    assert [row[0] for row in best.rows] == [f"{name}:1.2", f"{name}:1.1"]
    assert [row[0] for row in one.rows] == [f"{name}:1.2"]


def test_ls_prints_a_line_of_values_for_programs(mreg: Mreg, name: str, versions: list[model_pb2.Model]) -> None:
    (row,) = mreg("ls", f"name = {name}", "-n", "1").rows
    model = versions[-1]

    assert row[:4] == [f"{name}:1.2", "int8", "onnx", str(model.artifact.size_bytes)]
    assert datetime.fromisoformat(row[4]) == model.create_time.ToDatetime(
        datetime.fromisoformat(row[4]).tzinfo
    ).replace(microsecond=0)
    assert row[5:] == ["", model.id]


def test_ls_has_a_format_for_every_reader(mreg: Mreg, name: str, versions: list[model_pb2.Model]) -> None:
    ids = [model.id for model in reversed(versions)]

    whole = mreg("ls", f"name = {name}", "--format", "json").json
    lines = mreg("ls", f"name = {name}", "--format", "jsonl").out.splitlines()
    quiet = mreg("ls", f"name = {name}", "--format", "quiet").out.splitlines()

    assert whole["next_page_token"] == ""
    assert [model["id"] for model in whole["models"]] == ids
    assert [json.loads(line) for line in lines] == whole["models"]
    assert quiet == ids


def test_an_empty_list_is_valid_in_every_format(mreg: Mreg, name: str) -> None:
    assert mreg("ls", f"name = {name}", "--format", "json").json == {"models": [], "next_page_token": ""}
    for kind in ("jsonl", "quiet"):
        assert mreg("ls", f"name = {name}", "--format", kind).out == ""
    human = mreg("ls", f"name = {name}")
    assert (human.code, human.out, human.err) == (0, "", "No models match the filter.\n")


def test_a_long_list_arrives_whole(mreg: Mreg, server: RunningRegistry, name: str) -> None:
    for version in range(30):
        server.client.register(name=name, version=str(version))

    assert len(mreg("ls", f"name = {name}").rows) == 30
    assert len(mreg("versions", name, "--format", "json").json["models"]) == 30


def test_ls_draws_a_table_that_fits_the_terminal(mreg: Mreg, name: str, versions: list[model_pb2.Model]) -> None:
    wide = mreg.terminal("ls", f"name = {name}", columns=160, variables={"NO_COLOR": "1"}).out.splitlines()
    narrow = mreg.terminal("ls", f"name = {name}", columns=50, variables={"NO_COLOR": "1"}).out.splitlines()

    assert wide[0].split() == ["MODEL", "PRECISION", "FORMAT", "SIZE", "CREATED", "ID"]
    assert f"{name}:1.2" in wide[1]
    assert "148 B  just now" in wide[1]
    assert all(len(line) <= 50 for line in narrow)
    assert "…" in narrow[1]


def test_show_prints_what_is_known(mreg: Mreg, server: RunningRegistry, name: str) -> None:
    parent = server.client.register(name=f"{name}-base")
    server.client.register(
        onnx_model().SerializeToString(),
        name=name,
        version="6.2.3",
        project_id="acme",
        precisions=["int8"],
        metrics={"f1": 0.91, "latency_ms": 12.5},
        tags={"team": "audio"},
        description="# About\n\ntext",
        provenance=model_pb2.Provenance(parent_model_ids=[parent.id], seed=7),
        artifact={"file_name": "vad.onnx"},
    )
    shown = mreg("show", f"acme/{name}:6.2.3").out
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    model = server.client.all(f"name = {name}")[0]

    assert lines[0] == f"acme/{name}:6.2.3"
    for found in (
        f"id {model.id}",
        f"sha256 {model.artifact.sha256}",
        "latency_ms 12.5",
        "team audio",
        "x FLOAT [batch, 4, ?]",
        f"made from {name}-base:1 {parent.id}",
        "seed 7",
        "# About",
        "Warning: The precisions are int8, but the weights are fp32.",
    ):
        assert found in lines
    values = [line for line in shown.splitlines() if line.startswith(("  f1 ", "  latency_ms "))]
    assert values[0].index(".") == values[1].index("."), "the numbers of metrics stand below each other"


def test_show_takes_an_alias_as_it_was(mreg: Mreg, name: str, versions: list[model_pb2.Model]) -> None:
    mreg("promote", f"{name}:1.0", "production")
    moved = mreg("log", f"name = {name}", "--format", "json").json["audit_events"][0]["event_time"]
    mreg("promote", f"{name}:1.1", "production")

    assert mreg("show", f"{name}@production", "--format", "json").json["version"] == "1.1"
    assert mreg("show", f"{name}@production", "--at", moved, "--format", "json").json["version"] == "1.0"
    assert "mreg: --at: requires a reference with an alias" in mreg("show", name, "--at", moved).err
    assert "is not a time" in mreg("show", name, "--at", "yesterday").err


def test_an_ambiguous_name_is_told_with_its_candidates(mreg: Mreg, server: RunningRegistry, name: str) -> None:
    for precision in ("int8", "fp16"):
        server.client.register(name=name, version="1", precisions=[precision])
    ended = mreg("show", f"{name}:1")

    assert ended.code == 2
    assert "Name one of them" in ended.err
    assert mreg("show", f"{name}:1", "--precision", "fp16", "--format", "json").json["precisions"] == ["fp16"]


def test_versions_lists_the_latest_first(mreg: Mreg, server: RunningRegistry, name: str) -> None:
    for version in ("1.9", "1.10", "1.2"):
        server.client.register(name=name, version=version)

    assert [row[0] for row in mreg("versions", name).rows] == ["1.10", "1.9", "1.2"]
    assert [row[0] for row in mreg("versions", name, "-n", "1").rows] == ["1.10"]


def test_edit_merges_maps_and_removes_fields(mreg: Mreg, name: str, versions: list[model_pb2.Model]) -> None:
    reference = f"{name}:1.2"
    changed = mreg(
        "edit", reference, "--metric", "auc=0.8", "--tag", "stage=candidate",
        "--unset", "tags.team", "--unset", "format", "--label", "speech", "--label", "noise", "--score", "0.5",
        "--seed", "3", "--hyperparameter", "lr=0.1", "--hyperparameter", "optimizer=adam", "--format", "json",
    ).json  # fmt: skip

    assert changed["metrics"] == {"f1": 1.0, "auc": 0.8}
    assert changed["tags"] == {"stage": "candidate"}
    assert changed["labels"] == ["speech", "noise"]
    assert "format" not in changed
    assert (changed["score"], changed["provenance"]["seed"], changed["revision"]) == (0.5, "3", "2")

    again = mreg("edit", reference, "--hyperparameter", "lr=0.2", "--description-file", "-", given=b"# Text")
    assert again.err == f"Changed {reference} to revision 3.\n"
    shown = mreg("show", reference, "--format", "json").json
    assert shown["provenance"]["hyperparameters"] == {"lr": 0.2, "optimizer": "adam"}
    assert (shown["provenance"]["seed"], shown["description"]) == ("3", "# Text")


def test_edit_says_what_is_wrong_with_its_options(mreg: Mreg, name: str, versions: list[model_pb2.Model]) -> None:
    for arguments, message in [
        ([], "Nothing to change"),
        (["--metric", "f1"], "'f1' is not NAME=NUMBER"),
        (["--metric", "=1"], "is not NAME=NUMBER"),
        (["--tag", "team"], "'team' is not NAME=VALUE"),
        (["--unset", "sha256"], "must be metrics.NAME, tags.NAME, or one of project_id"),
        (["--unset", "score", "--score", "1"], "it is set, too"),
        (["--label", "a", "--labels", "[]"], "give the same field"),
        (["--labels", "{"], "no JSON"),
        (["--labels", "@/nowhere"], "No such file or directory"),
    ]:
        ended = mreg("edit", f"{name}:1.0", *arguments)
        assert ended.code == 2
        assert message in ended.err
        assert "`mreg edit --help` shows what is right." in ended.err
    ended = mreg("edit", f"{name}:1.0", "--labels", '{"a": 1}')
    assert (ended.code, "labels: must be a list, not dict" in ended.err) == (2, True)
    assert mreg("show", f"{name}:1.0", "--format", "json").json["revision"] == "1"


def test_rm_deletes_after_a_question(mreg: Mreg, name: str, versions: list[model_pb2.Model]) -> None:
    refused = mreg("rm", f"{name}:1.0")
    assert (refused.code, "pass --yes" in refused.err) == (2, True)

    declined = mreg.terminal("rm", f"{name}:1.0", typed="n\n")
    assert (declined.code, "Nothing was changed." in declined.out) == (1, True)
    assert f"{name}:1.0  148 B  {versions[0].id}" in declined.out
    assert len(mreg("versions", name).rows) == 3

    accepted = mreg.terminal("rm", f"{name}:1.0", typed="y\n")
    assert (accepted.code, f"Deleted {name}:1.0." in accepted.out) == (0, True)

    both = mreg("rm", f"{name}:1.1", f"{name}:1.2", "--yes", "--format", "json")
    assert both.json == {}
    assert mreg("show", name).code == 3
    assert mreg("rm", name, "--yes").code == 3
    assert mreg("rm", name, "--yes", "--missing-ok").code == 0


def test_rm_prints_what_it_deleted_before_a_failure(mreg: Mreg, name: str, versions: list[model_pb2.Model]) -> None:
    mreg("promote", f"{name}:1.1", "production")

    ended = mreg("rm", f"{name}:1.0", f"{name}:1.1", "--yes", "--format", "quiet")

    assert (ended.code, ended.out) == (5, f"{versions[0].id}\n")


def test_rm_keeps_what_an_alias_points_to(mreg: Mreg, name: str, versions: list[model_pb2.Model]) -> None:
    mreg("promote", f"{name}:1.0", "production")

    refused = mreg("rm", f"{name}:1.0", "--yes")

    assert refused.code == 5
    assert "pass `--force`" in refused.err
    assert mreg("rm", f"{name}:1.0", "--yes", "--force").code == 0


def test_rm_chooses_by_precision(mreg: Mreg, server: RunningRegistry, name: str) -> None:
    for precision in ("int8", "fp16"):
        server.client.register(name=name, version="1", precisions=[precision])

    ambiguous = mreg("rm", f"{name}:1", "--yes")
    assert (ambiguous.code, "or with `--precision`." in ambiguous.err) == (2, True)
    assert "--precision" not in mreg("lineage", f"{name}:1").err
    assert mreg("rm", f"{name}:1", "--precision", "int8", "--yes").code == 0
    assert mreg("show", name, "--format", "json").json["precisions"] == ["fp16"]


def test_edit_says_whether_anything_changed(mreg: Mreg, name: str, versions: list[model_pb2.Model]) -> None:
    changed = mreg("edit", f"{name}:1.0", "--metric", "f1=0.5")
    same = mreg("edit", f"{name}:1.0", "--metric", "f1=0.5", "--unset", "metrics.nosuch")

    assert changed.err == f"Changed {name}:1.0 to revision 2.\n"
    assert same.err == f"Nothing changed in {name}:1.0.\n"
    taken = mreg("edit", f"{name}:1.0", "--version", "1.1")
    assert (taken.code, "Choose another name or version." in taken.err) == (5, True)
    assert "--if-exists" not in taken.err


def test_show_says_each_thing_once_and_nothing_that_nobody_gave(mreg: Mreg, server: RunningRegistry, name: str) -> None:
    server.client.register(
        zip_of({"a.txt": b"1", "A.txt": b"2"}),
        name=name,
        artifact={"file_name": "vad.zip"},
    )
    shown = mreg("show", name).out
    model = mreg("show", name, "--format", "json").json
    warnings = [line for line in shown.splitlines() if line.startswith("Warning: ")]

    assert len(warnings) == len(set(warnings)) == len(model["warnings"]) > 0
    assert "score" not in shown
    assert f"  {model['create_time'][:19]}Z" in shown


def test_model_groups_are_listed_and_changed(mreg: Mreg, name: str, versions: list[model_pb2.Model]) -> None:
    changed = mreg(
        "group", "edit", name, "--owner", "audio", "--metric-goal", "f1=maximize", "--metric-goal", "loss=minimize",
        "--description", "Voice", "--tag", "team=audio",
    )  # fmt: skip
    (row,) = mreg("groups", f"name = {name}").rows
    document = mreg("groups", f"name = {name}", "--format", "json").json

    assert (changed.code, changed.err) == (0, f"Changed {name}.\n")
    assert (row[:3], row[4:6]) == ([name, "1.2", "3"], ["audio", "f1 maximize, loss minimize"])
    assert document["model_groups"][0]["description"] == "Voice"
    assert mreg("group", "edit", name, "--owner", "audio").err == f"Nothing changed in {name}.\n"
    unset = mreg("group", "edit", name, "--unset", "metric_goals.loss", "--unset", "tags.team", "--format", "json").json
    assert (unset["metric_goals"], unset["tags"]) == ({"f1": "METRIC_GOAL_MAXIMIZE"}, {})


def test_a_model_group_is_shown(mreg: Mreg, name: str, versions: list[model_pb2.Model]) -> None:
    mreg(
        "group", "edit", name, "--owner", "audio", "--metric-goal", "f1=maximize", "--tag", "team=speech",
        "--description", "Finds voices.",
    )  # fmt: skip
    shown = mreg("group", "show", name).out
    document = mreg("group", "show", name, "--format", "json").json

    lines = [line.split() for line in shown.splitlines()]
    for line in (
        [name], ["id", versions[0].model_group_id], ["owner", "audio"], ["versions", "3"], ["latest", "1.2"],
        ["created", f"{document['create_time'][:19]}Z"], ["f1", "maximize"], ["team", "speech"], ["Finds", "voices."],
    ):  # fmt: skip
        assert line in lines
    assert (document["id"], document["version_count"]) == (versions[0].model_group_id, "3")
    assert mreg("group", "show", document["id"], "--format", "quiet").out == f"{document['id']}\n"
    for missing in ("nosuch", f"{name}-none"):
        ended = mreg("group", "show", missing)
        assert (ended.code, "`mreg groups` lists" in ended.err) == (3, True)
    assert mreg("group", "show", f"{name}:1.0").code == 2


def test_a_model_group_without_models_is_deleted_after_a_question(
    mreg: Mreg, name: str, versions: list[model_pb2.Model]
) -> None:
    full = mreg("group", "rm", name, "--yes")
    assert (full.code, "Delete its models first" in full.err) == (5, True)
    mreg("rm", *(model.id for model in versions), "--yes")

    refused = mreg("group", "rm", name)
    assert (refused.code, "pass --yes" in refused.err) == (2, True)
    declined = mreg.terminal("group", "rm", name, typed="n\n")
    assert (declined.code, f"{name}  0 versions  {versions[0].model_group_id}" in declined.out) == (1, True)
    assert mreg("group", "show", name, "--format", "json").json["version_count"] == "0"
    accepted = mreg.terminal("group", "rm", name, typed="y\n")
    assert (accepted.code, f"Deleted the model group {name}." in accepted.out) == (0, True)

    assert mreg("group", "show", name).code == 3
    assert mreg("group", "rm", name, "--yes").code == 3
    assert mreg("group", "rm", name, "--yes", "--missing-ok", "--format", "json").json == {}


def test_a_model_group_is_not_changed_to_nonsense(mreg: Mreg, name: str, versions: list[model_pb2.Model]) -> None:
    for arguments, message in [
        ((), "Nothing to change"),
        (("--metric-goal", "f1=more"), "must be f1=maximize or f1=minimize"),
        (("--unset", "owner"), "must be metric_goals.NAME or tags.NAME"),
        (("--tag", "a=b", "--unset", "tags.a"), "it is set, too"),
    ]:
        ended = mreg("group", "edit", name, *arguments)
        assert (ended.code, message in ended.err) == (2, True)
    assert mreg("group", "edit", f"{name}-none", "--owner", "audio").code == 3
    assert mreg("groups", "owner = = x").code == 2
    assert mreg("groups", f"name = {name}-none").err == "No model groups match the filter.\n"
