"""The commands `diff` and `lineage`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import click

from modelreg.cli._comparison_view import PARENTS, differs, show_comparison
from modelreg.cli._frame import Command, with_session
from modelreg.cli._lineage_view import show_lineage
from modelreg.cli._name_completion import complete_name

if TYPE_CHECKING:
    from modelreg import Comparison, Lineage
    from modelreg.cli._session import Session

_DIFFERENT = 1
_MAX_PARENTS = 20


@click.command("diff", cls=Command)
@click.argument("references", metavar="A B...", nargs=-1, required=True, shell_complete=complete_name)
@click.option("--exit-code", is_flag=True, help="Exit with 1 if metadata, metrics, labels or files differ.")
@click.option("-a", "--all", "everything", is_flag=True, help="Show what is equal, too.")
@click.option("--hash-files", is_flag=True, help="Compare files by SHA-256, for which the registry reads them.")
@with_session
def diff_command(
    session: Session, *, references: tuple[str, ...], exit_code: bool, everything: bool, hash_files: bool
) -> int:
    """Show how models differ from the first of them.

    Compares metadata, metrics, labels and files of 2 to 10 models. Names and versions do not count for --exit-code.
    """
    if len(references) < 2:
        raise click.UsageError("Name at least two models, for example vad:6.2.2 vad:6.2.3.")
    models = [session.registry.model(reference) for reference in references]
    for index, model in enumerate(models):
        first = next(position for position, found in enumerate(models) if found.id == model.id)
        if first != index:
            raise click.UsageError(f"{references[first]} and {references[index]} are the same model.")
    comparison = session.registry.compare(*models, diff_only=not everything, hash_files=hash_files)
    session.output.result(
        comparison, human=lambda: show_comparison(session.output, comparison, _parents(session, comparison))
    )
    return _DIFFERENT if exit_code and differs(comparison) else 0


def _parents(session: Session, comparison: Comparison) -> dict[str, str]:
    """Return the references of the first parents that differ, by id, as far as the caller may read them."""
    from modelreg.errors import RegistryError  # noqa: PLC0415 - as all of the library, not before it is used

    lists = [value or () for field in comparison.fields if field.path == PARENTS for value in field.values]
    references = {}
    for model_id in list(dict.fromkeys(model_id for found in lists for model_id in found))[:_MAX_PARENTS]:
        with contextlib.suppress(RegistryError):
            references[model_id] = session.registry.model(model_id).reference
    return references


@click.command("lineage", cls=Command)
@click.argument("reference", metavar="REF", shell_complete=complete_name)
@click.option("-d", "--descendants", is_flag=True, help="Show what was made from it instead.")
@click.option(
    "--depth", type=click.IntRange(1, 100), default=100, metavar="STEPS", help="How many steps. Default: 100."
)
@with_session
def lineage_command(session: Session, reference: str, descendants: bool, depth: int) -> None:
    """Show what a model was made from.

    And what that was made from, and so on.
    """
    model = session.registry.model(reference)
    lineage = session.registry.lineage(model, descendants=descendants, max_depth=depth)
    output = session.output
    if output.is_json:
        output.json(_document(lineage))
    elif output.is_human:
        show_lineage(output, model, lineage, descendants=descendants)
    else:
        for node in lineage.nodes:
            output.quiet(node.model_id)


def _document(lineage: Lineage) -> dict[str, Any]:
    """Return a lineage as the response under `/v1` has it, with all its pages."""
    from modelreg.cli._output import document_of  # noqa: PLC0415

    return {
        "nodes": [document_of(node) for node in lineage.nodes],
        "edges": [document_of(edge) for edge in lineage.edges],
        "next_page_token": "",
        "truncated": lineage.truncated,
    }
