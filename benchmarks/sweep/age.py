"""How old this process is."""

import os
import time
from pathlib import Path


def age() -> float:
    """Seconds since it was started, the start of the interpreter with it; to 0.01 (Linux)."""
    fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # since the machine was started
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started
