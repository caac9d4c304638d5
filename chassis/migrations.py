"""Alembic migrations, one history a service, in plain SQL.

A migration's file is named for its revision: `0001_initial.py`, `0002_....py`; revisions sort by time. A serving
process never imports Alembic: it only reads which revision the newest file has.
"""

import asyncio
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCK = 0x50_55_4B
"""The advisory lock that a migration holds, so that two started at once run one after the other."""

LOCK_TIMEOUT_S = 1


def migrations_folder(service: str) -> Path:
    """Where a service's migrations are."""
    return ROOT / "services" / service / "migrations"


def expected_revision(service: str) -> str:
    """The newest revision that this code knows."""
    return max(file.name.partition("_")[0] for file in (migrations_folder(service) / "versions").glob("[0-9]*_*.py"))


def migrate(service: str, database_url: str) -> None:
    """Bring a service's schema to the newest revision. Safe to run twice, also at once; each revision lands whole or
    not at all.
    """
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_folder(service)).replace("%", "%%"))
    config.attributes["database_url"] = database_url
    command.upgrade(config, "head")


def run() -> None:
    """Run the migrations that Alembic asks for: the body of each service's `migrations/env.py`."""
    from alembic import context

    asyncio.run(_run(context.config.attributes["database_url"]))


async def _run(database_url: str) -> None:
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    url = database_url.replace("postgresql://", "postgresql+asyncpg://", 1)
    engine = create_async_engine(url, poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_upgrade)
    finally:
        await engine.dispose()


def _upgrade(connection: Any) -> None:
    from alembic import context

    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
    # A lock of a table for which a migration waits keeps every statement waiting that comes after it: rather fail,
    # having changed nothing, and be run again.
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_S}s'")
    context.configure(connection=connection, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()
