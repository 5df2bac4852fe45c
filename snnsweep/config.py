"""What one trial is: a frozen `TrialConfig`, and its flat form with dotted keys (`{"neuron.v_threshold": 1.0}`).

Validation reports every mistake at once: unknown keys and names with the nearest valid one, bad values with
what is allowed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from snnsweep import registry
from snnsweep.errors import ConfigError, UnknownName, nearest
from snnsweep.registry import Registry

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


def _fraction(value: Any) -> Any:
    """'8/255' -> 0.0313...; everything else goes on to pydantic."""
    if isinstance(value, str) and value.count("/") == 1:
        top, bottom = value.split("/")
        try:
            return float(top) / float(bottom)
        except (ValueError, ZeroDivisionError):
            raise ValueError(f"{value!r} is not a fraction such as 8/255") from None
    return value


def _none(value: Any) -> Any:
    return None if isinstance(value, str) and value.lower() in ("none", "") else value


def _name_in(known: Registry) -> AfterValidator:
    def check(name: str) -> str:
        try:
            known.get(name)
        except UnknownName as error:
            raise ValueError(str(error)) from None
        return name

    return AfterValidator(check)


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataConfig(_Group):
    """The images.

    Attributes:
        subset: number of training images used, stratified; None for all that the validation split leaves.
        augment: what happens to a training batch: nothing, horizontal flip, pad-and-crop by an eighth
            of the side, or both.
        batch_size: images in a training batch, and in an attack's.
    """

    name: Annotated[str, _name_in(registry.datasets)] = "digits"
    subset: Annotated[Annotated[int, Field(ge=1)] | None, BeforeValidator(_none)] = None
    augment: Literal["none", "flip", "crop", "flip+crop"] = "none"
    batch_size: int = Field(64, ge=1)


class EncoderConfig(_Group):
    """From an image to a sequence.

    Attributes:
        time_steps: T, the length of the sequence.
        phases: K, the number of bit planes of the phase encoder, cycled over T.
    """

    name: Annotated[str, _name_in(registry.encoders)] = "direct"
    time_steps: int = Field(4, ge=1)
    phases: int = Field(8, ge=1, le=8)


class NeuronConfig(_Group):
    """The spiking neuron.

    Attributes:
        v_threshold: the membrane potential at which it fires; it rests at 0.
        tau: membrane time constant in time steps (LIF; PLIF's start value).
        reset: `hard` sets the membrane to 0 after a spike, `soft` subtracts the threshold.
        detach_reset: no gradient through the reset.
        surrogate: the family that stands for the spike's derivative.
        alpha: the surrogate's sharpness.
    """

    name: Annotated[str, _name_in(registry.neurons)] = "lif"
    v_threshold: float = Field(1.0, gt=0)
    tau: float = Field(2.0, gt=1)
    reset: Literal["hard", "soft"] = "hard"
    detach_reset: bool = True
    surrogate: Annotated[str, _name_in(registry.surrogates)] = "atan"
    alpha: float = Field(2.0, gt=0)


class ModelConfig(_Group):
    """The network.

    Attributes:
        depth: as in its name (ResNet-18: 18).
        width: multiplier of every channel count (1.0: 64 to 512 in a ResNet).
        residual: how a block joins its branches.
        pooling: what follows the stem's convolution.
        stem: `imagenet` (7x7, stride 2) or `cifar` (3x3, stride 1).
    """

    name: Annotated[str, _name_in(registry.models)] = "resnet"
    depth: int = Field(18, ge=1, validate_default=True)
    width: float = Field(1.0, gt=0, le=16)
    residual: Annotated[str, _name_in(registry.residuals)] = "sew_add"
    pooling: Literal["max", "avg", "none"] = "max"
    stem: Literal["cifar", "imagenet"] = "cifar"

    @field_validator("depth")
    @classmethod
    def _is_built(cls, depth: int, earlier: ValidationInfo) -> int:
        name = earlier.data.get("name")  # None: the name itself is a mistake
        depths = getattr(registry.models.get(name), "depths", None) if name else None
        if depths and depth not in depths:
            raise ValueError(f"{name} is built with depth {', '.join(map(str, depths))}; given {depth}")
        return depth


class TrainConfig(_Group):
    """How the network is trained.

    Attributes:
        grad_clip: largest L2 norm of the whole gradient; None for no clipping.
        precision: of the training step alone; attacks and measurements run in fp32.
    """

    objective: Annotated[str, _name_in(registry.trainers)] = "natural"
    epochs: int = Field(10, ge=1)
    optimizer: Literal["adam", "sgd"] = "adam"
    lr: float = Field(1e-3, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    grad_clip: Annotated[Annotated[float, Field(gt=0)] | None, BeforeValidator(_none)] = None
    precision: Literal["fp32", "bf16"] = "fp32"


class ThreatConfig(_Group):
    """What an attacker may do.

    Attributes:
        eps: radius of the ball, in units of the pixel range [0, 1]; may be written "8/255".
        space: `pixel` (the image, through the encoder) or `encoded` (the encoder's output, [T, N, C, H, W]).
    """

    norm: Literal["linf"] = "linf"
    eps: Annotated[float, BeforeValidator(_fraction), Field(ge=0, le=1)] = 8 / 255
    space: Literal["pixel", "encoded"] = "pixel"


class AttackConfig(_Group):
    """Which attacks run, on how many samples of the split (all of it where it holds fewer)."""

    suite: Annotated[str, _name_in(registry.suites)] = "quick"
    samples: int = Field(256, ge=1)


class TrialConfig(_Group):
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
            if isinstance(given, _Group):
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
