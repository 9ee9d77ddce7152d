"""Lineage: a graph of models with edges from child to parent, without cycles."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from registry_service.domain.errors import InvalidArgumentError
from registry_service.domain.models import Model

MAX_ANCESTRY_EDGES = 10_000
"""Maximum number of edges above one model that the check for cycles visits."""
MAX_DEPTH = 100
"""Maximum number of steps of a walk."""
MAX_LINEAGE_NODES = 10_000
"""Maximum number of models that a walk visits."""


class Direction(Enum):
    """The direction in which a walk follows the edges."""

    ANCESTORS = "ancestors"
    DESCENDANTS = "descendants"


@dataclass(frozen=True, slots=True, order=True)
class LineageEdge:
    """One model was derived from another."""

    child: str
    parent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageWalk:
    """The ids of the ancestors or descendants of a model."""

    depths: Mapping[str, int]
    """The length of the shortest path to each, in this order, then by id."""
    edges: Sequence[LineageEdge]
    """The edges among these models and the model itself, sorted."""
    truncated: bool
    """Whether the limit left some out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageNode:
    """An ancestor or a descendant."""

    id: str
    depth: int
    model: Model | None
    """Without its signature. None if the registry does not have the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """The ancestors or descendants of a model, or a page of them."""

    nodes: Sequence[LineageNode]
    """Nearest first, then by id."""
    edges: Sequence[LineageEdge]
    """The edges of these nodes to the model, to one another and to nodes of earlier pages, sorted."""
    truncated: bool
    """Whether the limit of the walk left some out."""
    more: bool = False
    """Whether another page follows."""


def checked_depth(requested: int) -> int:
    """Return the maximum number of steps of a walk.

    Raises:
        InvalidArgumentError: The number is negative.
    """
    if requested < 0:
        raise InvalidArgumentError.of("max_depth", "must not be negative.")
    return min(requested or MAX_DEPTH, MAX_DEPTH)


def cycle_through(model_id: str, parents: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """Find the shortest path from a model up to itself, given the parents of each model.

    Return model ids, each the child of the next, with the model first and last. Return nothing if there is no cycle.
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
        direction: The end of an edge that the walk goes to.
        step: A function that returns the edges from models in that direction.
        max_depth: Maximum number of steps.
        limit: Maximum number of models to visit. Of models at the same distance, the first by id.
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
