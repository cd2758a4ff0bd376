"""The node agent with all modules: memory, pods, a config map's way to its disk and back, a cut link."""

import json
import re
import time

from kube_api import Api
from lab.mesh import Mesh
from lab.proc import wait_for
from lab.programs import clean_env
from lab.runtime import BUSYBOX
from test_edged import EdgeNode, pod, pods

PODS = 20
ROUND_TRIPS = 300
CUT = 8  # seconds: longer than it takes to notice


def sleeper(name, **spec):
    return pod(name, [{"name": "main", "image": BUSYBOX, "command": ["sleep", "3600"]}], **spec)


def memory(table, mesh, node):
    time.sleep(10)  # memory is given back some seconds after the start
    table.add("agent, all modules, no pod", "PSS", node.agent.process.memory_kib() / 1024, "MiB")
    table.add("agent, all modules, no pod", "private", node.agent.process.private_kib() / 1024, "MiB")
    table.add("cloud with one node", "PSS", mesh.cloud.process.memory_kib() / 1024, "MiB")
    before = node.agent.process.private_kib()
    mesh.cloud.apply(*[{**p, "metadata": {**p["metadata"], "labels": {"app": "many"}}}
                       for p in (sleeper(f"p{i}") for i in range(PODS))])
    wait_for(lambda: sum(p["status"].get("phase") == "Running" for p in pods(mesh.cloud, "app=many")) == PODS, 120,
             f"{PODS} pods run")
    time.sleep(10)
    table.add("agent, a pod more", "private", (node.agent.process.private_kib() - before) / PODS, "KiB")
    mesh.cloud.kubectl("delete", "pods", "-l", "app=many", "--grace-period=0", "--force", "--wait=false")
    wait_for(lambda: not pods(mesh.cloud, "app=many"), 60, "the pods are gone")


def confirmations(mesh):
    """The cloud's histogram: {upper bound: count up to it}."""
    text = mesh.cloud_ns.run(["curl", "-sS", "--noproxy", "*", "http://127.0.0.1:15100/metrics"], env=clean_env()).stdout
    return {float(m.group(1)): float(m.group(2))
            for m in re.finditer(r'edgemesh_edge_confirm_seconds_bucket\{le="([^"]+)"\} (\S+)', text)}


def quantile(before, after, q):
    """Milliseconds, within a bucket as if its values were spread evenly."""
    counts = {bound: after[bound] - before.get(bound, 0) for bound in after}
    wanted, low, below = q * max(counts.values()), 0.0, 0.0
    for bound in sorted(counts):
        if counts[bound] >= wanted:
            share = (wanted - below) / max(1.0, counts[bound] - below)
            return (low + (min(bound, 10.0) - low) * share) * 1e3
        low, below = bound, counts[bound]
    return None


def round_trips(table, mesh, node):
    """One config map of 1 KB changes again and again; the node says each time that it is on its disk."""
    api = Api(mesh.cloud)
    api.must("POST", "/api/v1/namespaces/default/configmaps",
             {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "trip"}, "data": {"text": "x" * 1000}})
    mesh.cloud.apply(sleeper("reader", volumes=[{"name": "trip", "configMap": {"name": "trip"}}]))
    wait_for(lambda: any(p["status"].get("phase") == "Running" for p in pods(mesh.cloud, "app=reader")), 60, "the pod runs")
    before = confirmations(mesh)
    for i in range(ROUND_TRIPS):
        api.must("PATCH", "/api/v1/namespaces/default/configmaps/trip", {"data": {"n": str(i)}}, "application/merge-patch+json")
        time.sleep(0.01)
    wait_for(lambda: max(confirmations(mesh).values()) - max(before.values()) >= ROUND_TRIPS * 0.9, 10, "all are confirmed")
    after = confirmations(mesh)
    for q in (0.5, 0.99):
        table.add(f"1 KB config map, sent to confirmed, p{q * 100:.0f}", "serial", quantile(before, after, q), "ms")


def reconnects(table, mesh, node):
    """Three ways to lose the cloud for some seconds; the time from the repair to the connection."""
    agent, box = node.agent, node.agent.node.box

    def measured(name, cut, repair):
        cut()
        wait_for(lambda: not agent.connected(), 15, "the agent notices")
        time.sleep(max(0, CUT - 5))
        repair()
        begun = time.monotonic()
        wait_for(agent.connected, 60, "the agent is connected again", interval=0.02)
        table.add("reconnect after", name, time.monotonic() - begun, "s")
        wait_for(lambda: ready(mesh, agent.name), 30, "the node is Ready")

    measured("the node's own link was down", lambda: agent.node.ns.ip("link set eth0 down"), lambda: (
        agent.node.ns.ip("link set eth0 up", f"route replace default via {box.host_ip(1)}")))
    measured("packets vanished on the way", lambda: box.ns.rules("-I FORWARD -j DROP"), lambda: box.ns.rules("-D FORWARD -j DROP"))
    measured("the cloud was killed and started", mesh.cloud.process.kill, mesh.cloud.start)


def ready(mesh, name):
    done = mesh.cloud.kubectl("get", "node", name, "-o", "json", check=False)
    conditions = json.loads(done.stdout)["status"].get("conditions", []) if done.returncode == 0 else []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def run(table, runs):
    for _ in range(runs):
        with Mesh("prc", join=False) as mesh:
            node = EdgeNode(mesh, "a")
            try:
                node.start()
                memory(table, mesh, node)
                round_trips(table, mesh, node)
                reconnects(table, mesh, node)
            finally:
                node.close()
    table.goal("agent, all modules, no pod, MB", 20, megabytes(table.value("agent, all modules, no pod", "PSS")), False)
    table.goal("cloud with one node, MB", 30, megabytes(table.value("cloud with one node", "PSS")), False)
    table.goal("round trip of a 1 KB config map p50, ms", 1, table.value("1 KB config map, sent to confirmed, p50", "serial"), False)
    table.goal("reconnect after a link cut, s", 2, table.value("reconnect after", "packets vanished on the way"), False)
    table.goal("the same, the node's own link, s", 2, table.value("reconnect after", "the node's own link was down"), False)


def megabytes(mebibytes):
    return None if mebibytes is None else mebibytes * 1.048576
