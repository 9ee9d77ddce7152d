"""AliasService."""

from contextlib import nullcontext
from datetime import timedelta

import grpc
from modelregistry.v1 import alias_pb2, alias_service_pb2_grpc
from modelregistry.v1 import alias_service_pb2 as pb

from registry_service.domain.aliases import (
    Alias,
    AliasMove,
    AliasTarget,
    MoveKind,
    Remark,
    checked_alias,
    checked_remark,
)
from registry_service.domain.errors import InvalidArgumentError
from registry_service.domain.model_groups import checked_group_id
from registry_service.domain.promotion import MAX_AGE_FIELD, Check, MetricBound, Requirements, checked_requirements
from registry_service.domain.validation import checked_model_id
from registry_service.services.aliases import Expectation, Moved
from registry_service.services.services import Services
from registry_service.transport.grpc.convert.values import time_message, time_of
from registry_service.transport.grpc.idempotency import idempotent
from registry_service.transport.grpc.if_match import etag_of, expects_existence
from registry_service.transport.grpc.interceptors.concurrency import long_slot

_ALL = "-"
_KINDS = {
    MoveKind.SET: alias_pb2.AliasMove.KIND_SET,
    MoveKind.ROLLED_BACK: alias_pb2.AliasMove.KIND_ROLLED_BACK,
    MoveKind.DELETED: alias_pb2.AliasMove.KIND_DELETED,
}


def _set_message(moved: Moved) -> pb.SetAliasResponse:
    return pb.SetAliasResponse(
        alias=_alias_message(moved.alias),
        before=_target_message(moved.before),
        changed=moved.changed,
        checks=map(_check_message, moved.checks),
    )


def _rollback_message(moved: Moved) -> pb.RollbackAliasResponse:
    return pb.RollbackAliasResponse(
        alias=_alias_message(moved.alias), before=_target_message(moved.before), changed=moved.changed
    )


def _deletion_message(before: AliasTarget | None) -> pb.DeleteAliasResponse:
    return pb.DeleteAliasResponse(before=_target_message(before))


class AliasServicer(alias_service_pb2_grpc.AliasServiceServicer):
    """Converts requests, calls one method of a service, and converts its result."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @idempotent(pb.SetAliasResponse, _set_message)
    def SetAlias(self, request: pb.SetAliasRequest, context: grpc.ServicerContext) -> Moved:
        group_id, alias = checked_group_id(request.model_group_id), checked_alias(request.alias)
        model_id = checked_model_id(request.model_id, "model_id")
        requirements, remark = _requirements_of(request.requirements), _remark_of(request)
        # A call that reads a whole artifact counts as a stream.
        with long_slot() if requirements.verified else nullcontext():
            return self._services.aliases.set(
                group_id,
                alias,
                model_id,
                expectation=_expectation_of(request, context),
                requirements=requirements,
                remark=remark,
                validate_only=request.validate_only,
            )

    def GetAlias(self, request: pb.GetAliasRequest, context: grpc.ServicerContext) -> alias_pb2.Alias:
        group_id, alias = checked_group_id(request.model_group_id), checked_alias(request.alias)
        at_time = time_of(request.at_time, "at_time") if request.HasField("at_time") else None
        return _alias_message(self._services.aliases.get(group_id, alias, at_time))

    def ListAliases(self, request: pb.ListAliasesRequest, context: grpc.ServicerContext) -> pb.ListAliasesResponse:
        aliases, next_page_token = self._services.aliases.list(
            _group_id_or_all(request.model_group_id), size=request.page_size, token=request.page_token
        )
        return pb.ListAliasesResponse(aliases=map(_alias_message, aliases), next_page_token=next_page_token)

    def ListAliasMoves(
        self, request: pb.ListAliasMovesRequest, context: grpc.ServicerContext
    ) -> pb.ListAliasMovesResponse:
        moves, next_page_token = self._services.aliases.list_moves(
            _group_id_or_all(request.model_group_id),
            None if request.alias == _ALL else checked_alias(request.alias),
            size=request.page_size,
            token=request.page_token,
        )
        return pb.ListAliasMovesResponse(alias_moves=map(_move_message, moves), next_page_token=next_page_token)

    @idempotent(pb.RollbackAliasResponse, _rollback_message)
    def RollbackAlias(self, request: pb.RollbackAliasRequest, context: grpc.ServicerContext) -> Moved:
        return self._services.aliases.rollback(
            checked_group_id(request.model_group_id),
            checked_alias(request.alias),
            to_model_id=checked_model_id(request.to_model_id, "to_model_id") if request.to_model_id else "",
            expectation=_expectation_of(request, context),
            remark=_remark_of(request),
            validate_only=request.validate_only,
        )

    @idempotent(pb.DeleteAliasResponse, _deletion_message)
    def DeleteAlias(self, request: pb.DeleteAliasRequest, context: grpc.ServicerContext) -> AliasTarget | None:
        return self._services.aliases.delete(
            checked_group_id(request.model_group_id),
            checked_alias(request.alias),
            expectation=Expectation(etag=etag_of(request.etag, context)),
            allow_missing=request.allow_missing,
            remark=_remark_of(request),
            validate_only=request.validate_only,
        )


def _group_id_or_all(text: str) -> str | None:
    return None if text == _ALL else checked_group_id(text)


def _expectation_of(
    request: pb.SetAliasRequest | pb.RollbackAliasRequest, context: grpc.ServicerContext
) -> Expectation:
    model_id = request.expected_model_id if request.HasField("expected_model_id") else None
    return Expectation(model_id=model_id, etag=etag_of(request.etag, context), must_exist=expects_existence(context))


def _remark_of(request: pb.SetAliasRequest | pb.RollbackAliasRequest | pb.DeleteAliasRequest) -> Remark:
    return checked_remark(reason=request.reason)


def _requirements_of(message: alias_pb2.PromotionRequirements) -> Requirements:
    return checked_requirements(
        Requirements(
            verified=message.verified,
            max_verification_age=_age_of(message),
            metrics=tuple(
                MetricBound(
                    metric=bound.metric,
                    min=bound.min if bound.HasField("min") else None,
                    max=bound.max if bound.HasField("max") else None,
                )
                for bound in message.metrics
            ),
            same_inputs=message.same_inputs,
            same_outputs=message.same_outputs,
            same_labels=message.same_labels,
        )
    )


def _age_of(message: alias_pb2.PromotionRequirements) -> timedelta | None:
    if not message.HasField("max_verification_age"):
        return None
    try:
        return message.max_verification_age.ToTimedelta()
    except (ValueError, OverflowError) as error:
        raise InvalidArgumentError.of(MAX_AGE_FIELD, "must be a duration, for example 86400s.") from error


def _target_message(target: AliasTarget | None) -> alias_pb2.AliasTarget | None:
    if target is None:
        return None
    return alias_pb2.AliasTarget(model_id=target.model_id, version=target.version, sha256=target.sha256)


def _alias_message(alias: Alias) -> alias_pb2.Alias:
    return alias_pb2.Alias(
        alias=alias.alias,
        model_group_id=alias.group.id,
        model_id=alias.target.model_id,
        version=alias.target.version,
        sha256=alias.target.sha256,
        etag=alias.etag,
        revision=alias.revision,
        update_time=time_message(alias.time),
        actor=alias.actor,
        reason=alias.reason,
    )


def _move_message(move: AliasMove) -> alias_pb2.AliasMove:
    return alias_pb2.AliasMove(
        alias=move.alias,
        model_group_id=move.model_group_id,
        revision=move.revision,
        kind=_KINDS[move.kind],
        before=_target_message(move.before),
        after=_target_message(move.after),
        move_time=time_message(move.time),
        actor=move.actor,
        reason=move.reason,
        request_id=move.request_id,
    )


def _check_message(check: Check) -> alias_pb2.RequirementCheck:
    return alias_pb2.RequirementCheck(requirement=check.requirement, passed=check.passed, description=check.description)
