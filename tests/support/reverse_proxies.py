"""Debian's reverse proxies with the files of deploy/proxies, each before two instances of the service."""

import grp
import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.http import exchange, request
from tests.support.processes import ROOT
from tests.support.waiting import wait_until

NAMES = ("nginx", "haproxy", "apache2", "caddy")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _deployed(name: str, changes: dict[str, str]) -> str:
    """A file of deploy/proxies with its addresses changed."""
    text = (ROOT / "deploy" / "proxies" / name).read_text()
    for before, after in changes.items():
        assert before in text, f"{name}: {before}"
        text = text.replace(before, after)
    return text


def _nginx(folder: Path, port: int, upstreams: dict[str, str]) -> list[str]:
    tasks = _deployed("nginx.conf", upstreams | {"listen 80;": f"listen 127.0.0.1:{port};"})
    (folder / "nginx.conf").write_text(f"""
        daemon off; master_process off; pid {folder}/pid; error_log {folder}/log;
        events {{ }}
        http {{
            access_log off;
            client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
            uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
            {tasks}
        }}
    """)
    return ["nginx", "-c", str(folder / "nginx.conf"), "-e", str(folder / "log")]


def _haproxy(folder: Path, port: int, upstreams: dict[str, str]) -> list[str]:
    (folder / "haproxy.cfg").write_text(_deployed("haproxy.cfg", upstreams | {"bind :80": f"bind 127.0.0.1:{port}"}))
    return ["haproxy", "-f", str(folder / "haproxy.cfg"), "-db"]


def _apache2(folder: Path, port: int, upstreams: dict[str, str]) -> list[str]:
    modules = "/usr/lib/apache2/modules"
    names = (
        "mpm_event",
        "authz_core",
        "headers",
        "proxy",
        "proxy_http",
        "proxy_balancer",
        "lbmethod_byrequests",
        "slotmem_shm",
        "proxy_hcheck",
    )
    loads = "\n".join(f"LoadModule {name}_module {modules}/mod_{name}.so" for name in names)
    account = pwd.getpwuid(os.getuid() or pwd.getpwnam("www-data").pw_uid)
    tasks = _deployed("apache2.conf", upstreams | {"<VirtualHost *:80>": f"<VirtualHost 127.0.0.1:{port}>"})
    (folder / "apache2.conf").write_text(f"""
{loads}
ServerRoot {folder}
ServerName localhost
PidFile {folder}/pid
ErrorLog {folder}/log
DefaultRuntimeDir {folder}
Listen 127.0.0.1:{port}
User {account.pw_name}
Group {grp.getgrgid(account.pw_gid).gr_name}
{tasks}
""")
    return ["apache2", "-f", str(folder / "apache2.conf"), "-DFOREGROUND"]


def _caddy(folder: Path, port: int, upstreams: dict[str, str]) -> list[str]:
    tasks = _deployed("Caddyfile", upstreams | {"\n:80 {": f"\nhttp://:{port} {{\n\tbind 127.0.0.1"})
    (folder / "Caddyfile").write_text("{\n\tadmin off\n\tauto_https off\n}\n" + tasks)
    return ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


_COMMANDS = {"nginx": _nginx, "haproxy": _haproxy, "apache2": _apache2, "caddy": _caddy}


@contextmanager
def reverse_proxy(name: str, folder: Path, upstreams: list[int]) -> Generator[str]:
    """The URL of the proxy before the services on these ports."""
    port = free_port()
    addresses = {f"127.0.0.1:{8001 + n}": f"127.0.0.1:{upstream}" for n, upstream in enumerate(upstreams)}
    program, *arguments = _COMMANDS[name](folder, port, addresses)
    program = shutil.which(program) or f"/usr/sbin/{program}"
    folder.chmod(0o755)
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen([program, *arguments], stdout=output, stderr=output, env=environment, cwd=folder)
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        assert process.poll() is None, (folder / "output").read_text()
        with suppress(OSError):
            return exchange(url, request("GET", "/readyz"), 2).status == 200
        return False

    try:
        wait_until(ready, 15, lambda: (folder / "output").read_text())
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
