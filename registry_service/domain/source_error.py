"""The error of a source that cannot be imported or restored."""


class SourceError(Exception):
    """An Intel deployment cannot be imported, or a backup cannot be written or restored.

    The message tells the operator why.
    """
