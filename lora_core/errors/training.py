"""Errors that stop a run before it is complete."""

from lora_core.errors import LoraCoreError


class TrainingError(LoraCoreError):
    """The run stopped before it was complete."""


class NonFiniteLoss(TrainingError):
    code = "non_finite"
    title = "The loss or a gradient is NaN or infinite."
    message = (
        "The {what} became {value} at step {step}; the update was not applied. "
        "Lower the learning rate (now {learning_rate:g}) or alpha."
    )


class MergeMismatch(TrainingError):
    code = "merge_mismatch"
    title = "The merged model does not reproduce the trained one."
    message = (
        "Merged and unmerged logits differ by {difference:.2e}, more than {tolerance:.2e}; "
        "the model was not saved."
    )


class NonFiniteMergedWeights(TrainingError):
    code = "non_finite_weights"
    title = "A merged weight is NaN or infinite."
    message = "The weight of {module} is not finite after merging; the model was not saved."


class NonFiniteEncoderStates(TrainingError):
    code = "non_finite_states"
    title = "The frozen encoder computes NaN or infinite states."
    message = (
        "The base model computes NaN or infinite states for {texts} of {of} training texts. Set "
        "precision to fp32, or use another base model."
    )


class NonFiniteVectors(TrainingError):
    code = "non_finite_vectors"
    title = "The base model computes NaN or infinite vectors of texts."
    message = (
        "The base model computes NaN or infinite vectors for {texts} of rows {first} to {last}. "
        "Use another base model."
    )


class NonFiniteLogits(TrainingError):
    code = "non_finite_logits"
    title = "The trained model computes NaN or infinite logits."
    message = (
        "The logits of {texts} of {of} held-out texts are not finite; the model was not saved. "
        "Lower the learning rate, or set precision to fp32."
    )


class DiskFull(TrainingError):
    code = "disk_full"
    title = "No space left on the disk."
    message = "No space left on the disk while writing {what}. Free space and run the job again."


class HubUnavailable(TrainingError):
    code = "hub_unavailable"
    title = "The hub is unreachable, failing or rate limiting, and the local cache has no copy."
    message = "{what} is not in the local cache and cannot be downloaded from the hub: {trouble}."


class DeviceOutOfMemory(TrainingError):
    code = "oom_device"
    title = "The device ran out of memory."
    message = (
        "{device} ran out of memory; the run used {peak_mb:.0f} MB of it at its peak. Lower "
        "optim.micro_batch_tokens to {suggested} (now {tokens}), or lower data.max_length."
    )


class HostOutOfMemory(TrainingError):
    code = "oom_host"
    title = "The host ran out of memory."
    message = (
        "The host ran out of memory, or this process reached its memory limit; the run used "
        "{peak_mb:.0f} MB at its peak. Lower optim.micro_batch_tokens to {suggested} (now "
        "{tokens}), or lower data.max_length or data.train_size."
    )


class LinearFitOutOfMemory(TrainingError):
    code = "oom_fit"
    title = "The host ran out of memory while fitting a linear model."
    message = (
        "The host ran out of memory, or this process reached its memory limit, while fitting the "
        "linear model. Lower data.train_size, or set method.ngram_range to [1, 1]."
    )


class CheckpointCorrupt(TrainingError):
    code = "checkpoint_corrupt"
    title = "A file of the checkpoint is missing, unexpected or modified."
    message = "The checkpoint {path} cannot be used: {problem}. Resume from an earlier one."


class CheckpointMismatch(TrainingError):
    code = "checkpoint_mismatch"
    title = "The checkpoint belongs to another run or another program version."
    message = "The checkpoint {path} does not belong to this run: {what}."


class DistributedProcessLost(TrainingError):
    code = "process_lost"
    title = "Another process of the distributed run exited or is unreachable."
    message = (
        "Another process of this run cannot be reached ({reason}). If it exited, see its output or "
        "the output of torchrun for the cause."
    )


class StopRequested(TrainingError):
    code = "stopped"
    title = "The run was stopped on request."
    message = "The run was stopped on request at step {step}."
