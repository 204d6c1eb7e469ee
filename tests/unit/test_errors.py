"""The error catalogue: it is the only place where sentences for clients are written."""

import ast
import inspect
from collections import Counter
from pathlib import Path

import pytest

import service
from service.http import errors
from service.http.errors import ApiError
from service.tasks import openapi

SERVICE = Path(service.__file__).parent
ARGUMENTS = {"allow": b"GET", "header": "If-Match", "name": "limit", "index": 3, "error": errors.title_empty()}
ARGUMENTS |= {"message": "No session", "version": 3}


def _catalogue() -> dict[str, ApiError]:
    made: dict[str, ApiError] = {}
    for name, function in inspect.getmembers(errors, inspect.isfunction):
        if not name.startswith("_"):
            needed = [p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty]
            made[name] = function(**{argument: ARGUMENTS[argument] for argument in needed})
    return made


CATALOGUE = _catalogue()


def test_each_sentence_has_one_constructor() -> None:
    repeated = Counter(error.message for error in CATALOGUE.values() if error.field != "3.title")
    assert [message for message, count in repeated.items() if count > 1] == []


@pytest.mark.parametrize("name", CATALOGUE)
def test_an_error_has_a_status_and_one_sentence_and_a_docstring(name: str) -> None:
    error = CATALOGUE[name]
    assert 400 <= error.status < 600
    assert error.message
    assert not error.message.endswith(".")
    assert inspect.getdoc(getattr(errors, name))


@pytest.mark.parametrize("path", [path for path in SERVICE.rglob("*.py") if path.name != "errors.py"], ids=str)
def test_no_other_module_writes_a_sentence(path: Path) -> None:
    """error_handler alone makes an ApiError itself: of Litestar's own exceptions, whose statuses have phrases."""
    sentences = {error.message for error in CATALOGUE.values()}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "ApiError":
            assert path.name == "error_handler.py"
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert node.value not in sentences


# Sentences that no operation can be said to respond with.
NOT_IN_THE_DOCUMENT = {
    "unauthenticated": "has the sentence of a custom authenticator",
    "unknown_expectation": "of the connection, whatever the operation",
    "method_not_implemented": "of the connection, whatever the operation",
    "transfer_coding_not_implemented": "of the connection, whatever the operation",
    "version_not_supported": "of the connection, whatever the operation",
    "origin_not_allowed": "of a preflight",
    "body_cut_off": "its client is gone",
    "title_not_trimmed": "only if the service and the schema disagree",
}


def test_every_sentence_is_in_the_openapi_document() -> None:
    document = openapi.document(token_needed=True).decode()
    missing = {name for name, error in CATALOGUE.items() if error.message.partition('"')[0] not in document}
    assert missing == NOT_IN_THE_DOCUMENT.keys()
