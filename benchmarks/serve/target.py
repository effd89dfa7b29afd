"""Where a server listens, and how requests and responses are encoded."""

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import Message
from typing import Any


@dataclass(frozen=True)
class Target:
    """A request body is `before`, the text as JSON, `after`."""

    port: int
    paths: tuple[str, ...] = ("/predict",)  # one of them, at random
    before: str = '{"inputs":'
    after: str = "}"
    keys: tuple[str, ...] = ()
    patience: float | None = None  # timeout in seconds, sent to the server
    host: str = "127.0.0.1"

    def request(self, text: bytes, path: str, key: int = 0) -> bytes:
        """All bytes of a request; `text` is JSON."""
        body = self.before.encode() + text + self.after.encode()
        lines = [
            f"POST {path} HTTP/1.1",
            f"Host: {self.host}:{self.port}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            *([f"X-Request-Timeout: {self.patience}"] if self.patience else []),
            *(f"{name}: {value}" for name, value in self.headers(key).items()),
        ]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    def ask(self, text: str, path: str | None = None) -> tuple[int, Message, Any]:
        """Send one request: status, headers, body. Raises `OSError`."""
        body = f"{self.before}{json.dumps(text)}{self.after}".encode()
        return self.send("POST", path or self.paths[0], body)

    def send(self, method: str, path: str, body: bytes) -> tuple[int, Message, Any]:
        """Any call with a JSON body."""
        headers = {"Content-Type": "application/json", **self.headers()}
        url = f"http://{self.host}:{self.port}{path}"
        call = urllib.request.Request(url, body, headers, method=method)
        try:
            with urllib.request.urlopen(call, timeout=60) as answer:  # noqa: S310 - http
                return answer.status, answer.headers, json.load(answer)
        except urllib.error.HTTPError as refusal:
            return refusal.code, refusal.headers, refusal.read()

    def headers(self, key: int = 0) -> dict[str, str]:
        """That of an API key, if the server wants one."""
        return {"Authorization": f"Bearer {self.keys[key]}"} if self.keys else {}


def scores(answer: Any, labels: Sequence[str] = ()) -> dict[str, float]:
    """Label → probability, for any nesting of the list of labels.

    `labels` are those of the model, for a server that names only the most probable one.
    """
    while "label" not in (answer[0] if isinstance(answer, list) else answer):
        answer = answer["data"] if isinstance(answer, dict) else answer[0]
    if "probs" in answer[0]:
        return dict(zip(labels, answer[0]["probs"], strict=True))
    return {each["label"]: each["score"] for each in answer}
