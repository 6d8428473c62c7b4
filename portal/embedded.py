"""The embedded default's database, brought up to date by whichever command comes first."""

import fcntl
import sys
from collections.abc import Sequence
from pathlib import Path

# Commands that look at no row of ours, that are themselves about migrations, or (the demo) that
# run their portal in child processes, on a data folder of its own.
WITHOUT_DATABASE = frozenset(
    {"check", "compilemessages", "demo", "diffsettings", "help", "makemessages", "makemigrations"}
    | {"migrate", "optimizemigration", "showmigrations", "sqlmigrate", "squashmigrations"}
    | {"apply", "login", "repair", "status", "test", "verify", "version"}
)


def needs_database(argv: Sequence[str]) -> bool:
    """Whether the command in ``argv`` reads or writes rows."""
    command = argv[1] if len(argv) > 1 else "help"
    return command not in WITHOUT_DATABASE and not {"-h", "--help", "--version"} & set(argv[1:])


def make_data_folder(argv: Sequence[str]) -> None:
    """Make the data folder for the commands that look into the database without needing rows."""
    from django.conf import settings

    without = {"apply", "demo", "help", "login", "repair", "status", "verify", "version"}
    if len(argv) > 1 and argv[1] not in without:
        Path(settings.DATA).mkdir(mode=0o700, parents=True, exist_ok=True)


def embedded_file() -> Path:
    """Return where the embedded default keeps its database."""
    from django.conf import settings

    return Path(settings.DATA) / "weighbridge.sqlite3"


def bring_up_to_date() -> None:
    """Migrate the embedded database; on any other, stop and say so.

    Raises:
        SystemExit: the database is not the embedded one, and migrations are missing.
    """
    import django
    from django.conf import settings

    django.setup()
    from django.core.management import call_command
    from django.db import connection
    from django.db.migrations.executor import MigrationExecutor

    def is_behind() -> bool:
        executor = MigrationExecutor(connection)
        return bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))

    if settings.DATABASES["default"] is not settings.EMBEDDED_DATABASE:
        if is_behind():
            sys.exit("The database is not up to date: run `manage.py migrate`, then try again.")
        return
    settings.DATA.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (settings.DATA / "migrate.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # `serve` and `worker` often start together
        if is_behind():
            call_command("migrate", verbosity=0, interactive=False)
