from lora_core.data.split import Example, Splits
from lora_core.specs.data import Split


def splits(*, train: str = "ab", test: str = "b", labels: tuple[str, ...] = ("x", "y")) -> Splits:
    made = {
        name: tuple(Example(i, text, i % 2) for i, text in enumerate(texts))
        for name, texts in (("train", train), ("validation", "a"), ("test", test))
    }
    return Splits(labels, made["train"], made["validation"], made["test"])


def test_examples_of_each_split() -> None:
    found = splits()
    assert [found.examples_of(split) for split in Split] == [
        found.train,
        found.validation,
        found.test,
    ]


def test_digest_covers_texts_labels_order_and_splits() -> None:
    variants = [
        splits(),
        splits(train="bb"),
        splits(train="abc"),
        splits(test="a"),
        splits(labels=("y", "x")),
        splits(train="abb", test=""),
        Splits(("x", "y"), (Example(0, "ab", 0),), (Example(0, "a", 0),), (Example(0, "b", 0),)),
    ]
    assert len({one.digest for one in variants}) == len(variants)
    assert splits().digest == splits().digest
    assert len(splits().digest) == 64


def test_digest_ignores_row_numbers() -> None:
    one, two = (Splits(("x",), (Example(row, "a", 0),), (), ()) for row in (1, 2))
    assert one.digest == two.digest
