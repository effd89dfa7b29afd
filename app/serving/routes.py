"""Routes of models in memory: predict, explain, info, health, and statistics of shadow evaluation.

The event loop makes no database calls. It computes what takes less time than a switch to another
thread: the tokens of short texts, linear models on short texts, and scores of few labels.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response
from starlette.types import Receive

import lora_core
from app.auth.middleware import require_scope
from app.database.base import new_id
from app.database.engines import Database
from app.http.concurrency import cancel_on_disconnect
from app.http.dependencies import (
    AppStateDep,
    CallerDep,
    DatabaseDep,
    get_app_state,
    get_caller,
)
from app.http.error_responses import PREDICT_ERROR_RESPONSES, PROBLEM_RESPONSES
from app.http.fields import Slug
from app.registry import repository
from app.registry.refs import ModelRefParam
from app.registry.service import ResolvedModel
from app.serving.client_formats import (
    PredictBody,
    PredictBodyWithoutModel,
    PredictRequest,
    RequestFormat,
    RerankBody,
    RerankBodyWithoutModel,
    VertexBody,
    VertexResponse,
    count_inputs,
    parse_predict_request,
    parse_rerank_request,
    to_text_or_pair,
)
from app.serving.errors import TooManyInputs
from app.serving.explanation import ExplainBody, ExplainRequest, explain
from app.serving.loaded_model import MAX_INLINE_OUTPUTS, LoadedModel
from app.serving.schemas import (
    ClassifierLabels,
    ExplanationView,
    ModelHealth,
    ModelInfo,
    Prediction,
    RankedText,
    ShadowComparisonView,
    TeiModelType,
)
from app.serving.service import (
    MAX_TEXTS_IN_FLIGHT,
    TOKENIZER_THREADS,
    InferenceService,
    PredictResult,
)
from app.serving.shadow import ShadowStats
from app.settings import Settings
from app.traffic.prediction_encoding import OutputTaskTypes
from app.traffic.recorder import AnsweredRequest, TrafficRecorder

if TYPE_CHECKING:
    from lora_core.inference.decoding import DecodedOutput

router = APIRouter(
    tags=["predict"],
    dependencies=[require_scope("predict")],
    responses=PREDICT_ERROR_RESPONSES,
)
# Apart from `router`, whose requests are shed at capacity.
info_router = APIRouter(
    tags=["predict"], dependencies=[require_scope("predict")], responses=PREDICT_ERROR_RESPONSES
)
shadow_router = APIRouter(prefix="/v1/models", tags=["models"])

RequestFormatQuery = Annotated[
    RequestFormat | None,
    Query(
        alias="format",
        description="`hf`: the response is always nested; `tei`: flat for one text.",
    ),
]
TargetQuery = Annotated[
    str | None,
    Query(
        max_length=64,
        description="Which of several targets to predict or explain: the response is that of a "
        "model with this target alone. Default, of `/predict`: all of them, as an object by name.",
    ),
]
PredictResponse = Prediction | list[Prediction]


@dataclass(frozen=True, slots=True)
class PredictRequestContext:
    """What the routes need of a request besides its body."""

    service: InferenceService
    max_inputs: int
    key_id: UUID
    deadline: float
    receive: Receive
    target: str | None  # which of several targets is asked for
    traffic: TrafficRecorder
    prediction_id: UUID

    def parse(
        self, body: PredictBodyWithoutModel, request_format: RequestFormat | None
    ) -> PredictRequest:
        """Raises what `parse_predict_request` raises."""
        return parse_predict_request(
            body, request_format, max_inputs=self.max_inputs, target=self.target
        )

    async def predict(
        self,
        body: PredictBodyWithoutModel,
        ref: str | None,
        request_format: RequestFormat | None,
    ) -> PredictResult:
        """Raises what `parse` and `InferenceService.predict` raise."""
        request = self.parse(body, request_format)
        return await self.service.predict(request, ref, key_id=self.key_id, deadline=self.deadline)

    def record_and_build_headers(self, *results: PredictResult) -> dict[str, str]:
        """Record the predictions of the request, and return the headers of its response.

        Its texts are numbered through all results, from 0.
        """
        position, count = 0, sum(len(result.rows) for result in results)
        for result in results:
            self.traffic.record(
                AnsweredRequest(
                    prediction_id=self.prediction_id,
                    position=position,
                    texts_in_request=count,
                    version=result.version,
                    predicted=OutputTaskTypes(result.task, result.targets),
                    target=self.target,
                    texts=result.texts if self.traffic.keeps_scores else (),
                    rows=result.all_outputs,
                    abstained=[not row for row in result.rows],
                )
            )
            position += len(result.rows)
        return {"X-Prediction-Id": self.prediction_id.hex, **_response_headers(*results)}

    async def record_and_respond(
        self, build: Callable[[], Any], *results: PredictResult
    ) -> Response:
        """Record the predictions of the request, and return the JSON that `build` makes of them."""
        headers = self.record_and_build_headers(*results)

        def work() -> Response:
            return JSONResponse(build(), headers=headers)

        if sum(len(row) for each in results for row in each.rows) <= MAX_INLINE_OUTPUTS:
            return work()
        return await self.service.run_in_thread(work)


async def _request_context(request: Request, target: TargetQuery = None) -> PredictRequestContext:
    state = get_app_state(request.app)  # not as dependencies: each takes FastAPI 30 µs
    return PredictRequestContext(
        service=state.serving,
        max_inputs=state.settings.max_inputs,
        key_id=get_caller(request.scope).id,
        deadline=time.monotonic() + request.state.timeout,
        receive=request.receive,
        target=target,
        traffic=state.traffic,
        prediction_id=new_id(),
    )


RequestContextDep = Annotated[PredictRequestContext, Depends(_request_context)]


@router.post("/predict", response_model=PredictResponse)
@router.post("/", response_model=PredictResponse, include_in_schema=False)
@router.post("/invocations", response_model=PredictResponse, include_in_schema=False)
async def predict(
    body: PredictBody,
    context: RequestContextDep,
    request_format: RequestFormatQuery = None,
) -> Response:
    """Return labels with probabilities, for one text, or a list for each of many.

    The highest is first; with tuned thresholds of a single-label model, the predicted label is.

    `X-Prediction-Id` names the prediction in feedback, `X-Model-Version` the version that made it,
    `X-Task` its task, `X-Engine` the engine and its precision; `X-Truncated` counts truncated
    texts. `/` and `/invocations` are aliases for clients that use these paths.
    """
    async with cancel_on_disconnect(context.receive):
        result = await context.predict(body, body.model, request_format)
        return await context.record_and_respond(lambda: _to_json(result), result)


@router.post("/models/{ref}/predict", response_model=PredictResponse)
@router.post("/models/{ref}", response_model=PredictResponse, include_in_schema=False)
async def predict_with_model(
    ref: ModelRefParam,
    body: PredictBodyWithoutModel,
    context: RequestContextDep,
    request_format: RequestFormatQuery = None,
) -> Response:
    """Predict with the model in the URL: `name`, `name@alias` or `name:3`.

    `/models/{ref}` is an alias of this route.
    """
    async with cancel_on_disconnect(context.receive):
        result = await context.predict(body, ref, request_format)
        return await context.record_and_respond(lambda: _to_json(result), result)


@router.post("/rerank")
async def rerank(
    body: RerankBody,
    context: RequestContextDep,
    response: Response,
) -> list[RankedText]:
    """Rank texts by how well each fits a query, best first, as text-embeddings-inference does.

    The model is a regression of text pairs, whose first text is the query.
    """
    return await _rerank(body, body.model, context, response)


@router.post("/models/{ref}/rerank")
async def rerank_with_model(
    ref: ModelRefParam,
    body: RerankBodyWithoutModel,
    context: RequestContextDep,
    response: Response,
) -> list[RankedText]:
    """Rank texts with the model in the URL: `name`, `name@alias` or `name:3`."""
    return await _rerank(body, ref, context, response)


async def _rerank(
    body: RerankBodyWithoutModel,
    ref: str | None,
    context: PredictRequestContext,
    response: Response,
) -> list[RankedText]:
    request = parse_rerank_request(body, max_inputs=context.max_inputs, target=context.target)
    async with cancel_on_disconnect(context.receive):
        result = await context.service.predict(
            request, ref, key_id=context.key_id, deadline=context.deadline
        )
    response.headers.update(context.record_and_build_headers(result))
    numbers = [row[0].score for row in result.rows]
    return [
        RankedText(
            index=index,
            score=numbers[index] if body.raw_scores else _sigmoid(numbers[index]),
            text=body.texts[index] if body.return_text else None,
        )
        for index in sorted(range(len(numbers)), key=lambda index: -numbers[index])
    ]


def _sigmoid(number: float) -> float:
    return (1 + math.tanh(number / 2)) / 2  # does not overflow


@router.post("/vertex", response_model=VertexResponse)
async def predict_vertex(body: VertexBody, context: RequestContextDep) -> Response:
    """Predict in the format of Vertex AI: one prediction for each instance."""
    count = sum(count_inputs(each.inputs) for each in body.instances)
    if count > context.max_inputs:
        raise TooManyInputs(count=count, limit=context.max_inputs)
    instances = [(context.parse(each, None), each.model) for each in body.instances]
    async with cancel_on_disconnect(context.receive):
        results = await context.service.predict_instances(
            instances, key_id=context.key_id, deadline=context.deadline
        )
    return await context.record_and_respond(
        lambda: {"predictions": list(map(_to_json, results))}, *results
    )


@router.post("/v1/models/{ref}/explain", responses=PROBLEM_RESPONSES)
async def explain_prediction(
    ref: ModelRefParam,
    body: ExplainBody,
    context: RequestContextDep,
    caller: CallerDep,
    response: Response,
) -> ExplanationView:
    """Return how much each word of a text contributes to the prediction, and similar examples.

    The model computes the text many times, each time without some of its words; each of these texts
    counts toward the rate limit. The same text gets the same scores. The texts of training examples
    are shown to keys with the scope `datasets:read`.
    """
    request = ExplainRequest(
        text=to_text_or_pair(body.inputs, "The text", at="inputs"),
        label=body.label,
        target=context.target,
        key_id=context.key_id,
        deadline=context.deadline,
        shows_texts="datasets:read" in caller.scopes,
    )
    async with cancel_on_disconnect(context.receive):
        explanation = await explain(context.service, request, ref)
    response.headers["X-Model-Version"] = explanation.version
    response.headers["X-Engine"] = explanation.engine
    if explanation.truncated:
        response.headers["X-Truncated"] = "1"
    return explanation.view


def _to_json(result: PredictResult) -> Any:
    rows = [_row_to_json(row, result.targets) for row in result.rows]
    return rows if result.nested else rows[0]


def _row_to_json(row: "Sequence[DecodedOutput]", targets: Iterable[str]) -> Any:
    """Return the outputs of a text, or an object of those of each target."""
    if not targets:
        return [output.to_json() for output in row]
    return {
        name: [output._replace(target=None).to_json() for output in row if output.target == name]
        for name in targets
    }


def _response_headers(*results: PredictResult) -> dict[str, str]:
    """Return response headers, named as in text-embeddings-inference; times in milliseconds.

    Of several results, counts are sums, times are the longest, and each version, task and engine
    is listed once.
    """
    engines = ", ".join(dict.fromkeys(each.engine for each in results))
    total_time = _max_milliseconds(each.total_seconds for each in results)
    headers = {
        "X-Model-Version": ", ".join(dict.fromkeys(each.version for each in results)),
        "X-Task": ", ".join(dict.fromkeys(each.task for each in results)),
        "X-Engine": engines,
        "x-compute-type": engines,
        "x-compute-time": total_time,
        "x-compute-characters": str(sum(each.characters for each in results)),
        "x-compute-tokens": str(sum(each.tokens for each in results)),
        "x-total-time": total_time,
        "x-tokenization-time": _max_milliseconds(each.tokenization_seconds for each in results),
        "x-queue-time": _max_milliseconds(each.queue_seconds for each in results),
        "x-inference-time": _max_milliseconds(each.inference_seconds for each in results),
    }
    if truncated := sum(each.truncated for each in results):
        headers["X-Truncated"] = str(truncated)
    if abstained := sum(each.abstained for each in results):
        headers["X-Abstained"] = str(abstained)
    if unfamiliar := sum(each.unfamiliar for each in results):
        headers["X-Unfamiliar"] = str(unfamiliar)
    return headers


def _max_milliseconds(seconds: Iterable[float]) -> str:
    """Return the maximum in milliseconds."""
    return f"{max(seconds) * 1000:.0f}"


# -- Inspecting a model: `/info` and `/health` ----------------------------------------------------


_DTYPES = {"fp64": "float64", "fp32": "float32", "bf16": "bfloat16"}


@info_router.get("/info")
async def get_default_model_info(
    state: AppStateDep,
    model: Annotated[
        ModelRefParam | None, Query(description="Default: the only model in production.")
    ] = None,
) -> ModelInfo:
    """Return the model that `/predict` would use, loading it if needed."""
    return _build_info(*await state.serving.pool.get(model), state.settings)


@info_router.get("/models/{ref}/info")
@info_router.get("/models/{ref}/predict/info", include_in_schema=False)
async def get_model_info(ref: ModelRefParam, state: AppStateDep) -> ModelInfo:
    """Return the model in the URL, loading it if needed.

    `/models/{ref}/predict/info` is an alias of this route.
    """
    return _build_info(*await state.serving.pool.get(ref), state.settings)


@info_router.get("/models/{ref}/health")
@info_router.get("/models/{ref}/predict/health", include_in_schema=False)
async def get_model_health(ref: ModelRefParam, state: AppStateDep) -> ModelHealth:
    """Return `ok` once the model is loaded and reproduces its golden predictions.

    `/models/{ref}/predict/health` is an alias of this route.
    """
    await state.serving.pool.get(ref)
    return ModelHealth()


def _build_info(resolved: ResolvedModel, model: LoadedModel, settings: Settings) -> ModelInfo:
    predictor = model.predictor
    labels = dict(enumerate(predictor.labels))
    return ModelInfo(
        model_id=resolved.ref,
        model_sha=resolved.artifact.manifest_sha256,
        model_dtype=_DTYPES[predictor.engine.name.rpartition("-")[2]],
        served_model_name=resolved.ref,
        model_type=TeiModelType(
            classifier=ClassifierLabels(
                id2label={str(i): label for i, label in labels.items()},
                label2id={label: i for i, label in labels.items()},
            )
        ),
        max_concurrent_requests=MAX_TEXTS_IN_FLIGHT,
        max_input_length=predictor.max_length,
        max_batch_tokens=predictor.engine.max_batch_tokens,
        max_batch_requests=None,
        max_client_batch_size=settings.max_inputs,
        auto_truncate=True,
        tokenization_workers=TOKENIZER_THREADS,
        version=lora_core.__version__,
        sha=None,
        docker_label=None,
        text_pairs=predictor.pairs,
        engine=predictor.engine.name,
        engine_tokens_per_second=dict(predictor.engine_speeds),
        task=predictor.task.type,
        thresholds=model.thresholds,
        targets=model.targets,
    )


# -- Statistics of shadow evaluation --------------------------------------------------------------


def shadow_view(stats: ShadowStats) -> ShadowComparisonView:
    texts = stats.agreed + stats.differed
    return ShadowComparisonView(
        version=stats.version,
        shadow=stats.shadow,
        task=stats.task,
        since=stats.since,
        texts=texts,
        agreement=stats.agreed / texts if texts else None,
        mean_difference=stats.total_difference / texts if texts else None,
        skipped=stats.skipped,
        failed=stats.failed,
    )


@shadow_router.get("/{name}/shadow", dependencies=[require_scope("models:read")])
async def list_shadow_comparisons(
    name: Slug, database: DatabaseDep, state: AppStateDep
) -> list[ShadowComparisonView]:
    """Compare the candidate `name@shadow` with production on the live texts, newest pair first."""
    await run_in_threadpool(_check_model_exists, database, name)
    return [
        shadow_view(stats) for stats in state.serving.shadow_evaluator.list_stats_of_model(name)
    ]


def _check_model_exists(database: Database, name: str) -> None:
    """Raises `ModelNotFound`."""
    with database.read() as session:
        repository.get_model(session, name)
