"""Every code block is tested."""

import re

import pytest

from tests.docs.blocks import DOCUMENTS, ROOT, blocks, by_hand, find


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_fence_is_collected(document: str) -> None:
    lines = (ROOT / document).read_text(encoding="utf-8").splitlines()
    fences = [line for line in lines if re.match(r"[\s>*+-]*(```|~~~)", line)]
    assert len(fences) == 2 * len(blocks(document))


# Commands must be in blocks that are run or checked.
@pytest.mark.parametrize("document", DOCUMENTS)
def test_blocks_without_a_language_contain_no_commands(document: str) -> None:
    shown = [block for block in find(by_hand(document), document) if not block.language]
    commands = r"^\$|^(loraworks|curl|make|python|docker|pip|cd|\.) "
    assert [str(block) for block in shown if re.search(commands, block.text, re.MULTILINE)] == []
