"""How `python -m lora_core` leaves, for whoever started it."""

FAILED = 65  # a cause that a user can act on; a `failed` event came before
STOPPED = 75  # asked to stop
