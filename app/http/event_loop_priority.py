"""The priority of the event loop over threads that compute."""

import os
import sys
import threading


def raise_event_loop_priority() -> bool:
    """Make the calling thread a real-time thread, if that is permitted; return whether it is.

    Only Linux has priorities of threads. Root may do this, and so may a process with an `rtprio`
    limit of 1 or more. Otherwise the scheduler lets other threads finish their time slice of some
    milliseconds first. Threads and processes that this thread starts are normal ones.
    """
    if sys.platform != "linux":
        return False
    policy = os.SCHED_RR | os.SCHED_RESET_ON_FORK
    lowest = os.sched_param(os.sched_get_priority_min(os.SCHED_RR))
    try:
        os.sched_setscheduler(threading.get_native_id(), policy, lowest)
    except OSError:
        return False
    return True
