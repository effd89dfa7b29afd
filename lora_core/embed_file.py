"""The vectors of texts: what a frozen encoder passes to the head of its classifier."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from lora_core import compatibility, manifest, runtime_environment
from lora_core.artifact import resolve_base_or_artifact
from lora_core.atomic_files import atomic_path, is_disk_full
from lora_core.data import files
from lora_core.data.batching import length_sorted_batches
from lora_core.data.files import WholeRow
from lora_core.data.tokens import (
    TokenizedSplit,
    check_tokenizer_adds_special_tokens,
    load_tokenizer,
    tokenize_texts,
)
from lora_core.encoders.load import encoder_weights_sha256, load_classifier
from lora_core.encoders.pooling import set_pooling
from lora_core.encoders.safety import check_has_fast_tokenizer
from lora_core.errors.artifact import ArtifactCorrupt
from lora_core.errors.training import (
    CheckpointCorrupt,
    CheckpointMismatch,
    DiskFull,
    NonFiniteVectors,
    StopRequested,
)
from lora_core.events import Finished, NoteLogged, Observer, Phase, StopSignal
from lora_core.failpoints import failpoint
from lora_core.fast.optimize import optimize
from lora_core.progress_reporter import ProgressReporter
from lora_core.runtime import setup_runtime
from lora_core.specs.data import Split, parse_sheet_suffix
from lora_core.specs.embed import VECTORS, VECTORS_FILE, EmbedSpec
from lora_core.specs.train import RuntimeSpec
from lora_core.training.checkpoint_schedule import CheckpointSaver, CheckpointSettings

FORMAT_VERSION = 1  # of the manifest
# Rows that are read, tokenized and computed together. The chunk boundaries decide which texts share
# a batch, and so the last bits of the vectors; a resumed run keeps them.
CHUNK_ROWS = 512
BATCH_TOKENS = 4096  # of a batch, including padding
_CHECKPOINT_KIND = "vectors"

Summary = dict[str, Any]
Vectors = NDArray[np.float32]  # (texts, width)


@dataclass
class EmbeddingState:
    """The vectors of all rows so far, in chunks."""

    chunks: list[Vectors] = field(default_factory=list)
    truncated: int = 0  # texts that were longer than the encoder reads
    base_sha256: str = ""  # of the weights of the encoder and of its tokenizer
    texts: "hashlib._Hash" = field(default_factory=hashlib.sha256)  # of all rows so far
    resumed_texts_sha256: str = ""  # of the rows in the checkpoint

    @property
    def step(self) -> int:
        """Number of rows that are done."""
        return sum(map(len, self.chunks))

    def vectors(self) -> Vectors:
        """Return all vectors so far, (texts, width)."""
        return np.concatenate(self.chunks) if self.chunks else np.empty((0, 0), dtype=np.float32)


def embed_file(
    spec: EmbedSpec,
    *,
    out_dir: Path,
    observer: Observer,
    stop: StopSignal,
    checkpoint_settings: CheckpointSettings | None = None,
    resume: Path | None = None,
) -> Summary:
    """Compute the vector of every row, write a directory with them, and return the counts.

    A vector is the pooled state that the base's own files ask for: the first token, or the mean.
    The same file, base and threads give the same bytes, however often the run was interrupted.
    `resume` is the checkpoint to continue from. Raises `StopRequested`, `DiskFull`,
    `NonFiniteVectors`, `CheckpointCorrupt`, `CheckpointMismatch`, what loading a base raises,
    and what `files.iter_whole_rows` raises.
    """
    progress = ProgressReporter(observer, stop)
    progress.enter_phase(Phase.LOADING)
    encoder = _Encoder(spec, progress)
    state = EmbeddingState(base_sha256=encoder.base_sha256)
    if resume:
        state = read_vectors_checkpoint(resume, encoder.width, encoder.base_sha256)
    schedule = None
    if checkpoint_settings is not None:
        schedule = CheckpointSaver(
            checkpoint_settings, write_vectors_checkpoint, observer, step=state.step
        )
    progress.enter_phase(Phase.FEATURES, state.step)
    source, sheet = parse_sheet_suffix(spec.data.source)
    records = files.iter_whole_rows(
        Path(source), spec.data.text_column, sheet, pair_column=spec.data.text_pair_column
    )
    try:
        _skip_rows(records, state)
        while chunk := list(islice(records, CHUNK_ROWS)):
            progress.tick(state.step)
            vectors, truncated = encoder.vectors(chunk)
            failpoint("embedded")
            files.add_texts_to_digest(state.texts, chunk)
            state.chunks.append(vectors)
            state.truncated += truncated
            if schedule is not None and schedule.is_due():
                schedule.save(state)
        progress.enter_phase(Phase.SAVING, state.step)
        out_dir.mkdir(parents=True, exist_ok=True)
        save_file({VECTORS: state.vectors()}, out_dir / VECTORS_FILE)
        summary = _summarize(state, encoder.width, observer)
        manifest.create_and_save(out_dir, _manifest(spec, summary))
    except StopRequested:
        if schedule is not None:
            schedule.save(state)
        raise
    except (OSError, SafetensorError) as error:
        if is_disk_full(error):
            raise DiskFull(what="the vectors") from error
        raise
    observer.on_event(Finished(summary=summary))
    return summary


class _Encoder:
    """A frozen encoder with its tokenizer."""

    def __init__(self, spec: EmbedSpec, progress: ProgressReporter) -> None:
        runtime = setup_runtime(
            RuntimeSpec(device=spec.runtime.device, threads=spec.runtime.threads, precision="fp32")
        )
        base = resolve_base_or_artifact(spec.base, spec.base_revision)
        check_has_fast_tokenizer(base.name, (path.name for path in base.directory.iterdir()))
        shape = compatibility.read_encoder_shape(base.config, base=base.name)
        self._max_length = shape.resolve_max_length(None)
        self._has_segments = shape.segments > 1
        self.width = shape.width
        tokenizer_file = base.directory / "tokenizer.json"
        self._tokenizer = load_tokenizer(tokenizer_file)
        pairs = spec.data.text_pair_column is not None
        check_tokenizer_adds_special_tokens(self._tokenizer, base.name, pairs=pairs)
        model, _ = load_classifier(base, ("0", "1"))  # its head is never computed
        weights = encoder_weights_sha256(model, base.family)
        tokenizer = manifest.file_sha256(tokenizer_file)
        self.base_sha256 = hashlib.sha256(f"{weights}{tokenizer}".encode()).hexdigest()
        set_pooling(model, base.family, shape.pooling)
        model.requires_grad_(False)
        model.to(runtime.device)
        model.eval()
        self._pad_id = model.config.pad_token_id or 0
        self._progress = progress
        self._forward = optimize(
            model,
            base.family,
            runtime,
            {},
            encoder_dropout=0.0,
            micro_batch_tokens=BATCH_TOKENS,
            progress=progress,
            environment=runtime_environment.describe_environment(runtime, BATCH_TOKENS),
        )

    @torch.no_grad()
    def vectors(self, chunk: list[WholeRow]) -> tuple[Vectors, int]:
        """Return the vectors (texts, width) of a chunk, and how many texts were truncated.

        Raises `NonFiniteVectors`, `StopRequested`.
        """
        tokens = tokenize_texts(self._tokenizer, [each.text for each in chunk], self._max_length)
        split = TokenizedSplit(
            Split.TRAIN,
            tokens,
            tokens.lengths,
            np.zeros(len(chunk), dtype=np.int64),  # no labels
            self._pad_id,
            tokens.segment_starts if self._has_segments else None,
        )
        vectors = np.empty((len(chunk), self.width), dtype=np.float32)
        for batch in length_sorted_batches(split.lengths, BATCH_TOKENS):
            self._progress.tick()
            vectors[batch] = self._forward.pooled_states(split, batch).float().cpu().numpy()
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            raise NonFiniteVectors(
                texts=int((~finite).sum()), first=chunk[0].number, last=chunk[-1].number
            )
        return vectors, tokens.truncated


def _skip_rows(records: Iterator[WholeRow], state: EmbeddingState) -> None:
    """Skip the rows in the checkpoint, if there is one. Raises `CheckpointMismatch`."""
    skipped = files.add_texts_to_digest(state.texts, islice(records, state.step))
    if skipped < state.step:
        what = f"the file has {skipped:,} rows, not the {state.step:,} that it holds"
        raise CheckpointMismatch(path="to resume from", what=what)
    if state.step and state.texts.hexdigest() != state.resumed_texts_sha256:
        raise CheckpointMismatch(path="to resume from", what="the file has other texts")


def _summarize(state: EmbeddingState, width: int, observer: Observer) -> Summary:
    if state.truncated:
        share = f"{state.truncated:,} of {state.step:,} texts"
        message = f"{share} were longer than the encoder reads and were truncated."
        observer.on_event(NoteLogged(level="warning", code="truncated", message=message))
    return {"rows": state.step, "cut": state.truncated, "width": width}


def _manifest(spec: EmbedSpec, summary: Summary) -> dict[str, Any]:
    return {
        "format": FORMAT_VERSION,
        "created_by": manifest.installed_library_versions(),
        "spec": spec.model_dump(mode="json"),
        "metrics": summary,
    }


# -- Checkpoints: the vectors of the first rows of a file -----------------------------------------

# vectors.safetensors  (rows, width) in float32, in the order of the rows
# manifest.json        number of truncated texts, sha256 of base, texts and the other file; last


def write_vectors_checkpoint(parent: Path, state: EmbeddingState) -> Path:
    """Publish a new directory `step-<rows>` in `parent` and return it. Raises `DiskFull`."""
    directory = parent / f"step-{state.step}"
    with atomic_path(directory, what="a checkpoint") as unfinished:
        unfinished.mkdir()
        save_file({VECTORS: state.vectors()}, unfinished / VECTORS_FILE)
        manifest_data = {
            "kind": _CHECKPOINT_KIND,
            "cut": state.truncated,
            "base_sha256": state.base_sha256,
            "texts_sha256": state.texts.hexdigest(),
        }
        manifest.create_and_save(unfinished, manifest_data)
    failpoint("vectors_published")
    return directory


def read_vectors_checkpoint(directory: Path, width: int, base_sha256: str) -> EmbeddingState:
    """Read a checkpoint of an encoder of this width.

    Raises `CheckpointCorrupt`, and `CheckpointMismatch` if the checkpoint is of another encoder.
    """
    try:
        manifest_data = manifest.verify(directory)
        listed = manifest_data["files"].keys()
        if manifest_data.get("kind") != _CHECKPOINT_KIND or listed != {VECTORS_FILE}:
            raise CheckpointCorrupt(path=directory.name, problem="it lists other files")
        vectors = load_file(directory / VECTORS_FILE)[VECTORS]
        truncated = manifest_data["cut"]
    except ArtifactCorrupt as error:
        raise CheckpointCorrupt(path=directory.name, problem=error.detail["problem"]) from error
    except (KeyError, SafetensorError) as error:
        problem = f"{type(error).__name__} while reading it"
        raise CheckpointCorrupt(path=directory.name, problem=problem) from error
    if vectors.shape[1:] != (width,):
        raise CheckpointMismatch(path=directory.name, what="the encoder has another width")
    if manifest_data.get("base_sha256") != base_sha256:
        raise CheckpointMismatch(path=directory.name, what="the encoder is another one")
    texts_sha256 = manifest_data["texts_sha256"]
    return EmbeddingState([vectors], truncated, base_sha256, resumed_texts_sha256=texts_sha256)
