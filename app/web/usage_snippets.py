"""Use it elsewhere: how other programs use a version, each way with what to copy.

A way is a function in `_WAYS`. It returns None for a version that it does not work for.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from shlex import quote

from fastapi import Request

from app.http.dependencies import get_caller
from app.web.curl import base_url, cli_url_option, curl_command

_TEXT, _SECOND_TEXT = "A text to classify.", "Another text."


@dataclass(frozen=True)
class SnippetModelVersion:
    """A version, and what decides how it can be used."""

    ref: str
    method: str
    has_encoder: bool
    task: str
    pairs: bool
    targets: tuple[str, ...]  # of several targets; else empty
    request: Request

    @property
    def origin(self) -> str:
        """The address of this service, without a slash at its end."""
        return base_url(self.request)

    @property
    def url_option(self) -> str:
        """What a command needs to reach this service."""
        return cli_url_option(self.request)

    @property
    def needs_key(self) -> bool:
        return get_caller(self.request.scope).signed_in

    @property
    def imports(self) -> str:
        """What the Python of `key` needs."""
        return "import os\n\n" if self.needs_key else ""

    @property
    def key(self) -> str:
        """The API key, as Python."""
        return 'os.environ["LORAWORKS_API_KEY"]' if self.needs_key else '"any"'

    @property
    def is_single_text_single_target(self) -> bool:
        """Whether a client can use it that sends one text and expects labels or a number."""
        return not self.pairs and not self.targets

    def export_command_and_folder(self, program: str) -> tuple[str, str]:
        """Return the command that exports it for a program, and the folder that this makes."""
        folder = f"{self.ref.replace(':', '-')}-{program}"
        target = f" --target {quote(self.targets[0])}" if self.targets else ""
        command = (
            f"loraworks models export{self.url_option} {self.ref} --format {program}{target} "
            f"--out {folder}"
        )
        return command, folder


@dataclass(frozen=True)
class UsageOption:
    """A way to use a version. `snippets`: what to copy, by where to paste it."""

    id: str
    name: str
    snippets: Mapping[str, str]
    guide: str  # page of the documentation


def build_usage_snippets(version: SnippetModelVersion) -> list[UsageOption]:
    """Return the ways that work for a version."""
    return [way for make in _WAYS if (way := make(version)) is not None]


# -- Predictions of this service ------------------------------------------------------------------


def _command_line(version: SnippetModelVersion) -> UsageOption:
    pair = f' --pair "{_SECOND_TEXT}"' if version.pairs else ""
    command = f'loraworks predict{version.url_option} --model {version.ref} "{_TEXT}"{pair}'
    return UsageOption("command-line", "Command line", {"Shell": command}, "reference/cli.md")


def _curl(version: SnippetModelVersion) -> UsageOption:
    pair = {"text": _TEXT, "text_pair": _SECOND_TEXT}
    body = {"inputs": pair if version.pairs else _TEXT}
    command = curl_command(version.request, "POST", f"/models/{version.ref}/predict", body)
    return UsageOption("curl", "curl", {"Shell": command}, "reference/serving.md")


def _openai(version: SnippetModelVersion) -> UsageOption | None:
    if not version.is_single_text_single_target:
        return None
    call = f"""\
completion = client.chat.completions.create(
    model="{version.ref}", messages=[{{"role": "user", "content": "{_TEXT}"}}]
)
print(completion.choices[0].message.content)"""
    if version.task == "multi_label":
        call = f"""\
result = client.moderations.create(model="{version.ref}", input="{_TEXT}").results[0]
print(result.category_scores.to_dict())"""
    code = f"""\
{version.imports}from openai import OpenAI

client = OpenAI(base_url="{version.origin}/openai/v1", api_key={version.key})
{call}"""
    return UsageOption("openai", "OpenAI SDK", {"Python": code}, "reference/openai.md")


def _hugging_face(version: SnippetModelVersion) -> UsageOption | None:
    if not version.is_single_text_single_target:
        return None
    code = f"""\
{version.imports}from huggingface_hub import InferenceClient

client = InferenceClient(token={version.key})
url = "{version.origin}/models/{version.ref}/predict"
print(client.text_classification("{_TEXT}", model=url))"""
    return UsageOption(
        "hugging-face", "Hugging Face client", {"Python": code}, "reference/serving.md"
    )


def _mistral(version: SnippetModelVersion) -> UsageOption | None:
    if version.pairs:
        return None
    code = f"""\
{version.imports}from mistralai.client import Mistral

client = Mistral(server_url="{version.origin}/mistral", api_key={version.key})
print(client.classifiers.classify(model="{version.ref}", inputs=["{_TEXT}"]).results)"""
    return UsageOption("mistral", "Mistral SDK", {"Python": code}, "reference/mistral.md")


# -- Exports --------------------------------------------------------------------------------------


def _transformers(version: SnippetModelVersion) -> UsageOption | None:
    if not version.has_encoder:
        return None
    command, folder = version.export_command_and_folder("transformers")
    pair = f'{{"text": "{_TEXT}", "text_pair": "{_SECOND_TEXT}"}}'
    every = "top_k=None, " if version.task == "multi_label" else ""
    code = f"""\
from transformers import pipeline

classify = pipeline("text-classification", model="{folder}")
print(classify({pair if version.pairs else f'"{_TEXT}"'}, {every}truncation=True))"""
    return UsageOption(
        "transformers", "transformers", {"Shell": command, "Python": code}, "how-to/exchange.md"
    )


def _peft(version: SnippetModelVersion) -> UsageOption | None:
    if version.method != "lora":
        return None
    command, folder = version.export_command_and_folder("peft")
    code = f"""\
import json
from pathlib import Path

from peft import PeftConfig, PeftModel
from transformers import AutoModelForSequenceClassification

config = PeftConfig.from_pretrained("{folder}")
base = AutoModelForSequenceClassification.from_pretrained(
    config.base_model_name_or_path,
    revision=config.revision,
    num_labels=len(json.loads(Path("{folder}/id2label.json").read_text())),
)
model = PeftModel.from_pretrained(base, "{folder}").eval()"""
    return UsageOption("peft", "PEFT", {"Shell": command, "Python": code}, "how-to/exchange.md")


def _onnx(version: SnippetModelVersion) -> UsageOption | None:
    if not version.has_encoder:
        return None
    command, folder = version.export_command_and_folder("onnx")
    pair = f', "{_SECOND_TEXT}"' if version.pairs else ""
    code = f"""\
from onnxruntime import InferenceSession
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{folder}")
session = InferenceSession("{folder}/model.onnx")
batch = tokenizer("{_TEXT}"{pair}, truncation=True, return_tensors="np")
print(session.run(["logits"], {{each.name: batch[each.name] for each in session.get_inputs()}}))"""
    return UsageOption(
        "onnx", "ONNX Runtime", {"Shell": command, "Python": code}, "how-to/exchange.md"
    )


def _loraworks(version: SnippetModelVersion) -> UsageOption:
    file = f"{version.ref.replace(':', '-')}.tar"
    commands = f"""\
loraworks models export{version.url_option} {version.ref} --out {file}
LORAWORKS_URL=https://there.example loraworks models import {file} --name my-model"""
    return UsageOption("loraworks", "Another loraworks", {"Shell": commands}, "how-to/exchange.md")


_WAYS: tuple[Callable[[SnippetModelVersion], UsageOption | None], ...] = (
    _command_line, _curl, _openai, _mistral, _hugging_face,
    _transformers, _peft, _onnx, _loraworks,
)  # fmt: skip
