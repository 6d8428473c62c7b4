"""Does a copy of a checkpoint still think alike?

Runs any copy, whatever its layout, on fixed token ids and compares the answers with the published
reference. Knows nothing of Django; may use ``verifier`` to read files.

Importing this package is cheap: torch is imported by the modules that compute.
"""

import os

# Read by OpenMP when torch is imported: idle threads that spin would take the cores from reading
# and hashing.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
