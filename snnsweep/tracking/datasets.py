"""Data sets as MLflow's run inputs: by name and digest, without their contents."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag


def inputs(sets: Iterable[Mapping[str, Any]]) -> list[DatasetInput]:
    """What `Runs.log_inputs` takes.

    Args:
        sets: as `data.identities` gives them.
    """
    return [DatasetInput(_dataset(one), [InputTag("mlflow.data.context", one["split"])]) for one in sets]


def _dataset(one: Mapping[str, Any]) -> Dataset:
    """Its source is "code", MLflow's word for what a program has made: snnsweep's reader of that name and settings."""
    samples = {"type": "tensor", "tensor-spec": {"dtype": "uint8", "shape": [-1, *one["shape"]]}}
    labels = {"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}
    schema = {"mlflow_tensorspec": {"features": json.dumps([samples]), "targets": json.dumps([labels])}}
    source = {"tags": {"snnsweep.data": one["name"], "snnsweep.split": one["split"], **_texts(one["given"])}}
    profile = {"features_shape": [one["samples"], *one["shape"]], "targets_shape": [one["samples"]]}
    return Dataset(
        name=one["name"],
        digest=one["digest"],
        source_type="code",
        source=json.dumps(source),
        schema=json.dumps(schema),
        profile=json.dumps({**profile, "num_rows": one["samples"], "classes": one["classes"]}),
    )


def _texts(given: Mapping[str, Any]) -> dict[str, str]:
    return {f"snnsweep.{key}": str(value) for key, value in given.items()}
