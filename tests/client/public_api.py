"""The public names of the client, as text. After a change that is meant, write the text again:

.venv/bin/python -m tests.client.public_api >tests/client/public_api.txt
"""

import dataclasses
import inspect
import sys
from collections.abc import Iterator
from typing import Any

import modelreg

HEADER = """\
# The public API of modelreg. A line that disappears or changes breaks programs: keep the old form with a
# DeprecationWarning for two minor versions and twelve months. Written by `python -m tests.client.public_api`.
"""


def lines() -> Iterator[str]:
    """Yield a line for each public name, its fields and its methods."""
    for name in sorted(modelreg.__all__):
        found = getattr(modelreg, name)
        if isinstance(found, type):
            yield from _lines_of_class(f"modelreg.{name}", found)
        else:
            yield f"modelreg.{name}: {'module' if inspect.ismodule(found) else type(found).__name__}"
    for name in sorted(modelreg.aio.__all__):
        yield from _lines_of_class(f"modelreg.aio.{name}", getattr(modelreg.aio, name))


def text() -> str:
    return HEADER + "".join(f"{line}\n" for line in lines())


def methods(kind: type) -> dict[str, Any]:
    """Return the public methods and properties of a class, those of its bases included, without those of object."""
    found = {name: inspect.getattr_static(kind, name) for name in dir(kind)}
    return {
        name: member
        for name, member in found.items()
        if not name.startswith("_") and (inspect.isroutine(member) or isinstance(member, (property, classmethod)))
    }


def signature_of(member: Any) -> str:
    """Return the signature of a method, with the annotations as they are written."""
    function = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
    signature = inspect.signature(function, eval_str=False)
    parameters = [one.replace(annotation=_shown(one.annotation)) for one in signature.parameters.values()]
    shown = signature.replace(parameters=parameters, return_annotation=_shown(signature.return_annotation))
    prefix = "async " if inspect.iscoroutinefunction(function) else ""
    return f"{prefix}def{shown}"


class _Annotation(str):
    """An annotation that is shown without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _shown(annotation: Any) -> Any:
    return _Annotation(annotation) if isinstance(annotation, str) else annotation


def _lines_of_class(name: str, kind: type) -> Iterator[str]:
    bases = [base.__name__ for base in kind.__mro__[1:-1] if not base.__module__.startswith("modelreg._")]
    yield f"{name}: class({', '.join(bases)})"
    fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    for field in fields:
        is_required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        yield f"{name}.{field.name}: {field.type}{'' if is_required else ' (optional)'}"
    # Programs get a Listing from a Registry, and never make one.
    if not fields and "__init__" in vars(kind) and kind.__name__ != "Listing":
        yield f"{name}.__init__: {signature_of(vars(kind)['__init__'])}"
    if issubclass(kind, BaseException):
        # Inherited ones, such as those of OSError, are Python's.
        annotations = {
            key: value for base in kind.__mro__ for key, value in vars(base).get("__annotations__", {}).items()
        }
        for attribute in sorted(annotations):
            yield f"{name}.{attribute}: {annotations[attribute]}"
        return
    for method, member in sorted(methods(kind).items()):
        if isinstance(member, property):
            yield f"{name}.{method}: property -> {inspect.signature(member.fget).return_annotation}"  # type: ignore[arg-type]
        else:
            yield f"{name}.{method}: {signature_of(member)}"


if __name__ == "__main__":
    sys.stdout.write(text())
