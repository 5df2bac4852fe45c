"""The nodes of a Ray cluster: what they hold, what an autoscaler may add to them, and a question to each of them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray._private.state import state
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

ANSWER_S = 30
HEAD = "node:__internal_head__"
ROUNDING = 1e-9  # 1 / 0.1 is ten

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Kind:
    """Nodes of one kind.

    Attributes:
        count: how many there are, or may be.
    """

    cpus: float
    gpus: float
    count: int = 1

    @classmethod
    def of(cls, resources: Any, count: int = 1) -> "Kind":
        return cls(resources.get("CPU", 0), resources.get("GPU", 0), count)

    def fits(self, cpus: float, gpus: float) -> int:
        """Trials on one such node. A share of a GPU is a share of one device: 0.4 fits two times on each."""
        by_cpus = self.cpus / cpus if cpus else float("inf")
        by_gpus = self.gpus / gpus if gpus else float("inf")
        if 0 < gpus < 1:
            by_gpus = int(self.gpus) * int(1 / gpus + ROUNDING)
        return int(min(by_cpus, by_gpus) + ROUNDING)


@dataclass(frozen=True)
class Growth:
    """What an autoscaler may make of a cluster.

    Attributes:
        kinds: the nodes that it may hold then; none where there is no autoscaler.
        most: nodes of these kinds at most.
        head: of which there is one, and which is not among the kinds.
        told: false of an autoscaler that does not say how far it goes.
    """

    kinds: tuple[Kind, ...] = ()
    most: int = 0
    head: Kind | None = None
    told: bool = True

    @property
    def nodes(self) -> int:
        """At most."""
        return self.most + (self.head is not None)

    def fits(self, cpus: float, gpus: float) -> int:
        """Trials on the fully grown cluster, with the nodes that hold the most of them."""
        found, left = self.head.fits(cpus, gpus) if self.head else 0, self.most
        for fits, count in sorted(((kind.fits(cpus, gpus), kind.count) for kind in self.kinds), reverse=True):
            found += fits * min(count, left)
            left -= min(count, left)
        return found


def alive() -> list[dict[str, Any]]:
    """Ray's facts of each node that is up."""
    return [node for node in ray.nodes() if node["Alive"]]


def own() -> str:
    """The id of the node that this process is on."""
    return str(ray.get_runtime_context().get_node_id())


def ask(nodes: Iterable[str], question: Callable[..., Answer], *arguments: Any) -> dict[str, Answer]:
    """What `question(*arguments)` gives on each node, by id; a node without an answer in 30 s is left out.

    Args:
        question: a function inside of a function, which travels by its code: what it needs it imports itself.
    """
    task = ray.remote(num_cpus=0, max_retries=0)(question)
    refs = {}
    for node in nodes:
        here = NodeAffinitySchedulingStrategy(node, soft=False)
        refs[task.options(scheduling_strategy=here).remote(*arguments)] = node
    if not refs:
        return {}
    ready, late = ray.wait(list(refs), num_returns=len(refs), timeout=ANSWER_S)
    answers = {}
    for ref in ready:
        try:
            answers[refs[ref]] = ray.get(ref)
        except RayError:
            continue  # the node is gone
    for ref in late:
        ray.cancel(ref, force=True)
    return answers


def growth() -> Growth:
    """How far the cluster's autoscaler goes.

    Ray's GCS knows it where the platform reports it there. With `ray up` it is in the file that the head's monitor was
    started with. KubeRay's autoscaler keeps it to itself.
    """
    reported = state.get_cluster_config()
    if reported is not None and reported.node_group_configs:
        groups = [Kind.of(group.resources, group.max_count) for group in reported.node_group_configs]
        bounded = all(group.count >= 0 for group in groups)  # -1 is as many as are wanted
        return Growth(tuple(groups), sum(group.count for group in groups)) if bounded else Growth(told=False)
    head = next((node for node in alive() if HEAD in node["Resources"]), None)
    if head is None:
        return Growth()
    look, gcs = _monitor(), ray.get_runtime_context().gcs_address
    settings = look(gcs) if head["NodeID"] == own() else ask([head["NodeID"]], look, gcs).get(head["NodeID"])
    if settings is None:
        return Growth(told=False)
    workers = {
        name: kind
        for name, kind in settings.get("available_node_types", {}).items()
        if name != settings.get("head_node_type")
    }
    if not all("resources" in kind for kind in workers.values()):
        return Growth(told=False)
    most = settings.get("max_workers", 0)
    kinds = [Kind.of(kind["resources"], kind.get("max_workers", most)) for kind in workers.values()]
    return Growth(tuple(kinds), most, Kind.of(head["Resources"])) if kinds and most else Growth()


def _monitor() -> Callable[[str], dict[str, Any] | None]:
    given = "--autoscaling-config="

    def look(gcs: str) -> dict[str, Any] | None:
        """The settings of the autoscaler of the cluster at `gcs`: {} without one, None where they cannot be read.

        To be run on the head node.
        """
        import os
        from pathlib import Path

        import yaml

        monitors = []
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = file.read_text(errors="replace").split("\0")
            except OSError:  # it ended
                continue
            if f"--gcs-address={gcs}" in words and any(word.endswith("/monitor.py") for word in words):
                monitors.append(words)
        files = [word.partition("=")[2] for words in monitors for word in words if word.startswith(given)]
        if files:
            try:
                settings = yaml.safe_load(Path(files[0]).expanduser().read_text())
            except (OSError, yaml.YAMLError):
                return None
            return settings if isinstance(settings, dict) else None
        # KubeRay starts a head without a monitor where its autoscaler runs beside it.
        return {} if monitors or os.environ.get("RAY_USAGE_STATS_KUBERAY_IN_USE") != "1" else None

    return look
