"""The groups of config keys, `neuron.*`, `train.*` ..., each a frozen model with its ranges."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from snnsweep import registry
from snnsweep.errors import UnknownName
from snnsweep.precision import Precision
from snnsweep.registry import Registry


def fraction(value: Any) -> Any:
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


def name_in(known: Registry) -> AfterValidator:
    """The rule that a field holds a name of that registry."""

    def check(name: str) -> str:
        try:
            known.get(name)
        except UnknownName as error:
            raise ValueError(str(error)) from None
        return name

    return AfterValidator(check)


class Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataConfig(Group):
    """The images, or the frames of events.

    Attributes:
        name: the data set.
        path: what the sets `npz` and `folder` read: a file or a folder, relative to the folder of the data sets.
        subset: number of training images used, stratified; None for all that the validation split leaves.
        augment: what happens to a training batch: nothing, horizontal flip, pad-and-crop by an eighth
            of the side, or both.
        batch_size: images in a training batch, and in an attack's.
    """

    name: Annotated[str, name_in(registry.datasets)] = "digits"
    path: Annotated[str | None, BeforeValidator(_none)] = None
    subset: Annotated[Annotated[int, Field(ge=1)] | None, BeforeValidator(_none)] = None
    augment: Literal["none", "flip", "crop", "flip+crop"] = "none"
    batch_size: int = Field(default=64, ge=1)


class EncoderConfig(Group):
    """From an image to a sequence.

    Attributes:
        name: the encoder; event data take `frames`.
        time_steps: T, the length of the sequence; of event data the number of frames.
        phases: K, the number of bit planes of the phase encoder, cycled over T.
        sigma: standard deviation of the noise of `rsc`, in units of the pixel range.
    """

    name: Annotated[str, name_in(registry.encoders)] = "direct"
    time_steps: int = Field(default=4, ge=1)
    phases: int = Field(default=8, ge=1, le=8)
    sigma: float = Field(default=0.1, ge=0)


class NeuronConfig(Group):
    """The spiking neuron.

    Attributes:
        name: the neuron.
        v_threshold: the membrane potential at which it fires; it rests at 0.
        learn_threshold: each layer learns its threshold, from `v_threshold` on.
        tau: membrane time constant in time steps (LIF; PLIF's start value).
        reset: `hard` sets the membrane to 0 after a spike, `soft` subtracts the threshold.
        detach_reset: no gradient through the reset.
        noise: standard deviation of the Gaussian noise on the membrane at every step, in training and after it.
        surrogate: the family that stands for the spike's derivative.
        alpha: the surrogate's sharpness; 1 / alpha is the width, common to all families.
    """

    name: Annotated[str, name_in(registry.neurons)] = "lif"
    v_threshold: float = Field(default=1.0, gt=0)
    learn_threshold: bool = False
    tau: float = Field(default=2.0, gt=1)
    reset: Literal["hard", "soft"] = "hard"
    detach_reset: bool = True
    noise: float = Field(default=0.0, ge=0)
    surrogate: Annotated[str, name_in(registry.surrogates)] = "atan"
    alpha: float = Field(default=2.0, gt=0)


class ModelConfig(Group):
    """The network.

    Attributes:
        name: the model.
        depth: as in its name (ResNet-18: 18).
        width: multiplier of every channel count (1.0: 64 to 512 in a ResNet).
        residual: how a block joins its branches; no meaning in a VGG.
        norm: what follows a convolution.
        pooling: how maps are halved where there are no strides by design: `stride` is a strided convolution with norm
            and neuron in the pooling's place, `none` leaves the maps as they are.
        stem: of a ResNet, `imagenet` (7x7, stride 2) or `cifar` (3x3, stride 1).
    """

    name: Annotated[str, name_in(registry.models)] = "resnet"
    depth: int = Field(default=18, ge=1, validate_default=True)
    width: float = Field(default=1.0, gt=0, le=16)
    residual: Annotated[str, name_in(registry.residuals)] = "sew_add"
    norm: Annotated[str, name_in(registry.norms)] = "batch"
    pooling: Literal["max", "avg", "stride", "none"] = "max"
    stem: Literal["cifar", "imagenet"] = "cifar"

    @field_validator("depth")
    @classmethod
    def _is_built(cls, depth: int, earlier: ValidationInfo) -> int:
        name = earlier.data.get("name")  # None: the name itself is a mistake
        depths = getattr(registry.models.get(name), "depths", None) if name else None
        if depths and depth not in depths:
            raise ValueError(f"{name} is built with depth {', '.join(map(str, depths))}; given {depth}")
        return depth


class TrainConfig(Group):
    """How the network is trained. An objective brings its paper's values of the keys that it uses.

    Attributes:
        objective: what training minimises.
        loss: what compares the logits of all time steps with the labels.
        tet_lambda: weight of the TET loss's pull towards the threshold.
        eps: radius of the inner attack of adversarial training, in the threat's space, in units of the pixel range
            (may be written "8/255").
        attack_steps: steps of the inner attack; one is FGSM: the whole eps, no random start.
        attack_rel_step: step size of the inner attack, as a share of eps.
        beta: TRADES' weight of the divergence between the answers to clean and attacked images.
        sr_weight: weight of the sparse-gradient regulariser.
        sr_step: its finite-difference step, in units of the pixel range.
        rat_weight: step of SNN-RAT's orthogonal retraction after each optimiser step.
        epochs: passes over the training images.
        optimizer: Adam or SGD with momentum.
        lr: the learning rate, at the start.
        momentum: of SGD.
        weight_decay: L2 penalty in the optimiser.
        schedule: of the learning rate: `cosine` to 0 at the last epoch, or `constant`.
        grad_clip: largest L2 norm of the whole gradient; None for no clipping.
        precision: of the training step alone, its inner attack with it; attacks and measurements run in full fp32.
            `tf32` lets a GPU round to 10 bits of mantissa, which `fp32` does not; on a CPU they are one.
        pack_spikes: keep spikes as bits between the forward and the backward pass: less memory for some time, the
            same weights bit for bit.
    """

    objective: Annotated[str, name_in(registry.trainers)] = "natural"
    loss: Annotated[str, name_in(registry.losses)] = "cross_entropy"
    tet_lambda: float = Field(default=0.05, ge=0, le=1)
    eps: Annotated[float, BeforeValidator(fraction), Field(ge=0)] = 8 / 255
    attack_steps: int = Field(default=7, ge=1)
    attack_rel_step: float = Field(default=0.25, gt=0)
    beta: float = Field(default=6.0, ge=0)
    sr_weight: float = Field(default=0.002, ge=0)
    sr_step: float = Field(default=0.01, gt=0)
    rat_weight: float = Field(default=0.004, ge=0)
    epochs: int = Field(default=10, ge=1)
    optimizer: Literal["adam", "sgd"] = "adam"
    lr: float = Field(default=1e-3, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    grad_clip: Annotated[Annotated[float, Field(gt=0)] | None, BeforeValidator(_none)] = None
    precision: Precision = "fp32"
    pack_spikes: bool = False


class ThreatConfig(Group):
    """What an attacker may do.

    Attributes:
        norm: of the ball; `l2` is the length of a sample's whole change, over all channels and time steps.
        eps: radius of the ball, in units of the pixel range [0, 1] (of linf at most 1); may be written "8/255".
        space: `pixel` (the image, through the encoder) or `encoded` (the encoder's output, [T, N, C, H, W]).
    """

    norm: Literal["linf", "l2"] = "linf"
    eps: Annotated[float, BeforeValidator(fraction), Field(ge=0)] = 8 / 255
    space: Literal["pixel", "encoded"] = "pixel"


class AttackConfig(Group):
    """Which attacks run, on what.

    Attributes:
        suite: the attacks with their gradient rules.
        samples: how many samples of the split are attacked (all of it where it holds fewer).
    """

    suite: Annotated[str, name_in(registry.suites)] = "quick"
    samples: int = Field(default=256, ge=1)
