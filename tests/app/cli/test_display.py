"""The progress of a run and its display."""

import io

import pytest
from rich.console import Console

from app.cli.watch import (
    SPARKLINE_ASCII,
    SPARKLINE_BLOCKS,
    TRAIN_LOSS,
    PlainTextDisplay,
    RunProgress,
    render_panel,
    sparkline,
)


def drawn(progress: RunProgress, *, unicode: bool = True) -> str:
    console = Console(file=io.StringIO(), width=100, markup=False)
    console.print(render_panel(progress, unicode=unicode))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_rate_and_remaining_time() -> None:
    progress = RunProgress("run", state="running", total=100)
    assert progress.seconds_left is None
    for step in range(10, 60, 10):
        progress.add_point(TRAIN_LOSS, step, 0.5, at=1000 + step / 2)
    assert progress.rate == pytest.approx(2.0)
    assert progress.seconds_left == pytest.approx(25)


def test_new_attempt_replaces_the_curve_from_its_first_step() -> None:
    progress = RunProgress("run")
    for step in (10, 20, 30):
        progress.add_point(TRAIN_LOSS, step, 1.0, at=step)
    progress.add_point(TRAIN_LOSS, 20, 0.5, at=100, attempt=2)
    assert progress.get_series(TRAIN_LOSS).in_order() == [1.0, 0.5]
    assert progress.rate is None  # the new attempt has no throughput yet


def test_the_panel_shows_state_position_curves_and_notes() -> None:
    progress = RunProgress("mine (lora)", state="running", total=40)
    for step, loss in ((10, 0.7), (20, 0.4)):
        progress.add_point(TRAIN_LOSS, step, loss, at=step)
    progress.add_point(("validation", "accuracy"), 20, 0.8123, at=20)
    progress.add_note("Attempt 1 started.")
    text = drawn(progress)
    for part in ("mine (lora)", "running", "step 20/40", "20 s left", "train loss 0.4000",
                 "validation accuracy 81.2%", "█▁", "Attempt 1 started."):  # fmt: skip
        assert part in text


def test_queued_run_shows_its_position() -> None:
    assert "queue position 3" in drawn(RunProgress("run", state="queued", queue_position=3))


def test_untrusted_text_is_neither_markup_nor_control_codes() -> None:
    progress = RunProgress("[red]\x1b[2J", state="running")
    text = drawn(progress)
    assert "[red]" in text
    assert "\x1b" not in text


def test_terminal_without_unicode_gets_ascii() -> None:
    progress = RunProgress("run", state="running")
    for step in (1, 2):
        progress.add_point(TRAIN_LOSS, step, 1 / step, at=step)
    assert f"{SPARKLINE_ASCII[-1]}{SPARKLINE_ASCII[0]}" in drawn(progress, unicode=False)


def test_plain_output_prints_news_and_periodic_loss(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 0.0, 1.0, 6.0, 6.0])
    monkeypatch.setattr("app.cli.watch.monotonic", lambda: next(clock))
    lines = PlainTextDisplay()
    progress = RunProgress("run", state="running", total=30)
    for step in (10, 20, 30):
        progress.add_point(TRAIN_LOSS, step, 0.5, at=step)
        lines.update(progress)
    lines.update(progress, "done")
    printed = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in printed] == ["step 10/30", "step 30/30", "done"]


def test_sparkline_spans_all_levels() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == SPARKLINE_BLOCKS
    assert sparkline([], 8) == ""
    assert len(set(sparkline([3, 3, 3], 8))) == 1
    assert sparkline([0, 0, 7, 7], 2) == SPARKLINE_BLOCKS[0] + SPARKLINE_BLOCKS[-1]
