"""cluster/kuberay.yaml against a strict schema of what it uses, and its command through the shells that read it."""

import copy
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

CLUSTER = Path(__file__).parents[2] / "cluster"

# From the API reference of ray.io/v1 (KubeRay 1.6) and of core/v1. "!": required; a type, allowed values, a pattern, a
# list of one kind, or an object; "*": any name. Nothing else may be there.
QUANTITY = re.compile(r"[0-9.]+([KMGT]i?|m)?")
SECRET = {"secretKeyRef!": {"name!": str, "key!": str, "optional": bool}}
MOUNTED = {"name!": str, "mountPath!": re.compile("/.+"), "readOnly": bool}
PORT = {"containerPort!": int, "name": re.compile(r"[a-z0-9-]{1,15}")}
RESOURCES = {name: {"cpu": QUANTITY, "memory": QUANTITY, "nvidia.com/gpu": int} for name in ("limits", "requests")}
CONTAINER = {
    "name!": re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"),
    "image!": str,
    "env": [{"name!": re.compile("[A-Z_]+"), "valueFrom!": SECRET}],  # a value of its own would be a place for a secret
    "resources": RESOURCES,
    "ports": [PORT],
    "volumeMounts": [MOUNTED],
}
VOLUME = {"name!": str, "emptyDir": {"medium": ["Memory"], "sizeLimit": QUANTITY}}
TOLERATION = {"key": str, "operator": ["Exists", "Equal"], "effect": ["NoSchedule", "PreferNoSchedule", "NoExecute"]}
POD = {"spec!": {"containers!": [CONTAINER], "volumes": [VOLUME], "tolerations": [TOLERATION]}}
HEAD = {"serviceType": ["ClusterIP"], "rayStartParams!": {"*": str}, "template!": POD}
WORKERS = {
    "groupName!": str,
    "replicas": int,
    "minReplicas!": int,
    "maxReplicas!": int,
    "rayStartParams!": {"*": str},
    "template!": POD,
}
AUTOSCALER = {
    "version": ["v1", "v2"],
    "idleTimeoutSeconds": int,
    "upscalingMode": ["Default", "Aggressive", "Conservative"],
}
RAY_CLUSTER = {
    "rayVersion!": re.compile(r"\d+\.\d+\.\d+"),
    "authOptions!": {"mode!": ["token"]},
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": AUTOSCALER,
    "headGroupSpec!": HEAD,
    "workerGroupSpecs!": [WORKERS],
}
RAY_JOB = {
    "apiVersion!": ["ray.io/v1"],
    "kind!": ["RayJob"],
    "metadata!": {"name!": re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")},
    "spec!": {
        "entrypoint!": str,
        "runtimeEnvYAML": str,
        "backoffLimit": int,
        "submissionMode": ["K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"],
        "submitterConfig": {"backoffLimit": int},
        "shutdownAfterJobFinishes": bool,
        "ttlSecondsAfterFinished": int,
        "rayClusterSpec!": RAY_CLUSTER,
    },
}


def fault(value, rule, path="the file"):
    """The first place where ``value`` breaks ``rule``, or ""."""
    if isinstance(rule, dict):
        if not isinstance(value, dict):
            return f"{path} is no object"
        known = {name.rstrip("!"): (name, one) for name, one in rule.items()}
        if lacking := [name for name in rule if name.endswith("!") and name[:-1] not in value]:
            return f"{path} lacks {lacking[0][:-1]}"
        for name, one in value.items():
            if name not in known and "*" not in known:
                return f"{path} has the unknown key {name}"
            if told := fault(one, known.get(name, known.get("*"))[1], f"{path}.{name}"):
                return told
        return ""
    if isinstance(rule, list) and isinstance(rule[0], dict):
        if not isinstance(value, list):
            return f"{path} is no list"
        return next((told for place, one in enumerate(value) if (told := fault(one, rule[0], f"{path}[{place}]"))), "")
    if isinstance(rule, list):
        return "" if value in rule else f"{path} is {value}, none of {rule}"
    if isinstance(rule, re.Pattern):
        return "" if isinstance(value, str) and rule.fullmatch(value) else f"{path} is {value!r}"
    return "" if type(value) is rule else f"{path} is no {rule.__name__}"


@pytest.fixture
def content():
    return yaml.safe_load((CLUSTER / "kuberay.yaml").read_text())


def keys(value, path=()):
    """The path of each key at each level."""
    for name, one in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if isinstance(value, dict):
            yield (*path, name)
        yield from keys(one, (*path, name))


def test_it_is_a_ray_job_and_a_typo_in_any_key_is_caught(content):
    assert fault(content, RAY_JOB) == ""
    found = list(keys(content))
    assert len(found) > 100
    for *parents, name in found:
        if parents and parents[-1] == "rayStartParams":  # Ray's, checked below
            continue
        damaged = copy.deepcopy(content)
        parent = damaged
        for step in parents:
            parent = parent[step]
        parent[name + "s"] = parent.pop(name)
        assert fault(damaged, RAY_JOB), f"{parents} {name}s"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "backoffLimit"), "3"),
        (("spec", "rayClusterSpec", "authOptions", "mode"), "disabled"),
        (("spec", "rayClusterSpec", "autoscalerOptions", "upscalingMode"), "Fast"),
        (("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        (("spec", "rayClusterSpec", "workerGroupSpecs"), {}),
        (("spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "containers", 0, "env", 0, "value"), "key"),
    ],
)
def test_a_wrong_value_is_caught(content, path, value):
    *parents, name = path
    parent = content
    for step in parents:
        parent = parent[step]
    parent[name] = value
    assert str(name) in fault(content, RAY_JOB)


def test_what_no_schema_says(content):
    """What KubeRay checks besides, what Ray knows of start, and what this project promises."""
    from ray import __version__
    from ray.scripts.scripts import start

    spec = content["spec"]
    cluster = spec["rayClusterSpec"]
    assert cluster["rayVersion"] == __version__
    assert spec["ttlSecondsAfterFinished"] > 0 and spec["shutdownAfterJobFinishes"] and spec["backoffLimit"] > 0
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    options = {option for parameter in start.params for option in parameter.opts}
    for group in groups:
        assert {f"--{name}" for name in group["rayStartParams"]} <= options
        (container,) = group["template"]["spec"]["containers"]
        assert container["resources"]["limits"] == container["resources"]["requests"]
        volumes = {one["name"] for one in group["template"]["spec"]["volumes"]}
        assert {one["name"] for one in container["volumeMounts"]} <= volumes
    head, *workers = groups
    assert head["rayStartParams"] == {"num-cpus": "0", "num-gpus": "0"}
    gpus = [one["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] for one in workers]
    assert "nvidia.com/gpu" not in head["template"]["spec"]["containers"][0]["resources"]["limits"] and min(gpus) >= 1
    assert {one["template"]["spec"]["containers"][0]["image"] for one in groups} == {"REGISTRY/nrh:0.1"}


def test_its_command_finds_the_storage_where_it_runs(content):
    """Two shells read it: that of the pod which sends it, where nothing is set, and that of the head."""
    spec = content["spec"]
    sent = subprocess.run(["bash", "-c", f"printf '%s\\n' {spec['entrypoint']}"], capture_output=True, text=True)
    there = subprocess.list2cmdline(sent.stdout.splitlines())  # as ray job submit joins the words
    variables = yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]
    command = ["bash", "-c", f"printf '%s\\n' {there}"]
    words = subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout.splitlines()
    assert words[:3] == ["python", "/home/ray/nrh_dist/cluster/job.py", "train"]
    assert f"data.pack={variables['NRH_STORAGE']}/packs/iharmony4" in words
    require_accepted(words[3:])


def require_accepted(words):
    """A training whose every key and value the project knows, and which has a name."""
    from nrh_dist import config

    assert config.load(None, words).run.name


def test_the_image_has_what_the_command_starts():
    """Each COPY is of this project, and the base is Ray's image of the version that the lock holds."""
    lines = [
        shlex.split(line) for line in (CLUSTER / "Dockerfile").read_text().splitlines() if line[:1] not in ("#", "")
    ]
    copied = [word for name, *words in lines if name == "COPY" for word in words[1:-1]]
    assert copied and all((CLUSTER.parent / word).exists() for word in copied)
    assert {"nrh_dist", "cluster", "search_spaces"} <= set(copied)
    lock = (CLUSTER.parent / ".ci" / "requirements.lock").read_text()
    (version,) = re.findall(r"^ray==([\d.]+)", lock, re.M) or re.findall(r"^ray\[[a-z,]+\]==([\d.]+)", lock, re.M)
    assert lines[0] == ["FROM", f"rayproject/ray:{version}-py311-gpu"]
