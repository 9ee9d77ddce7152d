"""The documented REST API, case by case (tests/rest_contract), through the real gateway."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from registry_service.embedded.postgres import PostgresAddress
from tests.folders import passable_folder
from tests.postgres_server import create_database
from tests.products import running_serve, running_up, s3_settings
from tests.rest_contract.replaying import Case, Replay, load
from tests.s3_server import S3Server

CASES, FILES = load()


@dataclass
class Groups:
    """Keeps the registry where the case at hand expects it: after all earlier cases of its group."""

    replay: Replay
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
                self.replay.differences(other)
        self.played = [*before, case["name"]]


@pytest.fixture(scope="module", params=["embedded", "s3"])
def groups(request: pytest.FixtureRequest) -> Iterator[Groups]:
    with ExitStack() as stack:
        folder = stack.enter_context(passable_folder())
        if request.param == "embedded":
            product = stack.enter_context(running_up(folder))
        else:
            postgres: PostgresAddress = request.getfixturevalue("postgres")
            s3: S3Server = request.getfixturevalue("s3_server")
            create_database(postgres, "rest_contract", "template1")
            settings = s3_settings(postgres, "rest_contract", s3, "model-registry")
            product = stack.enter_context(running_serve(folder, settings))
        yield Groups(Replay(f"127.0.0.1:{product.rest_port}", FILES))


@pytest.mark.parametrize("case", CASES, ids=[f"{case['group']}-{case['name']}" for case in CASES])
def test_case(groups: Groups, case: Case) -> None:
    groups.lead_to(case)
    assert groups.replay.differences(case) == [], f"{case.get('note', '')} {json.dumps(case['request'])[:500]}"
