"""Enums of the API that filters also use. Storage has their values."""

from enum import StrEnum


class Action(StrEnum):
    """What an event records."""

    MODEL_REGISTERED = "model.registered"
    MODEL_UPDATED = "model.updated"
    MODEL_DELETED = "model.deleted"
    ALIAS_SET = "alias.set"
    ALIAS_ROLLED_BACK = "alias.rolled_back"
    ALIAS_DELETED = "alias.deleted"
    MODEL_GROUP_UPDATED = "model_group.updated"
    MODEL_GROUP_DELETED = "model_group.deleted"
    TOKEN_CREATED = "token.created"  # noqa: S105 - no password
    TOKEN_REVOKED = "token.revoked"  # noqa: S105
    UNKNOWN = ""
    """The action of a damaged event."""


class MetricGoal(StrEnum):
    """Whether higher or lower values of a metric are better."""

    MAXIMIZE = "maximize"
    MINIMIZE = "minimize"
