"""The same API on asyncio: every method that calls the registry is a coroutine.

async with modelreg.aio.Registry() as registry:
    model = await registry.model("vad@production")
"""

from modelreg._async.listing import Listing
from modelreg._async.registry import Registry

__all__ = ["Listing", "Registry"]
