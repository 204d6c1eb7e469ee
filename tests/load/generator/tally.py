"""Counts outcomes and latencies, in all and second by second.

A latency is counted under its first eleven binary digits, as HdrHistogram does with three decimal ones: a dictionary
takes 0.2 µs a value, HdrHistogram's record_value 2 µs, which would halve what the generator can send.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable

from hdrh.histogram import HdrHistogram

from tests.load.generator.job import LONGEST_US, Operation, Second, Tick, succeeded

DIGITS = 11


def _quantized(value: int) -> int:
    """The largest value that is counted as the same, as HdrHistogram's percentiles are."""
    shift = value.bit_length() - DIGITS
    return value if shift <= 0 else value | (1 << shift) - 1


def _percentile(counts: dict[int, int], share: float) -> float | None:
    """In ms."""
    wanted = share / 100 * sum(counts.values())
    for value in sorted(counts):
        wanted -= counts[value]
        if wanted <= 0:
            return value / 1e3
    return None


def _capped(value: float | None, longest: float | None) -> float | None:
    return value if value is None or longest is None else min(value, longest)


class _Counts:
    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.latencies: defaultdict[int, int] = defaultdict(int)
        self.sum_us = 0
        self.max_us = 0

    def histogram(self) -> HdrHistogram:
        histogram = HdrHistogram(1, LONGEST_US, 3)
        for value, count in self.latencies.items():
            histogram.record_value(max(1, value), count)
        return histogram


class Tally:
    """`operations` have a line in each second, also where nothing came: a gap would hide a stall."""

    def __init__(self, operations: Iterable[str] = ()) -> None:
        self._known = sorted(operations)
        self._all: defaultdict[str, _Counts] = defaultdict(_Counts)
        self._second: defaultdict[str, _Counts] = defaultdict(_Counts)
        self._over_time: list[Second] = []
        self._lags: defaultdict[int, int] = defaultdict(int)
        self.in_time: Counter[str] = Counter()
        self.warm_up: Counter[str] = Counter()
        self.received_bytes = 0

    def count(self, operation: str, outcome: str, latency_s: float | None) -> None:
        """`latency_s` of a success or of a request that waited in vain, else None."""
        both = (self._all[operation], self._second[operation])
        for counts in both:
            counts.outcomes[outcome] += 1
        if latency_s is not None:
            us = min(int(latency_s * 1e6), LONGEST_US)
            value = _quantized(us)
            for counts in both:
                counts.latencies[value] += 1
                if us > counts.max_us:
                    counts.max_us = us
            both[0].sum_us += us

    def lag(self, seconds: float) -> None:
        self._lags[_quantized(int(seconds * 1e6))] += 1

    def end_second(self, second: int) -> Tick:
        """Closes a second. Its figures are computed now, so that a long run does not keep every second's latencies."""
        requests = errors = 0
        together: Counter[int] = Counter()
        for operation in sorted({*self._known, *self._second}):
            counts = self._second[operation]
            failed = sum(count for outcome, count in counts.outcomes.items() if not succeeded(outcome))
            total = counts.outcomes.total()
            longest = counts.max_us / 1e3 if counts.latencies else None
            p50, p90, p99 = (_capped(_percentile(counts.latencies, share), longest) for share in (50, 90, 99))
            self._over_time.append(Second(second, operation, total, failed, p50, p90, p99, longest))
            requests, errors = requests + total, errors + failed
            together.update(counts.latencies)
        self._second.clear()
        return Tick(second, requests, errors, _percentile(together, 99))

    def operations(self) -> list[Operation]:
        made: list[Operation] = []
        for name, counts in sorted(self._all.items()):
            timed = sum(counts.latencies.values())
            mean, longest = (counts.sum_us / timed / 1e3, counts.max_us / 1e3) if timed else (None, None)
            encoded = counts.histogram().encode().decode()
            made.append(Operation(name, dict(counts.outcomes), mean, encoded, longest, self.in_time[name]))
        return made

    @property
    def over_time(self) -> list[Second]:
        return self._over_time

    @property
    def pending(self) -> bool:
        """Whether the second that is not closed yet holds anything."""
        return bool(self._second)

    @property
    def lag_us(self) -> int:
        return round((_percentile(self._lags, 99) or 0) * 1e3)
