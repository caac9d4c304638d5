"""What Alembic runs for each command: the chassis knows how."""

from chassis.migrations import run

run()
