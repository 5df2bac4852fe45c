"""Trained models for MLflow: folders that `mlflow.pytorch.load_model` reads without the code that made them."""

import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Metric, Run
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec
from torch import Tensor, nn

from snnsweep.tracking.runs import TRIAL_ID, Runs
from snnsweep.tracking.words import clean

_METRICS = 1000  # that MLflow takes in a call
_NOT_OF_DATA = ("train/", "time/")  # metrics that were not measured on validation images
_NOTE = """\
A trial that was on its sweep's front (the tag `pareto` says whether it is), as a graph of operations with its \
weights; images in [0, 1] give logits.

```python
model = mlflow.pytorch.load_model("models:/{}")
```

Loading it needs no code of the space. It answers as the trained network does, but carries no surrogate gradients: \
no attack by gradients is possible on it. `extra_files/` has the config and the space's text, of which \
`snnsweep.models.build` makes the network, whose `load_state_dict` takes `model.state_dict()`."""
_NO_NAME = str.maketrans(dict.fromkeys("/:.%\"'", "-"))  # which a model's name may not have


def save(model: nn.Module, images: Tensor, folder: Path, files: Mapping[str, str]) -> None:
    """Writes an MLflow model: the graph of operations and the weights (`torch.export`), and no Python code.

    Whoever loads it needs torch and MLflow alone. The graph answers as the model does, for any number of images, but
    is no model to attack by gradients: the surrogates' derivatives are no operations of the forward pass.

    Args:
        model: on the CPU, in eval mode; [N, ...] -> [N, classes].
        images: [n, ...], two at least, or the number of images would be fixed; the input example.
        folder: is made; what is there is replaced.
        files: texts that lie beside it, by name.

    Raises:
        Exception: whatever torch raises where it cannot follow the model's forward.
    """
    import mlflow.pytorch  # slow, and needed by few processes

    shutil.rmtree(folder, ignore_errors=True)
    texts = folder.with_name(f"{folder.name}-files")
    texts.mkdir(parents=True, exist_ok=True)
    try:
        for name, text in files.items():
            (texts / name).write_text(text, encoding="utf-8")
        with torch.no_grad(), _quiet():
            mlflow.pytorch.save_model(
                model,
                folder,
                signature=_signature(images, model(images)),
                input_example=images.numpy(),
                extra_files=[str(texts / name) for name in files],
                pip_requirements=[f"{name}=={version(name)}" for name in ("mlflow", "numpy", "torch")],
                serialization_format="pt2",
            )
    finally:
        shutil.rmtree(texts, ignore_errors=True)


def upload(runs: Runs, trial_id: str, folder: Path, tags: Mapping[str, str], name: str) -> None:
    """The model in `folder` as the one LoggedModel of a trial's run, with the params and last metrics of that run.

    Raises:
        Exception: MLflow's.
    """
    run_id = runs.find(trial_id)
    if run_id is None:
        raise LookupError(f"the trial {trial_id} has no run")
    run = runs.client.get_run(run_id)
    known = next(iter(_of(runs, f"source_run_id = '{run_id}'")), None)
    model_id = (known or _make(runs, run, name, tags)).model_id
    mine = Model.load(str(folder))
    mine.model_id = mine.model_uuid = model_id
    mine.run_id = run_id
    mine.save(str(folder / "MLmodel"))
    runs.client.log_model_artifacts(model_id, str(folder))
    runs.client.set_logged_model_tags(model_id, {**tags, "mlflow.note.content": _NOTE.format(model_id)})
    step = max((metric.step for metric in _last(run)), default=0)
    if model_id not in [output.model_id for output in (run.outputs.model_outputs if run.outputs else [])]:
        runs.client.log_outputs(run_id, [LoggedModelOutput(model_id, step)])
    _link(runs, run, model_id)
    runs.client.finalize_logged_model(model_id, LoggedModelStatus.READY)


def mark(runs: Runs, members: set[str]) -> None:
    """The tag `pareto` of each model of the sweep says whether its trial is on the front; none is deleted.

    Raises:
        Exception: MLflow's.
    """
    for model in list(_of(runs, f"tags.`snnsweep.run` = '{runs.sweep}'")):
        said = str(model.tags.get(TRIAL_ID) in members).lower()
        if model.status == LoggedModelStatus.READY and model.tags.get("pareto") != said:
            runs.client.set_logged_model_tags(model.model_id, {"pareto": said})


def _make(runs: Runs, run: Run, name: str, tags: Mapping[str, str]) -> LoggedModel:
    return runs.client.create_logged_model(
        runs.experiment_id,
        name=clean(name).translate(_NO_NAME)[:250],
        source_run_id=run.info.run_id,
        tags={name: said for name, said in tags.items() if name != "pareto"},  # not before its files are there
        params=dict(run.data.params),
        model_type="classifier",
    )


def _link(runs: Runs, run: Run, model_id: str) -> None:
    """The run's last metrics once more, as the model's: the same points, so that the run has none twice."""
    data = next((one.dataset for one in run.inputs.dataset_inputs if _is_validation(one)), None) if run.inputs else None
    on = {"dataset_name": data.name, "dataset_digest": data.digest} if data else {}
    said = [
        Metric(m.key, m.value, m.timestamp, m.step, model_id, **({} if m.key.startswith(_NOT_OF_DATA) else on))
        for m in _last(run)
    ]
    for start in range(0, len(said), _METRICS):
        runs.client.log_batch(run.info.run_id, said[start : start + _METRICS])


def _is_validation(given: Any) -> bool:
    return any(tag.value == "validation" for tag in given.tags)


def _last(run: Run) -> list[Metric]:
    """The last point of each metric but the machine's; MLflow has no public name for it, and reads it so itself."""
    return [metric for metric in run.data._metric_objs if not metric.key.startswith("system/")]


def _of(runs: Runs, query: str) -> Iterator[LoggedModel]:
    token = None
    while True:
        page = runs.client.search_logged_models([runs.experiment_id], query, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _signature(images: Tensor, logits: Tensor) -> ModelSignature:
    """Float32 [-1, C, H, W] in, [-1, classes] out; of event data [-1, T, C, H, W]."""
    shapes = [(-1, *tensor.shape[1:]) for tensor in (images, logits)]
    inputs, outputs = (Schema([TensorSpec(np.dtype(np.float32), shape)]) for shape in shapes)
    return ModelSignature(inputs=inputs, outputs=outputs)


@contextmanager
def _quiet() -> Iterator[None]:
    """Torch and MLflow say much on the way that nobody can act on."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "torch")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
