"""Ask a model. No database call on the event loop, and no computing but to read short texts."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Query, Request
from starlette.responses import JSONResponse, Response

from app.auth.middleware import requires
from app.errors import ClientLeft
from app.http.dependencies import Caller, CallerDep, SettingsDep
from app.http.error_responses import PREDICT_RESPONSES, RESPONSES
from app.registry.refs import Ref
from app.serving.errors import Empty, TooManyInputs
from app.serving.explanation import Explanation, explain
from app.serving.request_formats import (
    Dialect,
    Explain,
    ExplanationView,
    Labels,
    Predict,
    Question,
    RefPredict,
    VertexAnswers,
    VertexPredict,
    WordScore,
    understand,
)
from app.serving.service import Answer, Serving, request_timeout
from app.settings import Settings

T = TypeVar("T")


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    serving = app.state.serving = Serving(app.state.resources, app.state.serving_meters)
    app.state.try_out = serving.pool.ready
    try:
        yield
    finally:
        serving.close()


async def _serving(request: Request) -> Serving:
    serving: Serving = request.app.state.serving
    return serving


router = APIRouter(
    tags=["predict"],
    dependencies=[requires("predict")],
    lifespan=_lifespan,
    responses=PREDICT_RESPONSES,
)
ServingDep = Annotated[Serving, Depends(_serving)]
DialectQuery = Annotated[
    Dialect | None,
    Query(description="`hf`: answers are always nested; `tei`: flat for one text."),
]
Answers = Labels | list[Labels]


class Asking:
    """Who asks, what is needed to answer, and how long there is. One for each call."""

    def __init__(
        self, request: Request, serving: Serving, settings: Settings, caller: Caller
    ) -> None:
        """Raises `InvalidTimeout`."""
        self._request = request
        self._serving = serving
        self._most = settings.max_inputs
        self._caller = caller.id
        timeout = request_timeout(request.headers.get("x-request-timeout"))
        self._deadline = time.monotonic() + timeout

    async def answer(
        self, body: RefPredict, ref: str | None, dialect: Dialect | None
    ) -> tuple[Question, Answer]:
        """Raises what `understand` and `Serving.ask` raise."""
        question = understand(body, dialect, most=self._most)
        asked = self._serving.ask(question, ref, caller=self._caller, deadline=self._deadline)
        return question, await _while_connected(self._request, asked)

    async def explanation(self, body: Explain, ref: str) -> Explanation:
        """Raises `Empty`, and what `explain` raises."""
        text = body.inputs
        if not text.strip():
            raise Empty(what="The text", at="inputs")
        asked = explain(
            self._serving, text, body.label, ref, caller=self._caller, deadline=self._deadline
        )
        return await _while_connected(self._request, asked)


async def _asking(
    request: Request, serving: ServingDep, settings: SettingsDep, caller: CallerDep
) -> Asking:
    return Asking(request, serving, settings, caller)


AskingDep = Annotated[Asking, Depends(_asking)]


@router.post("/predict", response_model=Answers)
@router.post("/", response_model=Answers)
@router.post("/invocations", response_model=Answers)
async def predict(body: Predict, asking: AskingDep, dialect: DialectQuery = None) -> Response:
    """Labels with probabilities, highest first: of one text, or a list of them for a list of texts.

    `X-Model-Version` names the version that answered, `X-Engine` what computed it and how
    precisely; `X-Truncated` counts texts that were cut. `/` and `/invocations` are the same, for
    clients that know those.
    """
    return _told(*await asking.answer(body, body.model, dialect))


@router.post("/models/{ref}/predict", response_model=Answers)
@router.post("/models/{ref}", response_model=Answers)
async def predict_by(
    ref: Ref, body: RefPredict, asking: AskingDep, dialect: DialectQuery = None
) -> Response:
    """The same for the model in the address: `name`, `name@alias` or `name:3`."""
    return _told(*await asking.answer(body, ref, dialect))


@router.post("/vertex", response_model=VertexAnswers)
async def predict_vertex(body: VertexPredict, asking: AskingDep, settings: SettingsDep) -> Response:
    """The same in the form of Vertex AI: an answer for each instance."""
    if len(body.instances) > settings.max_inputs:
        raise TooManyInputs(count=len(body.instances), limit=settings.max_inputs)
    asked = (asking.answer(one, one.model, None) for one in body.instances)
    answers = await asyncio.gather(*asked)
    rows = [_rows(question, answer) for question, answer in answers]
    return JSONResponse({"predictions": rows}, headers=_headers(answers[-1][1]))


@router.post("/v1/models/{ref}/explain", responses=RESPONSES)
async def explain_by(
    ref: Ref, body: Explain, asking: AskingDep, response: Response
) -> ExplanationView:
    """Which words of a text drove the answer, and how far.

    The model is asked the text many times, each time without some of its words; every one of them
    counts as a text of the caller. The same text gets the same scores.
    """
    found = await asking.explanation(body, ref)
    response.headers["X-Model-Version"] = found.version
    response.headers["X-Engine"] = found.engine
    if found.truncated:
        response.headers["X-Truncated"] = "1"
    return ExplanationView(
        label=found.label,
        score=found.score,
        empty_score=found.empty_score,
        words=[
            WordScore(
                text=body.inputs[word.start : word.end],
                start=word.start,
                end=word.end,
                score=score,
            )
            for word, score in found.words
        ],
        grouped=found.grouped,
        texts=found.texts,
    )


def _told(question: Question, answer: Answer) -> Response:
    return JSONResponse(_rows(question, answer), headers=_headers(answer))


def _rows(question: Question, answer: Answer) -> Any:
    rows = [[{"label": label, "score": score} for label, score in row] for row in answer.scores]
    return rows if question.nested else rows[0]


def _headers(answer: Answer) -> dict[str, str]:
    """With the names that text-embeddings-inference gives them; times in milliseconds."""
    headers = {
        "X-Model-Version": answer.version,
        "X-Engine": answer.engine,
        "x-compute-type": answer.engine,
        "x-compute-time": _milliseconds(answer.total),
        "x-compute-characters": str(answer.characters),
        "x-compute-tokens": str(answer.tokens),
        "x-total-time": _milliseconds(answer.total),
        "x-tokenization-time": _milliseconds(answer.tokenising),
        "x-queue-time": _milliseconds(answer.queued),
        "x-inference-time": _milliseconds(answer.computing),
    }
    if answer.truncated:
        headers["X-Truncated"] = str(answer.truncated)
    if answer.abstained:
        headers["X-Abstained"] = str(answer.abstained)
    return headers


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f}"


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result. Raises `ClientLeft`, which nobody hears; then the work is cancelled."""
    working = asyncio.ensure_future(work)
    left = asyncio.ensure_future(request.receive())  # after the body: only that it left
    try:
        await asyncio.wait((working, left), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientLeft()
        return working.result()
    finally:
        working.cancel()
        left.cancel()
