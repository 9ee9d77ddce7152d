"""The error of a server whose port is taken."""

from registry_service.domain.user_error import UserError


class PortTakenError(UserError):
    """The server cannot listen on its address. The message names it."""
