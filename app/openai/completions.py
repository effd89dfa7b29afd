"""Routes of completions in the OpenAI API: the label of a text as the answer to a prompt.

They predict as `/predict` does, with its limits and its headers.
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from app.auth.middleware import require_scope
from app.http.concurrency import cancel_on_disconnect
from app.http.error_responses import OPENAI_ERROR_RESPONSES
from app.openai.completion_schemas import (
    ChatCompletion,
    ChatCompletionCreate,
    Completion,
    CompletionCreate,
    CompletionOptions,
)
from app.openai.errors import JsonResponseFormatUnsupported, LogprobsNotApplicable, TooManyChoices
from app.registry.refs import require_model_name_syntax
from app.serving.client_formats import PredictRequest, TaskRequirement, reject_blank_text
from app.serving.errors import TooManyInputs
from app.serving.routes import PredictRequestContext, RequestContextDep
from app.serving.service import PredictResult
from lora_core.specs.chat import PromptFormat, parse_json_object
from lora_core.specs.encoded_labels import encode_label_set

_IMPOSSIBLE_LOGPROB = -9999.0  # of a probability of 0, as OpenAI writes it
_LEFT_OUT = "without what all prompts of the training file share"
_NUMBER_FORMAT = ".6g"  # of the answer of a regression

router = APIRouter(
    prefix="/openai/v1",
    tags=["openai"],
    dependencies=[require_scope("predict")],
    responses=OPENAI_ERROR_RESPONSES,
)


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """What the model answers to a prompt: the label it predicts, or nothing if it abstains.

    A multi-label model answers with the JSON list of its labels, a regression with its number.
    """

    text: str | None
    # The first labels with their log probabilities, the predicted one first; none unless the task
    # is single-label.
    tokens: list[tuple[str, float]]


# With `stream` the answer has another form.
_STREAMED: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}


@router.post("/chat/completions", response_model=ChatCompletion, responses=_STREAMED)
async def create_chat_completion(
    body: ChatCompletionCreate, context: RequestContextDep
) -> Response:
    """Label a conversation; the answer is the label, as the training file wrote it.

    A multi-label model answers with a JSON list of labels, a regression with a number; neither has
    log probabilities.

    `exp(logprob)` is the calibrated probability that `/predict` returns. Headers are those of
    `/predict`.
    """
    conversation = body.conversation

    def text_of_conversation(prompt_format: PromptFormat) -> list[str]:
        return [
            reject_blank_text(
                prompt_format.text_of_messages(conversation), f"The conversation, {_LEFT_OUT},"
            )
        ]

    prompt = "\n".join(message.text for message in conversation)
    result = await _predict(context, body, [prompt], text_of_conversation)
    (answer,) = _answers(result, body, top=body.top_logprobs or 0)
    if body.response_format is not None and body.response_format.type != "text":
        _check_json(answer, result.version)
    logprobs = _chat_logprobs(answer, body.top_logprobs or 0) if body.logprobs else None
    head = _head("chatcmpl", body, result)
    usage = _usage(result, body.choice_count if answer.text is not None else 0)
    refusal = None
    if answer.text is None:
        refusal = f"The probability of the label is below {body.abstain_below}."
    headers = context.record_and_build_headers(result)
    if body.stream:
        head["object"] = "chat.completion.chunk"
        deltas = (
            {"role": "assistant", "content": "", "refusal": None},
            {"content": answer.text} if refusal is None else {"refusal": refusal},
        )
        choices = [
            {"index": index, "delta": delta, "logprobs": shown, "finish_reason": reason}
            for index in range(body.choice_count)
            for delta, shown, reason in (
                (deltas[0], None, None),
                (deltas[1], logprobs, None),
                ({}, None, "stop"),
            )
        ]
        return _stream(head, choices, usage, body, headers)
    message = {"role": "assistant", "content": answer.text, "refusal": refusal}
    head["object"] = "chat.completion"
    head["choices"] = [
        {"index": index, "message": message, "logprobs": logprobs, "finish_reason": "stop"}
        for index in range(body.choice_count)
    ]
    return JSONResponse(head | {"usage": usage}, headers=headers)


@router.post("/completions", response_model=Completion, responses=_STREAMED)
async def create_completion(body: CompletionCreate, context: RequestContextDep) -> Response:
    """Label prompts; each answer is the label, as the training file wrote it.

    A multi-label model answers with a JSON list of labels, a regression with a number; neither has
    log probabilities.

    `exp(logprob)` is the calibrated probability that `/predict` returns. Headers are those of
    `/predict`.
    """
    prompts = body.prompts
    if len(prompts) > context.max_inputs:
        raise TooManyInputs(count=len(prompts), limit=context.max_inputs)
    choice_count = len(prompts) * body.choice_count
    if choice_count > context.max_inputs:
        raise TooManyChoices(count=choice_count, limit=context.max_inputs, at="n")

    def texts_of_prompts(prompt_format: PromptFormat) -> list[str]:
        return [
            reject_blank_text(prompt_format.text_of_prompt(prompt), f"Prompt {index}, {_LEFT_OUT},")
            for index, prompt in enumerate(prompts)
        ]

    result = await _predict(context, body, prompts, texts_of_prompts)
    answers = [
        each
        for each in _answers(result, body, top=body.logprobs or 0)
        for _ in range(body.choice_count)
    ]
    offsets = [len(prompt) for prompt in prompts for _ in range(body.choice_count)]
    choices = [
        {
            "index": index,
            "text": answer.text or "",
            "logprobs": None
            if body.logprobs is None
            else _text_logprobs(answer, body.logprobs, offset),
            "finish_reason": "content_filter" if answer.text is None else "stop",
        }
        for index, (answer, offset) in enumerate(zip(answers, offsets, strict=True))
    ]
    head = _head("cmpl", body, result) | {"object": "text_completion"}
    usage = _usage(result, sum(answer.text is not None for answer in answers))
    headers = context.record_and_build_headers(result)
    if body.stream:
        return _stream(head, choices, usage, body, headers)
    return JSONResponse(head | {"choices": choices, "usage": usage}, headers=headers)


async def _predict(
    context: PredictRequestContext,
    body: ChatCompletionCreate | CompletionCreate,
    prompts: list[str],
    texts_of_prompts: Callable[[PromptFormat], list[str]],
) -> PredictResult:
    wants_logprobs = body.logprobs is not None and body.logprobs is not False  # 0 asks for them
    request = PredictRequest(
        texts=prompts,
        nested=len(prompts) > 1,
        truncate=True,
        truncation_side="right",
        function=None,
        top_k=None,
        abstain_below=body.abstain_below,
        target=context.target,
        third_party_format=True,
        required_task=TaskRequirement("single_label", LogprobsNotApplicable, at="logprobs")
        if wants_logprobs
        else None,
    )
    async with cancel_on_disconnect(context.receive):
        return await context.service.predict(
            request,
            require_model_name_syntax(body.model),
            key_id=context.key_id,
            deadline=context.deadline,
            texts_of_prompts=texts_of_prompts,
        )


def _answers(result: PredictResult, body: CompletionOptions, *, top: int) -> Iterator[ModelAnswer]:
    """Yield the answer to each prompt, in the format of the training file, with `top` labels."""
    format_answer = result.prompt_format.format_answer
    for row in result.rows:
        if result.task == "single_label":
            tokens = [
                (format_answer(output.label), _logprob(output.score))
                for output in row[: max(top, 1)]
            ]
            yield ModelAnswer(_cut(tokens[0][0], body.stop_sequences) if tokens else None, tokens)
        elif result.task == "multi_label":
            labels = encode_label_set([output.label for output in row if output.predicted])
            yield ModelAnswer(_cut(format_answer(labels), body.stop_sequences), [])
        else:
            number = format(row[0].score, _NUMBER_FORMAT)
            yield ModelAnswer(_cut(format_answer(number), body.stop_sequences), [])


def _logprob(probability: float) -> float:
    return math.log(probability) if probability > 0 else _IMPOSSIBLE_LOGPROB


def _cut(answer: str, stop_sequences: Iterable[str]) -> str:
    """Return the answer up to the first stop sequence in it."""
    for sequence in filter(None, stop_sequences):
        answer = answer.partition(sequence)[0]
    return answer


def _check_json(answer: ModelAnswer, ref: str) -> None:
    """Raise `JsonResponseFormatUnsupported` if there is an answer that is not a JSON object."""
    if answer.text is not None and parse_json_object(answer.text) is None:
        raise JsonResponseFormatUnsupported(ref=ref, at="response_format")


def _chat_logprobs(answer: ModelAnswer, top: int) -> dict[str, Any]:
    labels = [
        {"token": token, "logprob": logprob, "bytes": list(token.encode())}
        for token, logprob in answer.tokens
    ]
    content = [labels[0] | {"top_logprobs": labels[:top]}] if labels else None
    return {"content": content, "refusal": None}


def _text_logprobs(answer: ModelAnswer, top: int, offset: int) -> dict[str, Any]:
    chosen = answer.tokens[:1]
    return {
        "tokens": [token for token, _ in chosen],
        "token_logprobs": [logprob for _, logprob in chosen],
        "top_logprobs": [dict(answer.tokens) for _ in chosen] if top else None,
        "text_offset": [offset for _ in chosen],
    }


def _head(prefix: str, body: CompletionOptions, result: PredictResult) -> dict[str, Any]:
    return {
        "id": f"{prefix}-{uuid4().hex}",
        "created": int(time.time()),
        "model": body.model,
        "system_fingerprint": result.version,
    }


def _usage(result: PredictResult, answers: int) -> dict[str, int]:
    return {
        "prompt_tokens": result.tokens,
        "completion_tokens": answers,
        "total_tokens": result.tokens + answers,
    }


def _stream(
    head: Mapping[str, Any],
    choices: Sequence[Mapping[str, Any]],
    usage: Mapping[str, int],
    body: CompletionOptions,
    headers: Mapping[str, str],
) -> Response:
    """Return server-sent events, one for each choice. They are known at once."""
    chunks = [{**head, "choices": [choice]} for choice in choices]
    if body.include_usage:
        chunks = [
            *(chunk | {"usage": None} for chunk in chunks),
            {**head, "choices": [], "usage": usage},
        ]
    events = [json.dumps(chunk, ensure_ascii=False) for chunk in chunks] + ["[DONE]"]
    return Response(
        "".join(f"data: {event}\n\n" for event in events),
        media_type="text/event-stream",
        headers=headers,
    )
