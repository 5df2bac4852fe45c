"""cluster.yaml and deploy/: what can be known of them without a cloud, a Kubernetes or a Slurm."""

import copy
import ipaddress
import json
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from snnsweep.cli import main

ROOT = Path(__file__).parents[1]
LAUNCHED = ("cluster.yaml", "deploy/gcp.yaml")
KUBERAY = ROOT / "deploy" / "kuberay"
RAY = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.M).group(1)  # type: ignore[union-attr]
MACHINES = {"m6i.xlarge": (4, 0), "g5.xlarge": (4, 1), "n2-standard-4": (4, 0), "g2-standard-4": (4, 1)}  # CPUs, GPUs
KNOWN = {  # the keys that the files use, as EC2's RunInstances and Compute Engine's instances.insert spell them
    "aws": {"LaunchTemplate", "InstanceType", "IamInstanceProfile", "BlockDeviceMappings", "InstanceMarketOptions"},
    "gcp": {"machineType", "disks", "scheduling"},
}
LEAST_DISK_GB = {"head": 50, "gpu": 100}  # torch with CUDA takes 6 of them, an image with drivers up to 75


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return found


def only(words: str, commands: list[str]) -> str:
    """The one command that holds the words."""
    found = [command for command in commands if words in command]
    return found[0] if len(found) == 1 else ""


def spot(cloud: str, node: dict[str, Any]) -> bool:
    if cloud == "aws":
        return bool(node.get("InstanceMarketOptions") == {"MarketType": "spot"})
    asked = {"provisioningModel": "SPOT", "onHostMaintenance": "TERMINATE", "instanceTerminationAction": "DELETE"}
    return asked.items() <= node.get("scheduling", {}).items()


def disk_gb(cloud: str, node: dict[str, Any]) -> int:
    if cloud == "aws":
        return int(node["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"])
    return int(node["disks"][0]["initializeParams"]["diskSizeGb"])


def wrong_nodes(config: dict[str, Any]) -> Iterator[str]:
    """What Ray's schema leaves free: inside `node_config`, and what the numbers mean."""
    cloud, kinds = config["provider"]["type"], config["available_node_types"]
    if set(kinds) != {"head", "gpu"} or config["head_node_type"] != "head":
        yield "the node types"
        return
    for kind, has in kinds.items():
        node = has["node_config"]
        if extra := set(node) - KNOWN[cloud]:
            yield f"{kind}: {extra}"
        cpus, gpus = MACHINES.get(node.get("InstanceType") or node.get("machineType") or "", (0, 0))
        if has["resources"] != ({"CPU": 0, "GPU": 0} if kind == "head" else {"CPU": cpus, "GPU": gpus}):
            yield f"{kind}: resources"
        if (kind == "gpu") != bool(gpus):
            yield f"{kind}: machine"
        if spot(cloud, node) != (kind == "gpu"):
            yield f"{kind}: spot"
        if disk_gb(cloud, node) < LEAST_DISK_GB[kind]:
            yield f"{kind}: disk"
    if kinds["gpu"].get("min_workers") != 0 or not 1 <= kinds["gpu"]["max_workers"] <= config["max_workers"]:
        yield "from 0 to N workers"
    if not 0 < config["idle_timeout_minutes"] <= 15:
        yield "idle_timeout_minutes"
    if cloud == "aws" and kinds["gpu"]["node_config"].get("IamInstanceProfile"):
        yield "workers with rights"
    if cloud == "aws" and config["provider"].get("cache_stopped_nodes") is not False:
        yield "stopped machines"


def wrong_doors(config: dict[str, Any]) -> Iterator[str]:
    """Who may come in, and with what."""
    heads, workers = config["head_start_ray_commands"], config["worker_start_ray_commands"]
    head, worker = only("ray start", heads), only("ray start", workers)
    if "--dashboard-host=127.0.0.1" not in head:
        yield "dashboard"
    if not all("RAY_AUTH_MODE=token" in command for command in (head, worker)):
        yield "token mode"
    if config["file_mounts"].get("~/.ray/auth_token") != "~/.ray/auth_token":
        yield "token"
    if "chmod 600 ~/.ray/auth_token" not in only("auth_token", config["setup_commands"]):
        yield "the token's mode"
    if "--autoscaling-config=~/ray_bootstrap_config.yaml" not in head or "--num-cpus=0 --num-gpus=0" not in head:
        yield "head start"
    if "--head" not in head or "--address=$RAY_HEAD_IP:6379" not in worker or "--port=6379" not in head:
        yield "addresses"
    if "0.0.0.0" in json.dumps(config):
        yield "the whole world"
    if "security_group" in config["provider"] or "ssh_private_key" in config["auth"]:
        yield "keys and groups"


def wrong_setup(config: dict[str, Any]) -> Iterator[str]:
    """That the mounted files are all that a build needs, and that a sweep finds its disk."""
    mounts, setup = config["file_mounts"], config["setup_commands"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = ["pyproject.toml", "constraints.txt", project["project"]["readme"], *project["project"]["license-files"]]
    needed += project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    for name in needed:
        if mounts.get(f"~/project/{name}") != name or not (ROOT / name).exists():
            yield f"mount of {name}"
    if '-c ~/project/constraints.txt "$HOME/project[cluster]"' not in only("project[cluster]", setup):
        yield "install"
    if "cluster" not in project["project"]["optional-dependencies"]:
        yield "extra"
    if not re.search(r"mountpoint -q /mnt/shared \|\| sudo mount -t nfs4? .*hard.* /mnt/shared$", only("nfs", [
        command for command in setup if "mount -t" in command
    ])):  # fmt: skip
        yield "shared disk"
    for command in [*setup, *config["head_setup_commands"], *config["head_start_ray_commands"]]:
        if subprocess.run(["bash", "-n", "-c", command], capture_output=True, check=False).returncode:
            yield f"bash: {command}"


def wrong(config: dict[str, Any]) -> list[str]:
    return [*wrong_nodes(config), *wrong_doors(config), *wrong_setup(config)]


@pytest.mark.parametrize("name", LAUNCHED)
def test_ray_takes_it(name: str):
    prepared = prepare_config(copy.deepcopy(read(name)))
    validate_config(prepared)
    assert prepared["head_setup_commands"][-1] == read(name)["head_setup_commands"][-1]
    for misspelt in (swap("idle_timeout_minutes", "idle_timeout"), swap('"head_node_type"', '"head_type"')):
        config = read(name)
        misspelt(config)
        with pytest.raises((ValueError, jsonschema.ValidationError)):
            validate_config(prepare_config(config))


@pytest.mark.parametrize("name", LAUNCHED)
def test_nothing_is_wrong_where_ray_does_not_look(name: str):
    assert wrong(read(name)) == []


def put(*path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        for key in path[:-1]:
            config = config[key]
        config[path[-1]] = value

    return change


def swap(old: str, new: str) -> Callable[[dict[str, Any]], None]:
    """Everywhere in the file's text."""

    def change(config: dict[str, Any]) -> None:
        text = json.dumps(config)
        assert old in text
        config.clear()
        config.update(json.loads(text.replace(old, new)))

    return change


GPU = ("available_node_types", "gpu")
SPOILED: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "a misspelt key": (swap("InstanceType", "InstanceTyp"), "gpu: {'InstanceTyp'}"),
    "a machine without a GPU": (put(*GPU, "node_config", "InstanceType", value="m6i.xlarge"), "gpu: machine"),
    "on demand": (swap('"MarketType": "spot"', '"MarketType": "capacity-block"'), "gpu: spot"),
    "no disk": (swap('"VolumeSize": 150', '"VolumeSize": 8'), "gpu: disk"),
    "a key pair of somebody": (put(*GPU, "node_config", "KeyName", value="mine"), "gpu: {'KeyName'}"),
    "trials on the head": (put("available_node_types", "head", "resources", value={"CPU": 4}), "head: resources"),
    "a worker always": (put(*GPU, "min_workers", value=1), "from 0 to N workers"),
    "idle for hours": (put("idle_timeout_minutes", value=240), "idle_timeout_minutes"),
    "rights for workers": (put(*GPU, "node_config", "IamInstanceProfile", value={"Name": "x"}), "workers with rights"),
    "stopped, not ended": (put("provider", "cache_stopped_nodes", value=True), "stopped machines"),
    "a dashboard for all": (swap("--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0"), "dashboard"),
    "no token": (swap("RAY_AUTH_MODE=token", "RAY_AUTH_MODE=disabled"), "token mode"),
    "a token that stays here": (put("file_mounts", "~/.ray/auth_token", value="/dev/null"), "token"),
    "a group by Ray": (put("provider", "security_group", value={"GroupName": "x"}), "keys and groups"),
    "a local disk": (swap("sudo mount -t nfs4", "true"), "shared disk"),
    "a file left at home": (put("file_mounts", "~/project/LICENSE", value="LICENCE"), "mount of LICENSE"),
    "an open quote": (swap("cloud-init status", "'cloud-init status"), "bash: 'cloud-init status"),
}


@pytest.mark.parametrize("how", SPOILED)
def test_the_checks_see_what_is_wrong(how: str):
    config, (spoil, told) = read("cluster.yaml"), SPOILED[how]
    spoil(config)
    assert any(found.startswith(told) for found in wrong(config)), wrong(config)


def parts(kind: str) -> list[dict[str, Any]]:
    """The properties of the stack's resources of a kind."""
    everything = read("deploy/aws-stack.yaml")["Resources"].values()
    return [one.get("Properties", {}) for one in everything if one["Type"] == f"AWS::{kind}"]


def test_the_stack_has_what_cluster_yaml_names():
    config = read("cluster.yaml")
    head, gpu = (config["available_node_types"][kind]["node_config"] for kind in ("head", "gpu"))
    templates = {one["LaunchTemplateName"]: one["LaunchTemplateData"] for one in parts("EC2::LaunchTemplate")}
    assert {node["LaunchTemplate"]["LaunchTemplateName"] for node in (head, gpu)} == set(templates)
    assert all(set(data) == {"ImageId", "SecurityGroupIds"} for data in templates.values())
    assert [one["InstanceProfileName"] for one in parts("IAM::InstanceProfile")] == [head["IamInstanceProfile"]["Name"]]
    (target,) = parts("EFS::MountTarget")
    resources = read("deploy/aws-stack.yaml")["Resources"]
    subnet = resources[target["SubnetId"]["Ref"]]["Properties"]
    assert ipaddress.ip_address(target["IpAddress"]) in ipaddress.ip_network(subnet["CidrBlock"])
    assert f" {target['IpAddress']}:/ /mnt/shared" in only("mount -t", config["setup_commands"])
    assert f"--region {config['provider']['region']} " in (ROOT / "deploy" / "aws-stack.yaml").read_text()


def test_the_subnets_are_apart_within_the_network():
    (network,) = (ipaddress.ip_network(one["CidrBlock"]) for one in parts("EC2::VPC"))
    first, second = (ipaddress.ip_network(one["CidrBlock"]) for one in parts("EC2::Subnet"))
    assert not first.overlaps(second)
    assert isinstance(network, ipaddress.IPv4Network)
    for one in (first, second):
        assert isinstance(one, ipaddress.IPv4Network)
        assert one.subnet_of(network)


def test_the_stack_lets_in_one_range_by_ssh_and_its_own_machines():
    (group,) = parts("EC2::SecurityGroup")
    assert group["SecurityGroupIngress"] == [
        {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "CidrIp": {"Ref": "SshFrom"}}
    ]
    (among,) = parts("EC2::SecurityGroupIngress")
    assert among["GroupId"] == among["SourceSecurityGroupId"]
    asked = read("deploy/aws-stack.yaml")["Parameters"]["SshFrom"]
    assert "Default" not in asked
    allowed = re.compile(asked["AllowedPattern"])
    assert allowed.match("203.0.113.7/32")
    assert allowed.match("10.0.0.0/8")
    for world in ("0.0.0.0/0", "0.0.0.0/1", "203.0.113.7", "::/0", "x"):
        assert not allowed.match(world)


def test_the_head_may_end_its_own_workers_alone():
    (role,) = parts("IAM::Role")
    statements = role["Policies"][0]["PolicyDocument"]["Statement"]
    free = [action for one in statements if "Condition" not in one for action in one["Action"]]
    assert free == ["ec2:Describe*", "ec2:RunInstances"]
    (ending,) = (one for one in statements if "ec2:TerminateInstances" in one["Action"])
    mine = {"ec2:ResourceTag/ray-cluster-name": read("cluster.yaml")["cluster_name"]}
    assert ending["Condition"] == {"StringEquals": mine}
    assert "PassRole" not in json.dumps(role)


def test_the_disk_outlives_the_stack():
    disk = read("deploy/aws-stack.yaml")["Resources"]["Disk"]
    assert (disk["DeletionPolicy"], disk["UpdateReplacePolicy"]) == ("Retain", "Retain")


SECRETS = re.compile(r"AKIA|ASIA[A-Z0-9]{12}|PRIVATE KEY|secret_access|\b\d{12}\b|[0-9a-f]{64}|password", re.I)


def test_no_file_holds_a_secret_an_account_or_an_open_door():
    files = [ROOT / "cluster.yaml", *(path for path in (ROOT / "deploy").rglob("*") if path.is_file())]
    assert len(files) >= 8
    for path in files:
        text = path.read_text()
        assert not SECRETS.search(text), path
        doors = [line.strip() for line in text.splitlines() if "0.0.0.0" in line]
        assert doors in ([], ["DestinationCidrBlock: 0.0.0.0/0"]), path  # a route out; a security group lets nobody in
        assert text.isascii(), path


def job_and_cluster() -> tuple[dict[str, Any], dict[str, Any]]:
    return read("deploy/kuberay/rayjob.yaml"), read("deploy/kuberay/raycluster.yaml")


def test_the_ray_job_ends_its_cluster_and_goes_on_after_a_fault():
    job, _ = job_and_cluster()
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert 0 < spec["ttlSecondsAfterFinished"] <= 3600
    assert spec["backoffLimit"] >= 1
    command, *words = shlex.split(spec["entrypoint"])
    assert command == "run-or-resume"
    given = context("run", words).params
    assert (given["address"], given["storage"]) == ("auto", Path("/mnt/shared/sweeps"))
    assert given["name"]
    assert given["max_concurrent"]
    assert given["gpus_per_trial"]


def test_the_ray_job_has_the_ray_cluster_and_the_space():
    job, cluster = job_and_cluster()
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    own = job["spec"]["rayClusterSpec"]
    pod = own["headGroupSpec"]["template"]["spec"]
    volume, mount = pod["volumes"].pop(), pod["containers"][0]["volumeMounts"].pop()
    assert volume == {"name": "space", "configMap": {"name": "snnsweep-space"}}
    assert mount == {"name": "space", "mountPath": "/etc/snnsweep"}
    assert own == cluster["spec"]


def test_a_ray_cluster_on_kubernetes():
    _, cluster = job_and_cluster()
    spec = cluster["spec"]
    assert spec["rayVersion"] == RAY
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0", "num-gpus": "0"}
    (group,) = spec["workerGroupSpecs"]
    assert (group["replicas"], group["minReplicas"]) == (0, 0)
    assert group["maxReplicas"] >= 1
    claim = yaml.safe_load((KUBERAY / "storage.yaml").read_text())
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in (spec["headGroupSpec"]["template"]["spec"], group["template"]["spec"]):
        assert pod["volumes"] == [{"name": "shared", "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}}]
        assert pod["containers"][0]["volumeMounts"] == [{"name": "shared", "mountPath": "/mnt/shared"}]
    asked = group["template"]["spec"]["containers"][0]["resources"]
    assert asked["requests"] == asked["limits"]
    assert asked["limits"]["nvidia.com/gpu"] == "1"


def test_the_image_has_the_ray_of_the_tests_and_every_file_that_it_copies():
    text = (KUBERAY / "Dockerfile").read_text()
    assert f"FROM rayproject/ray:{RAY}-py311\n" in text
    for line in re.findall(r"^COPY (.*)$", text, re.M):
        sources = [word for word in line.split() if not word.startswith("--")][:-1]
        assert all((ROOT / source).exists() for source in sources), line


def context(command: str, words: list[str]) -> click.Context:
    found = main.get_command(click.Context(main), command)
    assert found is not None, command
    return found.make_context(command, words)


def commands_of(text: str) -> list[str]:
    """The commands in a Markdown text's blocks of bash, each on one line."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", text, re.M | re.S)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_the_commands_of_the_docs_are_commands():
    text = (ROOT / "docs" / "clusters.md").read_text()
    commands = commands_of(text)
    for line in commands:
        for words in re.findall(r"\b(?:snnsweep|run-or-resume) ([^&|;#\"')]+)", line):
            name, *rest = shlex.split(words)
            if name in ("submit", "run"):
                context(name, rest)
    told = re.findall(r"(?:deploy|search_spaces)/[\w./-]+\w|cluster\.yaml", text)
    assert told
    assert all((ROOT / path).exists() for path in told), told
    assert any(line.startswith("snnsweep submit ") for line in commands)


def test_aws_takes_five_commands():
    text = (ROOT / "docs" / "clusters.md").read_text()
    assert (
        len(commands_of(text.partition("```bash")[1] + text.partition("```bash")[2].partition("```\n")[0] + "```")) == 5
    )


SHIMS = {
    "scontrol": '[ "$1 $2" = "show hostnames" ] && tr , "\\n" <<< "$3"',
    # Each node is this machine, so that what is told to run there runs here.
    "srun": 'while [[ $1 == --* ]]; do case $1 in --nodelist=*) echo "${1#*=}" >> nodes;; esac; shift; done; exec "$@"',
    "hostname": "echo 127.0.0.1 10.9.9.9",
}
FAKE_RAY = (
    'echo "$RAY_AUTH_MODE $(cat $RAY_AUTH_TOKEN_PATH) $*" >> ray; case $1 in '
    'status) for node in $(seq "$(grep -c " start " ray)"); do echo " 1 node_$node"; done;; start) exec sleep 60;; esac'
)


@pytest.fixture
def slurm(tmp_path: Path) -> Callable[..., "subprocess.Popen[str]"]:
    """Starts the batch script as Slurm would, on two nodes that are both this machine."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")

    def start(*words: str, job: int, **programs: str) -> "subprocess.Popen[str]":
        for name, text in (SHIMS | programs).items():
            path = tmp_path / "bin" / name
            path.write_text(f"#!/bin/bash\n{text}\n")
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        places = [str(tmp_path / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        environment |= {"PATH": ":".join(places), "SLURM_JOB_ID": str(job), "SLURM_JOB_NODELIST": "n1,n2"}
        environment |= {"SLURM_CPUS_PER_TASK": "1", "SNNSWEEP_PATIENCE_S": "90"}
        command = ["bash", str(ROOT / "deploy" / "slurm.sbatch"), *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=pipe, stderr=pipe, text=True)

    return start


SWEEP = ("space.py", "--name", "mine", "--storage", "sweeps")


@pytest.mark.parametrize("script", ["slurm.sbatch", "run-or-resume"])
def test_bash_reads_it(script: str):
    subprocess.run(["bash", "-n", str(ROOT / "deploy" / script)], check=True)


@pytest.mark.parametrize("begun", [False, True])
def test_slurm_runs_a_sweep_or_goes_on_with_it(begun: bool, slurm: Any, tmp_path: Path):
    if begun:
        (tmp_path / "sweeps" / "mine").mkdir(parents=True)
        (tmp_path / "sweeps" / "mine" / "sweep.json").write_text("{}")
    batch = slurm(*SWEEP, job=3, ray=FAKE_RAY, snnsweep='echo "$@"; exit 3')
    out, err = batch.communicate(timeout=60)
    assert batch.returncode == 3, err
    at = "--address 127.0.0.1:20003"
    assert out.strip() == (f"resume sweeps/mine {at}" if begun else f"run {' '.join(SWEEP)} {at}")
    starts = [line.split() for line in (tmp_path / "ray").read_text().splitlines() if " start " in line]
    assert len(starts) == 2
    assert all(words[0] == "token" and re.fullmatch("[0-9a-f]{64}", words[1]) for words in starts)
    assert len({words[1] for words in starts}) == 1
    assert sum("--head" in words for words in starts) == 1
    assert sorted((tmp_path / "nodes").read_text().split()) == ["n1", "n1", "n2"]
    assert not list(tmp_path.glob(".ray_token_*"))


def test_slurm_ends_when_a_node_does_not_start(slurm: Any, tmp_path: Path):
    batch = slurm(*SWEEP, job=4, ray='[ "$1" = status ] || { echo "no port" >&2; exit 1; }', snnsweep="echo ran")
    out, err = batch.communicate(timeout=60)
    assert (batch.returncode, out) == (1, "")
    assert "no port" in err
    assert "a ray start ended" in err
    assert not list(tmp_path.glob(".ray_token_*"))


def test_slurm_hands_its_signal_on_and_waits_for_the_snapshot(slurm: Any, tmp_path: Path):
    driver = "trap 'sleep 1; touch snapshot; exit 130' TERM; touch up; while :; do sleep 0.1; done"
    batch = slurm(*SWEEP, job=5, ray=FAKE_RAY, snnsweep=driver)
    until((tmp_path / "up").exists)
    batch.send_signal(signal.SIGTERM)
    batch.communicate(timeout=60)
    assert batch.returncode == 130
    assert (tmp_path / "snapshot").exists()


def test_run_or_resume_says_what_it_needs():
    done = subprocess.run(
        [str(ROOT / "deploy" / "run-or-resume"), "space.py", "--name=a"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "--storage is needed" in done.stderr


def until(done: Callable[[], bool], patience_s: float = 60) -> None:
    end = time.monotonic() + patience_s
    while not done():
        assert time.monotonic() < end
        time.sleep(0.1)


NODES = """
import ray, sys
ray.init(address=sys.argv[-1], log_to_driver=False)
print("nodes", len([node for node in ray.nodes() if node["Alive"]]), "cpus", ray.cluster_resources()["CPU"])
"""


@pytest.mark.slow
def test_slurm_starts_a_real_ray_on_two_nodes(slurm: Any, tmp_path: Path):
    """srun and scontrol are imitated; `ray start`, the token and the waiting are real."""
    (tmp_path / "nodes.py").write_text(NODES)
    batch = slurm(*SWEEP, job=os.getpid(), hostname="echo 127.0.0.1", snnsweep=f'exec {sys.executable} nodes.py "$@"')
    out, err = batch.communicate(timeout=180)
    assert batch.returncode == 0, err
    assert "nodes 2 cpus 2.0" in out, (out, err)
    until(lambda: not running(f"/tmp/ray_{os.getpid()}"))


def running(words: str) -> list[str]:
    """Command lines of living processes that hold the words."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [text] if words in (text := path.read_text().replace("\0", " ")) else []
        except (OSError, UnicodeDecodeError):
            continue
    return found
