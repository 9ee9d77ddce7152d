"""Pages that continue after a place in an order."""

import operator
from collections.abc import Sequence
from functools import reduce
from typing import Any, cast

from sqlalchemy import ColumnElement, and_, or_, tuple_


def is_after(
    expressions: Sequence[ColumnElement[Any]], descending: Sequence[bool], bound: Sequence[ColumnElement[Any]]
) -> ColumnElement[bool]:
    """Return the condition that a row comes after these values in the order."""
    if len(set(descending)) == 1:
        # One row comparison is one range of an index.
        compare = operator.lt if descending[0] else operator.gt
        return cast("ColumnElement[bool]", compare(tuple_(*expressions), tuple_(*bound)))
    alternatives = []
    for i, (expression, down) in enumerate(zip(expressions, descending, strict=True)):
        equal = [e == b for e, b in zip(expressions[:i], bound[:i], strict=True)]
        alternatives.append(and_(*equal, expression < bound[i] if down else expression > bound[i]))
    return reduce(or_, alternatives)
