"""Which mutants there are, which are drawn, and how they are counted."""

import ast

import pytest

from tests.mutants.__main__ import (
    Result,
    draw,
    find_all,
    is_current,
    read_equivalent,
    summarize,
)
from tests.mutants.mutations import find_mutations
from tests.mutants.places import ROOT, digest_of_file, digest_of_tests, list_tests, mutated_files

SOURCE = b'''
"""A docstring stays."""
LIMIT: int = 3

@cached(maxsize=8)
def take(rows: list[str] | None, due: float) -> str:
    """So does this one."""
    log.info("nor this", due + 1)
    if rows:
        raise Full(f"{due + 1} rows")
    while due < LIMIT and not late:
        continue
    session.execute(select(Job).where(Job.id == 1, Job.due).order_by(Job.id))
    return "first" + name
'''
EXPECTED = {
    "module: 3 -> 4",
    "module: 3 -> 2",
    "take: rows -> not rows",
    "take: raise Full(f'{due + 1} rows') -> pass",
    "take: due < LIMIT -> due <= LIMIT",
    "take: due < LIMIT -> due > LIMIT",
    "take: due < LIMIT and (not late) -> due < LIMIT or not late",
    "take: due < LIMIT and (not late) -> due < LIMIT",
    "take: due < LIMIT and (not late) -> not late",
    "take: not late -> late",
    "take: continue -> break",
    "take: continue -> pass",
    "take: session.execute(select(Job).where(Job.id == 1, Job.due).order_by(Job.id)) -> pass",
    "take: select(Job).where(Job.id == 1, Job.due).order_by(Job.id)"
    " -> select(Job).where(Job.id == 1, Job.due)",
    "take: select(Job).where(Job.id == 1, Job.due) -> select(Job)",
    "take: select(Job).where(Job.id == 1, Job.due) -> select(Job).where(Job.due)",
    "take: select(Job).where(Job.id == 1, Job.due) -> select(Job).where(Job.id == 1)",
    "take: Job.id == 1 -> Job.id != 1",
    "take: 1 -> 2",
    "take: 1 -> 0",
    "take: return 'first' + name -> return None",
}


def test_each_operator_makes_its_mutants() -> None:
    names = [each.name.removeprefix("file.py:") for each in find_mutations("file.py", SOURCE)]
    assert len(names) == len(set(names))
    assert set(names) == EXPECTED


def test_a_mutation_changes_its_place_only() -> None:
    by_name = {each.name: each for each in find_mutations("file.py", SOURCE)}
    mutation = by_name["file.py:take: due < LIMIT -> due <= LIMIT"]
    assert mutation.apply(SOURCE) == SOURCE.replace(b"due < LIMIT", b"(due <= LIMIT)")
    assert mutation.line == 11


@pytest.mark.slow  # three hundred mutants
def test_every_drawn_mutant_is_another_program() -> None:
    trees = {path: ast.dump(ast.parse((ROOT / path).read_bytes())) for path in mutated_files()}
    for mutation in draw(find_all(), 300, seed=0):
        mutant = ast.parse(mutation.apply((ROOT / mutation.path).read_bytes()))
        assert ast.dump(mutant) != trees[mutation.path], mutation.name


def test_the_draw_depends_on_seed_and_names_only() -> None:
    everything = find_all()
    drawn = draw(everything, 300, seed=0)
    assert len({each.name for each in drawn}) == 300
    assert draw(reversed(everything), 300, seed=0) == drawn
    assert draw(everything, 300, seed=1) != drawn
    others = [each for each in everything if each.path != "app/queue/leases.py"]
    kept = [each for each in drawn if each.path != "app/queue/leases.py"]
    assert draw(others, len(kept), seed=0) == kept


def test_every_place_has_mutants_and_tests() -> None:
    places = ("app/queue/", "app/idempotency/", "app/auth/", "lora_core/layers/")
    paths = mutated_files()
    for place in (*places, "lora_core/training/checkpoint.py", "worker/checkpoint_sync.py"):
        assert any(path.startswith(place) for path in paths)
    for path in paths:
        assert all((ROOT / each).is_file() for each in list_tests(path))
        assert len(list_tests(path)) >= 2


def test_every_equivalent_mutant_exists_and_has_a_reason() -> None:
    names = {each.name for each in find_all()}
    for mutant, reason in read_equivalent().items():
        assert mutant in names
        assert reason.endswith(".")


def test_an_equivalent_mutant_counts_as_not_killed() -> None:
    outcomes = ["killed"] * 16 + ["timeout"] * 2 + ["survived"] * 2
    results = [Result(str(n), each, "", 1.0, "", "", "") for n, each in enumerate(outcomes)]
    summary = summarize(results, {"0", "19"})
    assert (summary["killed"], summary["survived"], summary["equivalent"]) == (18, 1, 1)
    assert summary["killed_share"] == 0.9
    assert summary["killed_share_without_equivalent"] == pytest.approx(18 / 19, abs=1e-4)
    # (Wilson's interval of 18 of 20.)
    assert summary["killed_share_low"] == pytest.approx(0.6990, abs=1e-4)
    assert summary["killed_share_high"] == pytest.approx(0.9721, abs=1e-4)


def test_a_result_holds_until_what_decided_it_changes() -> None:
    mutation = next(each for each in find_all() if each.path == "app/queue/leases.py")
    source = digest_of_file(mutation.path)
    test = "tests/conformance/test_claim.py::test_a_running_job_is_not_claimed[sqlite]"
    killer, tests = digest_of_file(test), digest_of_tests(mutation.path)

    def holds(outcome: str, by: str, source: str, tests: str, killer: str) -> bool:
        return is_current(mutation, Result(mutation.name, outcome, by, 1.0, source, tests, killer))

    assert holds("killed", test, source, "other tests", killer)
    assert not holds("killed", test, source, tests, "other text")
    assert not holds("killed", "tests/deleted.py::test_it", source, tests, killer)
    assert not holds("killed", test, "other source", tests, killer)
    for outcome, by in (("survived", ""), ("timeout", ""), ("killed", "import")):
        assert holds(outcome, by, source, tests, "")
        assert not holds(outcome, by, source, "other tests", "")
