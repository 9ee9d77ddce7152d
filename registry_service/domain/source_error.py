"""The error of a source that cannot be imported or restored."""

from registry_service.domain.user_error import UserError


class SourceError(UserError):
    """An Intel deployment cannot be imported, or a backup cannot be written or restored.

    The message tells the operator why.
    """
