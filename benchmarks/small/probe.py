"""Logistic regression by scikit-learn on frozen vectors of the base."""

from collections.abc import Sequence

from sklearn.linear_model import LogisticRegression

from benchmarks.small.plan import Spec
from benchmarks.small.sets import Texts
from benchmarks.small.vectors import Vectors
from lora_core.data.rows import TextRow


def answers(spec: Spec, texts: Texts, train: Sequence[TextRow], seed: int) -> list[str]:  # noqa: ARG001
    """The predicted label of each test text."""
    vectors = Vectors(texts)
    fitted = LogisticRegression(C=spec["C"], class_weight=spec["class_weight"], max_iter=1000)
    fitted.fit(vectors.of(train), [row.label for row in train])
    found: list[str] = fitted.predict(vectors.of(texts.test)).tolist()
    return found
