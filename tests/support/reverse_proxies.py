"""Debian's reverse proxies, each before two instances of the service, on free ports."""

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
from tests.support.waiting import wait_until

NAMES = ("nginx", "haproxy", "apache2", "caddy")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _nginx(folder: Path, port: int, upstreams: list[int]) -> list[str]:
    servers = "\n".join(f"server 127.0.0.1:{upstream} max_fails=0;" for upstream in upstreams)
    (folder / "nginx.conf").write_text(f"""
        daemon off; master_process off; pid {folder}/pid; error_log {folder}/log;
        events {{ }}
        http {{
            access_log off;
            client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
            uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
            upstream tasks {{ {servers} keepalive 32; }}
            server {{
                listen 127.0.0.1:{port};
                client_max_body_size 0;
                location / {{
                    proxy_pass http://tasks;
                    proxy_http_version 1.1;
                    proxy_set_header Connection "";
                    proxy_set_header Host $host;
                    proxy_next_upstream error timeout http_503 non_idempotent;
                }}
            }}
        }}
    """)
    return ["nginx", "-c", str(folder / "nginx.conf"), "-e", str(folder / "log")]


def _haproxy(folder: Path, port: int, upstreams: list[int]) -> list[str]:
    servers = "\n".join(f"    server s{n} 127.0.0.1:{upstream} check inter 100" for n, upstream in enumerate(upstreams))
    (folder / "haproxy.cfg").write_text(f"""
global
    maxconn 1000
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    http-reuse always
    option redispatch 1
    retries 5
    retry-on conn-failure empty-response 503
frontend in
    bind 127.0.0.1:{port}
    default_backend tasks
backend tasks
    option httpchk GET /readyz
    http-check send hdr Host tasks.example.com
{servers}
""")
    return ["haproxy", "-f", str(folder / "haproxy.cfg"), "-db"]


def _apache2(folder: Path, port: int, upstreams: list[int]) -> list[str]:
    modules = "/usr/lib/apache2/modules"
    names = (
        "mpm_event",
        "authz_core",
        "proxy",
        "proxy_http",
        "proxy_balancer",
        "lbmethod_byrequests",
        "slotmem_shm",
        "proxy_hcheck",
    )
    loads = "\n".join(f"LoadModule {name}_module {modules}/mod_{name}.so" for name in names)
    health = "retry=1 hcmethod=GET hcuri=/readyz hcinterval=1 hcpasses=1 hcfails=1"
    members = "\n".join(f"BalancerMember http://127.0.0.1:{upstream} {health}" for upstream in upstreams)
    user = pwd.getpwuid(os.getuid()).pw_name
    (folder / "apache2.conf").write_text(f"""
{loads}
ServerRoot {folder}
ServerName localhost
PidFile {folder}/pid
ErrorLog {folder}/log
DefaultRuntimeDir {folder}
Listen 127.0.0.1:{port}
User {"www-data" if user == "root" else user}
LimitRequestBody 0
ProxyPreserveHost On
AllowEncodedSlashes NoDecode
<Proxy balancer://tasks>
{members}
ProxySet failonstatus=503
</Proxy>
ProxyPass / balancer://tasks/ nocanon
""")
    return ["apache2", "-f", str(folder / "apache2.conf"), "-DFOREGROUND"]


def _caddy(folder: Path, port: int, upstreams: list[int]) -> list[str]:
    servers = " ".join(f"127.0.0.1:{upstream}" for upstream in upstreams)
    (folder / "Caddyfile").write_text(f"""
{{
    admin off
    auto_https off
}}
http://:{port} {{
    bind 127.0.0.1
    reverse_proxy {servers} {{
        lb_policy round_robin
        lb_try_duration 5s
        lb_try_interval 50ms
        lb_retry_match method GET POST
        health_uri /readyz
        health_interval 100ms
    }}
}}
""")
    return ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


_COMMANDS = {"nginx": _nginx, "haproxy": _haproxy, "apache2": _apache2, "caddy": _caddy}


@contextmanager
def reverse_proxy(name: str, folder: Path, upstreams: list[int]) -> Generator[str]:
    """The URL of the proxy before the services on these ports."""
    port = free_port()
    program, *arguments = _COMMANDS[name](folder, port, upstreams)
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
