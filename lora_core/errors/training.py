"""Causes of a run that stopped on the way."""

from lora_core.errors import LoraCoreError


class TrainingError(LoraCoreError):
    """The run stopped on the way."""


class NonFinite(TrainingError):
    """A loss or gradient that is no number; the update was not applied."""

    code = "non_finite"
    message = (
        "The {what} became {value} at step {step}; nothing was updated with it. "
        "Lower the learning rate (now {learning_rate:g}) or alpha."
    )


class MergeMismatch(TrainingError):
    """The merged model does not answer like the trained one."""

    code = "merge_mismatch"
    message = (
        "Merged and unmerged logits differ by {difference:.2e}, more than {tolerance:.2e}; "
        "the model was not saved."
    )


class NonFiniteWeights(TrainingError):
    """A weight that is no number cannot be merged."""

    code = "non_finite_weights"
    message = "The weight of {module} is not finite after merging; the model was not saved."


class NonFiniteStates(TrainingError):
    """The frozen encoder gives numbers that are not finite."""

    code = "non_finite_states"
    message = (
        "The base gives states that are not finite for {texts} of {of} training texts. Set "
        "precision to fp32, or use another base."
    )


class NonFiniteLogits(TrainingError):
    """The trained model answers held-out texts with what is no number."""

    code = "non_finite_logits"
    message = (
        "The answers to {texts} of {of} held-out texts are not finite; the model was not saved. "
        "Lower the learning rate, or set precision to fp32."
    )


class DiskFull(TrainingError):
    """No room to write."""

    code = "disk_full"
    message = "No room on the disk while writing {what}. Free some space and run the job again."


class HubUnavailable(TrainingError):
    """The hub cannot be reached, is broken or asks to wait, and the local cache does not help."""

    code = "hub_unavailable"
    message = "{what} is not in the local cache, and the hub did not give it: {trouble}."


class OutOfMemory(TrainingError):
    """The device has not enough memory."""

    code = "oom_device"
    message = (
        "{device} ran out of memory; at its peak the run held {peak_mb:.0f} MB of it. "
        "Set optim.micro_batch_tokens to {suggested} (now {tokens}), or data.max_length to less."
    )


class OutOfHostMemory(TrainingError):
    """The machine has not enough memory."""

    code = "oom_host"
    message = (
        "The machine, or the limit set for this process, ran out of memory; at its peak the run "
        "held {peak_mb:.0f} MB. Set optim.micro_batch_tokens to {suggested} (now {tokens}), or "
        "data.max_length or data.train_size to less."
    )


class FitOutOfMemory(TrainingError):
    """The machine has not enough memory to fit a linear model."""

    code = "oom_fit"
    message = (
        "The machine, or the limit set for this process, ran out of memory while the linear model "
        "was fitted. Set data.train_size to less, or method.ngram_range to [1, 1]."
    )


class CheckpointCorrupt(TrainingError):
    """A checkpoint with a file missing, extra or changed."""

    code = "checkpoint_corrupt"
    message = "The checkpoint {path} cannot be used: {problem}. Resume from an older one."


class CheckpointMismatch(TrainingError):
    """A checkpoint of another run, or of another version of this program."""

    code = "checkpoint_mismatch"
    message = "The checkpoint {path} is not of this run: {what}."


class ProcessLost(TrainingError):
    """Another process of the run has ended, or cannot be reached."""

    code = "process_lost"
    message = (
        "Another process of this run cannot be reached ({reason}). If it has ended, its own output "
        "or that of torchrun says why."
    )


class Stopped(TrainingError):
    """Someone asked the run to stop."""

    code = "stopped"
    message = "The run was asked to stop at step {step}."
