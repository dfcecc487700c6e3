"""What DAGs and flows wait for: files that the check writes, so that nothing depends on how fast the
machine is.
"""

import os
import time
from pathlib import Path

# Longest wait, in seconds.
PATIENCE = 600


def wait_for(gate):
    end = time.monotonic() + PATIENCE
    while not (Path(os.environ["REAL_VENDORS_GATES"]) / gate).exists():
        if time.monotonic() > end:
            raise TimeoutError(gate)
        time.sleep(0.1)
