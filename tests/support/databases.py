"""What tests do with the database behind the service's back."""

import asyncio

import psycopg


def a_day_passes(url: str, user: str, less: str = "0 s") -> None:
    """The user's idempotency records are 24 hours older, or some time less."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "UPDATE idempotency_keys SET created_at = created_at - interval '24 hours' + %s::interval "
            "WHERE user_id = %s",
            (less, user),
        )


async def until_it_waits(url: str) -> None:
    """Returns when a statement waits for another session's lock."""
    query = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        async with asyncio.timeout(10):
            while not (await connection.execute(query)).rowcount:
                await asyncio.sleep(0.01)
