"""Models in memory and their loading: encoders, which the batcher computes, and linear models."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from copy import copy
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar

import structlog

from app.serving.batcher import Batcher, TextLogits
from app.serving.errors import (
    DeadlineExceeded,
    InferenceFailed,
    ModelTokenizerFailed,
    NonFiniteScore,
)
from lora_core.errors.artifact import SingleTargetModel, TokenizerFailed, UnknownTarget
from lora_core.process_settings import (
    collect_and_freeze_gc_once,
    disable_gc_then_freeze_imports,
    limit_onednn_cache,
    limit_openmp_spinning,
)
from lora_core.specs.encoded_labels import qualified_output_name
from lora_core.specs.predict import ScoreFunction, TruncationSide
from lora_core.specs.text_input import TextInput, count_characters

if TYPE_CHECKING:  # torch and scikit-learn are loaded with the first model
    from lora_core.inference.decoding import DecodedOutput
    from lora_core.inference.engines import EngineCache
    from lora_core.inference.linear import LinearPredictor
    from lora_core.inference.predictor import Predictor
    from lora_core.inference.tokenization import TokenizedWords
    from lora_core.linear.model import TextSpan
    from lora_core.specs.task import TaskType


_MAX_INLINE_TOKENIZER_CHARACTERS = 512  # take 0.2 ms, or three times that beside predictions
# Computed in about two milliseconds: less than the cost of another thread that needs the
# interpreter lock all the time.
MAX_INLINE_LINEAR_CHARACTERS = 8192
_MAX_INLINE_EXPLAINED_LABELS = 20  # of which a thousand softmaxes take a millisecond
# Texts times labels that are decoded, or written as JSON, in a few milliseconds.
MAX_INLINE_OUTPUTS = 2048
_WORD_COST = 1 / 64  # upper bound of the cost of a linear model's word, in tokens of an encoder

T = TypeVar("T")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class TokenizedRequest:
    """The tokenized texts of a request, or some of them. `Any`, because encoders read tokens and
    linear models the text itself."""

    items: Sequence[Any]
    seconds: float  # of tokenization
    token_cost: float = 1.0  # cost of a token, in tokens of an encoder

    @property
    def tokens(self) -> int:
        return sum(item.length for item in self.items)

    @property
    def cost(self) -> int:
        """Cost in tokens of an encoder."""
        return math.ceil(self.tokens * self.token_cost)

    @property
    def truncated_count(self) -> int:
        """Number of truncated texts."""
        return sum(item.truncated for item in self.items)


class _LoadedModelBase:
    """What encoder models and linear models in memory have in common."""

    ref: str
    predictor: Predictor | LinearPredictor
    _executor: Executor

    def with_ref(self, ref: str) -> Self:
        """Return the same model as that of another version, which has the same artifact."""
        other = copy(self)
        other.ref = ref
        return other

    @property
    def targets(self) -> dict[str, TaskType]:
        """The task of each of several targets; empty if the model has one."""
        return {name: task.type for name, task in self.predictor.task.tasks.items()}

    @property
    def thresholds(self) -> dict[str, float]:
        """The thresholds of outputs that are predicted by one; of several targets TARGET/LABEL."""
        task, calibration = self.predictor.task, self.predictor.calibration
        return dict(zip(task.labels, calibration.thresholds, strict=False)) | {
            qualified_output_name(name, label): threshold
            for name, each in task.tasks.items()
            for label, threshold in zip(
                each.labels, calibration.of_target(name).thresholds, strict=False
            )
        }

    def task_of(self, target: str | None) -> TaskType:
        """Return the task of a target, or of the whole model.

        Raises `UnknownTarget`, `SingleTargetModel`.
        """
        if target is None:
            return self.predictor.task.type
        if not self.targets:
            raise SingleTargetModel(model=self.ref)
        if target not in self.targets:
            raise UnknownTarget(model=self.ref, target=target, targets=", ".join(self.targets))
        return self.targets[target]

    async def run_decoding(self, work: Callable[[], T], computed: Sequence[TextLogits]) -> T:
        """Run `work`, which decodes these logits, in another thread if there are many."""
        if len(computed) * len(computed[0].logits) <= MAX_INLINE_OUTPUTS:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def decode(
        self,
        computed: Sequence[TextLogits],
        function: ScoreFunction | None,
        target: str | None = None,
    ) -> list[list[DecodedOutput]]:
        """Return what is predicted for each text, the predicted label or the highest score first.

        With a `target`, as if it were the only one. Raises `NonFiniteScore`.
        """
        rows = self.predictor.decode_outputs([text.logits for text in computed], function)
        if not all(math.isfinite(output.score) for row in rows for output in row):
            raise NonFiniteScore(ref=self.ref)
        if target is None:
            return rows
        return [
            [output._replace(target=None) for output in row if output.target == target]
            for row in rows
        ]


class LoadedEncoderModel(_LoadedModelBase):
    """An encoder model in memory, with the batcher and the tokenizer threads that all share."""

    def __init__(
        self, ref: str, predictor: Predictor, batcher: Batcher, executor: Executor
    ) -> None:
        self.ref = ref
        self.predictor: Predictor = predictor
        self._batcher = batcher
        self._executor = executor

    async def tokenize(
        self, texts: Sequence[TextInput], *, truncate: bool, side: TruncationSide
    ) -> TokenizedRequest:
        """Tokenize the texts of a request.

        Raises `TextPairRequired`, `TextPairUnsupported`, `EmptyInput`, `InputWithoutTokens`,
        `ModelTokenizerFailed`, and `InputTooLong` if `truncate` is false.
        """

        def encode() -> TokenizedRequest:
            start = time.perf_counter()
            items = self.predictor.encode(texts, truncate=truncate, side=side)
            return TokenizedRequest(items, time.perf_counter() - start)

        return await self._run_tokenizer(encode, sum(map(count_characters, texts)))

    async def tokenize_into_words(self, text: TextInput) -> TokenizedWords:
        """Return the words that the model reads.

        Raises `TextPairRequired`, `TextPairUnsupported`, `EmptyInput`, `ModelTokenizerFailed`.
        """
        return await self._run_tokenizer(
            lambda: self.predictor.tokenize_into_words(text), count_characters(text)
        )

    async def _run_tokenizer(self, work: Callable[[], T], characters: int) -> T:
        """Run `work`, in another thread if there are many characters."""
        try:
            if characters <= _MAX_INLINE_TOKENIZER_CHARACTERS:
                return work()
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        except TokenizerFailed as error:
            log.exception("tokenizer_failed", model=self.ref)
            raise ModelTokenizerFailed(ref=self.ref, **error.detail) from error

    async def compute(
        self, request: TokenizedRequest, *, deadline: float, with_states: bool = False
    ) -> list[TextLogits]:
        """Return the logits in the order given. `deadline` is on the monotonic clock.

        `with_states`: with what the model reads of each text. A cancelled caller's texts leave the
        queue. Raises `DeadlineExceeded`, `InferenceFailed`.
        """
        engine, adapter = self.predictor.engine, self.predictor.adapter
        windows = [window for item in request.items for window in item.windows]
        computed = await self._batcher.compute(
            engine, adapter, windows, deadline=deadline, with_states=with_states
        )
        if len(windows) == len(request.items):
            return computed
        following = iter(computed)
        return [
            _mean_of_windows(list(islice(following, len(item.windows)))) for item in request.items
        ]


def _mean_of_windows(windows: Sequence[TextLogits]) -> TextLogits:
    """Return the mean logits and state of the windows of a text, and the times of the slowest."""
    states = [window.state for window in windows if window.state is not None]
    return TextLogits(
        logits=sum(window.logits for window in windows) / len(windows),
        queue_seconds=max(window.queue_seconds for window in windows),
        inference_seconds=max(window.inference_seconds for window in windows),
        state=sum(states) / len(states) if states else None,
    )


class LoadedLinearModel(_LoadedModelBase):
    """A linear model in memory. The batcher would gain nothing for it."""

    def __init__(self, ref: str, predictor: LinearPredictor, executor: Executor) -> None:
        self.ref = ref
        self.predictor: LinearPredictor = predictor
        self._executor = executor

    async def tokenize(
        self,
        texts: Sequence[TextInput],
        *,
        truncate: bool,  # noqa: ARG002 - no text is too long
        side: TruncationSide,  # noqa: ARG002
    ) -> TokenizedRequest:
        """Wrap the texts of a request, which the model splits into words as it computes them.

        Raises `TextPairRequired`, `TextPairUnsupported`, `EmptyInput`.
        """
        return TokenizedRequest(self.predictor.encode(texts), 0.0, token_cost=_WORD_COST)

    async def compute(
        self, request: TokenizedRequest, *, deadline: float, with_states: bool = False
    ) -> list[TextLogits]:
        """Return the logits in the order given. `deadline` is on the monotonic clock.

        `with_states`: with the TF-IDF of each text. Raises `DeadlineExceeded`, `InferenceFailed`.
        """
        enqueued = time.monotonic()

        def work() -> list[TextLogits]:
            start = time.monotonic()
            if start >= deadline:
                raise DeadlineExceeded()
            states = self.predictor.states(request.items)
            logits = self.predictor.model.logits_of_features(states)
            seconds = time.monotonic() - start
            return [
                TextLogits(
                    row,
                    queue_seconds=start - enqueued,
                    inference_seconds=seconds,
                    state=states[i] if with_states else None,
                )
                for i, row in enumerate(logits)
            ]

        characters = sum(count_characters(item.text) for item in request.items)
        return await self._run(work, inline=characters <= MAX_INLINE_LINEAR_CHARACTERS)

    async def contributions(
        self, text: TextInput, label: str, target: str | None
    ) -> tuple[list[tuple[TextSpan, float]], float]:
        """Return what each word adds to the probability of a label, or to the number of a
        regression, and that without any word.

        `target`: the one of several targets that has the label.

        Raises `InferenceFailed`.
        """
        return await self._run(
            lambda: self.predictor.contributions(text, label, target),
            inline=count_characters(text) <= MAX_INLINE_LINEAR_CHARACTERS
            and len(self.predictor.labels) <= _MAX_INLINE_EXPLAINED_LABELS,
        )

    async def _run(self, work: Callable[[], T], *, inline: bool) -> T:
        """Run `work`, in another thread unless `inline`.

        Raises `DeadlineExceeded`, and `InferenceFailed` for any other error.
        """
        try:
            if inline:
                return work()
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        except DeadlineExceeded:
            raise
        except Exception as error:
            log.exception("linear_failed", model=self.ref)
            raise InferenceFailed(kind=type(error).__name__) from error


LoadedModel: TypeAlias = LoadedEncoderModel | LoadedLinearModel


# -- Loading: the place where the service imports torch -------------------------------------------


_AUTO = "auto"


class EngineSelectingEncoderLoader:
    """Loads encoders on the configured engine; `auto` picks the fastest that reproduces the
    golden predictions.

    `benchmark_dir` keeps the results of the engine benchmarks.
    """

    def __init__(self, engine: str, benchmark_dir: Path) -> None:
        self._engine = engine
        self._benchmark_dir = benchmark_dir
        self._engine_cache: EngineCache | None = None
        self._engine_cache_lock = Lock()

    def __call__(self, directory: Path, *, base: Path | None = None, imported: bool) -> Predictor:
        """Load an artifact, with its `base` if that is elsewhere, and check its golden predictions.

        An imported version without such a base gets an engine of its own: the base that its
        manifest names is only a claim, and with a shared engine the first one loaded would compute
        the predictions of all others. The digest of a base that is stored here is ours.

        Raises `ArtifactCorrupt`, `EngineOutputMismatch`, `EngineUnavailable`.
        """
        limit_openmp_spinning()
        limit_onednn_cache()
        with disable_gc_then_freeze_imports():
            from lora_core.inference.engine_benchmark import benchmark_engines
            from lora_core.inference.engines import (
                EngineCache,
                disable_intra_op_parallelism,
                list_auto_engine_candidates,
            )
            from lora_core.inference.predictor import Predictor
            from lora_core.saved_predictions import check_golden_predictions

        disable_intra_op_parallelism()
        with self._engine_cache_lock:
            self._engine_cache = self._engine_cache or EngineCache()
        shared = base is not None or not imported
        engine_cache = self._engine_cache if shared else None

        def load(engine: str) -> Predictor:
            return Predictor.load(directory, base=base, engine=engine, engine_cache=engine_cache)

        def load_and_check(engine: str) -> Predictor:
            predictor = load(engine)
            check_golden_predictions(predictor, directory)
            return predictor

        speeds: Mapping[str, float] = {}
        if self._engine == _AUTO:
            # Each encoder is released after its benchmark: all of them might not fit into memory.
            speeds = benchmark_engines(
                self._benchmark_dir,
                directory,
                list_auto_engine_candidates(),
                load,
                # The texts and the adapter of an import must not choose the engine of others.
                shared=not imported,
            )
        engines = list(speeds) or [self._engine]
        for engine in engines:
            try:
                predictor = load_and_check(engine)
            except Exception as error:  # not kept: its traceback refers to the rejected encoder
                log.warning(
                    "engine_rejected", engine=engine, model=directory.name, reason=repr(error)
                )
                if engine == engines[-1]:
                    raise
            else:
                break
        # the permanent objects of torch and transformers exist by now
        collect_and_freeze_gc_once()
        return replace(predictor, engine_speeds=speeds)


def load_and_check_linear_model(directory: Path) -> LinearPredictor:
    """Load a linear model and check its golden predictions, as for an encoder. Needs no torch.

    Raises `ArtifactCorrupt`, `EngineOutputMismatch`, `InvalidImportedModel`.
    """
    with disable_gc_then_freeze_imports():
        from lora_core.inference.linear import LinearPredictor
        from lora_core.saved_predictions import check_golden_predictions

    predictor = LinearPredictor.load(directory)
    check_golden_predictions(predictor, directory)
    return predictor
