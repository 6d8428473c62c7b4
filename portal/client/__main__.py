"""Entry point of `python -m portal.client`."""

from .command_line import main

if __name__ == "__main__":
    raise SystemExit(main())
