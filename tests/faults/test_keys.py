"""The identity provider's keys rotate, or cannot be had."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.api.test_auth_endpoints import as_user, guarded, tasks_of, with_headers
from tests.support import tokens
from tests.support.http import Client
from tests.support.identity_provider import Provider
from tests.support.processes import RunningService, wait_ready


def test_keys_are_followed_through_rotation_and_outage(clone: Callable[[], str], tmp_path: Path) -> None:
    old, new = tokens.ed25519_signer("old"), tokens.es256_signer("new")

    def status(client: Client, signer: tokens.Signer) -> int:
        return client.send(
            "GET", tasks_of(tokens.USER), headers=with_headers([tokens.bearer(tokens.token(signer))])
        ).status

    with Provider([old.jwk]) as provider, guarded(tmp_path, clone(), AUTH_JWKS_URL=provider.url) as running:
        wait_ready(running.url)
        with Client(running.url) as client:
            assert status(client, old) == 200
            assert status(client, old) == 200
            provider.publish([old.jwk, new.jwk])
            assert status(client, new) == 200
            assert status(client, old) == 200
            provider.answer(500)
            assert status(client, new) == 200
            running_lines = json.dumps(running.lines)
    assert "usable keys from 127.0.0.1: 2" in running_lines
    assert "AUTH_ISSUER is not set" not in running_lines
    assert provider.times_asked == 2


def test_without_keys_the_service_is_unavailable_and_says_so(clone: Callable[[], str], tmp_path: Path) -> None:
    with Provider([]) as gone:
        pass
    settings = {"DATABASE_URL": clone(), "AUTH_MODE": "jwt", "AUTH_JWKS_URL": gone.url}
    with RunningService(tmp_path, **settings) as running:
        wait_ready(running.url)
        with Client(running.url) as client:
            answer = client.send("GET", tasks_of(tokens.USER), headers=as_user(tokens.USER))
            assert (answer.status, answer.json()) == (503, {"error": "Service is temporarily unavailable"})
            assert answer.headers["retry-after"] == "1"
            assert client.send("GET", tasks_of(tokens.USER)).status == 401
    said = "\n".join(running.lines)
    assert "cannot fetch keys from 127.0.0.1: ConnectError" in said
    assert "no token can be verified yet" in said
    assert "AUTH_ISSUER is not set: the issuer of a token is not checked" in said
    assert "AUTH_AUDIENCE is not set: a token made for another service is accepted here" in said
    assert "Traceback" not in said
