"""What one trial is: a frozen `TrialConfig`, and its flat form with dotted keys (`{"neuron.v_threshold": 1.0}`).

Validation reports every mistake at once: unknown keys and names with the nearest valid one, bad values with
what is allowed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

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
)

Flat = dict[str, Any]


@dataclass(frozen=True)
class ImageSpec:
    """What a data set's images are, known without reading them.

    Attributes:
        mean, std: per channel, of the training pixels in [0, 1]; a model's first layer normalises with them.
    """

    channels: int
    height: int
    width: int
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


class TrialConfig(Group):
    """One variant, its training, its attack and its seed.

    A suite brings its own threat and sample count (`trail`: the paper's); keys that are given win over them.

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
    seed: int = Field(0, ge=0, lt=2**32)
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")

    @model_validator(mode="before")
    @classmethod
    def _suite_brings_its_threat(cls, values: Any) -> Any:
        attack = values.get("attack") if isinstance(values, Mapping) else None
        suite = attack.get("suite") if isinstance(attack, Mapping) else getattr(attack, "suite", None)
        if suite not in registry.suites.names():
            return values  # the field's own validator names the mistake
        filled = dict(values)
        for key, value in registry.suites.get(suite)().defaults.items():
            group, _, field = key.partition(".")
            given = filled.get(group, {})
            if isinstance(given, Group):
                given = given.model_dump(exclude_unset=True)
            if isinstance(given, Mapping):
                filled[group] = {field: value, **given}
        return filled

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
            raise ConfigError([*problems, *map(_sentence, error.errors())]) from None
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
                problems += [_sentence(one, key) for one in error.errors()]
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


def _type_of(field: FieldInfo) -> TypeAdapter[Any]:
    annotated: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    return TypeAdapter(annotated)


def _sentence(error: Any, key: str = "") -> str:
    key = key or ".".join(str(part) for part in error["loc"])
    text = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{key}: {text}"
    return f"{key}: {text[0].lower()}{text[1:]}; given {error['input']!r}"


DEFAULTS: Flat = TrialConfig.model_construct().to_flat()
