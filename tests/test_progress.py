"""What is said of a sweep on its way: the figures by hand, and how they look on a terminal, in a pipe and in a log."""

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from snnsweep.config import TrialConfig
from snnsweep.result import Direction, Result
from snnsweep.sweep import progress as module
from snnsweep.sweep.progress import Progress
from snnsweep.terminal_gpu import ask

TWO: dict[str, Direction] = {"clean_accuracy": "maximize", "robust_accuracy": "maximize"}


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


def ended(status: str, **metrics: float) -> Result:
    return Result(status=status, config=TrialConfig(), metrics=metrics)


def test_nobody_knows_what_is_left_before_a_trial_has_ended(clock: Clock):
    progress = Progress(4, TWO, 2)
    progress.take_over([{"trial_id": "t0000", "status": "failed"}])  # in an earlier start: its time is not known
    progress.begin("t0001", 0, 8)
    clock.now = 50.0
    assert progress.left_s is None


def test_what_is_left_counts_slots_stopped_trials_and_how_long_the_running_ones_have_run(clock: Clock):
    progress = Progress(7, TWO, 2)
    for name in ("t0000", "t0001"):
        progress.begin(name, 0, 8)
    clock.now = 40.0
    progress.note("t0000", ended("stopped"))
    progress.begin("t0002", 0, 8)
    clock.now = 80.0
    progress.note("t0001", ended("finished", clean_accuracy=0.5, robust_accuracy=0.1))
    progress.begin("t0003", 0, 8)
    # The usual trial takes (40 + 80) / 2 = 60 s; t0002 has 20 s to go, t0003 has 60; three more wait for the two slots:
    # one begins at 20, one at 60, one at 80, which ends at 140.
    assert progress.left_s == pytest.approx(140.0)
    clock.now = 140.0
    progress.running["t0003"] = 2  # of 8 epochs in 60 s: 180 more
    # t0002 is late, so that the usual one takes (40 + 80 + 100) / 3 s, and has the 26.7 s that it is late beyond that
    # to go; then the three in its slot.
    assert progress.left_s == pytest.approx(100 - 220 / 3 + 3 * 220 / 3)


def test_one_trial_alone_does_not_end_sooner_for_many_slots(clock: Clock):
    progress = Progress(2, TWO, 8)
    progress.begin("t0000", 0, 8)
    clock.now = 60.0
    progress.note("t0000", ended("finished", clean_accuracy=0.5, robust_accuracy=0.1))
    progress.begin("t0001", 0, 8)
    assert progress.left_s == pytest.approx(60.0)


@pytest.mark.parametrize(("waiting", "slots"), [(1, 1), (7, 3), (1000, 7), (12345, 64)])
def test_rounds_that_are_skipped_give_what_all_of_them_give(waiting: int, slots: int, clock: Clock):
    progress = Progress(waiting, TWO, slots)
    progress.seconds.append(10.0)
    assert progress.left_s == pytest.approx(-(-waiting // slots) * 10.0)


def test_hypervolume_of_two_shares_and_its_reference():
    progress = Progress(9, TWO, 1)
    assert progress.hypervolume is None
    for trial, (clean, robust) in {"a": (0.8, 0.2), "b": (0.5, 0.6), "c": (0.4, 0.1)}.items():
        progress.note(trial, ended("finished", clean_accuracy=clean, robust_accuracy=robust))
    progress.note("d", ended("infeasible", clean_accuracy=1.0, robust_accuracy=1.0))  # whose figures nobody believes
    assert progress.front_size == 2
    assert progress.hypervolume.value == pytest.approx(0.8 * 0.2 + 0.5 * 0.4)
    assert progress.hypervolume.reference == {"clean_accuracy": 0.0, "robust_accuracy": 0.0}


def test_pairs_of_a_confirmation_have_no_front():
    progress = Progress(2, TWO, 1, has_front=False)
    progress.note("a", ended("finished", clean_accuracy=0.8, robust_accuracy=0.2))
    assert (progress.front_size, progress.hypervolume) == (0, None)


# A sweep's words to the terminal, without Ray: what is drawn is under test here.
SHOW = """
import sys, time
from snnsweep.config import TrialConfig
from snnsweep.result import Result
from snnsweep.sweep.progress import Progress
from snnsweep.terminal_progress import ProgressView
progress = Progress(40, {"clean_accuracy": "maximize", "robust_accuracy": "maximize"}, 30)
with ProgressView() as view:
    for number in range(30):
        progress.begin(f"t{number:04d}", 0, 60)
    view(progress)
    for number in range(3):
        metrics = {"clean_accuracy": 0.9 - number / 10, "robust_accuracy": 0.1 + number / 10}
        cause = "" if number else "a cause that is much longer than a narrow terminal is wide, and is not to be folded"
        status = "finished" if number else "infeasible"
        progress.note(f"t{number:04d}", Result(status=status, config=TrialConfig(), metrics=metrics, cause=cause))
        view(progress)
    time.sleep(float(sys.argv[1]))
"""


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("CI", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")}
    return kept | {"TERM": "xterm-256color", **more}


def on_a_terminal(rows: int, columns: int, seconds: float = 0.0, **more: str) -> str:
    """What reaches a real pseudo-terminal of that size."""
    parent, child = pty.openpty()
    subprocess.run(["stty", "rows", str(rows), "cols", str(columns)], stdin=child, check=True)
    command = [sys.executable, "-c", SHOW, str(seconds)]
    running = subprocess.Popen(
        command, stdin=child, stdout=child, stderr=child, env=environment(**more), close_fds=True
    )
    os.close(child)
    text, end = b"", time.monotonic() + 60
    while time.monotonic() < end:
        if select.select([parent], [], [], 0.2)[0]:
            try:
                piece = os.read(parent, 65536)
            except OSError:  # it has gone
                break
            if not piece:
                break
            text += piece
    assert running.wait(timeout=10) == 0, text.decode()
    os.close(parent)
    return text.decode()


def frames(text: str) -> list[list[str]]:
    """The panels that were drawn one over the other, as lines without control codes."""
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", lambda code: "\f" if code[0].endswith("A") else "", text)
    return [piece.replace("\r", "").strip("\n").split("\n") for piece in plain.split("\f")]


def test_the_panel_fits_a_narrow_and_low_terminal():
    text = on_a_terminal(24, 60, NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", text)
    drawn = [frame for frame in frames(text) if any("running" in line for line in frame)]
    assert drawn
    for frame in drawn:
        below_the_bar = next(i for i, line in enumerate(frame) if "/40  running" in line)  # which is empty at first
        panel = frame[max(0, below_the_bar - 1) :]
        assert len(panel) <= 24
        assert all(len(line) <= 60 for line in panel), panel
    last = "\n".join(drawn[-1])
    assert re.search(r"3/40 +running 27", last)
    assert "infeasible 1" in last
    assert "front 2" in last
    assert "over 0, 0" in last
    assert "epoch 0/60" in last
    assert re.search(r"and \d+ more", last)


@pytest.mark.parametrize("more", [{"TERM": "dumb"}, {"CI": "true"}], ids=["dumb", "ci"])
def test_a_terminal_that_is_a_log_gets_lines(more: dict[str, str]):
    text = on_a_terminal(24, 60, **more)
    assert not re.search(r"\x1b\[\d*[ABCDHJK]|\x1b\[\?25", text)  # nothing moves the cursor or hides it
    lines = text.replace("\r", "").splitlines()
    assert re.fullmatch(r"(\x1b\[\d+m)*0/40 .*running: t0000 epoch 0/60, .* and 22 more", lines[0])
    assert "1/40 t0000" in lines[1]


def test_in_a_pipe_every_line_is_whole_plain_and_there_at_once():
    command = [sys.executable, "-c", SHOW, "20"]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment())
    assert running.stderr
    try:
        lines = [running.stderr.readline() for _ in range(4)]  # the process still has a long time to go
        assert running.poll() is None
    finally:
        running.kill()
        running.wait()
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", "".join(lines))
    assert lines[0].startswith(
        "0/40  running 30  finished 0  stopped 0  failed 0  infeasible 0  left ?  running: t0000"
    )
    assert lines[1].startswith("1/40 t0000 infeasible")
    assert "much longer than a narrow terminal is wide, and is not to be folded" in lines[1]


def test_what_the_gpus_own_tool_says_is_shown_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No GPU is at hand: its tool is replaced by one that prints lines of its kind."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ask() == []
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '0, 97, 12596, 81559'\necho '1, [N/A], 3, 81559'\necho '2, [N/A], [N/A], [N/A]'\n")
    tool.chmod(0o755)
    assert ask() == ["GPU 0 of this machine: 97 %, 12.3 of 79.6 GiB", "GPU 1 of this machine: 0.0 of 79.6 GiB"]
    tool.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert ask() == []


def test_a_listener_for_scripts_and_notebooks(capsys: pytest.CaptureFixture[str]):
    import snnsweep

    progress, listen = Progress(2, TWO, 1), snnsweep.progress()
    progress.begin("t0000", 0, 3)
    listen(progress)
    progress.note("t0000", ended("finished", clean_accuracy=0.5, robust_accuracy=0.25))
    listen(progress)
    listen(progress)  # nothing new
    assert capsys.readouterr().err.splitlines()[1].startswith("1/2 t0000 finished  clean_accuracy 0.5")
    listen(progress)
    assert capsys.readouterr() == ("", "")
    another = Progress(2, TWO, 1)  # the next sweep in the same notebook
    another.note("t0000", ended("finished", clean_accuracy=0.5, robust_accuracy=0.25))
    listen(another)
    assert capsys.readouterr().err.startswith("1/2 t0000 finished")


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]):
    from snnsweep import terminal

    given: Any = {"a": float("nan"), "b": [1.5, float("inf")], "c": ({"d": None},)}
    terminal.print_json(given)
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [1.5, None], "c": [{"d": None}]}
