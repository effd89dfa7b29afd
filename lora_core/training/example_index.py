"""The nearest examples of an encoder run: vectors of its training texts by its final weights."""

from lora_core import nearest_examples
from lora_core.nearest_examples import DenseVectors, ExampleIndex
from lora_core.progress_reporter import ProgressReporter
from lora_core.specs.data import Split
from lora_core.training import model_outputs
from lora_core.training.prepare import PreparedRun


def build_run_example_index(prepared: PreparedRun, progress: ProgressReporter) -> ExampleIndex:
    """Compute the vectors of a sample of training texts, and of held-out ones for the threshold.

    It costs as much as evaluating two thousand texts, less where the encoder is frozen. Call it
    before the adapters are merged.
    """
    # Cross-validated texts are validation texts that the model was trained on.
    held_out = Split.VALIDATION if prepared.cross_validated is None else Split.TEST
    sample = {
        Split.TRAIN: nearest_examples.sample_example_indices(prepared.splits.train),
        held_out: nearest_examples.sample_held_out_indices(len(prepared.tokenized[held_out])),
    }
    states = {
        split: model_outputs.compute_pooled_states(
            prepared.forward,
            prepared.tokenized[split],
            indices,
            budget=prepared.spec.optim.micro_batch_tokens,
            progress=progress,
        )
        for split, indices in sample.items()
    }
    return nearest_examples.build_index(
        [prepared.splits.train[i] for i in sample[Split.TRAIN]],
        prepared.task,
        DenseVectors.from_states(states[Split.TRAIN]),
        held_out,
        states[held_out],
    )
