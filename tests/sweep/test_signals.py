"""What a driver does when it is told to end."""

import os
import signal
from types import SimpleNamespace

import pytest

from snnsweep.sweep import signals
from snnsweep.sweep.signals import SAME_S, ending_on_signal


def test_one_signal_that_comes_twice_is_one_and_the_next_ends_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job's SIGTERM goes to all its processes, and a script among them may hand it on."""
    clock, said = [1.0], []
    monkeypatch.setattr(signals, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    before = signal.getsignal(signal.SIGTERM)
    with ending_on_signal(lambda: said.append("end")):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            clock[0] += SAME_S / 2
        assert said == ["end"]
        clock[0] += SAME_S
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert (said, signal.getsignal(signal.SIGTERM)) == (["end"], before)
