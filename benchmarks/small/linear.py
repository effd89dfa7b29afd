"""TF-IDF and logistic regression by scikit-learn, on whole texts."""

from collections.abc import Sequence

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from benchmarks.small.plan import Spec
from benchmarks.small.sets import Texts
from lora_core.data.rows import TextRow


def answers(spec: Spec, texts: Texts, train: Sequence[TextRow], seed: int) -> list[str]:  # noqa: ARG001
    """The predicted label of each test text."""
    terms = TfidfVectorizer(ngram_range=(1, spec["ngrams"]), sublinear_tf=True)
    x = terms.fit_transform([row.text for row in train])
    fitted = LogisticRegression(
        C=spec["C"], class_weight=spec["class_weight"], max_iter=1000
    ).fit(x, [row.label for row in train])  # fmt: skip
    found: list[str] = fitted.predict(terms.transform([row.text for row in texts.test])).tolist()
    return found
