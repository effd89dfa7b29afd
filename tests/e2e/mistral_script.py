"""A script for Mistral with another address. It runs in the environment of one version of the SDK.

    python mistral_script.py SERVER_URL FILE MODEL

MODEL is asked by a version that has no jobs any more. The results are one JSON object.
"""

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

try:
    from mistralai import Mistral  # type: ignore[attr-defined,unused-ignore] # version 1
except ImportError:
    from mistralai.client import Mistral

server_url, path, model = sys.argv[1:]
client = Mistral(server_url=server_url, api_key="none")
found: dict[str, Any] = {"version": version("mistralai")}

content = Path(path).read_bytes()
file = client.files.upload(file={"file_name": "script.jsonl", "content": content})
found["listed"] = file.id in [each.id for each in client.files.list().data]
found["same"] = client.files.download(file_id=file.id).read() == content
found["lines"] = client.files.retrieve(file_id=file.id).num_lines

jobs = getattr(getattr(client, "fine_tuning", None), "jobs", None)
found["jobs"] = jobs is not None
if jobs is not None:
    job = jobs.create(
        model="ministral-3b-latest",
        job_type="classifier",
        training_files=[{"file_id": file.id, "weight": 1}],
        hyperparameters={"epochs": 1},
        classifier_targets=[
            {"name": "Topic", "labels": ["billing", "shipping"], "weight": 1},
            {"name": "flags", "labels": ["urgent"], "weight": 1, "loss_function": "multi_class"},
        ],
        auto_start=False,
    )
    found["created"] = job.status
    found["counted"] = jobs.list(status="VALIDATED").total
    job = jobs.start(job_id=job.id)
    while job.status in ("QUEUED", "RUNNING"):
        time.sleep(0.2)
        job = jobs.get(job_id=job.id)
    found["ended"], found["events"] = job.status, len(job.events)
    found["targets"] = [[each.name, each.loss_function] for each in job.classifier_targets]
    found["cancelled"] = jobs.cancel(job_id=job.id).status
    model = job.fine_tuned_model

cards = {card.id: card for card in client.models.list().data}
found["type"] = cards[model].type
found["retrieved"] = client.models.retrieve(model_id=model).id == model
found["named"] = client.models.update(model_id=model, name="Mails").name
found["archived"] = client.models.archive(model_id=model).archived
found["unarchived"] = client.models.unarchive(model_id=model).archived
[answer] = client.classifiers.classify(model=model, inputs="Where is my parcel?").results
found["scores"] = {name: each.scores for name, each in answer.items()}
messages = [{"role": "user", "content": "Where is my parcel?"}]
chats = {"inputs" if found["version"].startswith("1.") else "input": [{"messages": messages}]}
[answer] = client.classifiers.classify_chat(model=model, **chats).results
found["chat_scores"] = {name: each.scores for name, each in answer.items()}
try:
    client.classifiers.classify(model="mistral-moderation-latest", inputs="a")
except Exception as error:
    found["error"] = [type(error).__name__, str(error)]
found["deleted"] = client.models.delete(model_id=model).deleted
json.dump(found, sys.stdout)
