#!/usr/bin/env python3
"""Holds compose files and manifests to what they start: the gateway takes every variable, each name points at something that is there,
and whatever runs two gateways is set up for two. Says nothing of whether images can be pulled or a cluster would take them.

usage: deployments.py GATEWAY, with packages of deployments.txt
"""

import hashlib
import pathlib
import re
import subprocess
import sys
from urllib.parse import urlsplit

import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).parent.parent
MANIFESTS = ROOT / "deploy/kubernetes"
# Not kinds of Kubernetes itself, so no schema of its knows them.
FOREIGN = {"Kustomization", "ServiceMonitor"}
# In the place of what an operator fills in or may leave empty; the rest are secrets. Nothing is left empty: an empty variable counts as
# unset, so the gateway would not say that it knows no such name.
FILLED = {
    "JWT_ISSUER": "app",
    "REQUIRED_CLAIMS": "roles",
    "CORS_ORIGINS": "https://app.example.com",
    "DOCS_ENABLED": "true",
}
# What may be published: the API, with clients' sockets. And on this machine's loopback: Prometheus and Grafana. Nothing of WuKongIM.
PUBLIC = {"8080"}
LOOPBACK = {"9090", "3000"}
problems = []


def expect(holds, what):
    if not holds:
        problems.append(what)


def seconds(text):
    return int(re.fullmatch(r"(\d+)s", text)[1])


def secret(name):
    """A different one for each name, so that a mistaken one is noticed."""
    return hashlib.sha256(name.encode()).hexdigest()


def check_config(where, environment):
    """The gateway itself reads `environment`, and nothing else."""
    run = subprocess.run([GATEWAY, "check-config"], env=environment, capture_output=True, text=True, cwd="/")
    expect(run.returncode == 0, f"{where}: check-config ends with {run.returncode}: {run.stdout}{run.stderr}")


def for_two(where, environment):
    expect(environment.get("GATEWAY__STORE__URL", "").startswith("postgres://"), f"{where}: several gateways need PostgreSQL")
    expect(environment.get("GATEWAY__WUKONGIM__DUPLICATE_CHECK") == "upstream", f"{where}: duplicate_check must be upstream")
    expect(environment.get("GATEWAY__SERVER__TRUSTED_PROXIES"), f"{where}: trusted_proxies must be set")


# --- compose ----------------------------------------------------------------------------------------------------------

VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*)|:?\?[^}]*)?\}|\$(\$)")


def interpolated(node, offered, used):
    """As compose does it, after parsing, for the forms in use."""

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


def socket_address(where, environment):
    """Clients are told the gateway's own socket, which GET /config makes of the request's host."""
    told = {"WUKONGIM_WS_URL", "WUKONGIM_TCP_ADDR", "GATEWAY__PUBLIC__WS_URL", "GATEWAY__PUBLIC__WSS_URL", "GATEWAY__PUBLIC__TCP_ADDR"}
    expect(not told & environment.keys(), f"{where}: clients are sent past the gateway by {told & environment.keys()}")
    expect("GATEWAY__SOCKET__ENABLED" not in environment, f"{where}: sockets are switched")


def hardened(where, service):
    expect(service.get("read_only") is True and service.get("cap_drop") == ["ALL"], f"{where}: may write or do too much")
    expect(seconds(service["stop_grace_period"]) > 20, f"{where}: killed before it has drained")
    environment = service["environment"]
    on_disk = any(volume.endswith(":/app/data") for volume in service.get("volumes", []))
    expect(on_disk or "GATEWAY__STORE__URL" in environment, f"{where}: its store is gone with the container")


def built(where, service, offered, used):
    """By arguments that the Dockerfile knows, and with its own values unless `.env` has others."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    own = dict(re.findall(r"^ARG (\w+)=(.*)$", dockerfile, re.MULTILINE))
    for name in service["build"]["args"]:
        used.add(name)
        expect(offered.get(name) == own.get(name), f"{where}: {name} is {offered.get(name)} in .env.example, {own.get(name)} in the Dockerfile")


def upstream(where, gateway, services):
    """The nodes are those that are there, and let the gateway in."""
    nodes = {name: service["environment"] for name, service in services.items() if name.startswith("wukongim")}
    urls = gateway.get("GATEWAY__WUKONGIM__API_URLS") or gateway["WUKONGIM_API_URL"]
    expect(urls.split(",") == [f"http://{name}:5001" for name in nodes], f"{where}: nodes are {urls}")
    for name, node in nodes.items():
        expect(node["WK_MANAGERTOKEN"] == gateway["GATEWAY__WUKONGIM__MANAGER_TOKEN"], f"{where}: {name} has another managerToken")
        expect(node["WK_TOKENAUTHON"] == "true", f"{where}: {name} checks no connect token")
        expect(not services[name].get("ports"), f"{where}: ports of {name} are published")
        told = [variable for variable in node if variable.startswith("WK_EXTERNAL_")]
        expect(not told, f"{where}: {name} tells clients {told}")
        expect(
            any(volume.endswith(f":{node['WK_ROOTDIR']}") for volume in services[name]["volumes"]),
            f"{where}: the data of {name} lie beside its volume",
        )
        expect(node["WK_CLUSTER_SERVERADDR"] == f"{name}:11110", f"{where}: other nodes do not find {name}")
        if len(nodes) > 1:
            members = node["WK_CLUSTER_INITNODES"].split()
            expect(f"{node['WK_CLUSTER_NODEID']}@{name}" in members, f"{where}: {name} is none of {members}")
            expect(node["WK_CLUSTER_APIURL"] == f"http://{name}:5001", f"{where}: calls are not passed on to {name}")


def store(where, gateway, services):
    if "GATEWAY__STORE__URL" not in gateway:
        return
    url = urlsplit(gateway["GATEWAY__STORE__URL"])
    database = services.get(url.hostname, {}).get("environment", {})
    there = [database.get(f"POSTGRES_{key}") for key in ("USER", "PASSWORD", "DB")]
    expect(there == [url.username, url.password, url.path[1:]], f"{where}: PostgreSQL has another user, password or database")


def observability(where, services, gateways):
    """Prometheus scrapes the gateways, and Grafana asks Prometheus and finds the dashboard. compose.cluster.yaml extends both."""
    (flag,) = (one for one in services["prometheus"]["command"] if one.startswith("--config.file="))
    file = ROOT / "deploy/prometheus" / pathlib.PurePath(flag).name
    expect(file.exists(), f"{where}: no {file}")
    (job,) = yaml.safe_load(file.read_text())["scrape_configs"]
    (group,) = job["static_configs"]
    ports = {name: service["environment"]["GATEWAY__SERVER__OPS_LISTEN"].rsplit(":", 1)[1] for name, service in gateways.items()}
    expect(group["targets"] == [f"{name}:{port}" for name, port in ports.items()], f"{file.name}: scrapes {group['targets']}")
    grafana = services["grafana"]
    if "extends" in grafana:
        return
    provisioning = ROOT / "deploy/grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"]
    expect(source["url"] == "http://prometheus:9090", f"datasources/prometheus.yml: asks {source['url']}")
    (provider,) = yaml.safe_load((provisioning / "dashboards/gateway.yml").read_text())["providers"]
    board = f"{provider['options']['path']}/gateway.json"
    expect(f"./deploy/grafana/gateway.json:{board}:ro" in grafana["volumes"], f"{where}: the dashboard is not at {board}")
    expect(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == board, f"{where}: opens without the dashboard")


def compose():
    example = (ROOT / ".env.example").read_text()
    offered = dict(line.split("=", 1) for line in example.splitlines() if re.match(r"\w+=", line))
    for name, value in offered.items():
        offered[name] = value or FILLED.get(name) or secret(name)
    used = set()
    for file in (ROOT / "compose.yaml", ROOT / "compose.cluster.yaml"):
        services = interpolated(yaml.safe_load(file.read_text()), offered, used)["services"]
        gateways = {name: service for name, service in services.items() if "wukongim-gateway" in service.get("image", "")}
        expect(gateways, f"{file.name}: no gateway")
        for name, service in gateways.items():
            where, environment = f"{file.name}, {name}", service["environment"]
            check_config(where, environment)
            socket_address(where, environment)
            if len(gateways) > 1:
                for_two(where, environment)
            hardened(where, service)
            built(where, service, offered, used)
            upstream(where, environment, services)
            store(where, environment, services)
        observability(file.name, services, gateways)
        for name, service in services.items():
            # Grafana and Prometheus of compose.cluster.yaml are those of compose.yaml.
            kept = service.get("logging", {}).get("options", {}).keys()
            expect("extends" in service or {"max-size", "max-file"} <= kept, f"{file.name}, {name}: keeps every line that it logs")
            for volume in service.get("volumes", []):
                source = volume.split(":")[0]
                expect(not source.startswith(".") or (ROOT / source).exists(), f"{file.name}, {name}: no {source}")
            for port in service.get("ports", []):
                inner = port.rsplit(":", 1)[1]
                fine = inner in PUBLIC or (inner in LOOPBACK and port.startswith("127.0.0.1:"))
                expect(fine, f"{file.name}, {name}: publishes {port}")
    expect(used == set(offered), f".env.example and the compose files disagree about {used ^ set(offered)}")


def nginx():
    services = yaml.safe_load((ROOT / "compose.cluster.yaml").read_text())["services"]
    text = (ROOT / "deploy/nginx/cluster.conf").read_text()
    named = sorted(re.findall(r"server (\S+) resolve\b", text))
    wanted = sorted(f"{name}:8080" for name in services if name.rstrip("0123456789") == "gateway")
    patient = re.findall(r"server gateway\d+:8080 resolve(?! fail_timeout=2s;)", text)
    expect(not patient, f"cluster.conf: {patient} would count as dead when the next one is renewed")
    expect(named == wanted, f"cluster.conf: names {named}, compose has {wanted}")
    socket = re.search(r"location = /api/v1/im/ws \{(.*?)\}", text, re.DOTALL)
    expect(socket and "proxy_read_timeout 200s;" in socket[1], "cluster.conf: idle sockets are cut before the gateway ends them (180s)")
    passed_on = {"Upgrade $http_upgrade", "Connection $connection_upgrade", "Host $http_host", "X-Forwarded-Proto $scheme_of_client"}
    missing = passed_on - set(re.findall(r"proxy_set_header (.*);", text))
    expect(not missing, f"cluster.conf: does not pass on {missing}")
    published = {port.rsplit(":", 1)[1] for port in services["nginx"]["ports"]}
    listens = set(re.findall(r"listen (\d+);", text))
    expect(listens == published, f"cluster.conf: listens on {listens}, compose publishes {published}")


# --- Kubernetes -------------------------------------------------------------------------------------------------------


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

    (deployment,), (kustomization,) = documents["Deployment"], documents["Kustomization"]
    (config,) = kustomization["configMapGenerator"]
    (file,) = config["envs"]
    settings = dict(line.split("=", 1) for line in (MANIFESTS / file).read_text().splitlines() if not line.startswith("#"))
    name = deployment["metadata"]["name"]
    pod = deployment["spec"]["template"]
    labels = pod["metadata"]["labels"]
    (container,) = pod["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}

    # What the pod is started with.
    secrets = {}
    for variable in container["env"]:
        secrets[variable["name"]] = variable["valueFrom"]["secretKeyRef"]
    environment = settings | {name: secret(name) for name in secrets}
    environment["GATEWAY__STORE__URL"] = "postgres://gateway:secret@postgres/gateway"
    check_config("deployment.yaml", environment)
    for_two("deployment.yaml", environment)
    socket_address("gateway.env", environment)
    expect([{"configMapRef": {"name": config["name"]}}] == container["envFrom"], "deployment.yaml: another ConfigMap")
    command = re.search(r"kubectl[^`]*create secret generic (\S+)([^`]*)", (MANIFESTS / "README.md").read_text())
    made = {(command[1], key) for key in re.findall(r"--from-literal=([\w-]+)=", command[2])}
    expect(made == {(one["name"], one["key"]) for one in secrets.values()}, f"README.md makes the secrets {made}")
    expect(
        pod["spec"]["terminationGracePeriodSeconds"] > seconds(environment["GATEWAY__SERVER__SHUTDOWN_DELAY"]) + 20,
        "deployment.yaml: killed before it has drained",
    )
    ops = environment["GATEWAY__SERVER__OPS_LISTEN"].rsplit(":", 1)[1]
    expect(str(ports["ops"]) == ops, "deployment.yaml: the operations port is another one")

    probes = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    paths = {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}
    expect(probes == {kind: {"path": path, "port": "ops"} for kind, path in paths.items()}, f"deployment.yaml: probes are {probes}")
    expect(pod["spec"]["securityContext"]["runAsNonRoot"] is True, "deployment.yaml: may run as root")
    expect(
        container["securityContext"]
        == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
        "deployment.yaml: may write or do too much",
    )
    expect({"cpu", "memory"} <= container["resources"]["requests"].keys(), "deployment.yaml: the autoscaler has nothing to go by")
    expect("memory" in container["resources"]["limits"], "deployment.yaml: takes all memory")

    # What points at it.
    for service in documents["Service"]:
        expect(service["spec"]["selector"] == labels, f"service.yaml: {service['metadata']['name']} selects other pods")
        expect(all(port["targetPort"] in ports for port in service["spec"]["ports"]), "service.yaml: no such port")
    (budget,) = documents["PodDisruptionBudget"]
    expect(budget["spec"]["selector"]["matchLabels"] == labels, "poddisruptionbudget.yaml: other pods")
    expect(budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow", "poddisruptionbudget.yaml: without WuKongIM no node can be drained")
    (scaler,) = documents["HorizontalPodAutoscaler"]
    expect(scaler["spec"]["scaleTargetRef"]["name"] == name, "horizontalpodautoscaler.yaml: another Deployment")
    expect(scaler["spec"]["minReplicas"] >= 2, "horizontalpodautoscaler.yaml: fewer than two")
    (monitor,) = documents["ServiceMonitor"]
    watched = [one for one in documents["Service"] if monitor["spec"]["selector"]["matchLabels"].items() <= one["metadata"]["labels"].items()]
    expect([[port["name"] for port in one["spec"]["ports"]] for one in watched] == [["ops"]], "servicemonitor.yaml: not the operations port")
    (endpoint,) = monitor["spec"]["endpoints"]
    expect((endpoint["port"], endpoint["path"]) == ("ops", "/metrics"), "servicemonitor.yaml: not the metrics")
    expect(watched[0]["metadata"]["labels"].get(monitor["spec"]["jobLabel"]) == name, "servicemonitor.yaml: another job")

    # Who reaches what of WuKongIM: the gateway its API and its sockets, its own nodes the API and each other, and nothing else anything.
    policies = {policy["metadata"]["name"]: policy["spec"] for policy in documents["NetworkPolicy"]}
    own = policies["wukongim"]["podSelector"]["matchLabels"]
    # A rule without ports means all of them, and one without peers every pod and address.
    reached = []
    for rule in policies["wukongim"]["ingress"]:
        ports_of_rule = [port["port"] for port in rule.get("ports", [{"port": "all"}])]
        reached += [(peer.get("podSelector", {}).get("matchLabels"), ports_of_rule) for peer in rule.get("from", [{}])]
    expect(reached == [(labels, [5001, 5100]), (own, [5001, 11110])], f"networkpolicy.yaml: {reached} of WuKongIM")
    for rule in policies["wukongim-gateway"]["ingress"]:
        expect(all(port["port"] in ports for port in rule["ports"]), "networkpolicy.yaml: no such port")

    # What users reach: the gateway's API, and its sockets, whose connections are silent for longer.
    (served,) = [one for one in documents["Service"] if one["metadata"]["name"] == name]
    backend = {"name": name, "port": {"name": served["spec"]["ports"][0]["name"]}}
    silences = {}
    for ingress in documents["Ingress"]:
        (rule,), (tls,) = ingress["spec"]["rules"], ingress["spec"]["tls"]
        (path,) = rule["http"]["paths"]
        expect(path["backend"]["service"] == backend, f"ingress.yaml: {path['path']} leads to {path['backend']}")
        expect(tls["hosts"] == [rule["host"]], f"ingress.yaml: {rule['host']} without TLS")
        silences[path["pathType"], path["path"]] = ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-read-timeout"]
    expect(
        silences == {("Prefix", "/api/v1/im"): "30", ("Exact", "/api/v1/im/ws"): "200"},
        f"ingress.yaml: {silences} are not the API and its sockets",
    )

    files = {file.name for file in MANIFESTS.glob("*.yaml")} - {"kustomization.yaml", "servicemonitor.yaml", "ingress.yaml"}
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
