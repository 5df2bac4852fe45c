import pickle
from pathlib import Path

import optuna
import pytest

from snnsweep.errors import SpaceError
from snnsweep.sweep.space import Space

GOOD = '''"""Which threshold?

More words.
"""
FIXED = {"data.name": "digits", "model.depth": 10}


def space(trial):
    trial.suggest_float("neuron.v_threshold", 0.5, 2.0)
    if trial.suggest_categorical("neuron.name", ["lif", "plif"]) == "lif":
        trial.suggest_float("neuron.tau", 1.5, 1.6)
    return FIXED
'''


def fresh() -> optuna.Trial:
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1)).ask()


def mistake(text: str) -> str:
    space = Space("mine.py", text)
    with pytest.raises(SpaceError) as caught:
        (space.objectives, space.probe(0, {}, {}))
    return str(caught.value)


def test_a_space_gives_configs_and_its_question():
    space = Space("dir/mine.py", GOOD)
    assert (space.name, space.question) == ("mine", "Which threshold?")
    assert list(space.objectives) == ["clean_accuracy", "robust_accuracy", "gradient_sparsity"]
    for config in space.probe(3, {"seed": 7}, {"train.epochs": 2}):
        assert config.model.depth == 10
        assert 0.5 <= config.neuron.v_threshold <= 2
        assert config.neuron.tau == 2.0 if config.neuron.name == "plif" else 1.5 <= config.neuron.tau <= 1.6
        assert (config.seed, config.train.epochs) == (7, 2)


def test_the_order_of_what_wins():
    text = 'FIXED = {"seed": 1, "train.lr": 0.1}\ndef space(trial):\n    return {"train.lr": 0.2, "train.epochs": 3}'
    config = Space("mine.py", text).sample(fresh(), {"seed": 9, "data.batch_size": 5}, {"train.epochs": 4})
    assert (config.seed, config.train.lr, config.train.epochs, config.data.batch_size) == (1, 0.2, 4, 5)


def test_a_space_survives_pickle_after_it_ran():
    space = Space("mine.py", GOOD + "\nunpicklable = lambda: 0\n")
    assert space.module.unpicklable() == 0
    again = pickle.loads(pickle.dumps(space))  # noqa: S301
    assert again == space
    assert again.probe(0, {}, {}) == space.probe(0, {}, {})


def test_a_mistake_of_every_draw_is_told_once():
    text = 'def space(trial):\n    trial.suggest_float("neuron.tau", 0.1, 0.5)\n    return {"neuron.nmae": "lif"}'
    told = mistake(text)
    assert told.count("2 mistakes in the configuration") == told.count("neuron.nmae") == told.count("neuron.tau") == 1
    assert mistake("def space(trial:\n  pass").count("mine.py") == 1


def test_draw_lets_given_keys_steer_the_branches():
    space = Space("mine.py", GOOD)
    config = space.draw(0, {"neuron.name": "lif", "neuron.tau": "1.55", "model.width": "0.5"}, smoke=False)
    assert (config.neuron.name, config.neuron.tau, config.model.width, config.seed) == ("lif", 1.55, 0.5, 0)
    assert config == space.draw(0, {"neuron.name": "lif", "neuron.tau": "1.55", "model.width": "0.5"}, smoke=False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1", ["no function `space(trial)`"]),
        ("def space(trial:\n  pass", ["mine.py, line 1"]),
        ("import nothing_of_that_name", ["mine.py, line 1", "ModuleNotFoundError", "nothing_of_that_name"]),
        ("def space(trial):\n    return 1 / 0", ["mine.py, line 2", "ZeroDivisionError"]),
        ("def space(trial):\n    return [1]", ["returned [1]", "dict"]),
        ("FIXED = 3\ndef space(trial):\n    return {}", ["FIXED is 3"]),
        ('def space(trial):\n    return {"neuron.v_treshold": 1}', ["unknown key", "neuron.v_threshold?"]),
        ('def space(trial):\n    return {"neuron.name": "lf"}', ["neuron.name", "did you mean lif?"]),
        (
            'def space(trial):\n    return {"encoder.time_steps": 0, "threat.eps": 2}',
            ["2 mistakes", "encoder.time_steps", "threat.eps"],
        ),
        ('OBJECTIVES = ("clean_acuracy",)\ndef space(trial): return {}', ["did you mean clean_accuracy?"]),
        ('OBJECTIVES = "clean_accuracy"\ndef space(trial): return {}', ["write a tuple"]),
        ('OBJECTIVES = {"clean_accuracy": "max"}\ndef space(trial): return {}', ["allowed: maximize, minimize"]),
        (
            'def space(trial):\n    trial.suggest_float("train.lr", 0, 1)\n    return {"train.lr": 5.0}',
            ["both suggested and returned", "train.lr"],
        ),
        ('def space(trial):\n    return {"train.lr": "8/"}', ["train.lr"]),
        (
            "from snnsweep import neurons\n@neurons.register('lif')\nclass Mine: pass\ndef space(trial): return {}",
            ["'lif' is built in"],
        ),
    ],
)
def test_a_mistake_is_told_in_the_users_words(text: str, words: list[str]):
    told = mistake(text)
    assert all(word in told for word in ["mine.py", *words]), told


def test_a_missing_file_and_one_that_is_no_text(tmp_path: Path):
    with pytest.raises(SpaceError, match="No such file"):
        Space.read(tmp_path / "no.py")
    (tmp_path / "bytes.py").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpaceError, match="not a text file"):
        Space.read(tmp_path / "bytes.py")


@pytest.mark.parametrize("path", sorted(Path("search_spaces").glob("*.py")), ids=lambda path: path.stem)
def test_the_spaces_that_come_with_it(path: Path):
    space = Space.read(path)
    assert space.question.endswith("?")
    assert "snnsweep run search_spaces/" in space.module.__doc__
    assert len(space.probe(0, {}, {})) == 16
