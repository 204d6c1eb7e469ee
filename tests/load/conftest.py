"""The harness's tests need what the harness needs: the extra `load`."""

from importlib.util import find_spec

MISSING = [name for name in ("hdrh", "matplotlib", "fastapi", "sqlmodel", "asyncpg") if find_spec(name) is None]
collect_ignore_glob = ["test_*.py"] if MISSING else []


def pytest_report_header() -> list[str]:
    return [f"tests/load is left out: {', '.join(MISSING)} not installed (extra `load`)"] if MISSING else []
