"""A wire that repeats, loses, swaps and delays single messages of PostgreSQL at random.
Imports nothing of the service.
"""

import random
from collections import Counter

REPLIES = b"12TDCnZ"  # messages that belong to a statement; not those of starting a session


class NoisyWire:
    """For `Proxy.edit`. One message in `every` is disturbed. One object for each connection is not needed: what is held
    back on one may come on another, which is a disturbance like any other.
    """

    def __init__(self, seed: int, every: int) -> None:
        self.made: Counter[str] = Counter()  # disturbances
        self._random = random.Random(seed)
        self._every = every
        self._held = b""
        self.on = True

    def __call__(self, message: bytes) -> bytes:
        held, self._held = self._held, b""
        if not self.on or message[0] not in REPLIES or self._random.randrange(self._every):
            return message + held  # what was held back comes one message late
        disturbance = self._random.choice(("repeat", "lose", "swap"))
        self.made[disturbance] += 1
        if disturbance == "repeat":
            return message + held + message
        if disturbance == "swap":
            self._held = message
            return held
        return held


class RepeatedReply:
    """For `Proxy.edit`. Repeats one whole reply, from its first message to its ReadyForQuery, now and then."""

    def __init__(self, every: int) -> None:
        self.made = 0
        self.on = True
        self._every = every
        self._seen = 0
        self._reply = b""

    def __call__(self, message: bytes) -> bytes:
        self._reply += message
        if message[:1] != b"Z":
            return message
        reply, self._reply = self._reply, b""
        self._seen += 1
        if not self.on or self._seen % self._every:
            return message
        self.made += 1
        return message + reply
