"""The portal's settings, with a data folder that goes when the tests end."""

import os
import tempfile

os.environ["WEIGHBRIDGE_DATA"] = tempfile.mkdtemp(prefix="weighbridge-tests-")

from portal.settings import *  # noqa: F403 - the folder must be chosen first
