"""What clients ask about a model before they ask the model: `/info` and `/health`."""

from typing import Any, Literal

from fastapi import APIRouter

import lora_core
from app.auth.middleware import requires
from app.http.dependencies import SettingsDep
from app.http.error_responses import PREDICT_RESPONSES
from app.http.fields import View
from app.registry.refs import Ref
from app.registry.service import Resolved
from app.serving.linear import AnyDeployment
from app.serving.routes import ServingDep
from app.serving.service import MOST_TEXTS, TOKENISING_THREADS
from app.settings import Settings

router = APIRouter(
    tags=["predict"], dependencies=[requires("predict")], responses=PREDICT_RESPONSES
)


class Ready(View):
    """The model is loaded."""

    status: Literal["ok"] = "ok"


class Info(View):
    """The fields of text-embeddings-inference, and `engine`."""

    model_id: str
    model_sha: str
    model_dtype: str
    served_model_name: str
    model_type: dict[str, Any]
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int | None
    max_client_batch_size: int
    auto_truncate: bool
    tokenization_workers: int
    version: str
    sha: str | None
    docker_label: str | None
    engine: str
    engine_tokens_per_second: dict[str, float]  # of those that were measured here


@router.get("/info")
async def read_info(serving: ServingDep, settings: SettingsDep, model: Ref | None = None) -> Info:
    """The model that `/predict` would ask, loaded if it is not yet."""
    return _info(*await serving.pool.deployment(model), settings)


@router.get("/models/{ref}/info")
@router.get("/models/{ref}/predict/info")
async def read_info_of(ref: Ref, serving: ServingDep, settings: SettingsDep) -> Info:
    """The same for the model in the address."""
    return _info(*await serving.pool.deployment(ref), settings)


@router.get("/models/{ref}/health")
@router.get("/models/{ref}/predict/health")
async def read_health_of(ref: Ref, serving: ServingDep) -> Ready:
    """`ok` once the model is loaded and answers as it did when it was made."""
    await serving.pool.deployment(ref)
    return Ready()


def _info(resolved: Resolved, deployment: AnyDeployment, settings: Settings) -> Info:
    predictor = deployment.predictor
    labels = dict(enumerate(predictor.labels))
    return Info(
        model_id=resolved.ref,
        model_sha=resolved.artifact.manifest_sha256,
        model_dtype=_DTYPES[predictor.engine.name.rpartition("-")[2]],
        served_model_name=resolved.ref,
        model_type={
            "classifier": {
                "id2label": {str(i): label for i, label in labels.items()},
                "label2id": {label: i for i, label in labels.items()},
            }
        },
        max_concurrent_requests=MOST_TEXTS,
        max_input_length=predictor.max_length,
        max_batch_tokens=predictor.engine.batch_tokens,
        max_batch_requests=None,
        max_client_batch_size=settings.max_inputs,
        auto_truncate=True,
        tokenization_workers=TOKENISING_THREADS,
        version=lora_core.__version__,
        sha=None,
        docker_label=None,
        engine=predictor.engine.name,
        engine_tokens_per_second=dict(predictor.speeds),
    )


_DTYPES = {"fp64": "float64", "fp32": "float32", "bf16": "bfloat16"}
