"""`python -m verifier`."""

import signal
import sys

# Until the command runs there is nothing to clean up: Ctrl-C while modules load ends the process as
# it ends any other, without a traceback. Where the caller ignores it, it stays ignored.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from .command_line import main

sys.exit(main())
