"""Reads a Job as JSON from standard input, and writes Ticks and a Result to standard output, one JSON a line.

SIGTERM ends the sending early; the Result is written all the same.
"""

import random
import signal
import sys
from urllib.parse import urlsplit

import msgspec

from tests.load.generator.engine import Engine
from tests.load.generator.job import Job, Result, Tick
from tests.load.workload import request_maker


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)

    def write(message: Tick | Result) -> None:
        sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
        sys.stdout.buffer.flush()

    make = request_maker(job.mix, job.workload, urlsplit(job.url), random.Random(job.seed))
    engine = Engine(job, make, write)
    signal.signal(signal.SIGTERM, lambda *_: engine.stop())
    write(engine.run())


if __name__ == "__main__":
    main()
