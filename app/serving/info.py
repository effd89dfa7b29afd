"""Routes with which clients inspect a model: `/info` and `/health`."""

from typing import Any, Literal

from fastapi import APIRouter

import lora_core
from app.auth.middleware import require_scope
from app.http.dependencies import SettingsDep
from app.http.error_responses import PREDICT_ERROR_RESPONSES
from app.http.fields import ResponseModel
from app.registry.refs import ModelRefParam
from app.registry.service import ResolvedModel
from app.serving.linear import LoadedModel
from app.serving.routes import ServingDep
from app.serving.service import MAX_TEXTS_IN_FLIGHT, TOKENIZER_THREADS
from app.settings import Settings

router = APIRouter(
    tags=["predict"], dependencies=[require_scope("predict")], responses=PREDICT_ERROR_RESPONSES
)


class ModelHealth(ResponseModel):
    """The model is loaded."""

    status: Literal["ok"] = "ok"


class ModelInfo(ResponseModel):
    """The fields of text-embeddings-inference, and those of the engine."""

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
    engine_tokens_per_second: dict[str, float]  # of the engines that were benchmarked here


@router.get("/info")
async def get_info(
    service: ServingDep, settings: SettingsDep, model: ModelRefParam | None = None
) -> ModelInfo:
    """Return the model that `/predict` would use, loading it if needed."""
    return _build_info(*await service.pool.get(model), settings)


@router.get("/models/{ref}/info")
@router.get("/models/{ref}/predict/info")
async def get_model_info(
    ref: ModelRefParam, service: ServingDep, settings: SettingsDep
) -> ModelInfo:
    """Return the model in the URL, loading it if needed."""
    return _build_info(*await service.pool.get(ref), settings)


@router.get("/models/{ref}/health")
@router.get("/models/{ref}/predict/health")
async def get_model_health(ref: ModelRefParam, service: ServingDep) -> ModelHealth:
    """Return `ok` once the model is loaded and reproduces its reference logits."""
    await service.pool.get(ref)
    return ModelHealth()


def _build_info(resolved: ResolvedModel, model: LoadedModel, settings: Settings) -> ModelInfo:
    predictor = model.predictor
    labels = dict(enumerate(predictor.labels))
    return ModelInfo(
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
        max_concurrent_requests=MAX_TEXTS_IN_FLIGHT,
        max_input_length=predictor.max_length,
        max_batch_tokens=predictor.engine.batch_tokens,
        max_batch_requests=None,
        max_client_batch_size=settings.max_inputs,
        auto_truncate=True,
        tokenization_workers=TOKENIZER_THREADS,
        version=lora_core.__version__,
        sha=None,
        docker_label=None,
        engine=predictor.engine.name,
        engine_tokens_per_second=dict(predictor.engine_speeds),
    )


_DTYPES = {"fp64": "float64", "fp32": "float32", "bf16": "bfloat16"}
