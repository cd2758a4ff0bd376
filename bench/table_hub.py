"""The cloud with thousands of connected nodes: memory, CPU, reconnect storm, changes, bad nodes, bursts."""

import json
import os
import resource
import subprocess
import time

from kube_api import Api
from lab.binaries import tool
from lab.proc import LabError, wait_for
from lab.programs import Cloud, clean_env, service
from lab.topology import Lab

NODES = 20_000
SLICE = 1_000  # nodes of the smaller measurements
BURST_NODES, BURST_OBJECTS = 100, 1_000
QUERIES = 100_000
CHANGES = 20


def room():
    """Connected nodes that the limit of descriptors allows: the cloud has some hundred of its own."""
    return min(NODES, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 200)


class Fleet:
    """hub_load: commands in, one JSON line each out."""

    def __init__(self, cloud, nodes, name="load"):
        argv = [tool("hub_load"), "--state", cloud.state, "--nodes", str(nodes), "--name", name]
        self.popen = subprocess.Popen(cloud.lab.cloud_ns.wrap(argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      text=True, start_new_session=True)
        self.nodes = nodes
        self.ask("certificates")

    def ask(self, *words):
        self.send(*words)
        return self.answer()

    def send(self, *words):
        self.popen.stdin.write(" ".join(map(str, words)) + "\n")
        self.popen.stdin.flush()

    def answer(self):
        line = self.popen.stdout.readline()
        if not line:
            raise LabError(f"hub_load ended ({self.popen.wait()})")
        return json.loads(line)

    def close(self):
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Bench(Lab):
    """A cloud for `nodes` nodes."""

    def __init__(self, nodes):
        super().__init__()
        config = self.path("cloud.yaml")
        with open(config, "w", encoding="ascii") as f:
            f.write(f"hub: {{maxNodes: {max(nodes, 5000)}}}\nlog: {{level: warn}}\n")
        self.cloud_ns.sysctl(net__core__somaxconn=4096, net__ipv4__ip_local_port_range="10000 60999")
        self.cloud = Cloud(self, extra=["--config", config])
        self.cloud.start(60)
        self.api = Api(self.cloud)
        self.api.wait()

    def metric(self, name, **labels):
        text = self.cloud_ns.run(["curl", "-sS", "--noproxy", "*", "http://127.0.0.1:15100/metrics"], env=clean_env()).stdout
        total = 0.0
        for line in text.splitlines():
            if line.split("{")[0].split(" ")[0] == name and all(f'{k}="{v}"' in line for k, v in labels.items()):
                total += float(line.split()[-1])
        return total

    def settle(self, limit=60):
        """Until the cloud is nearly idle: what nodes caused when they came is done."""
        def quiet():
            before = self.cloud.process.cpu_seconds()
            time.sleep(1)
            return self.cloud.process.cpu_seconds() - before < 0.9
        wait_for(quiet, limit, "the cloud has worked off what the nodes brought")


def changes(table, lab, fleet, variant, count=CHANGES):
    """One service changes; when does each node have it?"""
    path = "/api/v1/namespaces/default/services/changing"
    if lab.api.request("GET", path)[0] == 404:
        lab.api.must("POST", "/api/v1/namespaces/default/services", service("changing"))
    nodes = fleet.ask("state")["synced"]
    half, most = [], []
    for i in range(count):
        text = f"change-{i}-{time.monotonic_ns()}"
        fleet.ask("mark", text)
        begun = time.monotonic()
        lab.api.must("PATCH", path, {"metadata": {"annotations": {"change": text}}}, "application/merge-patch+json")
        got = fleet.ask("marked", nodes, 20)
        if got["count"] < nodes:
            raise LabError(f"a change reached {got['count']} of {nodes} nodes")
        half.append((got["p50"] - begun) * 1e3)
        most.append((got["last"] - begun) * 1e3)
        time.sleep(0.1)
    for value in half:
        table.add("a service's change, half the nodes", variant, value, "ms")
    table.add_percentile("a service's change, all nodes", variant, most, 50, "ms")
    table.add_percentile("a service's change, all nodes", variant, most, 99, "ms")


def many(table, nodes):
    """Memory and CPU a node, a change, and the storm after the cloud was killed."""
    with Bench(nodes) as lab, Fleet(lab.cloud, nodes) as fleet:
        variant = f"{nodes} nodes"
        process = lab.cloud.process
        empty, cpu = process.private_kib(), process.cpu_seconds()
        got = fleet.ask("connect", 0, 180)
        if got["synced"] < nodes:
            raise LabError(f"{got['synced']} of {nodes} nodes came: {got}")
        table.add("all connect at once", variant, got["seconds"], "s")
        lab.settle()
        table.add("CPU of a node's coming", variant, (process.cpu_seconds() - cpu) / nodes * 1e3, "ms")
        table.add("memory a node", variant, (process.private_kib() - empty) / nodes, "KiB")
        cpu, begun = process.cpu_seconds(), time.monotonic()
        trips = fleet.ask("trips", 10)
        busy = (process.cpu_seconds() - cpu) / (time.monotonic() - begun)
        table.add("CPU, all idle", variant, busy * 100, "% of a core")
        table.add("CPU of an idle node", variant, busy / nodes * 1e6, "us a second")
        table.add("ping p50", variant, trips["p50"] * 1e3, "ms")
        table.add("ping p99", variant, trips["p99"] * 1e3, "ms")
        changes(table, lab, fleet, variant, 5)
        storm(table, lab, fleet, nodes, variant)


def storm(table, lab, fleet, nodes, variant):
    lab.cloud.process.kill()
    gone = fleet.ask("down", 0, 10)
    if gone["synced"]:
        raise LabError(f"{gone['synced']} nodes did not notice that the cloud is gone")
    begun = time.monotonic()
    lab.cloud.start(60)
    got = fleet.ask("wait", nodes, 180)
    table.add("storm after a kill -9, all back", variant, time.monotonic() - begun if got["synced"] >= nodes else 999, "s")
    table.add("attempts that failed in it", variant, got["failed"], "")
    lab.settle()
    table.add("memory a node after the storm", variant, lab.cloud.process.private_kib() / nodes, "KiB, all of the process")


def bad_nodes(table, lab, fleet):
    variant = f"{SLICE} nodes"
    changes(table, lab, fleet, variant)
    good = fleet.ask("trips", 5)
    table.add("ping p99", variant, good["p99"] * 1e3, "ms")
    # One that takes nothing, one that asks without end.
    fleet.ask("slow", 0, 1, 1)
    fleet.ask("flood", 1, 1, 1)
    bad = fleet.ask("trips", 5)
    table.add("ping p99", "beside a flooding node", bad["p99"] * 1e3, "ms")
    path = "/api/v1/namespaces/default/services/changing"
    late = []
    for i in range(10):
        text = f"flooded-{i}-{time.monotonic_ns()}"
        fleet.ask("mark", text)
        begun = time.monotonic()
        lab.api.must("PATCH", path, {"metadata": {"annotations": {"change": text}}}, "application/merge-patch+json")
        got = fleet.ask("marked", SLICE - 2, 20)
        late.append((got["p99"] - begun) * 1e3 if got["count"] >= SLICE - 2 else 20_000)
    table.add_percentile("a service's change, 998 nodes", "beside a slow and a flooding node", late, 50, "ms")
    table.add_percentile("a service's change, 998 nodes", "beside a slow and a flooding node", late, 99, "ms")
    fleet.ask("flood", 1, 1, 0)
    fleet.ask("slow", 0, 1, 0)
    fleet.ask("wait", SLICE, 60)


def half_open(table, lab, fleet):
    before = lab.metric("edgemesh_hub_sessions")
    fleet.ask("silent", 0, 100, 1)
    begun = time.monotonic()
    wait_for(lambda: lab.metric("edgemesh_hub_sessions") <= before - 100, 30, "the hub notices the silence")
    table.add("half-open link noticed by the hub", f"100 of {SLICE} nodes", time.monotonic() - begun, "s")
    fleet.ask("silent", 0, 100, 0)
    fleet.ask("wait", SLICE, 60)


def bursts(table, lab, fleet):
    total = BURST_NODES * (BURST_OBJECTS + 1)
    for i in range(BURST_OBJECTS):
        lab.api.must("POST", "/api/v1/namespaces/default/configmaps",
                     {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"burst-{i}"}, "data": {"text": "x" * 200}})
    references = [{"configMapRef": {"name": f"burst-{i}"}} for i in range(BURST_OBJECTS)]
    begun = time.monotonic()
    for n in range(BURST_NODES):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"burst-{n}", "namespace": "default"},
               "spec": {"nodeName": f"load-{n:05}", "containers": [{"name": "main", "image": "none", "envFrom": references}]}}
        lab.api.must("POST", "/api/v1/namespaces/default/pods", pod)
    got = fleet.ask("objects", 0, BURST_NODES, total, 120)
    seconds = time.monotonic() - begun
    # The node object itself comes as well.
    table.add("burst to nodes, lost", f"{total} messages, 100 nodes", max(0, total - got["held"]), "")
    table.add("burst to nodes", f"{total} messages, 100 nodes", total / seconds, "confirmed/s")
    got = fleet.ask("query", 0, BURST_NODES, QUERIES // BURST_NODES, 120)
    table.add("burst from nodes, lost", f"{QUERIES} questions, 100 nodes", QUERIES - got["answered"], "")
    table.add("burst from nodes", f"{QUERIES} questions, 100 nodes", got["answered"] / got["seconds"], "answered/s")


def run(table, runs):
    nodes = int(os.environ.get("EDGEMESH_BENCH_NODES", "0")) or room()
    for _ in range(runs):
        with Bench(SLICE) as lab, Fleet(lab.cloud, SLICE) as fleet:
            got = fleet.ask("connect", 0, 60)
            if got["synced"] < SLICE:
                raise LabError(f"{got['synced']} of {SLICE} nodes came: {got}")
            bad_nodes(table, lab, fleet)
            half_open(table, lab, fleet)
            bursts(table, lab, fleet)
    many(table, nodes)
    variant = f"{nodes} nodes"
    table.goal("connected nodes", NODES, nodes, True)
    table.goal("memory a node, KB", 20, scaled(table.value("memory a node", variant), 1.024), False)
    table.goal("all back after the storm, s", 60, table.value("storm after a kill -9, all back", variant), False)
    table.goal(f"a change to {SLICE} nodes p99, s", 2,
               scaled(table.value("a service's change, all nodes p99", f"{SLICE} nodes"), 1e-3), False)
    table.goal("the same beside a slow and a flooding node, s", 2,
               scaled(table.value("a service's change, 998 nodes p99", "beside a slow and a flooding node"), 1e-3), False)
    table.goal("half-open link noticed, s", 5,
               table.value("half-open link noticed by the hub", f"100 of {SLICE} nodes"), False)
    table.goal("lost of the burst to nodes", 0,
               table.value("burst to nodes, lost", f"{BURST_NODES * (BURST_OBJECTS + 1)} messages, 100 nodes"), False)
    table.goal("lost of the burst from nodes", 0,
               table.value("burst from nodes, lost", f"{QUERIES} questions, 100 nodes"), False)


def scaled(value, by):
    return None if value is None else value * by
