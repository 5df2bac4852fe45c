"""Models: `build(config)` gives the whole classifier; a registered model is the network inside it.

A model is a class or function `(config: TrialConfig, spec: ImageSpec) -> nn.Module` whose module maps
[T, N, C, H, W] to [T, N, classes]; an attribute `depths`, where there is one, lists the depths that it is built with.
"""

from snnsweep import registry
from snnsweep.config import TrialConfig
from snnsweep.models.base import SNN

__all__ = ["SNN", "build", "get", "names", "register"]

register, get, names = registry.models.register, registry.models.get, registry.models.names


def build(config: TrialConfig) -> SNN:
    """The classifier of one variant, with fresh weights from torch's global generator.

    Raises:
        UnknownName: a part that no registry knows.
    """
    spec = registry.datasets.get(config.data.name).spec
    encoder = registry.encoders.get(config.encoder.name)(config.encoder)
    network = get(config.model.name)(config, spec)
    return SNN(encoder, network, spec)


from snnsweep.models import resnet as _resnet  # noqa: E402, F401  registers itself, and needs the names above
