"""A user's script with SetFit: JSON with base, texts and labels in, JSON with labels out."""

import json
import sys

from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from setfit import SetFitModel, Trainer, TrainingArguments

task = json.load(sys.stdin)
words = Transformer(task["base"], max_seq_length=task["max_length"])
pooling = Pooling(words.get_embedding_dimension(), pooling_mode="mean")
body = SentenceTransformer(modules=[words, pooling, Normalize()], device="cpu")
body.save("body")  # where it runs: SetFit reads a model by its name or folder

labels = sorted(set(task["labels"]))
trainer = Trainer(
    model=SetFitModel.from_pretrained("body", labels=labels, device="cpu"),
    args=TrainingArguments(
        seed=task["seed"], report_to="none", save_strategy="no", show_progress_bar=False
    ),
    train_dataset=Dataset.from_dict(
        {"text": task["texts"], "label": [labels.index(label) for label in task["labels"]]}
    ),
)
trainer.train()
print(json.dumps([str(label) for label in trainer.model.predict(task["test"])]))
