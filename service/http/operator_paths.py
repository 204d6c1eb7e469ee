"""Which paths are for operators and their tools. Must not import anything of the service."""

PROBES = frozenset({"/livez", "/readyz"})
# Never rejected for want of room: an orchestrator would restart a service that is only busy, and its operators could
# not see why.
UNSHED = PROBES | {"/metrics"}
OPERATOR_PATHS = UNSHED | {"/", "/openapi.json", "/docs"}


def is_for_operators(path: str) -> bool:
    """With ADMIN_PORT, these are on that port alone."""
    return path in OPERATOR_PATHS or path.startswith("/docs/")
