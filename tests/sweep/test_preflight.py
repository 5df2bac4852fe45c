from pathlib import Path

import pytest

from snnsweep.errors import UserError
from snnsweep.results.store import write_json
from snnsweep.sweep.preflight import folder_is_free, space_works
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


@pytest.mark.parametrize("storage", ["mine", "mine/deeper"])
def test_a_sweep_holds_no_sweeps(tmp_path: Path, storage: str):
    (tmp_path / "mine").mkdir()
    write_json(tmp_path / "mine" / "sweep.json", {})
    with pytest.raises(UserError, match="mine is a sweep's own folder; give one that holds sweeps"):
        folder_is_free(tmp_path / storage, "new", True)
    folder_is_free(tmp_path, "new", True)
