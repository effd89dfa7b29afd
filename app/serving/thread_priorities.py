"""Priorities of threads: the event loop first, then predictions (docs/decisions/0070).

Only Linux has a priority per thread.
"""

import os
import sys
import threading

# As many threads compute as there are cores. At the same priority the event loop waits for one of
# them with every request: at five times the capacity, rejections took four seconds.
_COMPUTE_NICENESS = 5


def raise_event_loop_priority() -> bool:
    """Make the calling thread a real-time thread, if that is permitted; return whether it is.

    It is permitted with CAP_SYS_NICE, or with an `rtprio` limit of 1 or more. Otherwise the
    scheduler lets other threads finish their time slice of some milliseconds first. Threads and
    processes that this thread starts are normal ones.
    """
    if sys.platform != "linux":
        return False
    policy = os.SCHED_RR | os.SCHED_RESET_ON_FORK
    lowest = os.sched_param(os.sched_get_priority_min(os.SCHED_RR))
    try:
        os.sched_setscheduler(0, policy, lowest)
    except OSError:
        return False
    return True


def lower_compute_priority() -> None:
    """Lower the priority of the calling thread, and of the OpenMP threads that it will start."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _COMPUTE_NICENESS)
