"""The base of errors that the command line explains."""


class UserError(Exception):
    """An error that the operator can fix, such as a taken port or an unusable file. The message says how."""
