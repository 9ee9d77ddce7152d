"""The logger of the library. It prints nothing unless the program configures `logging`."""

from __future__ import annotations

import logging

logger = logging.getLogger("modelreg")
logger.addHandler(logging.NullHandler())
