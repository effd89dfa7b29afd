"""A transformers pipeline served by FastAPI, as in a ten-minute tutorial.

A route that is no coroutine runs in the thread pool, one text at a time.
"""

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import torch
import uvicorn
from anyio.to_thread import current_default_thread_limiter
from fastapi import Body, FastAPI
from transformers import pipeline


def build(model: str, precision: str, at_once: int) -> FastAPI:
    """The application; `at_once` is the size of its thread pool."""
    classify = pipeline(
        "text-classification", model=model, dtype=getattr(torch, precision), top_k=None
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        current_default_thread_limiter().total_tokens = at_once
        yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/predict")
    def predict(inputs: str = Body(embed=True)) -> list[dict[str, object]]:
        return classify([inputs], truncation=True)[0]

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), required=True)
    parser.add_argument("--threads", type=int, required=True, help="of one forward pass")
    parser.add_argument("--at-once", type=int, required=True, help="forward passes")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    app = build(arguments.model, arguments.precision, arguments.at_once)
    uvicorn.run(app, port=arguments.port, log_level="warning")
