from pathlib import Path

import pytest

from snnsweep.errors import UserError
from snnsweep.sweep.preflight import space_works
from snnsweep.sweep.space import Space

OWN = (
    "from snnsweep import neurons\n"
    '@neurons.register("travels")\n'
    "class Travels(neurons.SpikingNeuron):\n"
    "    'v + x.'\n"
    "    def charge(self, v, x): return v + x\n"
)
USE = 'def space(trial): return {"neuron.name": "travels"}\n'


def test_parts_that_the_workers_would_not_have_are_refused(monkeypatch: pytest.MonkeyPatch):
    first = Space("first.py", OWN + USE)
    assert len(space_works(first, 0, {}, {}, Path("data"))) == 16
    with pytest.raises(UserError, match=r"second.py: neuron.name 'travels' is registered in snnsweep_space_first"):
        space_works(Space("second.py", USE), 0, {}, {}, Path("data"))
    monkeypatch.setattr(first.module.Travels, "__module__", "__main__")
    with pytest.raises(UserError, match="register it in the space file"):
        space_works(Space("second.py", USE), 0, {}, {}, Path("data"))
