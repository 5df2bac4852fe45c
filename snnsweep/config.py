"""What one trial is: a frozen `TrialConfig`, and its flat form with dotted keys (`{"neuron.v_threshold": 1.0}`).

Validation reports every mistake at once: unknown keys and names with the nearest valid one, bad values with
what is allowed.
"""

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self, get_args

from pydantic import Field, TypeAdapter, ValidationError, model_validator
from pydantic.fields import FieldInfo

from snnsweep import registry
from snnsweep.errors import ConfigError, nearest
from snnsweep.groups import (
    AttackConfig,
    DataConfig,
    EncoderConfig,
    Group,
    ModelConfig,
    NeuronConfig,
    ThreatConfig,
    TrainConfig,
    fraction,
)

Flat = dict[str, Any]


@dataclass(frozen=True)
class ImageSpec:
    """What a data set's images are.

    Attributes:
        mean, std: per channel, of the training pixels in [0, 1]; a model's first layer normalises with them.
        frames: a sample is a sequence [T, C, H, W] of event frames, and goes past the encoders.
    """

    channels: int
    height: int
    width: int
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    frames: bool = False


class TrialConfig(Group):
    """One variant, its training, its attack and its seed.

    A data set, model, training objective and suite may bring values for other keys (`trail`: the paper's threat and
    sample count; `trades`: the paper's inner attack); keys that are given win over them.

    Attributes:
        seed: of the weights, the order of the batches and the attacks.
        device: `auto` takes CUDA where there is one; a sweep decides it by what a trial reserves.

    Raises:
        ConfigError: from `from_flat`, with every mistake.
    """

    data: DataConfig = DataConfig.model_construct()
    encoder: EncoderConfig = EncoderConfig.model_construct()
    neuron: NeuronConfig = NeuronConfig.model_construct()
    model: ModelConfig = ModelConfig.model_construct()
    train: TrainConfig = TrainConfig.model_construct()
    threat: ThreatConfig = ThreatConfig.model_construct()
    attack: AttackConfig = AttackConfig.model_construct()
    seed: int = Field(default=0, ge=0, lt=2**32)
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")

    @model_validator(mode="before")
    @classmethod
    def _parts_bring_their_values(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        filled = {
            name: given.model_dump(exclude_unset=True) if isinstance(given, Group) else given
            for name, given in values.items()
        }
        for key, value in _brought(filled).items():
            group, _, field = key.partition(".")
            given = filled.get(group, {})
            if isinstance(given, Mapping):
                filled[group] = {field: value, **given}
        return filled

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if problems := _misfits(self.to_flat(), None):
            raise ValueError("; ".join(problems))
        return self

    def misfits(self, spec: ImageSpec) -> list[str]:
        """What of this config cannot go with such images: one sentence each, with its key."""
        return _misfits(self.to_flat(), spec)

    @classmethod
    def from_flat(cls, flat: Mapping[str, Any]) -> "TrialConfig":
        """The config of dotted keys; what is not given keeps its default.

        Raises:
            ConfigError: unknown keys, unknown names, values out of range: all of them.
        """
        known = cls.keys()
        problems = [f"{key}: unknown key; {nearest(str(key), known)}" for key in flat if key not in known]
        nested: dict[str, Any] = {}
        for key, value in flat.items():
            group, dot, field = str(key).partition(".")
            if key in known and dot:
                nested.setdefault(group, {})[field] = value
            elif key in known:
                nested[key] = value
        try:
            config = cls.model_validate(nested)
        except ValidationError as error:
            problems += [sentence(one) for one in error.errors() if one["loc"]]
            raise ConfigError(problems + _misfits(DEFAULTS | _brought(nested) | dict(flat), None)) from None
        if problems:
            raise ConfigError(problems)
        return config

    @classmethod
    def typed(cls, given: Mapping[str, Any]) -> Flat:
        """The values as their keys' types take them ("8/255" becomes a number), each by itself.

        Raises:
            ConfigError: unknown keys and values that no config could have; all of them.
        """
        found: Flat = {}
        problems: list[str] = []
        for key, value in given.items():
            if key not in DEFAULTS:
                problems.append(f"{key}: unknown key; {nearest(key, DEFAULTS)}")
                continue
            group, dot, name = key.rpartition(".")
            owner = cls.model_fields[group].annotation if dot else cls
            field = owner.model_fields[name]  # type: ignore[union-attr]
            try:
                found[key] = _type_of(field).validate_python(value)
            except ValidationError as error:
                problems += [sentence(one, key) for one in error.errors()]
        if problems:
            raise ConfigError(problems)
        return found

    def to_flat(self) -> Flat:
        """Every key with its value, in a fixed order; `from_flat(to_flat())` gives an equal config."""
        flat: Flat = {}
        for name, value in self.model_dump().items():
            flat.update({f"{name}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {name: value})
        return flat

    @classmethod
    def keys(cls) -> list[str]:
        """Every valid flat key."""
        return list(DEFAULTS)


_BRINGING = {
    "data.name": registry.datasets,
    "model.name": registry.models,
    "train.objective": registry.trainers,
    "attack.suite": registry.suites,
}


def _brought(nested: Mapping[str, Any]) -> Flat:
    """The values that the named parts bring for other keys. A wrong name is its field's own mistake to tell."""
    found: Flat = {}
    for key, known in _BRINGING.items():
        group, _, field = key.partition(".")
        given = nested.get(group)
        name = given.get(field) if isinstance(given, Mapping) else None
        if name in known.names():
            part = known.get(name)
            found |= getattr(part() if known is registry.suites else part, "defaults", {})
    return found


def _misfits(flat: Flat, spec: ImageSpec | None) -> list[str]:
    """Which values cannot go with others, or with such images; None for those of the data set, where it is known.

    A name that no registry knows is its field's own mistake to tell.
    """
    data, encoder = flat["data.name"], flat["encoder.name"]
    part = registry.datasets.get(data) if data in registry.datasets.names() else None
    spec = spec or getattr(part, "spec", None)
    known = encoder in registry.encoders.names()
    bounded = not known or getattr(registry.encoders.get(encoder), "bounded", True)
    others = ", ".join(name for name in registry.encoders.names() if name != "frames")
    of_events = f"encoder.name: {data} is event data, whose frames go past the encoder; given {encoder!r}; "
    of_images = f"encoder.name: frames is for event data, and {data} holds images; given 'frames'; allowed: {others}"
    no_files = f"data.path: {data} reads no file of yours; given {flat['data.path']!r}; allowed: none"
    unbounded = f"threat.space: the code of {encoder} leaves [0, 1], where an encoded threat lives; given 'encoded'; "
    found = {
        of_events + "allowed: frames": spec is not None and spec.frames and known and encoder != "frames",
        of_images: spec is not None and not spec.frames and encoder == "frames",
        no_files: part is not None and flat["data.path"] is not None and "data.path" not in getattr(part, "needs", ()),
        unbounded + "allowed: pixel": flat["threat.space"] == "encoded" and not bounded,
    }
    if flat["threat.norm"] == "linf":
        about = "{}: in linf no pixel can move further than 1; given {!r}; allowed: 0 to 1, or threat.norm=l2"
        found |= {about.format(key, flat[key]): _size(flat[key]) > 1 for key in ("threat.eps", "train.eps")}
    return [sentence for sentence, holds in found.items() if holds]


def _size(eps: Any) -> float:
    """0 where it is no number: its field's own mistake to tell."""
    try:
        return float(fraction(eps))
    except (TypeError, ValueError):
        return 0.0


def about_keys() -> dict[str, str]:
    """Every flat key with what it means and its default, from the groups' docstrings."""
    found: dict[str, str] = {}
    for key, default in DEFAULTS.items():
        group, dot, name = key.rpartition(".")
        owner: Any = TrialConfig.model_fields[group].annotation if dot else TrialConfig
        part = inspect.getdoc(owner).partition("Attributes:")[2]  # type: ignore[union-attr]
        entries = re.findall(r"^ {4}([\w, ]+): (.+(?:\n {8}.+)*)", part, re.MULTILINE)
        texts = {one.strip(): " ".join(text.split()) for names, text in entries for one in names.split(",")}
        choices = get_args(owner.model_fields[name].annotation)
        allowed = f" One of {', '.join(choices)}." if choices and all(isinstance(one, str) for one in choices) else ""
        found[key] = f"{texts.get(name, '')}{allowed} (default {default})".strip()
    return found


def _type_of(field: FieldInfo) -> TypeAdapter[Any]:
    annotated: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    return TypeAdapter(annotated)


def sentence(error: Any, key: str = "") -> str:
    """One of pydantic's errors, in a line: the key, the rule, what was given."""
    key = key or ".".join(str(part) for part in error["loc"])
    text = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{key}: {text}"
    return f"{key}: {text[0].lower()}{text[1:]}; given {error['input']!r}"


DEFAULTS: Flat = TrialConfig.model_construct().to_flat()
