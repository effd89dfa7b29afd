"""Ask a model. No database call and no computing on the event loop."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Request, Response

from app.deps import SettingsDep
from app.keys.auth import requires
from app.resources import Resources
from app.serving.admission import Admission
from app.serving.deployment import Answer
from app.serving.errors import Empty, TooManyInputs
from app.serving.pool import Pool
from app.serving.schemas import Labels, LabelScore, Predict, RefPredict
from app.settings import Settings

MOST_WAITING = 64  # calls between the door and the answer


class Serving:
    """What the routes share while the application runs."""

    def __init__(self, resources: Resources) -> None:
        self.admission = Admission(MOST_WAITING)
        self.pool = Pool(
            database=resources.database,
            store=resources.store,
            most=resources.settings.max_loaded_models,
        )


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.serving = Serving(app.state.resources)
    try:
        yield
    finally:
        app.state.serving.pool.close()


def _serving(request: Request) -> Serving:
    serving: Serving = request.app.state.serving
    return serving


router = APIRouter(tags=["predict"], dependencies=[requires("predict")], lifespan=_lifespan)
ServingDep = Annotated[Serving, Depends(_serving)]


@router.post("/predict")
async def predict(
    body: Predict, response: Response, serving: ServingDep, settings: SettingsDep
) -> Labels | list[Labels]:
    """Labels with probabilities, highest first: of one text, or a list of them for a list of texts.

    `X-Model-Version` names the version that answered; `X-Truncated` counts texts that were cut.
    """
    return await _answer(body, body.model, response, serving, settings)


@router.post("/models/{ref}/predict")
async def predict_by(
    ref: str, body: RefPredict, response: Response, serving: ServingDep, settings: SettingsDep
) -> Labels | list[Labels]:
    """The same for the model in the address: `name`, `name@alias` or `name:3`."""
    return await _answer(body, ref, response, serving, settings)


async def _answer(
    body: RefPredict, ref: str | None, response: Response, serving: Serving, settings: Settings
) -> Labels | list[Labels]:
    started = time.perf_counter()
    texts = body.inputs if isinstance(body.inputs, list) else [body.inputs]
    _check(texts, settings.max_inputs)
    with serving.admission.place():
        async with serving.pool.deployment(ref) as (resolved, deployment):
            answer = await deployment.classify(texts, truncate=body.truncate)
    serving.admission.took(answer.tokenising + answer.computing)
    response.headers["X-Model-Version"] = resolved.ref
    response.headers.update(_measured(answer, texts, time.perf_counter() - started))
    rows = [[LabelScore(label=label, score=score) for label, score in row] for row in answer.scores]
    return rows if isinstance(body.inputs, list) else rows[0]


def _check(texts: list[str], most: int) -> None:
    if not texts:
        raise Empty(what="The list of inputs")
    if len(texts) > most:
        raise TooManyInputs(count=len(texts), limit=most)
    for index, text in enumerate(texts):
        if not text.strip():
            raise Empty(what=f"Input {index}")


def _measured(answer: Answer, texts: list[str], total: float) -> dict[str, str]:
    """Headers with the names that text-embeddings-inference gives them; times in milliseconds."""
    headers = {
        "x-total-time": f"{total * 1000:.0f}",
        "x-queue-time": f"{answer.queued * 1000:.0f}",
        "x-tokenization-time": f"{answer.tokenising * 1000:.0f}",
        "x-inference-time": f"{answer.computing * 1000:.0f}",
        "x-compute-characters": str(sum(map(len, texts))),
        "x-compute-tokens": str(answer.tokens),
    }
    if answer.truncated:
        headers["X-Truncated"] = str(answer.truncated)
    return headers
