"""Alembic's entry point."""

from chassis.migrations import run

run()
