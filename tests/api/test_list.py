"""The list: newest first, filtered, whole or in pages."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import psycopg
import pytest


@pytest.fixture
def made(client: httpx.Client, shared_database_url: str, user: str, tasks: str) -> list[dict[str, Any]]:
    """Twelve tasks of the user, newest first, of which every third is completed; and some of another user's between."""
    with psycopg.connect(shared_database_url) as connection:
        connection.execute("INSERT INTO users (id) VALUES (%s), (%s)", (user, user + "-other"))
        connection.execute(
            """INSERT INTO tasks (user_id, title, completed)
               SELECT owner, 'task ' || n, n %% 3 = 0
               FROM generate_series(1, 12) AS n, unnest(%s::text[]) AS owner ORDER BY n""",
            ([user, user + "-other"],),
        )
        rows = connection.execute("SELECT id, title FROM tasks WHERE user_id = %s ORDER BY id DESC", (user,)).fetchall()
    return [client.get(f"{tasks}/{task_id}").json() for task_id, _ in rows]


def pages(client: httpx.Client, url: str) -> Iterator[list[dict[str, Any]]]:
    """Follows rel="next" to the end."""
    while True:
        answer = client.get(url)
        assert answer.status_code == 200
        yield answer.json()
        if "link" not in answer.headers:
            return
        link = re.fullmatch(r'<([^>]*)>; rel="next"', answer.headers["link"])
        assert link is not None
        url = link[1]


def test_a_user_without_tasks_has_an_empty_list(client: httpx.Client, tasks: str) -> None:
    answer = client.get(tasks)
    assert (answer.status_code, answer.content, "link" in answer.headers) == (200, b"[]", False)


def test_the_list_is_whole_newest_first_and_only_the_users(
    client: httpx.Client, tasks: str, made: list[dict[str, Any]]
) -> None:
    answer = client.get(tasks)
    assert answer.json() == made
    assert (answer.headers["content-type"], "link" in answer.headers) == ("application/json", False)


@pytest.mark.parametrize("completed", [True, False])
def test_the_list_is_filtered(client: httpx.Client, tasks: str, made: list[dict[str, Any]], completed: bool) -> None:
    answer = client.get(tasks, params={"completed": str(completed).lower()})
    assert answer.json() == [task for task in made if task["completed"] is completed]


@pytest.mark.parametrize("query", ["", "completed=true", "completed=false"])
@pytest.mark.parametrize("limit", [1, 3, 4, 5, 11, 12, 13, 1000])
def test_pages_followed_to_the_end_are_the_list(
    client: httpx.Client, tasks: str, made: list[dict[str, Any]], query: str, limit: int
) -> None:
    whole = client.get(f"{tasks}?{query}").json()
    got = list(pages(client, f"{tasks}?{query}&limit={limit}"))
    assert [task for page in got for task in page] == whole
    # Each page is full but the last, which is never an empty one.
    assert [len(page) for page in got] == [min(limit, len(whole) - start) for start in range(0, len(whole), limit)]


def test_the_next_page_carries_every_other_parameter(
    client: httpx.Client, tasks: str, made: list[dict[str, Any]]
) -> None:
    query = "view=a%26b&limit=2&empty=&completed=false&tag=%C3%A9&tag=x+y&after=" + str(made[0]["id"])
    answer = client.get(f"{tasks}?{query}")
    url = urlsplit(answer.headers["link"].partition(">")[0].lstrip("<"))
    assert url.path == tasks
    assert parse_qsl(url.query, keep_blank_values=True) == [
        ("view", "a&b"),
        ("limit", "2"),
        ("empty", ""),
        ("completed", "false"),
        ("tag", "é"),
        ("tag", "x y"),
        ("after", str(answer.json()[-1]["id"])),
    ]


@pytest.mark.parametrize("rank", [0, 5, 10, 11])
def test_after_a_task_come_the_older_ones(
    client: httpx.Client, tasks: str, made: list[dict[str, Any]], rank: int
) -> None:
    after = made[rank]["id"]
    assert client.get(tasks, params={"after": after}).json() == made[rank + 1 :]
    assert client.get(tasks, params={"after": after, "limit": 3}).json() == made[rank + 1 :][:3]


@pytest.mark.parametrize("after", [1, 2**63 - 1])
def test_after_any_id_at_all(client: httpx.Client, tasks: str, made: list[dict[str, Any]], after: int) -> None:
    assert client.get(tasks, params={"after": after}).json() == ([] if after == 1 else made)


def test_after_a_task_that_was_deleted_the_pages_go_on(
    client: httpx.Client, tasks: str, made: list[dict[str, Any]]
) -> None:
    client.delete(f"{tasks}/{made[4]['id']}")
    assert client.get(tasks, params={"after": made[4]["id"]}).json() == made[5:]


def test_what_is_new_between_two_pages_shifts_nothing(
    client: httpx.Client, tasks: str, made: list[dict[str, Any]]
) -> None:
    got: list[dict[str, Any]] = []
    for page in pages(client, tasks + "?limit=5"):
        got += page
        client.post(tasks, json={"title": "new"})
    assert got == made


def test_a_long_list_comes_whole(client: httpx.Client, shared_database_url: str, user: str, tasks: str) -> None:
    """Every length about the pages in which a list without limit is read."""
    with psycopg.connect(shared_database_url, autocommit=True) as connection:
        connection.execute("INSERT INTO users (id) VALUES (%s)", (user,))
        insert = "INSERT INTO tasks (user_id, title) SELECT %s, 'x' FROM generate_series(1, %s)"
        count = 0
        for wanted in (249, 250, 251, 499, 500, 501, 1001):
            connection.execute(insert, (user, wanted - count))
            count = wanted
            ids = [task["id"] for task in client.get(tasks).json()]
            assert len(ids) == wanted
            assert ids == sorted(ids, reverse=True)
        assert len(client.get(tasks, params={"limit": 1000}).json()) == 1000
        assert client.head(tasks).content == b""


def test_a_page_that_is_cut_behind_the_last_task_leads_to_no_empty_one(
    client: httpx.Client, shared_database_url: str, user: str, tasks: str
) -> None:
    """250 tasks that are read at once, of which the last ones make the page as large as it may be."""
    with psycopg.connect(shared_database_url, autocommit=True) as connection:
        connection.execute("INSERT INTO users (id) VALUES (%s)", (user,))
        insert = (
            "INSERT INTO tasks (user_id, title, description) SELECT %s, 'x', repeat(chr(1), 4260) "
            "FROM generate_series(1, %s)"
        )
        connection.execute(insert, (user, 250))
        page = client.get(tasks, params={"limit": 1000})
        assert (len(page.json()), page.links) == (250, {})
        connection.execute(insert, (user, 1))
        page = client.get(tasks, params={"limit": 1000})
        assert len(page.json()) == 250
        assert len(client.get(page.links["next"]["url"]).json()) == 1


def changes(client: httpx.Client, tasks: str, made: list[dict[str, Any]]) -> Iterator[str]:
    """Ways in which what a page of five shows changes, one after the other."""
    newest, middle = made[1]["id"], made[2]["id"]  # neither is completed
    client.post(tasks, json={"title": "x"})
    yield "a new task"
    client.put(f"{tasks}/{middle}", json={"title": "y"})
    yield "a task in the middle"
    client.delete(f"{tasks}/{newest}")
    yield "a task less"


@pytest.mark.parametrize("query", ["limit=5", "", "limit=5&completed=false"])
def test_a_page_that_did_not_change_is_not_sent_again(
    client: httpx.Client, tasks: str, made: list[dict[str, Any]], query: str
) -> None:
    url = f"{tasks}?{query}"
    first = client.get(url)
    tag = first.headers["etag"]
    assert re.fullmatch(r'W/"[0-9a-f]{16}"', tag)
    for given in (tag, tag.removeprefix("W/"), f'"1", {tag}', "*"):
        again = client.get(url, headers={"If-None-Match": given})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert client.head(url, headers={"If-None-Match": tag}).status_code == 304
    seen = {tag}
    for change in changes(client, tasks, made):
        now = client.get(url, headers={"If-None-Match": ", ".join(seen)})
        assert now.status_code == 200, change
        assert now.content == client.get(url).content
        seen.add(now.headers["etag"])
    assert len(seen) == 4


def test_a_page_that_has_become_the_last_is_sent_again(
    client: httpx.Client, tasks: str, made: list[dict[str, Any]]
) -> None:
    """What is on it is the same, but its Link to the next is gone."""
    url = f"{tasks}?limit={len(made) - 1}"
    first = client.get(url)
    client.delete(f"{tasks}/{made[-1]['id']}")
    last = client.get(url, headers={"If-None-Match": first.headers["etag"]})
    assert (last.status_code, last.content) == (200, first.content)
    assert ("link" in first.headers, "link" in last.headers) == (True, False)


def test_an_empty_list_has_a_tag(client: httpx.Client, tasks: str) -> None:
    tag = client.get(tasks).headers["etag"]
    assert client.get(tasks, headers={"If-None-Match": tag}).status_code == 304
    client.post(tasks, json={"title": "x"})
    assert client.get(tasks, headers={"If-None-Match": tag}).status_code == 200


def test_a_malformed_condition_on_a_list_is_400(client: httpx.Client, tasks: str) -> None:
    answer = client.get(tasks, headers={"If-None-Match": "1"})
    assert (answer.status_code, answer.json()) == (
        400,
        {"error": "If-None-Match must be * or a list of up to 1000 entity tags"},
    )


@pytest.mark.parametrize("length", [5000, 3300])
def test_a_page_ends_early_where_it_would_be_larger_than_6_mib(client: httpx.Client, tasks: str, length: int) -> None:
    """As JSON, U+0001 takes six bytes: 250 such tasks are 7.5 MB, or 5 MB. The pages lead on, and miss nothing."""
    batch = [{"title": str(number), "description": "\x01" * length} for number in range(250)]
    for _ in range(2):
        assert client.post(f"{tasks}/batch", json=batch).status_code == 201
    found: list[int] = []
    url = f"{tasks}?limit=1000"
    while url:
        page = client.get(url)
        assert len(page.content) < 7 * 1024 * 1024
        found += [task["id"] for task in page.json()]
        url = page.links["next"]["url"] if "next" in page.links else ""
    assert len(found) == 500
    assert found == [task["id"] for task in client.get(tasks).json()] == sorted(set(found), reverse=True)


def test_a_page_that_is_read_in_parts_is_one_page(client: httpx.Client, tasks: str) -> None:
    """More than 250 tasks. Large ones in the middle, so that the parts have different sizes."""
    for size in (10, 4000, 10):
        batch = [{"title": str(number), "description": "x" * size} for number in range(200)]
        assert client.post(f"{tasks}/batch", json=batch).status_code == 201
    everything = client.get(tasks).json()
    assert len(everything) == 600
    known: dict[int, dict[str, str]] = {}
    for limit in (251, 599, 600, 601, 1000):
        page = client.get(tasks, params={"limit": limit})
        assert page.json() == everything[:limit]
        assert ("next" in page.links) == (limit < 600)
        if limit < 600:
            assert client.get(page.links["next"]["url"]).json() == everything[limit : 2 * limit]
        known[limit] = {"If-None-Match": page.headers["etag"]}
        assert client.get(tasks, params={"limit": limit}, headers=known[limit]).status_code == 304
    assert client.patch(f"{tasks}/{everything[590]['id']}/complete").status_code == 200
    for limit, headers in known.items():
        answer = client.get(tasks, params={"limit": limit}, headers=headers)
        assert answer.status_code == (304 if limit <= 590 else 200)
