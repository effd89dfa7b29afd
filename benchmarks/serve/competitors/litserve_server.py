"""LitServe with batches, as its guide for speed writes it."""

import argparse
from typing import Any

import litserve
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer


class Reviews(litserve.LitAPI):  # type: ignore[misc]
    """Tokenize, pad to the longest text of the batch, one forward pass, softmax."""

    def __init__(self, model: str, precision: str, threads: int, **batching: Any) -> None:
        super().__init__(**batching)
        self.name, self.precision, self.threads = model, precision, threads

    def setup(self, _: str) -> None:
        torch.set_num_threads(self.threads)
        self.tokenizer = AutoTokenizer.from_pretrained(self.name)
        self.model = AutoModelForSequenceClassification.from_pretrained(
            self.name, torch_dtype=getattr(torch, self.precision)
        ).eval()
        self.labels = [self.model.config.id2label[i] for i in range(self.model.config.num_labels)]

    def decode_request(self, request: dict[str, str]) -> str:
        return request["inputs"]

    def predict(self, texts: list[str] | str) -> Any:
        batch = self.tokenizer(
            texts, truncation=True, max_length=512, padding=True, return_tensors="pt"
        )
        with torch.inference_mode():
            rows = self.model(**batch).logits.float().softmax(-1).tolist()
        return rows if isinstance(texts, list) else rows[0]

    def encode_response(self, row: list[float]) -> list[dict[str, object]]:
        pairs = zip(self.labels, row, strict=True)
        return [{"label": label, "score": score} for label, score in pairs]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), required=True)
    parser.add_argument("--threads", type=int, required=True, help="of one forward pass")
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True, help="texts at most")
    parser.add_argument("--wait", type=float, required=True, help="seconds for a batch to fill")
    a = parser.parse_args()
    api = Reviews(a.model, a.precision, a.threads, max_batch_size=a.batch, batch_timeout=a.wait)
    server = litserve.LitServer(
        api, accelerator="cpu", workers_per_device=a.workers, timeout=False, fast_queue=True
    )
    server.run(host="127.0.0.1", port=a.port, generate_client_file=False, log_level="warning")
