"""An alias and its history agree with a simple stack model after any sequence of moves."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from registry_service.domain.aliases import Alias, Remark
from registry_service.domain.errors import (
    AliasNotFoundError,
    NeverTargetError,
    NoPreviousTargetError,
    RegistryError,
)
from registry_service.domain.promotion import Requirements
from registry_service.services.aliases import Expectation, Moved
from registry_service.services.services import Services
from tests.registry import RunningRegistry
from tests.stub_client import Client

MODELS = 4

Verb = Literal["set", "rollback", "rollback_to", "delete"]


@dataclass
class Stack:
    """A model of an alias: `frames[-1]` is its target, and the frames below are those of rollbacks."""

    frames: list[str] = field(default_factory=list)
    stacks: dict[str, list[str]] = field(default_factory=dict)
    """The stack as it was when each target was last pointed to."""

    def apply(self, verb: Verb, model_id: str) -> type[RegistryError] | None:
        """Apply the move, or return the reason of its refusal."""
        present = self.frames[-1] if self.frames else None
        match verb:
            case "set":
                if present != model_id:
                    self._become([*self.frames, model_id])
            case _ if present is None:
                return AliasNotFoundError
            case "rollback":
                if len(self.frames) == 1:
                    return NoPreviousTargetError
                self._become(self.frames[:-1])
            case "rollback_to":
                if model_id not in self.stacks:
                    return NeverTargetError
                self._become(self.stacks[model_id])
            case "delete":
                self.frames = []
        return None

    def _become(self, frames: list[str]) -> None:
        self.frames = frames
        self.stacks[frames[-1]] = frames


def apply(services: Services, group: str, alias: str, verb: Verb, model_id: str) -> Moved | None:
    match verb:
        case "set":
            return services.aliases.set(
                group,
                alias,
                model_id,
                expectation=Expectation(),
                requirements=Requirements(),
                remark=Remark(),
                validate_only=False,
            )
        case "delete":
            services.aliases.delete(group, alias, expectation=Expectation(), allow_missing=False, remark=Remark())
            return None
        case _:
            current = present(services, group, alias)
            return services.aliases.rollback(
                group,
                alias,
                to_model_id=model_id if verb == "rollback_to" else "",
                expectation=Expectation(model_id="" if current is None else current.target.model_id),
                remark=Remark(),
                validate_only=False,
            )


def present(services: Services, group: str, alias: str) -> Alias | None:
    try:
        return services.aliases.get(group, alias)
    except AliasNotFoundError:
        return None


@pytest.fixture
def model_ids(client: Client) -> list[str]:
    return [client.register(version=str(i)).id for i in range(MODELS)]


def test_any_sequence_of_moves_matches_the_stack_model(registry: RunningRegistry, model_ids: Sequence[str]) -> None:
    services = registry.parts.services
    group = registry.client.get(model_ids[0]).model_group_id
    numbers = iter(range(10**9))
    verbs: st.SearchStrategy[Verb] = st.sampled_from(["set", "set", "rollback", "rollback", "rollback_to", "delete"])

    @given(moves=st.lists(st.tuples(verbs, st.integers(0, MODELS - 1)), max_size=25))
    @example(moves=[("set", 0), ("set", 1), ("set", 2), ("rollback", 0), ("set", 3), ("rollback", 0), ("rollback", 0)])
    @example(moves=[("set", 0), ("set", 1), ("rollback_to", 0), ("rollback", 0), ("rollback_to", 1), ("rollback", 0)])
    @example(moves=[("set", 0), ("delete", 0), ("set", 1), ("rollback", 0), ("rollback_to", 0), ("rollback", 0)])
    @settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def check(moves: list[tuple[Verb, int]]) -> None:
        alias, stack = f"a{next(numbers)}", Stack()
        seen: list[Alias | None] = [None]
        for verb, number in moves:
            raised = stack.apply(verb, model_ids[number])
            if raised is None:
                apply(services, group, alias, verb, model_ids[number])
            else:
                with pytest.raises(raised):
                    apply(services, group, alias, verb, model_ids[number])
            found = present(services, group, alias)
            assert (None if found is None else found.target.model_id) == (stack.frames[-1] if stack.frames else None)
            if found != seen[-1]:
                seen.append(found)
        if len(seen) > 1:
            told(services, group, alias, seen)

    check()


def told(services: Services, group: str, alias: str, seen: Sequence[Alias | None]) -> None:
    """Assert that the history, and the alias at each of its times, match what the moves returned."""
    moves, _ = services.aliases.list_moves(group, alias, size=1000, token="")
    moves = moves[::-1]
    assert [move.revision for move in moves] == list(range(1, len(seen)))
    assert [move.after for move in moves] == [None if found is None else found.target for found in seen[1:]]
    assert [move.before for move in moves] == [None if found is None else found.target for found in seen[:-1]]
    times = [move.time for move in moves]
    assert sorted(set(times)) == times
    for time, before, after in zip(times, seen[:-1], seen[1:], strict=True):
        for instant, expected in ((time - timedelta(microseconds=1), before), (time, after)):
            if expected is None:
                with pytest.raises(AliasNotFoundError):
                    services.aliases.get(group, alias, instant)
            else:
                assert services.aliases.get(group, alias, instant) == expected
