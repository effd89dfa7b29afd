"""Why a worker cannot start a training."""

from app.errors import AppError, Conflict


class Fenced(Exception):
    """The job is in other hands; nothing may be written."""


class InputChanged(Conflict):
    """A stored input is not what it was when the job was sent."""

    code = "input_changed"
    message = "The stored file of {name} is missing or has changed. Upload it again."


class GpuDriverFails(AppError):
    """The GPUs of the machine cannot be listed."""

    status = 500
    code = "gpu_driver_fails"
    message = (
        "`nvidia-smi` cannot list the GPUs: {reason}. "
        "Mend the driver, or set LORAWORKS_DEVICES=cpu to train on the CPU."
    )


class GpuMissing(AppError):
    """A GPU of the settings is not there."""

    status = 500
    code = "gpu_missing"
    message = (
        "LORAWORKS_DEVICES names {name}, which this worker does not see. It sees: {there}. "
        "`nvidia-smi` lists the GPUs; CUDA_VISIBLE_DEVICES may hide some."
    )
