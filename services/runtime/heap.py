"""Keeps the garbage collector away from what lives as long as the process.

Price tables, model catalogues, generated classes: some 200,000 objects that a full collection walks, 0.1 s at a time, in the way of every
stream. Measured on a miss in one process, collecting took a fifth of the CPU; with the start's objects set aside, a fiftieth.
"""

import asyncio
import gc

# What is loaded lazily (the cache's store, the first prices) is there by then.
_SETTLED_AFTER_S = (5.0, 30.0)
# Requests leave no cycles behind, and protobuf messages and bytes are not tracked at all. Each collection looks at all that running
# requests hold, some 5,000 objects where dozens run: a threshold near that has it looked at again and again.
_THRESHOLDS = (20_000, 50, 100)


async def settle() -> None:
    """Sets aside what is there now, and again what the first seconds bring."""
    gc.set_threshold(*_THRESHOLDS)
    gc.collect()
    gc.freeze()
    for seconds in _SETTLED_AFTER_S:
        await asyncio.sleep(seconds)
        gc.freeze()
