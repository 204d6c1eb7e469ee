"""Which paths are for operators and their tools. Must not import anything of the service."""

# Never rejected for want of room: an orchestrator would restart a service that is only busy, and its operators could
# not see why.
UNSHED = frozenset({"/livez", "/readyz", "/metrics"})
# With ADMIN_PORT on that port alone, and with them all below /docs/.
OPERATOR_PATHS = UNSHED | {"/", "/openapi.json", "/docs"}
