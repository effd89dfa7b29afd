"""Export a model to ONNX, and certify that ONNX Runtime predicts what loraworks predicts.

model.onnx        the merged model, whose logits are calibrated ones (`onnx_graph`)
config.json, tokenizer.json, tokenizer_config.json, loraworks.json, README.md
                  as in an export for transformers
certificate.json  how far its logits are from ours, and how many labels are the same

Nothing is left behind if they differ by too much.
"""

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from lora_core import manifest
from lora_core.artifact import model_label_names, save_model_config, uses_segment_ids
from lora_core.atomic_files import write_indented_json
from lora_core.data.batching import collate
from lora_core.data.files import iter_whole_rows
from lora_core.errors.export import (
    Int8Mismatch,
    Int8RegressionUnsupported,
    OnnxMismatch,
    OnnxPackagesMissing,
    TooFewCertificationTexts,
)
from lora_core.export.hugging_face import (
    CalibratedModel,
    atomic_directory,
    load_calibrated_model,
    write_export_companion_files,
)
from lora_core.export.onnx_certificate import CERTIFICATE_FILE, OnnxCertificate
from lora_core.export.onnx_graph import OUTPUT, export_onnx_graph
from lora_core.inference.predictor import Predictor
from lora_core.inference.tokenization import ModelTokenizer, TokenizedText
from lora_core.model_card import ExportFormat
from lora_core.saved_predictions import check_golden_predictions, load_golden_predictions
from lora_core.specs.data import parse_sheet_suffix
from lora_core.specs.text_input import TextInput, text_or_pair, texts_of_input
from lora_core.tasks.base import Calibration, Task
from lora_core.tasks.build import restore_task_and_calibration

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
MODEL_FILE = "model.onnx"
MAX_DIFFERENCE = 1e-3  # of a logit in fp32; of a number, in standard deviations
MIN_INT8_TEXTS = 500
MIN_EQUAL_LABELS = 0.995  # in int8
LONG_TEXT_TOKENS = 512  # of the text that golden texts are joined to, if the model reads so much
_BATCH_TEXTS = 16


def export_onnx(
    artifact: Path,
    out: Path,
    *,
    target: str | None = None,
    int8_texts: Sequence[TextInput] | None = None,
) -> OnnxCertificate:
    """Write the merged model of an artifact for ONNX Runtime into the directory `out`.

    Args:
        artifact: Directory of the artifact.
        out: Directory to write.
        target: Which of several targets to write.
        int8_texts: Quantize the weights to int8, and certify that on these texts.

    Raises `OnnxPackagesMissing`, `Int8RegressionUnsupported`, `TooFewCertificationTexts`,
    `NotTranslatableToOnnx`, `OnnxMismatch`, `Int8Mismatch`, `EngineOutputMismatch`, `OutputExists`,
    and what `load_calibrated_model` raises.
    """
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise OnnxPackagesMissing(missing=", ".join(missing))
    exported = load_calibrated_model(artifact, target, program="ONNX")
    if int8_texts is not None:
        _check_int8_texts(exported, int8_texts)
    reference = Predictor.load(artifact)
    check_golden_predictions(reference, artifact)
    golden, _ = load_golden_predictions(artifact)
    with atomic_directory(out) as directory:
        path = directory / MODEL_FILE
        save_model_config(directory, exported.model)
        segments = reference.pairs and uses_segment_ids(exported.model.config.to_dict())
        export_onnx_graph(path, exported.model, segments=segments)
        items = [*reference.encode(golden), *_long_text(reference, golden)]
        certificate = _certify(path, exported, reference, items, "fp32")
        if int8_texts is not None:
            _quantize(path)
            certificate = _certify(path, exported, reference, reference.encode(int8_texts), "int8")
        write_export_companion_files(directory, exported, ExportFormat.ONNX, out)
        write_indented_json(directory / CERTIFICATE_FILE, certificate.model_dump(mode="json"))
    return certificate


def read_int8_certification_texts(artifact: Path, source: str) -> list[TextInput]:
    """Return the distinct texts of a data file, in the columns that a model was trained on.

    Raises what `iter_whole_rows` raises, and `ArtifactCorrupt`.
    """
    data = manifest.read(artifact)["spec"].get("data", {})
    file, sheet = parse_sheet_suffix(source)
    records = iter_whole_rows(
        Path(file), data.get("text_column", "text"), sheet, pair_column=data.get("text_pair_column")
    )
    return list(dict.fromkeys(record.text for record in records))


def _check_int8_texts(exported: CalibratedModel, texts: Sequence[TextInput]) -> None:
    task, _ = restore_task_and_calibration(exported.manifest, model_label_names(exported.model))
    if task.type == "regression":
        raise Int8RegressionUnsupported(path=exported.artifact.name)
    if len(texts) < MIN_INT8_TEXTS:
        raise TooFewCertificationTexts(required=MIN_INT8_TEXTS, count=len(texts))


def _long_text(reference: Predictor, texts: Sequence[TextInput]) -> list[TokenizedText]:
    """Return one text of as many tokens as the model computes at once, or of `LONG_TEXT_TOKENS`.

    Positions are computed, so the first ones being right says nothing about the last ones.
    """
    length = min(reference.tokenizer.max_length, LONG_TEXT_TOKENS)
    tokenizer = ModelTokenizer(reference.tokenizer.tokenizer, length, pairs=reference.pairs)
    tokens = sum(item.length for item in tokenizer.encode(texts))
    repeated = list(texts) * (2 * length // tokens + 1)
    first, *second = (" ".join(side) for side in zip(*map(texts_of_input, repeated), strict=True))
    return tokenizer.encode([text_or_pair(first, second[0] if second else None)])


def _quantize(path: Path) -> None:
    """Quantize the weights of a graph to int8, in place.

    Layers with fewer outputs than inputs stay in fp32: the second ones of feed-forward networks,
    whose inputs have outliers.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(path, load_external_data=False).graph
    weights = {each.name: tuple(each.dims) for each in graph.initializer}
    narrowing = {name for name, size in weights.items() if len(size) == 2 and size[0] > size[1]}
    quantized = path.with_suffix(".int8")
    quantize_dynamic(
        path,
        quantized,
        # Unsigned, because processors without VNNI saturate products with signed weights: the file
        # would predict other labels there than on the machine that certified it.
        weight_type=QuantType.QUInt8,
        per_channel=True,
        nodes_to_exclude=[
            node.name
            for node in graph.node
            if node.op_type == "MatMul" and narrowing.intersection(node.input)
        ],
    )
    quantized.replace(path)
    path.with_name(f"{path.name}.data").unlink(missing_ok=True)  # weights of more than 2 GB


def _certify(
    path: Path,
    exported: CalibratedModel,
    reference: Predictor,
    items: Sequence[TokenizedText],
    precision: Literal["fp32", "int8"],
) -> OnnxCertificate:
    """Compare a graph with the predictor of its artifact. Raises `OnnxMismatch`, `Int8Mismatch`."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    theirs = _run(session, items, exported.model.config.pad_token_id or 0)
    logits = reference.task.calibrated_logits(
        reference.forward(items).numpy(), reference.calibration
    )
    ours = logits[:, exported.outputs]
    difference = float(np.abs(theirs - ours).max())
    task, calibration = restore_task_and_calibration(
        exported.manifest, model_label_names(exported.model)
    )
    scale, _ = task.scale_and_offset(calibration)
    tolerance = MAX_DIFFERENCE * (float(scale[0]) if task.type == "regression" else 1.0)
    if precision == "fp32" and not difference <= tolerance:
        raise OnnxMismatch(
            onnxruntime=onnxruntime.__version__, difference=difference, tolerance=tolerance
        )
    equal = None if task.type == "regression" else _equal_labels(task, calibration, theirs, ours)
    if equal is not None and precision == "int8" and not equal >= MIN_EQUAL_LABELS:
        raise Int8Mismatch(
            equal=equal, texts=len(items), minimum=MIN_EQUAL_LABELS, difference=difference
        )
    return OnnxCertificate(
        precision=precision,
        texts=len(items),
        longest_text=max(window.length for item in items for window in item.windows),
        largest_difference=difference,
        tolerance=tolerance if precision == "fp32" else None,
        equal_labels=equal,
        versions=manifest.installed_library_versions()
        | {name: import_module(name).__version__ for name in PACKAGES},
    )


def _run(
    session: "InferenceSession", items: Sequence[TokenizedText], pad_id: int
) -> NDArray[np.float32]:
    """Return logits (items, outputs), computed in padded batches."""
    windows = [window for item in items for window in item.windows]
    rows = []
    for start in range(0, len(windows), _BATCH_TEXTS):
        texts = windows[start : start + _BATCH_TEXTS]
        starts = [len(t.ids) if t.segment_start is None else t.segment_start for t in texts]
        batch = collate([t.ids for t in texts], pad_id, None, np.array(starts, dtype=np.int64))
        inputs = {**batch.embedding_inputs, "attention_mask": batch.attention_mask}
        feed = {each.name: inputs[each.name].numpy() for each in session.get_inputs()}
        rows += session.run([OUTPUT], feed)
    ends = np.cumsum([len(item.windows) for item in items])
    of_items = np.split(np.concatenate(rows), ends[:-1])
    return np.stack([logits.mean(axis=0) for logits in of_items])


def _equal_labels(
    task: Task, calibration: Calibration, theirs: NDArray[np.floating], ours: NDArray[np.floating]
) -> float:
    """Return the share of texts for which two arrays of calibrated logits give the same labels."""
    outputs = len(task.labels)
    thresholds = calibration.model_copy(
        update={"temperature": 1.0, "scale": (1.0,) * outputs, "offset": (0.0,) * outputs}
    )
    equal = task.predict(theirs, thresholds) == task.predict(ours, thresholds)
    return float(equal.reshape(len(ours), -1).all(axis=1).mean())
