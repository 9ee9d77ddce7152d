# Generated from modelreg/_async by `make generate`. Do not edit.
"""Promoting models with aliases, and rolling back."""

from __future__ import annotations

from typing import Any

from modelregistry.v1 import alias_service_pb2, model_pb2, model_service_pb2

from modelreg import _arguments
from modelreg._sync.connection import Connection, new_idempotency_key
from modelreg._sync.listing import Listing, Page, listed
from modelreg._sync.models import ModelCalls
from modelreg._wire import convert, methods
from modelreg.aliases import Alias, AliasMove, Promotion, Requirements
from modelreg.errors import InvalidArgument, NotFound
from modelreg.models import Model
from modelreg.references import Reference, format_reference, parse_alias, parse_reference


class AliasCalls(ModelCalls):
    """The calls about aliases."""

    _connection: Connection

    def promote(
        self,
        alias: str,
        model: Model | str,
        *,
        reason: str = "",
        expect: Model | str | None = None,
        require: Requirements | None = None,
        validate_only: bool = False,
    ) -> Promotion:
        """Point an alias to a model, and create the alias if there is none.

        Args:
            alias: The alias in its model group: `name@alias` or `project/name@alias`; the group must be the model's.
                The word of the alias alone, for example `production`, means the alias in the model's group.
            model: The model or a reference.
            reason: Why, for the history and the audit log.
            expect: The model that the alias must point to now. An empty text: nothing. Default: whatever it points to.
            require: What the model must meet.
            validate_only: Whether to return what would happen, and change nothing.

        Raises:
            PreconditionFailed: The model does not meet the requirements, which `checks` names, or is in another group.
            Conflict: The alias does not point to what `expect` names.
            NotFound: There is no such model.

        >>> promotion = reg.promote(
        ...     "vad@production", "vad:6.2.3", reason="gate 42", expect="vad:6.2.2", require=Requirements(verified=True)
        ... )
        >>> promotion.before.version, promotion.alias.version
        ('6.2.2', '6.2.3')
        """
        parsed = _alias_of_promotion(alias, model)
        requirements = None if require is None else convert.requirements_message(require)
        reason = _arguments.text(reason, "reason")
        target = model if isinstance(model, Model) else self.model(model)
        if parsed.name and parsed.name != target.name:
            raise InvalidArgument(
                f"{alias} is an alias of {parsed.name}, but the model is {target.reference}. An alias points to a "
                "version of its own model."
            )
        request = alias_service_pb2.SetAliasRequest(
            model_group_id=target.model_group_id,
            alias=parsed.alias or "",
            model_id=target.id,
            expected_model_id=None if expect is None else self._model_id(expect) if expect else "",
            reason=reason,
            requirements=requirements,
            validate_only=validate_only,
            idempotency_key=new_idempotency_key(),
        )
        response = self._connection.unary(methods.SET_ALIAS, request)
        return convert.promotion(response)

    def rollback(
        self, alias: str, *, to: Model | str | None = None, reason: str = "", validate_only: bool = False
    ) -> Promotion:
        """Point an alias to its previous target, or to an earlier one.

        Args:
            alias: The alias: `name@alias` or `project/name@alias`.
            to: The earlier target. Default: the previous one. Every rollback goes further back.
            reason: Why, for the history and the audit log.
            validate_only: Whether to return what would happen, and change nothing.

        Raises:
            NotFound: There is no such alias.
            PreconditionFailed: There is no such earlier target, or it was deleted.
            Conflict: The alias was moved at the same time.

        >>> promotion = reg.promote("vad@production", "vad:6.2.3")
        >>> reg.rollback("vad@production", reason="latency").alias.version
        '6.2.2'
        """
        reason = _arguments.text(reason, "reason")
        response = self._resolved_alias(alias)
        request = alias_service_pb2.RollbackAliasRequest(
            model_group_id=response.model.model_group_id,
            alias=response.alias,
            to_model_id="" if to is None else self._model_id(to),
            expected_model_id=response.model.id,
            reason=reason,
            validate_only=validate_only,
            idempotency_key=new_idempotency_key(),
        )
        rolled_back = self._connection.unary(methods.ROLLBACK_ALIAS, request)
        return convert.promotion(rolled_back)

    def alias(self, alias: str) -> Alias:
        """Return an alias as it is now.

        Args:
            alias: `name@alias` or `project/name@alias`.

        Raises:
            NotFound: The alias points to no model.

        >>> reg.alias("vad@production").version
        '6.2.2'
        """
        response = self._resolved_alias(alias)
        request = alias_service_pb2.GetAliasRequest(model_group_id=response.model.model_group_id, alias=response.alias)
        return convert.alias(self._connection.unary(methods.GET_ALIAS, request))

    def aliases(self, name: str = "") -> Listing[Alias]:
        """Return the aliases of a model group, or of all, in the order of their creation.

        Args:
            name: `name` or `project/name`. Default: all model groups.

        Raises:
            NotFound: At the first iteration: there is no such model group.
            Ambiguous: At the first iteration: several projects have one of the name.

        >>> [(alias.alias, alias.version) for alias in reg.aliases("vad")]
        [('production', '6.2.2')]
        """
        group_id = "-"

        def fetch(token: str, size: int) -> Page:
            nonlocal group_id
            if name and not token:
                group_id = self.group(name).id
            request = alias_service_pb2.ListAliasesRequest(model_group_id=group_id, page_size=size, page_token=token)
            response = self._connection.unary(methods.LIST_ALIASES, request)
            return response.aliases, response.next_page_token

        return Listing(fetch, convert.alias, of=listed("aliases", name=name))

    def history(self, alias: str) -> Listing[AliasMove]:
        """Return the moves of an alias, the newest first. A deleted alias keeps its history.

        Args:
            alias: `name@alias` or `project/name@alias`; `name` alone means all aliases of the model group.

        Raises:
            NotFound: At the first iteration: there is no such model group, or it never had the alias.
            Ambiguous: At the first iteration: several projects have one of the name.
            InvalidArgument: The text is not a reference.

        >>> move = reg.history("vad@production").first()
        >>> move.kind, move.before, move.after.version
        ('set', None, '6.2.2')
        """
        parsed = parse_alias(alias) if "@" in _arguments.text(alias, "alias") else parse_reference(alias)
        if parsed.version is not None:
            raise InvalidArgument(
                f"alias: {alias} names a version. Write name@alias for the history of an alias, or the name alone for "
                "that of all its aliases."
            )
        group_id = ""

        def fetch(token: str, size: int) -> Page:
            nonlocal group_id
            if not token:
                group_id = self.group(format_reference(parsed.name, project=parsed.project)).id
            request = alias_service_pb2.ListAliasMovesRequest(
                model_group_id=group_id, alias=parsed.alias or "-", page_size=size, page_token=token
            )
            response = self._connection.unary(methods.LIST_ALIAS_MOVES, request)
            return response.alias_moves, response.next_page_token

        return Listing(fetch, convert.alias_move, of=listed("moves", alias=alias))

    def delete_alias(self, alias: str, *, reason: str = "", missing_ok: bool = False) -> None:
        """Delete an alias. Its history stays, and continues if the alias is set again.

        Raises:
            NotFound: There is no such alias, and `missing_ok` is not set.
            Conflict: The alias was moved at the same time.
        """
        reason = _arguments.text(reason, "reason")
        try:
            found = self.alias(alias)
        except NotFound:
            if missing_ok:
                return
            raise
        request = alias_service_pb2.DeleteAliasRequest(
            model_group_id=found.model_group_id,
            alias=found.alias,
            etag=found.etag,
            allow_missing=missing_ok,
            reason=reason,
            idempotency_key=new_idempotency_key(),
        )
        self._connection.unary(methods.DELETE_ALIAS, request)

    def _resolved_alias(self, alias: str) -> model_service_pb2.ResolveModelResponse:
        parse_alias(alias)
        request = model_service_pb2.ResolveModelRequest(reference=alias, view=model_pb2.MODEL_VIEW_BASIC)
        return self._connection.unary(methods.RESOLVE_MODEL, request)


def _alias_of_promotion(alias: Any, model: Any) -> Reference:
    """Parse `name@alias`, or the word of an alias alone, and find out whether the arguments are swapped."""
    if isinstance(alias, Model) or (isinstance(alias, str) and ":" in alias and "@" not in alias):
        shown = alias.reference if isinstance(alias, Model) else alias
        word = model if isinstance(model, str) and not set(model) & set(":/") else "name@production"
        raise InvalidArgument(
            f"alias: {shown} names a version, not an alias.",
            hint=f'The alias comes first, then the model: promote("{word}", "{shown}").',
        )
    return parse_alias(alias, needs_name=False)
