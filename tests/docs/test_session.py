"""The bash that follows documents: what goes on, and what fails."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.docs.blocks import Block
from tests.docs.session import Session


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with closing(Session(tmp_path / "home")) as made:
        yield made


def block(text: str, language: str = "sh") -> Block:
    return Block("made.md", 7, language, text)


def test_what_a_block_sets_is_there_in_the_next_one(session: Session) -> None:
    session.block(block("mkdir here && cd here\nID=12\n"))
    assert session.block(block('echo "$ID $(basename $PWD)"')) == "12 here\n"
    session.run("python() { python3 $1; }")
    assert session.block(block("print(6 * 7)", "python")) == "42\n"


WRONG = ["false", "false && true", "echo $UNSET", "false | cat", "curl -s 127.0.0.1:1"]


@pytest.mark.parametrize("wrong", WRONG)
def test_a_command_that_fails_is_told_with_its_place(session: Session, wrong: str) -> None:
    with pytest.raises(AssertionError, match=r"made\.md:7") as told:
        session.block(block(f"echo be''fore\n{wrong}\necho af''ter\n"))
    assert "before" in str(told.value)
    assert "after" not in str(told.value)


def test_a_target_is_looked_up_and_not_made(session: Session) -> None:
    assert "pytest" in session.block(block("make test"))
    with pytest.raises(AssertionError, match="nonsense"):
        session.block(block("make nonsense"))


def test_sizes_are_small_unless_the_form_is_full(session: Session, tmp_path: Path) -> None:
    text = """echo '{"train_size": 4000}' --over r=1,2,4 --over alpha=8,16 --epochs 12"""
    few = '{"train_size": 60, "validation_size": 20, "test_size": 30} --over r=8,4 --epochs 2\n'
    assert session.block(block(text)) == few
    with closing(Session(tmp_path / "other", full=True)) as full:
        assert '{"train_size": 4000}' in full.block(block(text))
