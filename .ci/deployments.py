#!/usr/bin/env python3
"""Holds compose files and manifests to what they start: the gateway takes every variable, each name points at something that is there,
and whatever runs two gateways is set up for two. Says nothing of whether images can be pulled or a cluster would take them.

usage: deployments.py GATEWAY, with packages of deployments.txt
"""

import pathlib
import re
import subprocess
import sys

import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).parent.parent
MANIFESTS = ROOT / "deploy/kubernetes"
# Not kinds of Kubernetes itself, so no schema of its knows them.
FOREIGN = {"Kustomization", "ServiceMonitor"}
# In the place of what an operator fills in.
SECRET = "Zm9yIHRoZSBjaGVja3Mgb2YgdGhlIGRlcGxveW1lbnRzIG9ubHk="
FILLED = {
    "WUKONGIM_WS_URL": "ws://im.example.com:5200",
    "WUKONGIM_TCP_ADDR": "im.example.com:5100",
    "POSTGRES_PASSWORD": "0123456789abcdef",
}
problems = []


def expect(holds, what):
    if not holds:
        problems.append(what)


def check_config(where, environment):
    """The gateway itself reads `environment`, and nothing else."""
    run = subprocess.run([GATEWAY, "check-config"], env=environment, capture_output=True, text=True, cwd="/")
    expect(run.returncode == 0, f"{where}: check-config ends with {run.returncode}: {run.stdout}{run.stderr}")


def for_two(where, environment):
    expect(environment.get("GATEWAY__STORE__URL", "").startswith("postgres://"), f"{where}: several gateways need PostgreSQL")
    expect(environment.get("GATEWAY__WUKONGIM__DUPLICATE_CHECK") == "upstream", f"{where}: duplicate_check must be upstream")
    expect(environment.get("GATEWAY__SERVER__TRUSTED_PROXIES"), f"{where}: trusted_proxies must be set")


# --- compose ----------------------------------------------------------------------------------------------------------

VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*)|:\?[^}]*)?\}|\$(\$)")


def interpolated(node, offered, used):
    """As compose does it, after parsing, for the three forms in use."""

    def value(match):
        name, default, dollar = match.groups()
        if dollar:
            return dollar
        used.add(name)
        return offered.get(name) or default or ""

    if isinstance(node, dict):
        return {key: interpolated(inner, offered, used) for key, inner in node.items()}
    if isinstance(node, list):
        return [interpolated(inner, offered, used) for inner in node]
    return VARIABLE.sub(value, node) if isinstance(node, str) else node


def compose():
    example = (ROOT / ".env.example").read_text()
    offered = dict(line.split("=", 1) for line in example.splitlines() if re.match(r"\w+=", line))
    for name, value in offered.items():
        offered[name] = value or FILLED.get(name) or ("" if name in ("JWT_ISSUER", "REQUIRED_CLAIMS") else SECRET)
    used = set()
    for file in (ROOT / "compose.yaml", ROOT / "compose.cluster.yaml"):
        services = interpolated(yaml.safe_load(file.read_text()), offered, used)["services"]
        gateways = {name: service for name, service in services.items() if "wukongim-gateway" in service.get("image", "")}
        expect(gateways, f"{file.name}: no gateway")
        for name, service in gateways.items():
            check_config(f"{file.name}, {name}", service["environment"])
            if len(gateways) > 1:
                for_two(f"{file.name}, {name}", service["environment"])
                nodes = re.findall(r"//(\w+):5001", service["environment"]["GATEWAY__WUKONGIM__API_URLS"])
                expect(nodes == [name for name in services if name.startswith("wukongim")], f"{file.name}: nodes are {nodes}")
        for name, service in services.items():
            for volume in service.get("volumes", []):
                source = volume.split(":")[0]
                expect(not source.startswith(".") or (ROOT / source).exists(), f"{file.name}, {name}: no {source}")
    expect(used == set(offered), f".env.example and the compose files disagree about {used ^ set(offered)}")


def nginx():
    services = set(yaml.safe_load((ROOT / "compose.cluster.yaml").read_text())["services"])
    named = set(re.findall(r"server ([\w.]+):\d+ resolve;", (ROOT / "deploy/nginx/cluster.conf").read_text()))
    wanted = {name for name in services if re.match(r"gateway|wukongim", name)}
    expect(named == wanted, f"cluster.conf: names {named}, compose has {wanted}")


# --- Kubernetes -------------------------------------------------------------------------------------------------------


def seconds(text):
    return int(re.fullmatch(r"(\d+)s", text)[1])


def kubernetes():
    documents = {}
    for file in sorted(MANIFESTS.glob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text()):
            documents.setdefault(document["kind"], []).append(document)
            if document["kind"] not in FOREIGN:
                try:
                    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
                except kubernetes_validate.ValidationError as error:
                    problems.append(f"{file.name}: {error.message}")

    (deployment,), (config,) = documents["Deployment"], documents["ConfigMap"]
    name = deployment["metadata"]["name"]
    pod = deployment["spec"]["template"]
    labels = pod["metadata"]["labels"]
    (container,) = pod["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}

    # What the pod is started with.
    secrets = {}
    for variable in container["env"]:
        secrets[variable["name"]] = variable["valueFrom"]["secretKeyRef"]
    environment = config["data"] | dict.fromkeys(secrets, SECRET)
    environment["GATEWAY__STORE__URL"] = "postgres://gateway:secret@postgres/gateway"
    check_config("deployment.yaml", environment)
    for_two("deployment.yaml", environment)
    expect([{"configMapRef": {"name": config["metadata"]["name"]}}] == container["envFrom"], "deployment.yaml: another ConfigMap")
    command = re.search(r"kubectl[^`]*create secret generic (\S+)([^`]*)", (MANIFESTS / "README.md").read_text())
    made = {(command[1], key) for key in re.findall(r"--from-literal=([\w-]+)=", command[2])}
    expect(made == {(one["name"], one["key"]) for one in secrets.values()}, f"README.md makes the secrets {made}")
    expect(
        pod["spec"]["terminationGracePeriodSeconds"] > seconds(environment["GATEWAY__SERVER__SHUTDOWN_DELAY"]) + 20,
        "deployment.yaml: killed before it has drained",
    )
    ops = environment["GATEWAY__SERVER__OPS_LISTEN"].rsplit(":", 1)[1]
    expect(str(ports["ops"]) == ops, "deployment.yaml: the operations port is another one")

    # What points at it.
    for service in documents["Service"]:
        expect(service["spec"]["selector"] == labels, f"service.yaml: {service['metadata']['name']} selects other pods")
        expect(all(port["targetPort"] in ports for port in service["spec"]["ports"]), "service.yaml: no such port")
    (budget,) = documents["PodDisruptionBudget"]
    expect(budget["spec"]["selector"]["matchLabels"] == labels, "poddisruptionbudget.yaml: other pods")
    (scaler,) = documents["HorizontalPodAutoscaler"]
    expect(scaler["spec"]["scaleTargetRef"]["name"] == name, "horizontalpodautoscaler.yaml: another Deployment")
    expect(scaler["spec"]["minReplicas"] >= 2, "horizontalpodautoscaler.yaml: fewer than two")
    (monitor,) = documents["ServiceMonitor"]
    watched = [one for one in documents["Service"] if monitor["spec"]["selector"]["matchLabels"].items() <= one["metadata"]["labels"].items()]
    expect([[port["name"] for port in one["spec"]["ports"]] for one in watched] == [["ops"]], "servicemonitor.yaml: not the operations port")
    expect(monitor["spec"]["endpoints"][0]["port"] == "ops", "servicemonitor.yaml: not the operations port")
    expect(watched[0]["metadata"]["labels"].get(monitor["spec"]["jobLabel"]) == name, "servicemonitor.yaml: another job")

    # Who reaches WuKongIM's API.
    policies = {policy["metadata"]["name"]: policy["spec"] for policy in documents["NetworkPolicy"]}
    allowed = [rule for rule in policies["wukongim"]["ingress"] if {"port": 5001} in rule["ports"]]
    peers = [peer["podSelector"]["matchLabels"] for rule in allowed for peer in rule["from"]]
    expect(peers == [labels, policies["wukongim"]["podSelector"]["matchLabels"]], f"networkpolicy.yaml: {peers} reach 5001")
    for rule in policies["wukongim-gateway"]["ingress"]:
        expect(all(port["port"] in ports for port in rule["ports"]), "networkpolicy.yaml: no such port")

    (kustomization,) = documents["Kustomization"]
    files = {file.name for file in MANIFESTS.glob("*.yaml")} - {"kustomization.yaml", "servicemonitor.yaml"}
    expect(set(kustomization["resources"]) == files, "kustomization.yaml: does not list all")
    expect([image["name"] for image in kustomization["images"]] == [container["image"]], "kustomization.yaml: another image")


GATEWAY = str(pathlib.Path(sys.argv[1]).resolve())
compose()
nginx()
kubernetes()
print(f"not held to a schema: {', '.join(sorted(FOREIGN))}")
for problem in problems:
    print(problem, file=sys.stderr)
sys.exit(1 if problems else 0)
