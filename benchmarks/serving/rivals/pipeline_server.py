"""A transformers pipeline behind FastAPI: what one writes in ten minutes.

A route that is no coroutine runs in the thread pool, one text at a time.
"""

import argparse

import torch
import uvicorn
from fastapi import Body, FastAPI
from transformers import pipeline


def build(model: str, precision: str) -> FastAPI:
    """The application."""
    classify = pipeline(
        "text-classification", model=model, dtype=getattr(torch, precision), top_k=None
    )
    app = FastAPI()

    @app.post("/predict")
    def predict(inputs: str = Body(embed=True)) -> list[dict[str, object]]:
        with torch.inference_mode():
            return classify(inputs, truncation=True)

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), required=True)
    parser.add_argument("--threads", type=int, required=True, help="of one forward pass")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    uvicorn.run(
        build(arguments.model, arguments.precision), port=arguments.port, log_level="warning"
    )
