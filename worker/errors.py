"""Why a worker cannot start a training."""

from app.errors import Conflict, StorageFull


class InputChanged(Conflict):
    """A stored input is not what it was when the job was sent."""

    code = "input_changed"
    message = "The stored file of {name} is missing or has changed. Upload it again."


class NoRoom(StorageFull):
    """Too little disk is free to train and to store the result."""

    code = "disk_full"
    message = (
        "Only {free_mb} MB of the disk are free; {reserve_mb} MB are kept in reserve. "
        "Free some space and run the job again."
    )
