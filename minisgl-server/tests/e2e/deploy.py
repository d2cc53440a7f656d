"""Checks the Kubernetes manifests in deploy/: against the shapes of the API that deploy/schema has,
and against the program itself, its options and its metrics.

Raises AssertionError for the first thing that is wrong.
"""

import json
import re
from pathlib import Path

import jsonschema
import referencing
import yaml

FOLDER = Path(__file__).resolve().parents[3] / "deploy"
# What LeaderWorkerSet gives to the containers of a group of two on one machine.
GROUP = {"LWS_LEADER_ADDRESS": "127.0.0.1", "LWS_GROUP_SIZE": "2", "POD_IP": "127.0.0.1"}
GRACE = 10  # seconds between the end of the drain and SIGKILL, at least


def manifests():
    """(file, manifest) of all, each one valid."""
    schemas = {path.stem: json.loads(path.read_text()) for path in (FOLDER / "schema").glob("*.json")}
    resources = [(f"{name}.json", referencing.Resource.from_contents(schema)) for name, schema in schemas.items()]
    registry = referencing.Registry().with_resources(resources)
    found = []
    for path in sorted(FOLDER.glob("*.yaml")):
        for manifest in yaml.safe_load_all(path.read_text()):
            where = f"{path.name}, {manifest.get('kind')}"
            assert manifest.get("kind") in schemas, f"{where}: no schema"
            validator = jsonschema.Draft202012Validator(schemas[manifest["kind"]], registry=registry)
            for error in validator.iter_errors(manifest):
                raise AssertionError(f"{where}: {error.json_path}: {error.message}")
            found.append((path.name, manifest))
    assert found, f"no manifests in {FOLDER}"
    return found


def of_kind(kind):
    return [manifest for _, manifest in manifests() if manifest["kind"] == kind]


def templates(manifest):
    """The pod templates of a manifest."""
    spec = manifest["spec"]
    group = spec.get("leaderWorkerTemplate", {})
    found = [spec.get("template"), group.get("leaderTemplate"), group.get("workerTemplate")]
    return [template for template in found if template]


def split(arg):
    """The option and the value of `--option=value`."""
    match = re.fullmatch(r"(--[a-z-]+)(?:=(.*))?", arg)
    assert match, f"{arg} is not --option=value"
    return match[1], match[2]


def check_pods(shown_help, defaults):
    """The templates against `minisgl --help` and against themselves. `defaults`: of options."""
    known = set(re.findall(r"--[a-z][a-z-]*", shown_help))
    variables = set(re.findall(r"\[env: ([A-Z_]+)", shown_help)) | set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", shown_help))
    for file, manifest in manifests():
        for template in templates(manifest):
            spec = template["spec"]
            for container in spec["containers"]:
                where = f"{file}, {manifest['kind']}, {container['name']}"
                options = dict(split(arg) for arg in container["args"])
                for option in options:
                    assert option in known, f"{where}: minisgl --help does not know {option}"
                given = {variable["name"] for variable in container.get("env", [])}
                used = set(re.findall(r"\$\((\w+)\)", " ".join(container["args"])))
                unset = used - given - {name for name in [*GROUP, "LWS_WORKER_INDEX"] if name.startswith("LWS_")}
                assert not unset, f"{where}: {unset} is not set"
                unknown = given - set(GROUP) - variables
                assert not unknown, f"{where}: minisgl --help does not know {unknown}"

                command = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])
                assert command[0] == "sleep", f"{where}: preStop is {command}"
                drain = int(command[1]) + int(options.get("--shutdown-timeout", defaults["--shutdown-timeout"]))
                granted = spec["terminationGracePeriodSeconds"]
                assert granted >= drain + GRACE, f"{where}: {granted} s, but a drain may take {drain}"

                names = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
                if "http" in names:
                    assert options["--port"] == str(names["http"]), f"{where}: port {names['http']}"
                    assert options["--host"] == "0.0.0.0", f"{where}: nobody reaches {options['--host']}"
                for probe in ["startupProbe", "readinessProbe", "livenessProbe"]:
                    if target := container.get(probe, {}).get("httpGet"):
                        assert target["port"] in names, f"{where}: {probe}: no port {target['port']}"
                        assert target["path"] == "/health", f"{where}: {probe} asks {target['path']}"
                mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
                volumes = {volume["name"] for volume in spec.get("volumes", [])}
                assert mounted <= volumes, f"{where}: no volume {mounted - volumes}"


def check_selectors():
    """Whoever selects pods selects some, and the autoscaler finds what it scales."""
    everything = [manifest for _, manifest in manifests()]
    pods = [template["metadata"]["labels"].items() for manifest in everything for template in templates(manifest)]
    for file, manifest in manifests():
        spec, where = manifest["spec"], f"{file}, {manifest['kind']}"
        selector = spec.get("selector", spec.get("podSelector"))
        if selector:
            wanted = selector.get("matchLabels", selector).items()
            assert any(wanted <= labels for labels in pods), f"{where} selects nothing"
        if target := spec.get("scaleTargetRef"):
            there = any(all(target[key] == value for key, value in [("kind", other["kind"]), ("apiVersion", other["apiVersion"]), ("name", other["metadata"]["name"])]) for other in everything)
            assert there, f"{where}: there is no {target}"


def check_metrics(page):
    """The autoscaler's metrics are gauges on `page`, what GET /metrics answered."""
    gauges = set(re.findall(r"^# TYPE (\w+) gauge$", page, re.MULTILINE))
    for autoscaler in of_kind("HorizontalPodAutoscaler"):
        for metric in autoscaler["spec"]["metrics"]:
            name = metric["pods"]["metric"]["name"]
            assert name in gauges, f"/metrics has no gauge {name}"


def commands(kind, dist_port):
    """What the containers of the `kind` are started with, but with the demo model, on this machine
    and on any port: that of a leader before that of its worker."""
    found = []
    for manifest in of_kind(kind):
        for index, template in enumerate(templates(manifest)):
            values = {**GROUP, "LWS_WORKER_INDEX": str(index)}
            for container in template["spec"]["containers"]:
                args = [re.sub(r"\$\((\w+)\)", lambda match: values[match[1]], arg) for arg in container["args"]]
                options = dict(split(arg) for arg in args)
                for elsewhere in ["--model", "--host", "--port"]:
                    options.pop(elsewhere, None)
                if address := options.get("--dist-init-addr"):
                    options["--dist-init-addr"] = f"{address.rsplit(':', 1)[0]}:{dist_port}"
                found.append([option if value is None else f"{option}={value}" for option, value in options.items()])
    return found
