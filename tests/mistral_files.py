"""Files for the classifier factory of Mistral."""

import json
from typing import Any

TOPICS = ("billing", "shipping")


def examples(rows: int = 20, *, flags: bool = True) -> bytes:
    """Return lines with a topic, and with flags as a second target."""
    lines: list[dict[str, Any]] = []
    for i in range(rows):
        topic = TOPICS[i % len(TOPICS)]
        labels: dict[str, Any] = {"Topic": topic}
        if flags:
            labels["flags"] = ["urgent"] if i % 3 == 0 else []
        lines.append({"text": f"mail {i} is about {topic}", "labels": labels})
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)
