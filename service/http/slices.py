"""Work on a large body in slices of the event loop's time, so that other requests go on."""

import asyncio
from time import perf_counter

# How long the work may keep the event loop busy at once, and how long it then pauses. sleep(0) would be too short: a
# get takes five turns of the loop, so five slices would delay it.
SLICE_S = 0.002


class Slices:
    """Of one piece of work that begins now."""

    __slots__ = ("_began",)

    def __init__(self) -> None:
        self._began = perf_counter()

    async def pause(self) -> None:
        """To be called between steps of less than SLICE_S: pauses where the slice is used up."""
        if perf_counter() - self._began > SLICE_S:
            await asyncio.sleep(SLICE_S)
            self._began = perf_counter()
