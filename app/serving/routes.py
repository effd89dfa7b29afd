"""Predict and explain routes.

The event loop makes no database calls, and computes nothing but the tokens of short texts.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Query, Request
from starlette.responses import JSONResponse, Response

from app.auth.middleware import require_scope
from app.errors import ClientDisconnected
from app.http.dependencies import Caller, CallerDep, SettingsDep
from app.http.error_responses import PREDICT_ERROR_RESPONSES, PROBLEM_RESPONSES
from app.registry.refs import ModelRefParam
from app.serving.errors import BlankInput, TooManyInputs
from app.serving.explanation import Explanation, explain
from app.serving.request_formats import (
    ExplainBody,
    ExplanationView,
    Labels,
    ModelPredictBody,
    PredictBody,
    PredictRequest,
    RequestFormat,
    VertexBody,
    VertexResponse,
    WordScore,
    parse_request,
)
from app.serving.service import InferenceService, PredictResult, parse_timeout
from app.settings import Settings

T = TypeVar("T")


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service = InferenceService(app.state.resources, app.state.serving_metrics)
    app.state.serving = service
    app.state.try_out = service.pool.load
    try:
        yield
    finally:
        service.close()


async def _service(request: Request) -> InferenceService:
    service: InferenceService = request.app.state.serving
    return service


router = APIRouter(
    tags=["predict"],
    dependencies=[require_scope("predict")],
    lifespan=_lifespan,
    responses=PREDICT_ERROR_RESPONSES,
)
ServingDep = Annotated[InferenceService, Depends(_service)]
RequestFormatQuery = Annotated[
    RequestFormat | None,
    Query(
        alias="dialect",
        description="`hf`: the response is always nested; `tei`: flat for one text.",
    ),
]
PredictResponse = Labels | list[Labels]


class RequestContext:
    """The API key, the deadline and the service of one request."""

    def __init__(
        self, request: Request, service: InferenceService, settings: Settings, caller: Caller
    ) -> None:
        """Raises `InvalidTimeout`."""
        self._request = request
        self._service = service
        self._max_inputs = settings.max_inputs
        self._key_id = caller.id
        timeout = parse_timeout(request.headers.get("x-request-timeout"))
        self._deadline = time.monotonic() + timeout

    async def predict(
        self, body: ModelPredictBody, ref: str | None, request_format: RequestFormat | None
    ) -> tuple[PredictRequest, PredictResult]:
        """Raises what `parse_request` and `InferenceService.predict` raise."""
        parsed = parse_request(body, request_format, max_inputs=self._max_inputs)
        work = self._service.predict(parsed, ref, key_id=self._key_id, deadline=self._deadline)
        return parsed, await _cancel_on_disconnect(self._request, work)

    async def explain(self, body: ExplainBody, ref: str) -> Explanation:
        """Raises `BlankInput`, and what `explain` raises."""
        text = body.inputs
        if not text.strip():
            raise BlankInput(what="The text", at="inputs")
        work = explain(
            self._service, text, body.label, ref, key_id=self._key_id, deadline=self._deadline
        )
        return await _cancel_on_disconnect(self._request, work)


async def _request_context(
    request: Request, service: ServingDep, settings: SettingsDep, caller: CallerDep
) -> RequestContext:
    return RequestContext(request, service, settings, caller)


RequestContextDep = Annotated[RequestContext, Depends(_request_context)]


@router.post("/predict", response_model=PredictResponse)
@router.post("/", response_model=PredictResponse)
@router.post("/invocations", response_model=PredictResponse)
async def predict(
    body: PredictBody, context: RequestContextDep, request_format: RequestFormatQuery = None
) -> Response:
    """Return labels with probabilities, highest first: for one text, or a list for each of many.

    `X-Model-Version` names the version that made the prediction, `X-Engine` the engine and its
    precision; `X-Truncated` counts truncated texts. `/` and `/invocations` are aliases for clients
    that use these paths.
    """
    return _respond(*await context.predict(body, body.model, request_format))


@router.post("/models/{ref}/predict", response_model=PredictResponse)
@router.post("/models/{ref}", response_model=PredictResponse)
async def predict_with_model(
    ref: ModelRefParam,
    body: ModelPredictBody,
    context: RequestContextDep,
    request_format: RequestFormatQuery = None,
) -> Response:
    """Predict with the model in the URL: `name`, `name@alias` or `name:3`."""
    return _respond(*await context.predict(body, ref, request_format))


@router.post("/vertex", response_model=VertexResponse)
async def predict_vertex(
    body: VertexBody, context: RequestContextDep, settings: SettingsDep
) -> Response:
    """Predict in the format of Vertex AI: one prediction for each instance."""
    if len(body.instances) > settings.max_inputs:
        raise TooManyInputs(count=len(body.instances), limit=settings.max_inputs)
    work = (context.predict(instance, instance.model, None) for instance in body.instances)
    predictions = await asyncio.gather(*work)
    rows = [_to_json(request, result) for request, result in predictions]
    return JSONResponse({"predictions": rows}, headers=_headers(predictions[-1][1]))


@router.post("/v1/models/{ref}/explain", responses=PROBLEM_RESPONSES)
async def explain_prediction(
    ref: ModelRefParam, body: ExplainBody, context: RequestContextDep, response: Response
) -> ExplanationView:
    """Return how much each word of a text contributes to the prediction.

    The model computes the text many times, each time without some of its words; each of these texts
    counts toward the rate limit. The same text gets the same scores.
    """
    explanation = await context.explain(body, ref)
    response.headers["X-Model-Version"] = explanation.version
    response.headers["X-Engine"] = explanation.engine
    if explanation.truncated:
        response.headers["X-Truncated"] = "1"
    return ExplanationView(
        label=explanation.label,
        score=explanation.score,
        empty_score=explanation.empty_score,
        words=[
            WordScore(
                text=body.inputs[word.start : word.end],
                start=word.start,
                end=word.end,
                score=score,
            )
            for word, score in explanation.words
        ],
        grouped=explanation.grouped,
        texts=explanation.texts,
    )


def _respond(request: PredictRequest, result: PredictResult) -> Response:
    return JSONResponse(_to_json(request, result), headers=_headers(result))


def _to_json(request: PredictRequest, result: PredictResult) -> Any:
    rows = [[{"label": label, "score": score} for label, score in row] for row in result.scores]
    return rows if request.nested else rows[0]


def _headers(result: PredictResult) -> dict[str, str]:
    """Return response headers, named as in text-embeddings-inference; times in milliseconds."""
    headers = {
        "X-Model-Version": result.version,
        "X-Engine": result.engine,
        "x-compute-type": result.engine,
        "x-compute-time": _milliseconds(result.total_seconds),
        "x-compute-characters": str(result.characters),
        "x-compute-tokens": str(result.tokens),
        "x-total-time": _milliseconds(result.total_seconds),
        "x-tokenization-time": _milliseconds(result.tokenization_seconds),
        "x-queue-time": _milliseconds(result.queue_seconds),
        "x-inference-time": _milliseconds(result.inference_seconds),
    }
    if result.truncated:
        headers["X-Truncated"] = str(result.truncated)
    if result.abstained:
        headers["X-Abstained"] = str(result.abstained)
    return headers


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f}"


async def _cancel_on_disconnect(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of `work`, or cancel it and raise `ClientDisconnected`."""
    task = asyncio.ensure_future(work)
    # After the body, the only message to receive is that the client disconnected.
    disconnect = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait((task, disconnect), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnected()
        return task.result()
    finally:
        task.cancel()
        disconnect.cancel()
