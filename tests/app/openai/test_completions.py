"""Chat completions and completions by the unmodified client, on a real server with a real model."""

import asyncio
import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import hypothesis
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from openai import (
    APIStatusError,
    AsyncOpenAI,
    BadRequestError,
    NotFoundError,
    OpenAI,
    PermissionDeniedError,
    RateLimitError,
)
from openai.types import Completion
from openai.types.chat import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionTokenLogprob,
)
from pydantic import BaseModel
from starlette.testclient import TestClient

from app.auth.service import CreatedKey
from app.database.engines import Database
from app.main import create_app
from app.openai import ids
from app.openai.completion_schemas import ChatCompletionCreate, CompletionCreate
from app.registry import service as registry
from app.serving.admission import MIN_TOKEN_LIMIT
from app.settings import Settings
from lora_core import manifest
from lora_core.specs.chat import PromptFormat
from tests.app.openai.conftest import OpenClient, RequestCounter, job_of
from tests.app.serving.conftest import Publish
from tests.app.serving.stub import StubPredictor
from tests.tiny_artifact import (
    make_artifact,
    make_multi_label_artifact,
    make_regression_artifact,
)

TEXT = "a good film"
MESSAGES: Any = [{"role": "user", "content": TEXT}]
PARTS = ("Label this review:", "a good film")
PROMPT_FORMAT = {"prefix": "Label this review:", "suffix": "###"}


@pytest.fixture
def root(url: str) -> str:
    """The URL of the service itself."""
    return url.removesuffix("/openai/v1")


def probabilities(root: str, *texts: str, **body: Any) -> list[dict[str, float]]:
    """Return what `/predict` answers to each text."""
    sent = {"inputs": list(texts), "model": "sentiment", **body}
    response = httpx2.post(f"{root}/predict", json=sent, timeout=60)
    assert response.status_code == 200, response.text
    return [{each["label"]: each["score"] for each in row} for row in response.json()]


def token_of(completion: ChatCompletion) -> ChatCompletionTokenLogprob:
    """Return the only token of the first choice."""
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    (token,) = logprobs.content
    return token


def top_probabilities(token: ChatCompletionTokenLogprob) -> dict[str, float]:
    """Return the probabilities of the most probable labels, in the order sent."""
    return {each.token: math.exp(each.logprob) for each in token.top_logprobs}


def strict(kind: type[Any], body: Any) -> Any:
    """Validate a body by the client's own type, without its leniency."""
    return kind.model_validate(json.loads(json.dumps(body)), strict=True)


@pytest.fixture
def with_format(publish: Publish, tmp_path: Path) -> Callable[..., None]:
    """Publishes a model that was trained on examples in chat form."""

    def make(**prompt_format: Any) -> None:
        def add_format(directory: Path) -> None:
            stored = manifest.read(directory)
            data = stored["spec"]["data"] | {"prompt_format": prompt_format}
            manifest.create_and_save(
                directory,
                {
                    **{key: value for key, value in stored.items() if key != "files"},
                    "spec": stored["spec"] | {"data": data},
                },
            )

        publish(modify=add_format)

    return make


class TestChat:
    """`client.chat.completions.create`."""

    def test_answer_is_the_most_probable_label(self, sdk: OpenAI, publish: Publish) -> None:
        publish()
        completion = sdk.chat.completions.create(model="sentiment", messages=MESSAGES)
        strict(ChatCompletion, completion.model_dump(mode="json"))
        (choice,) = completion.choices
        assert choice.message.content == "good"
        assert (choice.message.role, choice.message.refusal) == ("assistant", None)
        assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "stop", None)
        assert completion.object == "chat.completion"
        assert completion.id.startswith("chatcmpl-")
        assert completion.created > 1_700_000_000
        assert (completion.model, completion.system_fingerprint) == ("sentiment", "sentiment:1")

    def test_probabilities_are_those_of_predict(
        self, sdk: OpenAI, publish: Publish, root: str
    ) -> None:
        publish()
        texts = ("a good film", "a dull plot", "the story was fine, and the end was not")
        for text, expected in zip(texts, probabilities(root, *texts), strict=True):
            completion = sdk.chat.completions.create(
                model="sentiment",
                messages=[{"role": "user", "content": text}],
                logprobs=True,
                top_logprobs=20,
            )
            token = token_of(completion)
            assert token.token == completion.choices[0].message.content
            assert token.bytes == list(token.token.encode())
            found = top_probabilities(token)
            assert found == pytest.approx(expected, abs=1e-6)
            assert list(found) == list(expected)  # the highest first
            assert math.exp(token.logprob) == pytest.approx(max(expected.values()), abs=1e-6)

    @pytest.mark.parametrize("top", [None, 0, 1])
    def test_number_of_top_logprobs(self, sdk: OpenAI, publish: Publish, top: int | None) -> None:
        publish()
        completion = sdk.chat.completions.create(
            model="sentiment", messages=MESSAGES, logprobs=True, top_logprobs=top
        )
        assert len(token_of(completion).top_logprobs) == (top or 0)

    def test_impossible_label(self, sdk: OpenAI, publish: Publish) -> None:
        """Its logarithm would be minus infinity, which JSON does not have."""

        def widen(directory: Path) -> None:
            stored = manifest.read(directory)
            facts = {key: value for key, value in stored.items() if key != "files"}
            manifest.create_and_save(directory, facts | {"calibration": {"temperature": 1e-4}})

        publish(modify=widen)
        completion = sdk.chat.completions.create(
            model="sentiment", messages=MESSAGES, logprobs=True, top_logprobs=2
        )
        assert [each.logprob for each in token_of(completion).top_logprobs] == [0.0, -9999.0]

    def test_usage_and_headers_are_those_of_predict(
        self, sdk: OpenAI, publish: Publish, root: str
    ) -> None:
        publish()
        response = sdk.chat.completions.with_raw_response.create(
            model="sentiment", messages=MESSAGES, n=3
        )
        predicted = httpx2.post(f"{root}/predict", json={"inputs": TEXT}, timeout=60)
        completion = response.parse()
        tokens = int(predicted.headers["x-compute-tokens"])
        assert completion.usage is not None
        assert completion.usage.prompt_tokens == tokens > 2
        assert completion.usage.completion_tokens == 3
        assert completion.usage.total_tokens == tokens + 3
        assert [choice.index for choice in completion.choices] == [0, 1, 2]
        assert {choice.message.content for choice in completion.choices} == {"good"}
        for name in ("X-Model-Version", "X-Engine", "x-compute-tokens", "x-compute-characters"):
            assert response.headers[name] == predicted.headers[name]
        assert response.request_id

    def test_settings_of_sampling_change_nothing(self, sdk: OpenAI, publish: Publish) -> None:
        publish()
        completion = sdk.chat.completions.create(
            model="sentiment",
            messages=MESSAGES,
            temperature=1.3,
            top_p=0.2,
            seed=7,
            max_tokens=1,
            max_completion_tokens=1,
            presence_penalty=1,
            frequency_penalty=1,
            logit_bias={"42": -100},
            stop=["\n", "###"],
            user="me",
            store=False,
            metadata={"a": "b"},
            tool_choice="none",
            tools=[],
            modalities=["text"],
            response_format={"type": "text"},
            service_tier="auto",
        )
        assert completion.choices[0].message.content == "good"

    def test_truncated_text_is_counted(self, sdk: OpenAI, publish: Publish) -> None:
        publish()
        response = sdk.chat.completions.with_raw_response.create(
            model="sentiment", messages=[{"role": "user", "content": "a good film " * 100}]
        )
        assert response.headers["X-Truncated"] == "1"

    def test_stream(self, sdk: OpenAI, publish: Publish, root: str) -> None:
        publish()
        chunks = list(
            sdk.chat.completions.create(
                model="sentiment",
                messages=MESSAGES,
                n=2,
                logprobs=True,
                top_logprobs=2,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        for chunk in chunks:
            strict(ChatCompletionChunk, chunk.model_dump(mode="json"))
        assert len({(each.id, each.created, each.system_fingerprint) for each in chunks}) == 1
        *parts, last = chunks
        for index in (0, 1):
            choices = [part.choices[0] for part in parts if part.choices[0].index == index]
            assert choices[0].delta.role == "assistant"
            assert "".join(choice.delta.content or "" for choice in choices) == "good"
            assert [choice.finish_reason for choice in choices] == [None, None, "stop"]
            (logprobs,) = [choice.logprobs for choice in choices if choice.logprobs]
            assert logprobs.content is not None
            found = {
                each.token: math.exp(each.logprob) for each in logprobs.content[0].top_logprobs
            }
            assert found == pytest.approx(probabilities(root, TEXT)[0], abs=1e-6)
        assert (last.choices, all(part.usage is None for part in parts)) == ([], True)
        assert last.usage is not None
        assert last.usage.completion_tokens == 2

    def test_stream_without_usage_ends_with_done(self, publish: Publish, url: str) -> None:
        publish()
        response = httpx2.post(
            f"{url}/chat/completions",
            json={"model": "sentiment", "messages": MESSAGES, "stream": True},
            timeout=60,
        )
        assert response.headers["content-type"].startswith("text/event-stream")
        *events, end = response.text.strip().split("\n\n")
        assert end == "data: [DONE]"
        assert all("usage" not in json.loads(event.removeprefix("data: ")) for event in events)

    def test_stream_helper_of_the_client(self, sdk: OpenAI, publish: Publish) -> None:
        publish()
        with sdk.chat.completions.stream(model="sentiment", messages=MESSAGES) as stream:
            for _ in stream:
                pass
            assert stream.get_final_completion().choices[0].message.content == "good"

    def test_streaming_response_of_the_client(self, sdk: OpenAI, publish: Publish) -> None:
        publish()
        with sdk.chat.completions.with_streaming_response.create(
            model="sentiment", messages=MESSAGES, stream=True
        ) as response:
            lines = [line for line in response.iter_lines() if line]
        assert lines[-1] == "data: [DONE]"
        assert [line.startswith("data: {") for line in lines] == [True] * (len(lines) - 1) + [False]

    def test_async_client(self, publish: Publish, url: str) -> None:
        publish()

        async def ask() -> tuple[str | None, str]:
            async with AsyncOpenAI(base_url=url, api_key="none") as client:
                completion = await client.chat.completions.create(
                    model="sentiment", messages=MESSAGES
                )
                stream = await client.chat.completions.create(
                    model="sentiment", messages=MESSAGES, stream=True
                )
                text = ""
                async for chunk in stream:
                    text += chunk.choices[0].delta.content or ""
                return completion.choices[0].message.content, text

        assert asyncio.run(ask()) == ("good", "good")

    def test_abstention(self, sdk: OpenAI, publish: Publish, root: str) -> None:
        publish()
        best = max(probabilities(root, TEXT)[0].values())
        for threshold, content in ((best - 0.01, "good"), (min(best + 0.01, 1.0), None)):
            response = sdk.chat.completions.with_raw_response.create(
                model="sentiment",
                messages=MESSAGES,
                logprobs=True,
                extra_body={"abstain_below": threshold},
            )
            completion = response.parse()
            strict(ChatCompletion, completion.model_dump(mode="json"))
            message = completion.choices[0].message
            assert message.content == content
            assert (message.refusal is None) == (content is not None)
            assert content or message.refusal == (
                f"The probability of the label is below {threshold}."
            )
            assert response.headers.get("X-Abstained") == (None if content else "1")
            assert completion.usage is not None
            assert completion.usage.completion_tokens == (1 if content else 0)

    def test_every_name_of_a_model(
        self, sdk: OpenAI, publish: Publish, database: Database, root: str
    ) -> None:
        publish(promote=False, top_label="bad")
        publish()
        with database.write() as session:
            registry.move_alias(session, name="sentiment", alias="beta", number=1)
        base = "/bases/" + "owner/" * 80 + "roberta-" * 20
        name = ids.model_name(job_of(database), base=base, suffix="s" * 64)
        answers = {"sentiment": "good", "sentiment:1": "bad", "sentiment@beta": "bad", name: "bad"}
        for model, label in answers.items():
            completion = sdk.chat.completions.create(model=model, messages=MESSAGES)
            assert completion.choices[0].message.content == label
            assert completion.model == model
        for path in ("/predict", f"/models/{name}/predict"):
            sent = {"inputs": TEXT} | ({"model": name} if path == "/predict" else {})
            rows = httpx2.post(root + path, json=sent, timeout=60).json()
            assert rows[0]["label"] == "bad"


class TestFormat:
    """A model that was trained on examples in chat form reads prompts and answers in their form."""

    @pytest.mark.parametrize(
        "messages",
        [
            [{"role": "user", "content": "Label this review:\na good film\n\n###\n\n"}],
            [
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "Label this review: a good film"}],
                }
            ],
            [
                {"role": "system", "content": "You label reviews."},
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": "  a good film  "},
            ],
        ],
    )
    def test_what_all_prompts_share_is_left_out(
        self, sdk: OpenAI, with_format: Callable[..., None], root: str, messages: Any
    ) -> None:
        with_format(**PROMPT_FORMAT)
        response = sdk.chat.completions.with_raw_response.create(
            model="sentiment", messages=messages, logprobs=True
        )
        assert response.headers["x-compute-characters"] == str(len(TEXT))
        expected = probabilities(root, TEXT)[0]["good"]
        assert math.exp(token_of(response.parse()).logprob) == pytest.approx(expected, abs=1e-6)

    def test_earlier_turns_are_part_of_the_text(
        self, sdk: OpenAI, with_format: Callable[..., None], root: str
    ) -> None:
        with_format(**PROMPT_FORMAT)
        completion = sdk.chat.completions.create(
            model="sentiment",
            messages=[
                {"role": "user", "content": "a film"},
                {"role": "assistant", "content": "the story"},
                {"role": "user", "content": "Label this review: a dull plot"},
            ],
            logprobs=True,
        )
        (expected,) = probabilities(root, "a film\nthe story\na dull plot")
        best = max(expected.values())
        assert math.exp(token_of(completion).logprob) == pytest.approx(best, abs=1e-6)

    def test_json_answers(self, sdk: OpenAI, with_format: Callable[..., None]) -> None:
        with_format(answer_key="intent")

        class Intent(BaseModel):
            intent: str

        parsed = sdk.chat.completions.parse(
            model="sentiment", messages=MESSAGES, response_format=Intent
        )
        assert parsed.choices[0].message.parsed == Intent(intent="good")
        completion = sdk.chat.completions.create(
            model="sentiment",
            messages=MESSAGES,
            response_format={"type": "json_object"},
            logprobs=True,
            top_logprobs=2,
        )
        assert json.loads(completion.choices[0].message.content or "") == {"intent": "good"}
        assert [json.loads(each.token) for each in token_of(completion).top_logprobs] == [
            {"intent": "good"},
            {"intent": "bad"},
        ]

    def test_leading_space_of_old_completions(
        self, sdk: OpenAI, with_format: Callable[..., None]
    ) -> None:
        with_format(answer_prefix=" ", suffix="###")
        completion = sdk.completions.create(
            model="sentiment", prompt="a good film\n\n###\n\n", logprobs=2
        )
        assert completion.choices[0].text == " good"
        logprobs = completion.choices[0].logprobs
        assert logprobs is not None
        assert logprobs.tokens == [" good"]
        assert logprobs.top_logprobs is not None
        assert list(logprobs.top_logprobs[0]) == [" good", " bad"]

    @pytest.mark.parametrize(
        "content", ["Label this review:\n\n###\n\n", "Label this review:", " "]
    )
    def test_prompt_without_a_text(
        self, sdk: OpenAI, with_format: Callable[..., None], content: str
    ) -> None:
        with_format(**PROMPT_FORMAT)
        for call in (
            lambda: sdk.chat.completions.create(
                model="sentiment", messages=[{"role": "user", "content": content}]
            ),
            lambda: sdk.completions.create(model="sentiment", prompt=[TEXT, content]),
        ):
            with pytest.raises(BadRequestError) as raised:
                call()
            assert raised.value.code == "empty_input"


def test_stop_ends_the_answer(sdk: OpenAI, publish: Publish, tmp_path: Path) -> None:
    """Old scripts train on completions such as `good END`, and stop at ` END`."""
    labels = ("bad END", "good END")
    publish(artifact=make_artifact(tmp_path / "made", labels=labels, top_label="good END"))
    for stop, text in (
        (" END", "good"),
        (["\n", " END"], "good"),
        ([""], "good END"),
        (None, "good END"),
    ):
        chat = sdk.chat.completions.create(model="sentiment", messages=MESSAGES, stop=stop)
        assert chat.choices[0].message.content == text
        completion = sdk.completions.create(model="sentiment", prompt=TEXT, stop=stop)
        assert completion.choices[0].text == text


class TestCompletions:
    """`client.completions.create`."""

    def test_probabilities_are_those_of_predict(
        self, sdk: OpenAI, publish: Publish, root: str
    ) -> None:
        publish()
        prompts = ["a good film", "a dull plot", "the story was fine"]
        completion = sdk.completions.create(model="sentiment", prompt=prompts, logprobs=5)
        strict(Completion, completion.model_dump(mode="json"))
        assert completion.id.startswith("cmpl-")
        assert (completion.object, completion.model) == ("text_completion", "sentiment")
        assert completion.system_fingerprint == "sentiment:1"
        expected = probabilities(root, *prompts)
        for index, (choice, row, prompt) in enumerate(
            zip(completion.choices, expected, prompts, strict=True)
        ):
            assert (choice.index, choice.finish_reason) == (index, "stop")
            assert choice.text == max(row, key=lambda label: row[label])
            logprobs = choice.logprobs
            assert logprobs is not None
            assert (logprobs.tokens, logprobs.text_offset) == ([choice.text], [len(prompt)])
            assert logprobs.top_logprobs is not None
            assert logprobs.token_logprobs is not None
            (top,) = logprobs.top_logprobs
            assert {label: math.exp(value) for label, value in top.items()} == pytest.approx(
                row, abs=1e-6
            )
            assert logprobs.token_logprobs == [top[choice.text]]

    def test_one_prompt_without_logprobs(self, sdk: OpenAI, publish: Publish) -> None:
        publish()
        completion = sdk.completions.create(
            model="sentiment", prompt=TEXT, max_tokens=1, temperature=0, best_of=1, echo=False
        )
        (choice,) = completion.choices
        assert (choice.text, choice.logprobs) == ("good", None)
        assert completion.usage is not None
        assert completion.usage.completion_tokens == 1

    def test_logprobs_0_gives_that_of_the_answer_only(self, sdk: OpenAI, publish: Publish) -> None:
        publish()
        completion = sdk.completions.create(model="sentiment", prompt=TEXT, logprobs=0)
        logprobs = completion.choices[0].logprobs
        assert logprobs is not None
        assert (logprobs.tokens, logprobs.top_logprobs) == (["good"], None)

    def test_several_choices_for_each_prompt(self, sdk: OpenAI, publish: Publish) -> None:
        publish()
        completion = sdk.completions.create(
            model="sentiment", prompt=["a good film", "a plot"], n=2, best_of=3, logprobs=1
        )
        assert [choice.index for choice in completion.choices] == [0, 1, 2, 3]
        offsets = [choice.logprobs and choice.logprobs.text_offset for choice in completion.choices]
        assert offsets == [[11], [11], [6], [6]]
        assert completion.usage is not None
        assert completion.usage.completion_tokens == 4

    def test_stream(self, sdk: OpenAI, publish: Publish) -> None:
        publish()
        chunks = list(
            sdk.completions.create(
                model="sentiment",
                prompt=["a good film", "a plot"],
                logprobs=1,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        *parts, last = chunks
        assert [(part.choices[0].index, part.choices[0].text) for part in parts] == [
            (0, "good"),
            (1, "good"),
        ]
        assert last.usage is not None
        assert last.usage.completion_tokens == 2

    def test_async_client(self, publish: Publish, url: str) -> None:
        publish()

        async def ask() -> str:
            async with AsyncOpenAI(base_url=url, api_key="none") as client:
                completion = await client.completions.create(model="sentiment", prompt=TEXT)
                return completion.choices[0].text

        assert asyncio.run(ask()) == "good"

    def test_abstention(self, sdk: OpenAI, publish: Publish) -> None:
        publish()
        response = sdk.completions.with_raw_response.create(
            model="sentiment",
            prompt=[TEXT, TEXT],
            logprobs=2,
            extra_body={"abstain_below": 1.0},
        )
        completion = response.parse()
        strict(Completion, completion.model_dump(mode="json"))
        assert [choice.text for choice in completion.choices] == ["", ""]
        assert {choice.finish_reason for choice in completion.choices} == {"content_filter"}
        assert response.headers["X-Abstained"] == "2"


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
CHAT: dict[str, Any] = {"model": "sentiment", "messages": MESSAGES}
LEGACY: dict[str, Any] = {"model": "sentiment", "prompt": TEXT}


def user(content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


INVALID_CHAT: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages"),
    ({"messages": None}, "messages"),
    ({"messages": "a film"}, "messages"),
    ({"messages": ["a film"]}, "messages.0"),
    (user(None), "messages.0.content"),
    (user(7), "messages.0.content"),
    (user([IMAGE]), "messages.0.content"),
    (user([{"type": "text", "text": "a"}, IMAGE]), "messages.0.content"),
    (user([{"type": "input_audio", "input_audio": {}}]), "messages.0.content"),
    (user([{"type": "text"}]), "messages.0.content"),
    (user([{"type": "text", "text": 7}]), "messages.0.content"),
    (user(["a film"]), "messages.0.content"),
    (user("a\x00b"), "messages.0.content"),
    (user([{"type": "text", "text": "a\x00b"}]), "messages.0.content"),
    ({"messages": [{"content": TEXT}]}, "messages.0.role"),
    ({"messages": [{"role": "tool", "content": TEXT}]}, "messages.0.role"),
    ({"messages": [{"role": "User", "content": TEXT}]}, "messages.0.role"),
    ({"model": ""}, "model"),
    ({"model": None}, "model"),
    ({"model": ["sentiment"]}, "model"),
    ({"logprobs": 5}, "logprobs"),
    ({"logprobs": "true"}, "logprobs"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"logprobs": False, "top_logprobs": 2}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": "0"}, "temperature"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
    ({"n": 0}, "n"),
    ({"n": 129}, "n"),
    ({"stop": 7}, "stop"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"abstain_below": 2}, "abstain_below"),
    ({"tools": [{"type": "function"}]}, "tools"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"functions": [{"name": "f"}]}, "functions"),
    ({"function_call": {"name": "f"}}, "function_call"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"audio": {"voice": "alloy"}}, "audio"),
    ({"web_search_options": {"search_context_size": "low"}}, "web_search_options"),
]


def test_invalid_chat(sdk: OpenAI, publish: Publish, counter: RequestCounter) -> None:
    publish()
    for number, (changes, param) in enumerate(INVALID_CHAT, 1):
        with pytest.raises(BadRequestError) as raised:
            sdk.post("/chat/completions", body=CHAT | changes, cast_to=object)
        found = raised.value.param, raised.value.type, counter.requests
        assert found == (param, "invalid_request_error", number), changes


INVALID_LEGACY: list[tuple[dict[str, Any], str]] = [
    ({"prompt": None}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": 7}, "prompt"),
    ({"prompt": [1, 2, 3]}, "prompt"),  # token ids
    ({"prompt": [[1, 2], [3]]}, "prompt"),
    ({"prompt": ["a", 7]}, "prompt"),
    ({"prompt": "a\x00b"}, "prompt"),
    ({"logprobs": True}, "logprobs"),
    ({"logprobs": 21}, "logprobs"),
    ({"echo": True}, "echo"),
    ({"suffix": "end"}, "suffix"),
    ({"best_of": 0}, "best_of"),
    ({"n": 3, "best_of": 2}, "best_of"),
    ({"stream_options": {}}, "stream_options"),
    ({"max_tokens": 0}, "max_tokens"),
]


def test_invalid_completion(sdk: OpenAI, publish: Publish, counter: RequestCounter) -> None:
    publish()
    for number, (changes, param) in enumerate(INVALID_LEGACY, 1):
        with pytest.raises(BadRequestError) as raised:
            sdk.post("/completions", body=LEGACY | changes, cast_to=object)
        found = raised.value.param, raised.value.type, counter.requests
        assert found == (param, "invalid_request_error", number), changes


@pytest.mark.parametrize("content", ["", "  \n ", []])
def test_empty_text(sdk: OpenAI, publish: Publish, root: str, content: Any) -> None:
    publish()
    with pytest.raises(BadRequestError) as raised:
        sdk.post("/chat/completions", body=CHAT | user(content), cast_to=object)
    assert raised.value.code == "empty_input"
    with pytest.raises(BadRequestError) as raised:
        sdk.post("/completions", body=LEGACY | {"prompt": [TEXT, " "]}, cast_to=object)
    assert raised.value.code == "empty_input"
    assert "Prompt 1" in raised.value.message
    assert 'te_request_failure{err="validation"} 2.0' in httpx2.get(f"{root}/metrics").text


@pytest.mark.parametrize(
    "name", ["gpt-4o-mini", "gpt-4.1", "ft:gpt-4o-mini:acme::9AbC", "Sentiment"]
)
def test_unknown_model(sdk: OpenAI, publish: Publish, counter: RequestCounter, name: str) -> None:
    publish()
    with pytest.raises(NotFoundError) as raised:
        sdk.chat.completions.create(model=name, messages=MESSAGES)
    assert raised.value.code == "model_not_found"
    with pytest.raises(NotFoundError) as raised:
        sdk.completions.create(model=name, prompt=TEXT)
    assert raised.value.code == "model_not_found"
    assert counter.requests == 2


def test_too_many_prompts(sdk: OpenAI, publish: Publish, settings: Settings) -> None:
    publish()
    prompts = [TEXT] * (settings.max_inputs + 1)
    with pytest.raises(BadRequestError) as raised:
        sdk.completions.create(model="sentiment", prompt=prompts)
    assert raised.value.code == "too_many_inputs"


def test_too_many_choices(sdk: OpenAI, publish: Publish, settings: Settings) -> None:
    publish()
    n = settings.max_inputs // 2
    completion = sdk.completions.create(model="sentiment", prompt=[TEXT] * 2, n=n)
    assert len(completion.choices) == 2 * n
    with pytest.raises(BadRequestError, match=f"{3 * n} choices") as raised:
        sdk.completions.create(model="sentiment", prompt=[TEXT] * 3, n=n)
    assert (raised.value.code, raised.value.param) == ("too_many_choices", "n")


@pytest.mark.parametrize(("logprobs", "labels"), [(None, 1), (0, 1), (1, 1), (5, 2)])
def test_only_the_labels_that_are_asked_for_are_formatted(
    sdk: OpenAI,
    publish: Publish,
    monkeypatch: pytest.MonkeyPatch,
    logprobs: int | None,
    labels: int,
) -> None:
    publish()
    formatted: list[str] = []

    def format_answer(_: PromptFormat, label: str) -> str:
        formatted.append(label)
        return label

    monkeypatch.setattr(PromptFormat, "format_answer", format_answer)
    sdk.completions.create(model="sentiment", prompt=[TEXT] * 2, logprobs=logprobs, n=3)
    top: Any = {} if logprobs is None else {"logprobs": True, "top_logprobs": logprobs}
    sdk.chat.completions.create(model="sentiment", messages=MESSAGES, **top)
    assert len(formatted) == 3 * labels


def test_answer_of_a_multi_label_model_is_the_list_of_its_labels(
    sdk: OpenAI, publish: Publish, tmp_path: Path
) -> None:
    publish("topics", artifact=make_multi_label_artifact(tmp_path / "topics"))
    completion = sdk.chat.completions.create(model="topics", messages=MESSAGES)
    assert completion.choices[0].message.content == '["acting"]'
    assert sdk.completions.create(model="topics", prompt=TEXT).choices[0].text == '["acting"]'


def test_answer_of_a_regression_is_its_number(
    sdk: OpenAI, publish: Publish, tmp_path: Path, root: str
) -> None:
    publish("stars", artifact=make_regression_artifact(tmp_path / "stars"))
    body = {"inputs": TEXT, "model": "stars"}
    [answer] = httpx2.post(f"{root}/predict", json=body, timeout=60).json()
    content = sdk.chat.completions.create(model="stars", messages=MESSAGES).choices[0].message
    assert float(content.content or "") == pytest.approx(answer["score"], rel=1e-5)
    assert sdk.completions.create(model="stars", prompt=TEXT).choices[0].text == content.content


def test_answer_without_log_probabilities(sdk: OpenAI, publish: Publish, tmp_path: Path) -> None:
    publish("topics", artifact=make_multi_label_artifact(tmp_path / "topics"))
    for call in (
        lambda: sdk.chat.completions.create(model="topics", messages=MESSAGES, logprobs=True),
        lambda: sdk.completions.create(model="topics", prompt=TEXT, logprobs=0),
    ):
        with pytest.raises(BadRequestError, match="multi_label") as raised:
            call()
        assert (raised.value.code, raised.value.param) == ("logprobs_not_applicable", "logprobs")
    with pytest.raises(BadRequestError) as raised:
        sdk.chat.completions.create(
            model="topics", messages=MESSAGES, extra_body={"abstain_below": 0.9}
        )
    assert raised.value.code == "abstention_not_applicable"


class TestUnderLoad:
    """Limits are those of `/predict`."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"max_texts_per_second_per_key": 0.2})

    @pytest.mark.parametrize("path", ["/chat/completions", "/completions", "/moderations"])
    def test_body_is_not_read_at_capacity(
        self, app: FastAPI, client: TestClient, publish: Publish, path: str
    ) -> None:
        publish()
        app.state.serving.pool._load_encoder = lambda *_, **__: StubPredictor()
        app.state.serving.admission.texts = 1
        app.state.serving.admission.tokens = MIN_TOKEN_LIMIT - 10
        response = client.post(
            f"/openai/v1{path}", content=b"this is no JSON, and longer than ten tokens"
        )
        error = response.json()["error"]
        assert (response.status_code, error["code"], error["type"]) == (
            429,
            "overloaded",
            "requests",
        )
        assert response.headers["x-should-retry"] == "true"
        assert 1 <= int(response.headers["retry-after"]) <= 30

    def test_every_prompt_counts_toward_the_rate_limit(
        self, open_client: OpenClient, publish: Publish
    ) -> None:
        publish()
        client = open_client(max_retries=0)
        client.completions.create(model="sentiment", prompt=[TEXT, TEXT])
        with pytest.raises(RateLimitError) as raised:
            client.chat.completions.create(model="sentiment", messages=MESSAGES)
        assert raised.value.code == "rate_limit_exceeded"
        assert raised.value.response.headers["x-should-retry"] == "true"

    @pytest.mark.parametrize("timeout", ["0", "x", "-1"])
    def test_timeout_of_the_client(self, sdk: OpenAI, publish: Publish, timeout: str) -> None:
        publish()
        with pytest.raises(BadRequestError) as raised:
            sdk.chat.completions.create(
                model="sentiment", messages=MESSAGES, extra_headers={"X-Request-Timeout": timeout}
            )
        assert raised.value.code == "invalid_timeout"


class TestWithKeys:
    """With authentication."""

    @pytest.fixture
    def app(self, auth_settings: Settings) -> FastAPI:
        return create_app(auth_settings)

    def test_scope(
        self, open_client: OpenClient, publish: Publish, new_key: Callable[..., CreatedKey]
    ) -> None:
        publish()
        client = open_client(new_key("predict").text)
        completion = client.chat.completions.create(model="sentiment", messages=MESSAGES)
        assert completion.choices[0].message.content == "good"
        other = open_client(new_key("models:read", "models:admin", "jobs:write").text)
        for call in (
            lambda: other.chat.completions.create(model="sentiment", messages=MESSAGES),
            lambda: other.completions.create(model="sentiment", prompt=TEXT),
        ):
            with pytest.raises(PermissionDeniedError, match="predict"):
                call()


def test_failed_inference_is_not_repeated(
    app: FastAPI, sdk: OpenAI, publish: Publish, counter: RequestCounter
) -> None:
    publish()
    stub = StubPredictor()
    stub.engine.failures = [RuntimeError("secret")]
    app.state.serving.pool._load_encoder = lambda *_, **__: stub
    with pytest.raises(APIStatusError) as raised:
        sdk.chat.completions.create(model="sentiment", messages=MESSAGES)
    assert (raised.value.status_code, raised.value.code) == (500, "inference_failed")
    assert "secret" not in raised.value.response.text
    assert counter.requests == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8) | st.sampled_from(["role", "content", "type"]), inner)
    ),
    max_leaves=8,
)
CHAT_FIELDS = dict.fromkeys((*ChatCompletionCreate.model_fields, "metadata"), JSON)
LEGACY_FIELDS = dict.fromkeys(CompletionCreate.model_fields, JSON)


def test_no_body_is_an_internal_error(app: FastAPI, client: TestClient, publish: Publish) -> None:
    publish()
    app.state.serving.pool._load_encoder = lambda *_, **__: StubPredictor()
    statuses: Counter[int] = Counter()

    def send(path: str, body: Any) -> None:
        response = client.post(
            f"/openai/v1{path}",
            content=json.dumps(body).encode("utf-8", "surrogatepass"),
            headers={"Content-Type": "application/json"},
        )
        statuses[response.status_code] += 1
        assert response.status_code in {200, 400, 404}, response.text
        if response.status_code != 200:
            assert response.json()["error"].keys() == {"message", "type", "param", "code"}

    @hypothesis.settings(max_examples=40)
    @given(st.fixed_dictionaries({}, optional=CHAT_FIELDS))
    def chat(changes: dict[str, Any]) -> None:
        send("/chat/completions", CHAT | changes)

    @hypothesis.settings(max_examples=40)
    @given(st.fixed_dictionaries({}, optional=LEGACY_FIELDS))
    def complete(changes: dict[str, Any]) -> None:
        send("/completions", LEGACY | changes)

    @hypothesis.settings(max_examples=40)
    @given(JSON)
    def anything(body: Any) -> None:
        send("/chat/completions", body)

    chat()
    complete()
    anything()
    assert statuses[400] > 40
