#!/usr/bin/env python
"""The portal's command line: `manage.py demo`, `serve`, `worker`, `publish`, `verify` and Django's own."""

import os
import sys


def main() -> None:
    """Run the command named in the arguments, with the embedded database up to date."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    from django.core.management import execute_from_command_line

    from portal.embedded import bring_up_to_date, make_data_folder, needs_database

    make_data_folder(sys.argv)
    if needs_database(sys.argv):
        bring_up_to_date()
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
