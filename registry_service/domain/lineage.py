"""Models that were made from one another: a graph of edges from child to parent, without cycles."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from registry_service.domain.errors import InvalidArgumentError
from registry_service.domain.models import Model

MAX_ANCESTRY_EDGES = 10_000
"""Most edges on all the ways up from one model: what is searched for a cycle."""
MAX_DEPTH = 100
"""Maximum number of steps of a walk."""
MAX_LINEAGE_NODES = 10_000
"""Maximum number of models that a walk visits."""


class Direction(Enum):
    """The way that a walk follows the edges."""

    ANCESTORS = "ancestors"
    DESCENDANTS = "descendants"


@dataclass(frozen=True, slots=True, order=True)
class LineageEdge:
    """One model was made from another."""

    child: str
    parent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageWalk:
    """The ancestors, or the descendants, of a model: their ids."""

    depths: Mapping[str, int]
    """How many steps away each is by the shortest way; in this order, then by id."""
    edges: Sequence[LineageEdge]
    """Among them and the model itself, sorted."""
    truncated: bool
    """Whether some were left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageNode:
    """An ancestor or a descendant."""

    id: str
    depth: int
    model: Model | None
    """None where the registry has no such model. Without its schema."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """The ancestors, or the descendants, of a model, or a page of them."""

    nodes: Sequence[LineageNode]
    """Nearest first, equally near ones by id."""
    edges: Sequence[LineageEdge]
    """Of these with the model itself, with each other and with those of earlier pages, sorted."""
    truncated: bool
    """Whether some were left out of the walk."""
    more: bool = False
    """Whether another page follows."""


def checked_depth(requested: int) -> int:
    """Returns how many steps a listing goes.

    Raises:
        InvalidArgumentError: The number is negative.
    """
    if requested < 0:
        raise InvalidArgumentError.of("max_depth", "must not be negative.")
    return min(requested or MAX_DEPTH, MAX_DEPTH)


def cycle_through(model_id: str, parents: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """Finds the shortest way from a model up to itself, given the parents of each model.

    Returns ids, each made from the next, the first and the last the model's; none where there is no such way.
    """
    children = {model_id: ""}
    pending = [model_id]
    for child in pending:
        for parent in parents.get(child, ()):
            if parent == model_id:
                way = [parent, child]
                while way[-1] != model_id:
                    way.append(children[way[-1]])
                return way[::-1]
            if parent not in children:
                children[parent] = child
                pending.append(parent)
    return ()


def walk(
    model_id: str,
    direction: Direction,
    step: Callable[[Sequence[str]], Sequence[LineageEdge]],
    *,
    max_depth: int = MAX_DEPTH,
    limit: int = MAX_LINEAGE_NODES,
) -> LineageWalk:
    """Walk breadth-first from a model.

    Args:
        model_id: Where the walk begins.
        direction: Which end of a edge the walk goes to.
        step: Returns the edges from models in that direction.
        max_depth: Maximum number of steps.
        limit: Maximum number of models to visit; of equally near ones, the first by id.
    """
    upwards = direction is Direction.ANCESTORS
    depths = {model_id: 0}
    edges: set[LineageEdge] = set()
    frontier = [model_id]
    truncated = False
    for depth in range(1, max_depth + 2):
        found = step(frontier)
        ahead = {edge.parent if upwards else edge.child for edge in found} - depths.keys()
        room = 0 if depth > max_depth else limit + 1 - len(depths)
        truncated |= len(ahead) > room
        frontier = sorted(ahead)[:room]
        depths |= dict.fromkeys(frontier, depth)
        edges |= {edge for edge in found if edge.child in depths and edge.parent in depths}
        if not frontier:
            break
    del depths[model_id]
    return LineageWalk(depths=depths, edges=sorted(edges), truncated=truncated)
