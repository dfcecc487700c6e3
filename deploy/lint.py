#!/usr/bin/env python3
"""Checks of deploy/ that no other linter makes.

    deploy/lint.py compose deploy/compose/compose.yaml...
    deploy/lint.py manifests MANIFESTS      what `kubectl kustomize` printed
    deploy/lint.py dashboard DASHBOARD      prints the PromQL expressions as rules

Prints a line for each problem and exits with 1 if there is one.
"""

import json
import os
import sys
import tomllib
from itertools import combinations

import compose_spec
import yaml

problems = []


def expect(condition, problem):
    if not condition:
        problems.append(problem)


def compose(path):
    """The file follows the Compose specification, and what it mounts exists."""
    with open(path) as file:
        services = yaml.safe_load(file)
    # Without anchors and `<<`, which Compose knows and this library doesn't.
    dumper = type("Plain", (yaml.SafeDumper,), {"ignore_aliases": lambda *_: True})
    compose_spec.PyCompose.from_yaml(yaml.dump(services, Dumper=dumper)).validate()
    directory = os.path.dirname(path)
    for name, service in services["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            known = os.path.exists(os.path.join(directory, source)) or source in services["volumes"]
            expect(known, f"{name}: there is no {source}")
        tag = service["image"].partition(":")[2]
        expect(tag and tag != "latest", f"{name}: the image has no version")
        for port in service.get("ports", []):
            expect(port.startswith("127.0.0.1:"), f"{name}: port {port} is open to the network")
        for other in service.get("depends_on", []):
            expect(other in services["services"], f"{name}: there is no service {other}")
        if service["image"].partition(":")[0] in ("jobwatch", "nats"):
            expect(service.get("read_only"), f"{name}: the root can be written")
            expect(service.get("cap_drop") == ["ALL"], f"{name}: it has capabilities")
        for secret in service.get("secrets", []):
            expect(secret in services["secrets"], f"{name}: there is no secret {secret}")
    for name, secret in services["secrets"].items():
        expect(os.path.exists(os.path.join(directory, secret["file"])), f"secret {name}: no file")
    ports = [port.split(":")[1] for service in services["services"].values() for port in service.get("ports", [])]
    expect(len(set(ports)) == len(ports), "two services have one port of the host")
    gateways = {name: service for name, service in services["services"].items() if name.startswith("gateway-")}
    if gateways:
        composed_replicas(directory, services["services"], gateways)


def composed_replicas(directory, services, gateways):
    """As many gateways as the configuration says, each with its name, and the servers that it names."""
    with open(os.path.join(directory, "cluster.toml"), "rb") as file:
        cluster = tomllib.load(file)["cluster"]
    expect(len(gateways) == cluster["replicas"], f"{len(gateways)} gateways of {cluster['replicas']}")
    for name, service in gateways.items():
        member = service["environment"]["JOBWATCH__CLUSTER__MEMBER"]
        expect(member == name, f"{name}: its member is {member}")
    names = {
        f"nats://{alias}:4222": name
        for name, service in services.items()
        if service["image"].startswith("nats:")
        for alias in service["networks"]["default"]["aliases"]
    }
    expect(set(cluster["nats"]) == set(names), f"cluster.nats names {cluster['nats']}, the servers are {names}")
    for name in names.values():
        server = services[name]["environment"]["NATS_SERVER_NAME"]
        expect(server == name, f"{name}: its server is called {server}")


def manifests(path):
    """Selectors, ports, probes, volumes and the NetworkPolicy fit together."""
    with open(path) as file:
        objects = list(yaml.safe_load_all(file))
    named = {(item["kind"], item["metadata"]["name"]): item for item in objects}
    deployment = named["Deployment", "jobwatch"]["spec"]
    pod = deployment["template"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]

    def selects(selector):
        return selector and all(labels.get(key) == value for key, value in selector.items())

    expect(selects(deployment["selector"]["matchLabels"]), "Deployment: it does not select its pods")
    budget = named["PodDisruptionBudget", "jobwatch"]["spec"]
    expect(selects(budget["selector"]["matchLabels"]), "PodDisruptionBudget: it selects no pod")
    expect(deployment["replicas"] > 1, "Deployment: a disruption ends the only replica")

    (container,) = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for name in ("jobwatch", "jobwatch-headless"):
        service = named["Service", name]["spec"]
        expect(selects(service["selector"]), f"Service {name}: it selects no pod")
        expect(all(port["targetPort"] in ports for port in service["ports"]), f"Service {name}: no such port")
    expect(named["Service", "jobwatch-headless"]["spec"].get("clusterIP") == "None", "not headless")

    for probe, path in (("startup", "/livez"), ("liveness", "/livez"), ("readiness", "/readyz")):
        target = container[f"{probe}Probe"]["httpGet"]
        expect((target["path"], target["port"]) == (path, "admin"), f"{probe}Probe: {target}")
    context = container["securityContext"]
    expect(context["readOnlyRootFilesystem"], "the root can be written")
    expect(context["allowPrivilegeEscalation"] is False, "privileges can grow")
    expect(context["capabilities"] == {"drop": ["ALL"]}, "it has capabilities")
    expect(pod["securityContext"]["runAsNonRoot"], "it runs as root")
    expect(pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", "no seccomp")
    expect(pod["automountServiceAccountToken"] is False, "it has a token of the API server")
    expect({"cpu", "memory"} <= container["resources"]["requests"].keys(), "no requests")
    expect("memory" in container["resources"]["limits"], "no limit of memory")

    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    expect({mount["name"] for mount in container["volumeMounts"]} == volumes.keys(), "volumes and mounts differ")
    expect(all("subPath" not in mount for mount in container["volumeMounts"]), "a subPath is not updated")
    expect(("ConfigMap", volumes["config"]["configMap"]["name"]) in named, "there is no such ConfigMap")

    policy = named["NetworkPolicy", "jobwatch"]["spec"]
    expect(selects(policy["podSelector"]["matchLabels"]), "NetworkPolicy: it selects no pod")
    expect(set(policy["policyTypes"]) == {"Ingress", "Egress"}, "NetworkPolicy: one direction is open")
    for rule in policy["ingress"]:
        expect(all(port["port"] in ports for port in rule["ports"]), "NetworkPolicy: no such port")
    outward = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    expect({53, 443, 4317, 4318} <= outward, "NetworkPolicy: no way to names, vendors or the collector of traces")
    peers = [peer for rule in policy["ingress"] for peer in rule["from"]]
    peers += [peer for rule in policy["egress"] for peer in rule["to"]]
    for peer in peers:
        wanted = peer.get("podSelector", {}).get("matchLabels", {})
        expect(not wanted.items() & labels.items(), f"NetworkPolicy: peers with jobwatch's labels: {wanted}")
    if ("StatefulSet", "nats") in named:
        replicas(named, deployment, policy)


def replicas(named, deployment, policy):
    """Gateways that share their work, and the NATS servers that they use."""
    pod = deployment["template"]["spec"]
    config = next(volume for volume in pod["volumes"] if volume["name"] == "config")["configMap"]["name"]
    cluster = tomllib.loads(named["ConfigMap", config]["data"]["jobwatch.toml"])["cluster"]
    rolling = deployment["strategy"]["rollingUpdate"]
    # As many as are replaced at one time drain beside them, since a Deployment does not count these.
    replaced = rolling["maxSurge"] + rolling["maxUnavailable"]
    most = deployment["replicas"] + rolling["maxSurge"] + replaced
    expect(most == cluster["replicas"], f"{most} pods may run, and cluster.replicas is {cluster['replicas']}")
    grace = pod["terminationGracePeriodSeconds"]
    ready = deployment.get("minReadySeconds", 0)
    expect(ready >= grace, f"a pod is replaced {ready} s after another, which may take {grace} s to end")
    expect(rolling["maxUnavailable"], "Deployment: no pod can be replaced")
    (container,) = pod["containers"]
    environment = {item["name"]: item["valueFrom"]["fieldRef"]["fieldPath"] for item in container["env"]}
    expect(environment.get("JOBWATCH__CLUSTER__MEMBER") == "metadata.name", "the member is not the pod")
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    password = cluster["credentials"]["password"]["file"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    secret = volumes[mounts[os.path.dirname(password)]]["secret"]["secretName"]

    nats = named["StatefulSet", "nats"]["spec"]
    labels = nats["template"]["metadata"]["labels"]
    (server,) = nats["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in server["ports"]}
    selectors = [
        nats["selector"]["matchLabels"],
        named["Service", nats["serviceName"]]["spec"]["selector"],
        named["PodDisruptionBudget", "nats"]["spec"]["selector"]["matchLabels"],
        named["NetworkPolicy", "nats"]["spec"]["podSelector"]["matchLabels"],
    ]
    expect(all(selector.items() <= labels.items() for selector in selectors), f"nats: {selectors} select no pod")
    expect(nats["replicas"] == 3, "nats: the leases need three servers to outlive one")
    expect(nats["podManagementPolicy"] == "Parallel", "nats: a server is not ready before there are two")
    expect(named["Service", "nats"]["spec"]["publishNotReadyAddresses"], "nats: servers do not find each other")
    urls = [f"nats://nats-{number}.{nats['serviceName']}:{ports['client']}" for number in range(nats["replicas"])]
    expect(cluster["nats"] == urls, f"cluster.nats is {cluster['nats']}, the servers are {urls}")
    context = server["securityContext"]
    expect(context["readOnlyRootFilesystem"], "nats: the root can be written")
    expect(context["capabilities"] == {"drop": ["ALL"]}, "nats: it has capabilities")
    expect("memory" in server["resources"]["limits"], "nats: no limit of memory")
    for probe in ("startup", "liveness", "readiness"):
        expect(server[f"{probe}Probe"]["httpGet"]["port"] == "monitor", f"nats: {probe}Probe")
    key = {item["name"]: item["valueFrom"] for item in server["env"]}["JOBWATCH_NATS_PASSWORD"]["secretKeyRef"]
    expect((key["name"], key["key"]) == (secret, os.path.basename(password)), f"nats: the gateways use {secret}")
    files = nats["template"]["spec"]["volumes"][0]["configMap"]["name"]
    text = named["ConfigMap", files]["data"]["nats.conf"]
    for item in server["env"]:
        expect(f"${item['name']}" in text, f"nats.conf does not use {item['name']}")
    outward = [
        peer["podSelector"]["matchLabels"]
        for rule in policy["egress"]
        if {"port": ports["client"], "protocol": "TCP"} in rule["ports"]
        for peer in rule["to"]
    ]
    expect(any(peer.items() <= labels.items() for peer in outward), "NetworkPolicy: no way to NATS")
    inward = named["NetworkPolicy", "nats"]["spec"]["ingress"]
    callers = [rule["from"] for rule in inward if {"port": "client"} in rule["ports"]]
    gateways = deployment["template"]["metadata"]["labels"]
    for peer in (peer for peers in callers for peer in peers):
        wanted = peer["podSelector"]["matchLabels"]
        expect(wanted.items() <= gateways.items() and len(peer) == 1, f"nats: {peer} may publish")


def dashboard(path):
    """Ids and places of the panels, and their data source; prints a rule for each query."""
    with open(path) as file:
        text = file.read()
    panels = json.loads(text)["panels"]
    variables = {item["name"] for item in json.loads(text)["templating"]["list"]}
    expect(len({panel["id"] for panel in panels}) == len(panels), "two panels have one id")

    def place(panel):
        at = panel["gridPos"]
        return at["x"], at["y"], at["x"] + at["w"], at["y"] + at["h"]

    for panel in panels:
        expect(place(panel)[2] <= 24, f"{panel['title']}: it is too wide")
    for one, other in combinations(panels, 2):
        (left, top, right, bottom), (x, y, x2, y2) = place(one), place(other)
        apart = right <= x or x2 <= left or bottom <= y or y2 <= top
        expect(apart, f"{one['title']} covers {other['title']}")

    rules = []
    for panel in panels:
        if panel["type"] == "row":
            continue
        expect(panel["targets"], f"{panel['title']}: it shows nothing")
        expect(panel["datasource"]["uid"] == "${datasource}", f"{panel['title']}: a fixed data source")
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "1m")
            for name in variables - {"datasource"}:
                expression = expression.replace(f"${name}", ".*")
            expect("$" not in expression, f"{panel['title']}: an unknown variable in {expression}")
            rules.append({"record": f"panel:{panel['id']}:{target['refId']}", "expr": expression})
    yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}, sys.stdout)


if __name__ == "__main__":
    for path in sys.argv[2:]:
        {"compose": compose, "manifests": manifests, "dashboard": dashboard}[sys.argv[1]](path)
    for problem in problems:
        print(problem, file=sys.stderr)
    sys.exit(bool(problems))
