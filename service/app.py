"""Puts the parts together. The only module that imports all packages below it."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from litestar import Litestar

from service import auth
from service.auth import Authenticator, ManagedAuthenticator
from service.database import Database
from service.http import admin_port
from service.http.asgi import ASGIApp
from service.http.browser_guard import browser_guard, guarding
from service.http.capacity import Capacity
from service.http.cors import CorsPolicy
from service.http.error_handler import handle_exception
from service.http.errors import AuthFailure
from service.http.forwarded import trusting
from service.http.load_shedding import in_turn, shedding
from service.monitoring import health, metrics, tracing
from service.monitoring.request_log import RequestLog, as_is, hashed
from service.settings import Settings, SettingsError
from service.tasks import docs, openapi, routing
from service.tasks.fast_path import FastPath
from service.tasks.queries import STATEMENTS, Queries
from service.tasks.routing import exact_paths, task_requests


@dataclass(frozen=True, slots=True)
class Service:
    """The ASGI application, and the parts by which a server stops it and tells whether it is ready."""

    app: ASGIApp
    health: health.Health
    capacity: Capacity


def create_app(settings: Settings, authenticator: Authenticator | None = None) -> ASGIApp:
    """The service as an ASGI application, for any server. See `create_service`. Raises SettingsError."""
    return create_service(settings, authenticator).app


def create_service(
    settings: Settings,
    authenticator: Authenticator | None = None,
    *,
    metrics_folder: Path | None = None,
    fast_path: bool = True,
) -> Service:
    """The service for service.server.

    `settings.database_url` must be set: `serve` starts an embedded database, this does not. `authenticator` replaces
    the one that the settings ask for. `metrics_folder` is where several workers leave their numbers for each other.
    Without `fast_path` Litestar serves every request by itself, and errors have no turns. Raises SettingsError.
    """
    if settings.database_url is None:
        raise SettingsError(["DATABASE_URL must be set"])
    database = Database(
        settings.database_url.reveal(),
        connections=settings.db_connections,
        prepare=settings.db_prepare,
        connect_timeout_s=settings.connect_timeout_s,
        statement_timeout_s=settings.statement_timeout_ms / 1000,
        deadline_s=settings.request_deadline_ms / 1000,
        max_queued=settings.max_in_flight,
        verify=STATEMENTS,
    )
    authenticator = authenticator or auth.from_settings(settings)
    state = health.Health(database)
    capacity = Capacity(
        settings.max_in_flight,
        max_per_user=settings.user_share,
        max_buffered=settings.buffer_bytes,
    )
    auth_failures: Counter[AuthFailure] = Counter()
    numbers = metrics.Metrics(database, capacity, auth_failures, authenticator, metrics_folder)
    tracer = tracing.from_environment()

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncGenerator[None]:
        await database.open()
        numbers.start()
        if isinstance(authenticator, ManagedAuthenticator):
            await authenticator.start()
        try:
            yield
        finally:
            state.stopping = True
            if isinstance(authenticator, ManagedAuthenticator):
                await authenticator.aclose()
            await database.close()
            numbers.stop()
            if tracer is not None:
                await asyncio.to_thread(tracer.close)

    cors = CorsPolicy(settings) if settings.cors_allow_origins else None
    guard = browser_guard(settings, cors) if authenticator is None else None
    make = task_requests(authenticator, Queries(database), auth_failures, guard)
    litestar = Litestar(
        route_handlers=[
            routing.router(make),
            health.router(state),
            metrics.router(numbers),
            docs.router(partial(openapi.document, token_needed=authenticator is not None)),
        ],
        lifespan=[lifespan],
        exception_handlers={Exception: handle_exception},
        openapi_config=None,
        logging_config=None,  # service.monitoring.logs is the only one to configure logging
    )
    app = exact_paths(litestar)
    if guard is not None:
        app = guarding(app, guard, admin_port=settings.admin_port)
    if fast_path:
        app = FastPath(litestar, make, otherwise=in_turn(app))
    app = shedding(app, capacity)
    if cors is not None:
        app = cors.around(app)
    if settings.admin_port:
        app = admin_port.split(app, settings.admin_port)
    if settings.trusted_proxies:
        app = trusting(app, settings.trusted_proxies)
    app = RequestLog(
        app,
        numbers,
        slow_s=settings.slow_request_ms / 1000,
        access_log=settings.access_log,
        show_user=hashed if settings.log_users == "hash" else as_is,
        tracer=tracer,
    )
    return Service(app, state, capacity)
