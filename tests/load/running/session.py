"""A run from its first task to the deletion of its last, whatever ends it."""

import secrets
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

import msgspec

from tests.load.generator import job as generator
from tests.load.generator.job import EndedEarly, Job, Result, Tick
from tests.load.running.accounts import ServiceError, Tasks
from tests.load.workload import Account, Workload

EVERY_S = 5  # between two lines of progress
GRACE_S = 0.5  # more than the generator needs to notice a timeout


class Plan(msgspec.Struct):
    """What is to be run. Times in seconds."""

    url: str
    accounts: list[Account]
    tasks: int  # for each account
    mix: dict[str, float]
    rate: float | None
    connections: int
    seconds: float
    warm_up: float
    timeout: float
    headers: dict[str, str]
    insecure: bool
    keep: bool
    run: str = msgspec.field(default_factory=lambda: secrets.token_hex(4))

    @property
    def title(self) -> str:
        """How the titles of the run's tasks begin."""
        return f"Load test {self.run}"

    def load(self) -> str:
        """In a sentence."""
        share = 100 / sum(self.mix.values())
        mix = ", ".join(f"{weight * share:g} % {name}" for name, weight in self.mix.items())
        way = (
            f"Closed loop of {self.connections:,} connections"
            if self.rate is None
            else f"Open loop of {self.rate:g} requests a second on up to {self.connections:,} connections"
        )
        return f"{way}, {self.seconds:g} s after {self.warm_up:g} s of warm-up: {mix}."

    def announcement(self) -> str:
        """What the run does to accounts, said before it does it."""
        users = [account.user for account in self.accounts]
        whose = ", ".join(users[:3]) + (f" and {len(users) - 3:,} more" if len(users) > 3 else "")
        total = self.tasks * len(users)
        each = f", {self.tasks:,} each" if len(users) > 1 else ""
        creates = self.mix.get("create", 0) / sum(self.mix.values())
        more = ""
        if creates and self.rate:
            count = self.rate * creates * (self.seconds + self.warm_up)
            more = f", and about {count:,.0f} more during the run"
        elif creates:
            more = ", and one more with every create of the run"
        after = "They stay afterwards (--keep)." if self.keep else "All of them are deleted afterwards."
        accounts = "account" if len(users) == 1 else "accounts"
        return (
            f"Puts {total:,} {'task' if total == 1 else 'tasks'} into the {accounts} of {whose}{each}{more}. {after} "
            f"Their titles begin with {self.title!r}."
        )


class Ended(KeyboardInterrupt):
    """A signal has ended the run."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.status = 128 + number


class Finished(msgspec.Struct):
    """`result` is None where the run ended before the load began; `left` where the tasks stay, or deleting was ended.
    `status` is 0, or that of the signal that ended the run.
    """

    result: Result | None
    status: int
    deleted: int
    left: int | None


def run(plan: Plan, say: Callable[[str], None]) -> Finished:
    """Makes the tasks, runs the load and deletes the tasks. Raises ServiceError for a service that cannot be used and
    RuntimeError for a generator that failed; the tasks that are there by then are deleted.
    """
    workload = Workload(accounts=plan.accounts, title=plan.title, headers=plan.headers)
    result, status, deleted, left = None, 0, 0, None
    clean = not plan.keep
    with Tasks(plan.url, workload, insecure=plan.insecure, timeout=plan.timeout, say=say) as tasks:
        try:
            with _handled(_end):
                say(f"{plan.url}: {plan.load()}")
                if clean:
                    try:
                        tasks.check()
                    except ServiceError:
                        clean = False  # nothing was made, or it cannot be deleted
                        raise
                say(plan.announcement())
                tasks.make(plan.tasks)
                result, status = _load(plan, workload, say)
        except Ended as ended:
            status = ended.status
        finally:
            if tasks.in_doubt:
                say(f"The first POST had no response: a task may be left, whose title begins with {plan.title!r}.")
            elif clean and tasks.made:
                deleted, left = _clean(plan, tasks, result, say)
    return Finished(result, status, deleted, left)


def _load(plan: Plan, workload: Workload, say: Callable[[str], None]) -> tuple[Result | None, int]:
    """The result, if there is one, and the status of the signal that ended the load early, or 0."""
    job = Job(
        url=plan.url,
        mix=plan.mix,
        workload=workload,
        seconds=plan.seconds,
        rate=plan.rate,
        connections=plan.connections,
        warm_up=plan.warm_up,
        timeout=plan.timeout,
        grace=plan.timeout + GRACE_S,  # what is slow is no error, but for --timeout
        insecure=plan.insecure,
    )

    def progress(tick: Tick) -> None:
        if (tick.second + 1) % EVERY_S == 0:
            p99 = "" if tick.p99 is None else f"  p99 {tick.p99:8.1f} ms"
            say(f"{tick.second + 1:5} s  {tick.requests - tick.errors:8,}/s{p99}  errors {tick.errors:,}")

    with generator.started(job) as running:
        say("the load begins")
        try:
            return running.wait(progress), 0
        except Ended as ended:
            say("stopping")
            running.stop()
            try:
                return running.wait(), ended.status
            except EndedEarly:
                return None, ended.status


def _clean(plan: Plan, tasks: Tasks, result: Result | None, say: Callable[[str], None]) -> tuple[int, int | None]:
    """How many tasks were deleted, and how many are left; None where that is not known. Does not fail: an error that
    is on its way says more.
    """
    say("deleting the run's tasks")
    titles = f"Their titles begin with {plan.title!r}."
    try:
        with _handled(_end_at_the_second(say)):
            deleted, left = tasks.delete(in_doubt=result is None or result.requests > result.responses)
    except (Ended, ServiceError) as error:
        say(f"Tasks of this run may be left. {titles} {error}".rstrip())
        return 0, None
    if left:
        say(f"{left:,} tasks could not be deleted. {titles}")
    else:
        say(f"{deleted:,} tasks deleted, none is left")
    return deleted, left


Handler = Callable[[int, FrameType | None], None]


def _end(number: int, _: FrameType | None) -> None:
    raise Ended(number)


def _end_at_the_second(say: Callable[[str], None]) -> Handler:
    """Deleting goes on at the first signal."""
    seen: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        if seen:
            raise Ended(number)
        seen.append(number)
        say("deleting the run's tasks; once more to leave them")

    return handle


@contextmanager
def _handled(handler: Handler) -> Generator[None]:
    """With this handler of the signals that end a process."""
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
