"""No block is overlooked."""

import re

import pytest

from tests.docs.answers import differs
from tests.docs.blocks import DOCUMENTS, ROOT, Block, blocks, by_hand, find


def test_the_documents_are_found() -> None:
    assert {"README.md", "docs/tutorial.md", "docs/reference/cli.md"} <= set(DOCUMENTS)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_fence_is_a_block(document: str) -> None:
    lines = (ROOT / document).read_text(encoding="utf-8").splitlines()
    fences = [line for line in lines if re.match(r"[\s>*+-]*(```|~~~)", line)]
    assert len(fences) == 2 * len(blocks(document))


# What a reader takes for a command stands in a block that is run, or looked up.
@pytest.mark.parametrize("document", DOCUMENTS)
def test_no_command_hides_in_a_block_without_a_language(document: str) -> None:
    shown = [block for block in find(by_hand(document), document) if not block.language]
    commands = r"^\$|^(loraworks|curl|make|python|docker|pip|cd|\.) "
    assert [str(block) for block in shown if re.search(commands, block.text, re.MULTILINE)] == []


@pytest.mark.parametrize(
    "text",
    [
        "```bash\nls\n```",
        "```console\n$ ls\n```",
        "~~~\n~~~\n\n    ls\n",
        "- a\n\n  ```rust\n  ```",
    ],
)
def test_a_block_that_nothing_looks_at_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no test looks at"):
        list(find(text, "made.md"))


def test_a_need_that_nothing_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="a unicorn"):
        list(find("*Needs a unicorn.*\n\n```sh\nls\n```", "made.md"))


def test_a_need_holds_for_the_next_block_alone() -> None:
    text = "*Needs Docker.* So:\n\n```sh\nls\n```\n\n```sh\nls\n```\n"
    assert [block.needs for block in find(text, "made.md")] == ["Docker", None]


def test_an_answer_follows_what_was_run_in_the_same_section() -> None:
    answer = "```json\n1\n```\n"
    text = f"{answer}```sh\nls\n```\nIt says\n\n{answer}# More\n{answer}"
    found = list(find(text, "made.md"))
    assert [block.answers for block in found] == [False, False, True, False]
    assert found[2] == Block("made.md", 10, "json", "1\n", None, True)


def test_an_answer_may_show_less_than_there_is() -> None:
    output = 'Waiting\n{"id": "a", "names": ["b"], "n": 1.5, "none": null}\nlabel   score  12 s\n'
    shown = {
        '{"id": "z", "names": ["y"]}': True,
        '{"n": 7}': True,
        '{"n": "7"}': False,
        '{"names": [7]}': False,
        '{"other": 1}': False,
        '[{"id": "z"}]': False,
    }
    for text, right in shown.items():
        block = Block("made.md", 1, "json", text, None, True)
        assert (differs(block, output) is None) == right, text
    for text, right in {
        "Waiting\nlabel score  3 s": True,
        "Waiting\nlabel figure  3 s": False,
    }.items():
        block = Block("made.md", 1, "text", text, None, True)
        assert (differs(block, output) is None) == right, text
