"""The Intel-compatible API, case by case (tests/rest_contract), through the real gateway."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from registry_service.embedded.postgres import PostgresAddress
from tests.fake_geti import FakeGeti
from tests.postgres_server import create_database
from tests.products import running_serve, running_up, s3_settings
from tests.rest_contract.replay import Case, Replay, load
from tests.s3_server import S3Server
from tests.temporary_folders import accessible_folder

CASES, FILES = load()
UNCONNECTED = "geti-unset"


@dataclass
class Groups:
    """Brings the registry into the state that a case expects: after all earlier cases of its group."""

    replay: Replay
    geti: FakeGeti
    group: str = ""
    played: list[str] = field(default_factory=list)

    def lead_to(self, case: Case) -> None:
        names = [other["name"] for other in CASES if other["group"] == case["group"]]
        before = names[: names.index(case["name"])]
        if self.group != case["group"] or self.played != before[: len(self.played)]:
            self.group, self.played = case["group"], []
            self.replay.empty()
            if case["group"] == "truncation":
                self.replay.register_a_hundred()
        for other in CASES:
            if other["group"] == case["group"] and other["name"] in before[len(self.played) :]:
                self.differences(other)
        self.played = [*before, case["name"]]

    def differences(self, case: Case) -> list[str]:
        """Send a case to the registry, while Geti behaves as the case demands."""
        self.geti.behave(**case.get("geti", {}))
        return self.replay.differences(case)


@contextmanager
def running(request: pytest.FixtureRequest, kind: str, settings: Mapping[str, Any]) -> Iterator[Groups]:
    geti: FakeGeti = request.getfixturevalue("geti_server")
    with ExitStack() as stack:
        folder = stack.enter_context(accessible_folder())
        if kind == "embedded":
            product = stack.enter_context(running_up(folder, **settings))
        else:
            postgres: PostgresAddress = request.getfixturevalue("postgres")
            s3: S3Server = request.getfixturevalue("s3_server")
            database = f"rest_contract_{len(settings)}"
            create_database(postgres, database, "template1")
            settings = s3_settings(postgres, database, s3, "model-registry") | dict(settings)
            product = stack.enter_context(running_serve(folder, settings))
        yield Groups(Replay(f"127.0.0.1:{product.rest_port}", FILES), geti)
    geti.behave()


@pytest.fixture(scope="module", params=["embedded", "s3"])
def groups(request: pytest.FixtureRequest, geti_server: FakeGeti) -> Iterator[Groups]:
    with running(request, request.param, geti_server.settings()) as groups:
        yield groups


@pytest.fixture(scope="module", params=["embedded", "s3"])
def unconnected_groups(request: pytest.FixtureRequest) -> Iterator[Groups]:
    with running(request, request.param, {}) as groups:
        yield groups


def check(groups: Groups, case: Case) -> None:
    groups.lead_to(case)
    assert groups.differences(case) == [], f"{case.get('note', '')} {json.dumps(case['request'])[:500]}"


def names(cases: Sequence[Case]) -> list[str]:
    return [f"{case['group']}-{case['name']}" for case in cases]


CONNECTED_CASES = [case for case in CASES if case["group"] != UNCONNECTED]
UNCONNECTED_CASES = [case for case in CASES if case["group"] == UNCONNECTED]


@pytest.mark.parametrize("case", CONNECTED_CASES, ids=names(CONNECTED_CASES))
def test_case(groups: Groups, case: Case) -> None:
    check(groups, case)


@pytest.mark.parametrize("case", UNCONNECTED_CASES, ids=names(UNCONNECTED_CASES))
def test_case_without_a_geti(unconnected_groups: Groups, case: Case) -> None:
    check(unconnected_groups, case)
