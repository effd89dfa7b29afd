"""The model card of an export: `README.md`, as the Hugging Face Hub shows it.

It is made from the manifest alone. That may be the manifest of an import, so each value in it is
left out if it has another form, and is escaped if it is text.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from pydantic import TypeAdapter, ValidationError

from lora_core import manifest
from lora_core.confidence_intervals import wilson_interval
from lora_core.data.windows import MAX_WINDOWS, window_overlap
from lora_core.hf_hub import HUB_PREFIX, HubDataset, is_hub_name, parse_hub_dataset
from lora_core.samples import minilm, reviews
from lora_core.specs.fields import looks_like_model_version, looks_like_path
from lora_core.specs.method import LoraSpec, MethodSpec, describe_method
from lora_core.specs.train import TrainSpec
from lora_core.tasks.metric_info import METRICS, metric_names_of_spec, task_type_of_spec

_METHOD: TypeAdapter[MethodSpec] = TypeAdapter(MethodSpec)
_TOO_LARGE = 1e15  # for any count of texts, tokens or parameters
_UPLOAD = re.compile(r"[a-z0-9-]+:[0-9]+")  # a version of a dataset
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|!~&$])")


class ExportFormat(StrEnum):
    """What the card describes: an export for another program, or an archive of an artifact."""

    TRANSFORMERS = "transformers"
    PEFT = "peft"
    ONNX = "onnx"
    LORAWORKS = "loraworks"


def model_card(manifest_data: Mapping[str, Any], card_format: ExportFormat, *, name: str) -> str:
    """Return the card of an artifact with this manifest, exported as `name`."""
    spec = _read_spec(manifest_data)
    base, hub_base = _describe_base(manifest_data)
    data = _describe_data(spec)
    facts = ModelCardData(
        base_model=hub_base,
        base_model_relation=_relation(hub_base, card_format),
        datasets=list(dict.fromkeys(each.name for each in _hub_datasets(spec))) or None,
        eval_results=list(_eval_results(manifest_data, spec, data)),
        library_name=card_format.value,
        metrics=list(dict.fromkeys(_HUB_METRICS[name] for name in _hub_metrics(manifest_data))),
        model_name=name,
        pipeline_tag="text-classification",
        tags=["loraworks", "text-classification"],
    )
    sections = [
        f"# {_escape(name)}",
        _introduction(manifest_data, spec, base),
        "## How to use it",
        _usage(manifest_data, card_format, name),
        *_long_texts(manifest_data, card_format, name),
        *_outputs(manifest_data),
        *_results(manifest_data),
        "## Training",
        _table(("", ""), _training(manifest_data, spec, base, data)),
        *_calibration(manifest_data, card_format),
        *_unfamiliar_texts(manifest_data, card_format),
        "## What is left out",
        _left_out(manifest_data, card_format),
        *_common_prompt(manifest_data, card_format),
        "## License",
        "None is set. Before you publish this model, add a `license` to the metadata of this file "
        "that the licenses of the base model and of the data allow.",
    ]
    text = "\n\n".join(sections)
    card = str(ModelCard(f"---\n{facts.to_yaml()}\n---\n\n{text}\n"))
    return card.encode(errors="backslashreplace").decode()  # JSON may have lone surrogates


# -- Facts ----------------------------------------------------------------------------------------


def _read_spec(manifest_data: Mapping[str, Any]) -> TrainSpec | None:
    """Return the spec of the run; None if there was none, as for an imported adapter."""
    if _get(manifest_data, "spec", "data", "source") is None:  # defaults would be wrong claims
        return None
    try:
        return TrainSpec.model_validate(manifest_data.get("spec"))
    except ValidationError:
        return None


def _describe_base(manifest_data: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the base model in words, and its name on the hub. Paths of this host stay private."""
    base = _get(manifest_data, "spec", "base")
    if not isinstance(base, str) or manifest.is_linear(manifest_data["files"]):
        return None, None
    if base == minilm.NAME:
        return f"{base} ({minilm.HUB_NAME}, as a DistilBERT)", minilm.HUB_NAME
    if looks_like_path(base):
        return "a model in a folder", None
    if looks_like_model_version(base):
        return f"the model version {base}", None
    return base, base if is_hub_name(base) else None


def _relation(hub_base: str | None, card_format: ExportFormat) -> str | None:
    if hub_base is None:
        return None
    return "adapter" if card_format is ExportFormat.PEFT else "finetune"


def _sources(spec: TrainSpec | None) -> list[str]:
    """Return the names of samples, hub datasets and uploads. Paths of files are left out."""
    if spec is None:
        return []
    source = spec.data.source
    names = [source] if isinstance(source, str) else list(dict.fromkeys(source.values()))
    return [
        name
        for name in names
        if name in reviews.SAMPLES
        or _UPLOAD.fullmatch(name)
        or (name.startswith(HUB_PREFIX) and parse_hub_dataset(name))
    ]


def _describe_data(spec: TrainSpec | None) -> str:
    return ", ".join(_sources(spec)) or "private data"


def _hub_datasets(spec: TrainSpec | None) -> list[HubDataset]:
    found = []
    for source in _sources(spec):
        if source in reviews.SAMPLES:
            found.append(HubDataset(reviews.SAMPLES[source].hub_name, None))
        elif source.startswith(HUB_PREFIX) and (dataset := parse_hub_dataset(source)):
            found.append(dataset)
    return found


def _labels(manifest_data: Mapping[str, Any]) -> list[str]:
    labels = manifest_data.get("labels") or _get(manifest_data, "metrics", "labels")
    return [str(label) for label in labels] if isinstance(labels, list) else []


def _eval_results(
    manifest_data: Mapping[str, Any], spec: TrainSpec | None, data: str
) -> Iterator[EvalResult]:
    """Yield the metrics on the test split, for the `model-index` of the hub."""
    datasets = _hub_datasets(spec)
    dataset = datasets[0] if len(datasets) == len(_sources(spec)) == 1 else HubDataset(data, None)
    texts = _number(manifest_data, "metrics", "examples", "test")
    for metric in _hub_metrics(manifest_data):
        value = _metric(manifest_data, "test", metric)
        if value is None:
            continue
        arguments: dict[str, Any] = {} if texts is None else {"texts": int(texts)}
        if metric == "accuracy" and texts:
            low, high = wilson_interval(value, texts)
            arguments |= {"interval": "95% Wilson score", "low": round(low, 4)}
            arguments |= {"high": round(high, 4)}
        if metric in ("macro_f1", "micro_f1"):
            arguments["average"] = metric.removesuffix("_f1")
        yield EvalResult(
            task_type="text-classification",
            task_name="Text classification",
            dataset_type=dataset.name,
            dataset_name=data,
            dataset_config=dataset.config,
            dataset_split="test",
            metric_type=_HUB_METRICS[metric],
            metric_name=_title(metric),
            metric_value=round(value, 4) if METRICS[metric].is_share else float(f"{value:.4g}"),
            metric_args=arguments,
        )


# Metric -> its name on the hub
_HUB_METRICS = {"accuracy": "accuracy", "macro_f1": "f1", "micro_f1": "f1"} | {
    name: name for name in ("rmse", "mae")
}


def _task_type(manifest_data: Mapping[str, Any]) -> str:
    return task_type_of_spec({"task": {"type": str(_get(manifest_data, "spec", "task", "type"))}})


def _shown_metrics(manifest_data: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the two main metrics of the task."""
    return metric_names_of_spec({"task": {"type": _task_type(manifest_data)}})[:2]


def _hub_metrics(manifest_data: Mapping[str, Any]) -> list[str]:
    """Return those of the two that the hub knows: not the skill of several targets."""
    return [name for name in _shown_metrics(manifest_data) if name in _HUB_METRICS]


def _metric(manifest_data: Mapping[str, Any], split: str, name: str) -> float | None:
    """Return a metric of a split; None if it is no such number."""
    value = _number(manifest_data, "metrics", split, name, signed=name == "skill")
    return None if value is not None and METRICS[name].is_share and value > 1 else value


def _title(metric: str) -> str:
    label = METRICS[metric].label
    return label[0].upper() + label[1:]


_LEFT_OUT = {
    ExportFormat.TRANSFORMERS: (
        "This folder has the merged weights alone. The adapter, the stored "
        "predictions and all texts of the data stay with the artifact."
    ),
    ExportFormat.PEFT: (
        "This folder has the adapter and the head. The base model is in `base/`, unless the Hub "
        "has exactly this model. The stored predictions and all texts of the data "
        "stay with the artifact."
    ),
    ExportFormat.ONNX: (
        "This folder has the merged weights alone. The graph computes the attention of every token "
        "to every other, also of encoders that attend within a window, so its memory grows with "
        "the square of the length. The adapter, the stored predictions and all texts of the data "
        "stay with the artifact."
    ),
    ExportFormat.LORAWORKS: (
        "{texts}, and `nearest_examples.safetensors` vectors of training texts, of a linear model "
        "their words and word pairs: publish an export for transformers or PEFT if they are "
        "confidential."
    ),
}


def _left_out(manifest_data: Mapping[str, Any], card_format: ExportFormat) -> str:
    texts = (
        "Most training texts. But `misclassified/` contains those that cross-validation "
        "misclassified, `golden.json` and `misclassified/` contain texts of the test split"
        if _is_cross_validated(manifest_data)
        else "The training texts. But `golden.json` and `misclassified/` contain texts of the test "
        "and validation splits"
    )
    return _LEFT_OUT[card_format].format(texts=texts)


def _is_cross_validated(manifest_data: Mapping[str, Any]) -> bool:
    """Return whether validation was cross-validation, on texts that the model is trained on."""
    return _get(manifest_data, "metrics", "cross_validated") is True


def _common_prompt(manifest_data: Mapping[str, Any], card_format: ExportFormat) -> Iterator[str]:
    """Yield that an export for another program has the prompt around the texts, if there is one."""
    prompt_format = _get(manifest_data, "spec", "data", "prompt_format")
    if prompt_format is not None and card_format is not ExportFormat.LORAWORKS:
        yield f"But `{manifest.USAGE_FILE}` has what all prompts of the data have in common."


# -- Sections -------------------------------------------------------------------------------------


def _introduction(
    manifest_data: Mapping[str, Any], spec: TrainSpec | None, base: str | None
) -> str:
    count, task = len(_labels(manifest_data)), _task_type(manifest_data)
    origin = f", fine-tuned from {_escape(base)}" if base else ""
    if spec is not None and spec.method.type == "probe":
        origin = f": a probe on the frozen encoder of {_escape(base or '')}"
    if manifest.is_linear(manifest_data["files"]):
        origin = f": TF-IDF and {'ridge' if task == 'regression' else 'logistic'} regression"
    pairs = _reads_pairs(manifest_data)
    classifier = "classifier of text pairs" if pairs else "text classifier"
    model = {
        "multi_label": f"A multi-label {classifier} with {count} labels",
        "regression": f"A model that predicts a number from {'two texts' if pairs else 'a text'}",
        "several_targets": "A model that predicts several targets of "
        f"{'a pair of texts' if pairs else 'a text'}",
    }.get(task, f"A {classifier} with {count} labels")
    return f"{model}{origin}. It was made with loraworks."


def _outputs(manifest_data: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the outputs mean."""
    if _task_type(manifest_data) == "regression":
        yield "## Output"
        yield "The number, in the unit of the training data."
        return
    several = _task_type(manifest_data) == "several_targets"
    yield "## Outputs" if several else "## Labels"
    yield (
        "In the order of the outputs, as TARGET/LABEL:"
        if several
        else "In the order of the outputs:"
    )
    yield f"```json\n{json.dumps(_labels(manifest_data), ensure_ascii=False)}\n```"


def _usage(manifest_data: Mapping[str, Any], card_format: ExportFormat, name: str) -> str:
    linear = manifest.is_linear(manifest_data["files"])
    task = _task_type(manifest_data)
    match card_format:
        case ExportFormat.TRANSFORMERS:
            options = "top_k=None, truncation=True" if task == "multi_label" else "truncation=True"
            usage = _TRANSFORMERS_USAGE.replace("OPTIONS", options)
            # text-embeddings-inference applies a softmax to several outputs, a sigmoid to one.
            usage += _TEI_USAGE if task == "single_label" else ""
        case ExportFormat.PEFT:
            count = 1 if task == "regression" else len(_labels(manifest_data))
            usage = _PEFT_USAGE.replace("ANSWER", _PEFT_ANSWERS[task]).replace("COUNT", str(count))
        case ExportFormat.ONNX:
            usage = _ONNX_USAGE.replace("ANSWER", _ONNX_ANSWERS[task])
        case _:
            usage = _LORAWORKS_USAGE + (_LINEAR_USAGE if linear else "")
    if _reads_pairs(manifest_data):
        for single, pair in _PAIR_USAGE.items():
            usage = usage.replace(single, pair)
    return usage.replace("FOLDER", _folder(name))


def _reads_pairs(manifest_data: Mapping[str, Any]) -> bool:
    return _get(manifest_data, "spec", "data", "text_pair_column") is not None


def _folder(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", name)  # goes into code


def _long_texts(
    manifest_data: Mapping[str, Any], card_format: ExportFormat, name: str
) -> Iterator[str]:
    """Yield a section if the model reads long texts in windows."""
    length = _number(manifest_data, "max_length")
    if length is None or _get(manifest_data, "spec", "data", "long_texts") != "windows":
        return
    stride = window_overlap(int(length))
    yield "## Long texts"
    yield (
        f"A text of more than {int(length)} tokens is read in up to {MAX_WINDOWS} windows of that "
        f"length, of which consecutive ones share {stride} tokens. Its logits are the mean of "
        "those of its windows, in training and in serving."
    )
    if card_format in _WINDOWS_USAGE:
        reader, code = _WINDOWS_USAGE[card_format]
        yield f"{reader} the first window only. This computes what loraworks does:"
        numbers = {"LENGTH": int(length), "STRIDE": stride, "MAX_WINDOWS": MAX_WINDOWS}
        code = code.replace("FOLDER", _folder(name))
        for placeholder, number in numbers.items():
            code = code.replace(placeholder, str(number))
        yield code


_SPLIT_TEXT = """\
windows = tokenizer(
    "A long text to classify.",
    truncation=True,
    max_length=LENGTH,
    stride=STRIDE,
    return_overflowing_tokens=True,
    padding=True,
    return_tensors="TENSORS",
)
del windows["overflow_to_sample_mapping"]"""
_WINDOWS_USAGE = {  # which program reads what, and code
    ExportFormat.PEFT: (
        "The code above reads",
        """\
```python
# with the model and tokenizer of the code above
SPLIT_TEXT
logits = model(**windows).logits[:MAX_WINDOWS].mean(dim=0)
```""".replace("SPLIT_TEXT", _SPLIT_TEXT.replace("TENSORS", "pt")),
    ),
    ExportFormat.TRANSFORMERS: (
        "A pipeline of transformers and text-embeddings-inference read",
        """\
```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
model = AutoModelForSequenceClassification.from_pretrained("FOLDER").eval()
SPLIT_TEXT
logits = model(**windows).logits[:MAX_WINDOWS].mean(dim=0)
```""".replace("SPLIT_TEXT", _SPLIT_TEXT.replace("TENSORS", "pt")),
    ),
    ExportFormat.ONNX: (
        "A run with a truncated text reads",
        """\
```python
import numpy as np
from onnxruntime import InferenceSession
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
session = InferenceSession("FOLDER/model.onnx")
SPLIT_TEXT
feed = {each.name: windows[each.name].astype(np.int64) for each in session.get_inputs()}
logits = session.run(["logits"], feed)[0][:MAX_WINDOWS].mean(axis=0)
```""".replace("SPLIT_TEXT", _SPLIT_TEXT.replace("TENSORS", "np")),
    ),
}
_PAIR_USAGE = {  # calls with a single text -> with a pair
    'classify("A text to classify."': 'classify({"text": "One text.", "text_pair": "Another."}',
    '{"inputs": "A text to classify."}': '{"inputs": ["One text.", "Another."]}',
    'tokenizer("A text to classify."': 'tokenizer("One text.", "Another."',
    'FOLDER "A text to classify."': 'FOLDER "One text." --pair "Another."',
    "from safetensors.numpy": "from scipy.sparse import hstack\nfrom safetensors.numpy",
    'decision = vectorizer.transform(["A text to classify."])': """\
first, second = (vectorizer.transform([text]) for text in ("One text.", "Another."))
features = hstack([first, second, first.multiply(second).sqrt()])
decision = features""",
}
_TRANSFORMERS_USAGE = """\
With transformers, where `FOLDER` is this folder or its name on the Hub:

```python
from transformers import pipeline

classify = pipeline("text-classification", model="FOLDER")
print(classify("A text to classify.", OPTIONS))
```"""
_TEI_USAGE = """

With text-embeddings-inference:

```sh
text-embeddings-router --model-id FOLDER --port 8080
curl http://127.0.0.1:8080/predict -H 'Content-Type: application/json' \\
  -d '{"inputs": "A text to classify."}'
```"""
_PEFT_USAGE = """\
With PEFT, where `FOLDER` is this folder:

```python
import json
from pathlib import Path

from peft import PeftConfig, PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

config = PeftConfig.from_pretrained("FOLDER")
bundled = Path("FOLDER/base")
base = AutoModelForSequenceClassification.from_pretrained(
    bundled if bundled.is_dir() else config.base_model_name_or_path,
    revision=None if bundled.is_dir() else config.revision,
    num_labels=COUNT,
    ignore_mismatched_sizes=True,  # the adapter has the head
)
model = PeftModel.from_pretrained(base, "FOLDER").eval()
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
labels = json.loads(Path("FOLDER/id2label.json").read_text())

batch = tokenizer("A text to classify.", truncation=True, return_tensors="pt")
logits = model(**batch).logits[0]
ANSWER
```"""
_PEFT_ANSWERS = {
    "single_label": "print(labels[str(int(logits.argmax()))])",
    "multi_label": "print({labels[str(i)]: float(p) for i, p in enumerate(logits.sigmoid())})",
    "regression": "print(float(logits))",
}
_ONNX_USAGE = """\
With ONNX Runtime, where `FOLDER` is this folder. `certificate.json` says how close that comes to
the predictions of loraworks:

```python
import json
from pathlib import Path

import numpy as np
from onnxruntime import InferenceSession
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
session = InferenceSession("FOLDER/model.onnx")
labels = json.loads(Path("FOLDER/config.json").read_text())["id2label"]

batch = tokenizer("A text to classify.", truncation=True, return_tensors="np")
names = [each.name for each in session.get_inputs()]
logits = session.run(["logits"], {name: batch[name].astype(np.int64) for name in names})[0][0]
ANSWER
```

With Optimum (`pip install optimum-onnx[onnxruntime]`):

```python
from optimum.onnxruntime import ORTModelForSequenceClassification

model = ORTModelForSequenceClassification.from_pretrained("FOLDER")
```"""
_ONNX_ANSWERS = {
    "single_label": "print(labels[str(logits.argmax())])",
    "multi_label": "print({labels[str(i)]: 1 / (1 + np.exp(-z)) for i, z in enumerate(logits)})",
    "regression": "print(float(logits[0]))",
}
_LORAWORKS_USAGE = """\
Import it into a loraworks service, as the archive or as the unpacked folder, or use it without one:

```sh
loraworks models import FOLDER --name my-model
python -m lora_core predict FOLDER "A text to classify."
```"""
_LINEAR_USAGE = """

With scikit-learn and safetensors alone:

```python
import json
from pathlib import Path

from safetensors.numpy import load_file
from sklearn.feature_extraction.text import TfidfVectorizer

described = json.loads(Path("FOLDER/linear.json").read_text())
settings = described["vectorizer"] | {"ngram_range": tuple(described["vectorizer"]["ngram_range"])}
tensors = load_file("FOLDER/linear.safetensors")
vectorizer = TfidfVectorizer(vocabulary=described["terms"], **settings)
vectorizer.idf_ = tensors["idf"]
decision = vectorizer.transform(["A text to classify."]) @ tensors["coef"].T + tensors["intercept"]
```"""


def _results(manifest_data: Mapping[str, Any]) -> Iterator[str]:
    rows: list[tuple[str, ...]] = []
    main, other = _shown_metrics(manifest_data)
    for split in ("validation", "test"):
        value = _metric(manifest_data, split, main)
        if value is None:
            continue
        texts = _number(manifest_data, "metrics", "examples", split)
        cross_validated = split == "validation" and _is_cross_validated(manifest_data)
        name = "cross-validation" if cross_validated else split
        second = _metric(manifest_data, split, other)
        count = "" if texts is None else f"{int(texts):,}"
        digits = ".4g" if main == "rmse" else ".3f"  # errors may be of any magnitude
        shown = "" if second is None else f"{second:{digits}}"
        if main != "accuracy":
            rows.append((name, count, f"{value:{digits}}", shown))
            continue
        interval = ""
        if texts:
            low, high = wilson_interval(value, texts)
            interval = f"{low:.1%} to {high:.1%}"
        rows.append((name, count, f"{value:.1%}", interval, shown))
    if not rows:
        return
    labels = [METRICS[name].label for name in (main, other)]
    intervals = ["95% interval"] if main == "accuracy" else []
    yield "## Results"
    yield _table(("split", "texts", labels[0], *intervals, labels[1]), rows)
    verdict = _get(manifest_data, "metrics", "verdict")
    if isinstance(verdict, Mapping):
        sentences = verdict.get("sentences")
        said = [verdict.get("headline"), *(sentences if isinstance(sentences, list) else [])]
        yield _escape(" ".join(each for each in said if isinstance(each, str)))


def _training(
    manifest_data: Mapping[str, Any], spec: TrainSpec | None, base: str | None, data: str
) -> Iterator[tuple[str, str]]:
    yield from _method_rows(_get(manifest_data, "spec", "method"))
    if spec is not None:
        yield from _optim_rows(spec)
    if base is not None:
        yield "base model", _escape(base)
    examples = _get(manifest_data, "metrics", "examples")
    if isinstance(examples, Mapping):
        counts = ", ".join(
            f"{_escape(split)} {int(count):,}"
            for split in examples
            if (count := _number(examples, split)) is not None
            and not (split == "validation" and _is_cross_validated(manifest_data))
        )
        yield "data", f"{_escape(data)} (texts: {counts})"
    if (length := _number(manifest_data, "max_length")) is not None:
        yield "maximum length", f"{int(length)} tokens"
    trained = _number(manifest_data, "metrics", "trainable_parameters")
    total = _number(manifest_data, "metrics", "total_parameters")
    if trained is not None and total is not None:
        yield "trained parameters", f"{int(trained):,} of {int(total):,}"
    versions = manifest_data.get("created_by")
    if isinstance(versions, Mapping):
        yield "made with", _escape(", ".join(f"{name} {each}" for name, each in versions.items()))


def _method_rows(stored: object) -> Iterator[tuple[str, str]]:
    try:
        method = _METHOD.validate_python(stored)
    except ValidationError:  # such as `merged`, of an import
        yield "method", _escape(str(stored.get("type") if isinstance(stored, Mapping) else None))
        return
    if method.type == "auto":
        yield "method", "auto"
        return
    yield "method", _escape(describe_method(method))
    if isinstance(method, LoraSpec):
        layers = "all" if method.layers is None else ", ".join(map(str, method.layers))
        yield "rank, alpha", f"{method.r}, {method.alpha:g}"
        yield "adapted layers", f"{', '.join(method.targets)}; blocks: {layers}"


def _optim_rows(spec: TrainSpec) -> Iterator[tuple[str, str]]:
    if spec.method.type in ("baseline", "lora", "full"):
        optim = spec.optim
        yield "epochs, batch size", f"{optim.epochs}, {optim.batch_size}"
        if optim.learning_rate is not None:
            yield "learning rate", f"{optim.learning_rate:.3g}"


def is_calibration_fitted(manifest_data: Mapping[str, Any]) -> bool:
    """Return false if the calibration of a model has defaults, for lack of validation texts.

    An import has no metrics of its calibration, and says so in the calibration itself.
    """
    found = (_get(manifest_data, *keys, "calibration", "fitted") for keys in (("metrics",), ()))
    return False not in found


def _calibration(manifest_data: Mapping[str, Any], card_format: ExportFormat) -> Iterator[str]:
    thresholds = _thresholds(manifest_data)
    fitted = is_calibration_fitted(manifest_data)
    if thresholds and _task_type(manifest_data) == "multi_label":
        yield "## Calibration"
        part = "" if card_format is ExportFormat.LORAWORKS else ", and part of the last layer"
        yield (
            f"Scale and offset of each label are fitted on the validation split{part}: the sigmoid "
            "of an output is a probability. A label is predicted if its probability is at least "
            "its threshold:"
            if fitted
            else "No scale, offset or threshold is fitted. A label is predicted if the sigmoid of "
            "its output is at least its threshold:"
        )
        yield thresholds
        if fitted and (unfitted := _labels_without_fit(manifest_data)):
            names = _escape(", ".join(unfitted))
            yield (
                "But too few validation texts have, or lack, these labels to fit anything: "
                f"{names}."
            )
        return
    if (half_width := _number(manifest_data, "calibration", "half_width")) is not None:
        yield "## Calibration"
        yield f"90% of the numbers of validation are within {half_width:.4g} of the prediction."
        return
    temperature = _number(manifest_data, "calibration", "temperature")
    if temperature is None:
        return
    yield "## Calibration"
    if not fitted:
        yield "Validation has too few texts to fit a temperature or thresholds."
        return
    best = f"On the validation split, the temperature {temperature:.4g} fits best"
    if temperature == 1 and _get(manifest_data, "metrics", "calibration", "fitted") is True:
        yield "No temperature is fitted, since no validation text is misclassified."
    elif card_format is ExportFormat.LORAWORKS:
        yield f"{best}. loraworks divides the logits by it, so that its scores are probabilities."
    else:
        yield (
            f"{best}. The weights of the last layer are divided by it, so that the softmax of "
            "the logits gives calibrated probabilities: those of loraworks."
        )
    if thresholds:
        yield (
            "The predicted label is the one with the highest probability / threshold, for the best "
            "macro F1 on the validation split:"
        )
        yield thresholds
        if card_format is not ExportFormat.LORAWORKS:
            yield (
                f"{_PROGRAMS[card_format]} knows no thresholds and predicts the most probable "
                "label: to predict as loraworks does, divide the probabilities by the thresholds, "
                f"which are also in `{manifest.USAGE_FILE}`."
            )


def _labels_without_fit(manifest_data: Mapping[str, Any]) -> list[str]:
    """Return the labels of a multi-label model whose scale and offset have their defaults."""
    calibration = manifest_data.get("calibration")
    scale, offset = (_get(calibration, name) for name in ("scale", "offset"))
    if not isinstance(scale, list | tuple) or not isinstance(offset, list | tuple):
        return []
    return [
        label
        for label, *fit in zip(_labels(manifest_data), scale, offset, strict=False)
        if fit == [1, 0]
    ]


def _unfamiliar_texts(manifest_data: Mapping[str, Any], card_format: ExportFormat) -> Iterator[str]:
    """Yield what the artifact knows about texts unlike the training texts."""
    examples, held_out, share = (
        _number(manifest_data, "nearest_examples", name)
        for name in ("examples", "held_out", "expected_share")
    )
    if card_format is not ExportFormat.LORAWORKS or None in (examples, held_out, share):
        return
    yield "## Unfamiliar texts"
    yield (
        f"The vectors of {examples:,.0f} training texts tell whether a text is unlike what the "
        f"model was trained on. The threshold comes from {held_out:,.0f} held-out texts: of texts "
        f"like these, {share:.1%} are expected to be called unfamiliar."
    )


_PROGRAMS = {
    ExportFormat.TRANSFORMERS: "The pipeline of transformers",
    ExportFormat.PEFT: "PEFT",
    ExportFormat.ONNX: "ONNX Runtime",
}


def _thresholds(manifest_data: Mapping[str, Any]) -> str | None:
    """Return the threshold of each label as a block of JSON; None if there are none."""
    labels, found = _labels(manifest_data), _get(manifest_data, "calibration", "thresholds")
    if not isinstance(found, list | tuple) or len(found) != len(labels):
        return None
    values = [_number({"threshold": each}, "threshold") for each in found]
    rounded = {
        label: round(value, 4)
        for label, value in zip(labels, values, strict=True)
        if value is not None
    }
    return f"```json\n{json.dumps(rounded, ensure_ascii=False)}\n```"


# -- Values and text ------------------------------------------------------------------------------


def _get(value: Any, *keys: str) -> Any:
    """Return a nested value; None if there is none."""
    for key in keys:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def _number(manifest_data: Mapping[str, Any], *keys: str, signed: bool = False) -> float | None:
    """Return a nested number that is finite and, unless `signed`, not negative; else None."""
    value = _get(manifest_data, *keys)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if (-_TOO_LARGE if signed else 0) <= value < _TOO_LARGE else None


def _escape(text: str) -> str:
    """Return text on one line, without a meaning in Markdown or HTML."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
