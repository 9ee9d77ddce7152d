"""What readers of some projects see of an event."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from registry_service.domain.events import GENESIS_HASH, Event, as_seen_from
from registry_service.domain.models import GroupKey, Json
from registry_service.domain.vocabulary import Action

MOVE = Event(
    sequence=2,
    time=datetime(2026, 1, 31, tzinfo=UTC),
    action=Action.MODEL_UPDATED,
    group_key=GroupKey(name="new", project_id="b", project_name="B"),
    model_id="m",
    model_group_id="group of b",
    before={"project_id": "a", "name": "old", "score": 1},
    after={"project_id": "b", "name": "new", "score": 2},
    request_id="r",
    previous_hash=GENESIS_HASH,
    hash="1" * 64,
)
A, B = frozenset({"a"}), frozenset({"b"})


def test_readers_of_both_projects_see_all_of_a_move() -> None:
    assert as_seen_from(MOVE, None) == as_seen_from(MOVE, A | B) == MOVE


def test_readers_of_the_new_project_do_not_see_what_was_before() -> None:
    assert as_seen_from(MOVE, B) == replace(MOVE, before=None)


def test_readers_of_the_old_project_see_only_what_was_before() -> None:
    seen = as_seen_from(MOVE, A)
    # The name of the project did not change, so it is that of both.
    assert seen.group_key == GroupKey(name="old", project_id="a", project_name="B")
    assert (seen.before, seen.after, seen.model_group_id, seen.moved_away) == (MOVE.before, None, None, True)


def test_an_event_that_moved_nothing_is_seen_as_it_is() -> None:
    event = replace(MOVE, before={"score": 1}, after={"score": 2})
    assert as_seen_from(event, B) is event


@pytest.mark.parametrize("before", [None, {}, {"project_id": 1}, {"project_id": "c", "name": "of c"}])
def test_of_an_event_without_a_side_of_theirs_readers_see_no_names(before: dict[str, Json] | None) -> None:
    seen = as_seen_from(replace(MOVE, before=before), A)
    assert seen.group_key == GroupKey(name="")
    assert (seen.before, seen.after, seen.model_group_id) == (None, None, None)
