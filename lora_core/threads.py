"""How the threads of a matrix product wait for each other."""

import os


def wait_passively() -> None:
    """Idle OpenMP threads sleep instead of spinning. Call it before torch is loaded.

    A spinning thread holds a core that another process needs: beside a busy service a step took
    six times as long (docs/decisions/0009).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
