"""/docs: a page that needs nothing from elsewhere, and with which tasks can be made."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec
import pytest

from service.tasks.docs import CONTENT_SECURITY_POLICY, SWAGGER_UI, SWAGGER_UI_VERSION, swagger_file
from tests.support import http
from tests.support.browser import Browser
from tests.support.processes import ROOT, RunningService, wait_ready
from tests.support.tokens import SECRET, SHARED, USER, claims, token

TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}


def test_the_page_and_its_files_come_from_here(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    files = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    files.remove("data:,")  # no icon
    assert len(files) == 3
    for path in files:
        answer = client.get(f"/{path}")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == TYPES[path.rpartition(".")[2]]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "cache-control" in answer.headers
        assert client.head(f"/{path}").headers["content-length"] == str(len(answer.content))


@pytest.mark.parametrize(
    "name",
    [
        "__init__.py",
        "swagger_bundle.js",
        "redoc.js",
        "../service/tasks/docs.py",
        "..%2fservice%2fdocs.py",
        "%2e%2e/%2e%2e/etc/passwd",
        "..%5c..%5cetc%5cpasswd",
        "%2fetc%2fpasswd",
        "swagger-ui.css%00",
        "",
        ".",
    ],
)
def test_no_other_file_is_served(client: httpx.Client, name: str) -> None:
    reply = http.exchange(str(client.base_url), http.request("GET", f"/docs/{name}"))
    assert (reply.status, reply.json()) == (404, {"error": "Not found"})


@pytest.mark.parametrize("name", SWAGGER_UI)
def test_a_file_that_is_not_swaggers_own_is_not_served(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = msgspec.structs.replace(SWAGGER_UI[name], source="redoc.js")
    monkeypatch.setitem(SWAGGER_UI, name, changed)
    swagger_file.cache_clear()
    with pytest.raises(RuntimeError, match=f"is not {name} of swagger-ui-dist {SWAGGER_UI_VERSION}"):
        swagger_file(name)


@pytest.mark.clients
@pytest.mark.parametrize("name", SWAGGER_UI)
def test_the_files_are_those_of_swaggers_release(name: str) -> None:
    release = ROOT / "tests/clients/node_modules/swagger-ui-dist"
    assert json.loads((release / "package.json").read_bytes())["version"] == SWAGGER_UI_VERSION
    assert swagger_file(name) == (release / name).read_bytes()


@pytest.mark.debian
def test_a_task_is_made_on_the_page(clone: Callable[[], str], tmp_path: Path) -> None:
    settings = {"DATABASE_URL": clone(), "AUTH_MODE": "jwt", "AUTH_JWT_SECRET": SECRET}
    with RunningService(tmp_path, **settings) as service, Browser(tmp_path / "profile") as browser:
        wait_ready(service.url)
        browser.open(f"{service.url}/docs")
        operation = "#operations-tasks-create_task"
        status = f"{operation} .live-responses-table tbody .response-col_status"
        browser.click(f"{operation} .opblock-summary-control")
        browser.click(f"{operation} .try-out__btn")
        browser.fill(f"{operation} input[placeholder=user_id]", USER)
        browser.fill(f"{operation} textarea", json.dumps({"title": "Made on the page"}))
        browser.click(f"{operation} .execute")
        assert browser.wait_for(f"document.querySelector('{status}')?.innerText").startswith("401")

        credentials = token(SHARED, claims())
        browser.click(".btn.authorize")
        browser.fill(".auth-container input", credentials)
        browser.click(".auth-btn-wrapper .authorize")
        browser.click(".auth-btn-wrapper .btn-done")
        browser.click(f"{operation} .execute")
        browser.wait_for(f"document.querySelector('{status}')?.innerText.startsWith('201')")

        tasks = httpx.get(f"{service.url}/api/{USER}/tasks", headers={"Authorization": f"Bearer {credentials}"}).json()
        assert [task["title"] for task in tasks] == ["Made on the page"]
        browser.open(f"{service.url}/docs")  # again: the token is kept
        browser.wait_for("document.querySelector('.btn.authorize')?.classList.contains('locked')")
        listing = "#operations-tasks-list_tasks"
        browser.click(f"{listing} .opblock-summary-control")
        browser.click(f"{listing} .try-out__btn")
        browser.click(f"{listing} .execute")  # as filled in by the document: user-1 is this token's user
        text = f"document.querySelector('{listing} .live-responses-table')?.innerText"
        assert "Made on the page" in browser.wait_for(f"{text}?.includes('Made') && {text}")

        elsewhere = [url for url in browser.requested if not url.startswith((f"{service.url}/", "data:"))]
        assert elsewhere == []
        assert [text for text in browser.complaints if "401" not in text] == []
