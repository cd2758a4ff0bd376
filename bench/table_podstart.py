"""From `POST pod` to Running in the API with the image present, beside containerd alone doing the same."""

import json
import os
import time

from kube_api import Api
from lab.binaries import tool
from lab.mesh import Mesh
from lab.proc import run as run_program
from lab.runtime import BUSYBOX
from table_agent import sleeper
from test_edged import EdgeNode

PODS = 20
PATH = "/api/v1/namespaces/default/pods"


def started(api, name, body):
    """Seconds from the POST to the status Running, and to Ready."""
    begun = time.monotonic()
    api.must("POST", PATH, body)
    running = None
    while True:
        status = api.must("GET", f"{PATH}/{name}").get("status", {})
        now = time.monotonic() - begun
        if running is None and status.get("phase") == "Running":
            running = now
        if running and any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", [])):
            return running, now
        if now > 30:
            raise RuntimeError(f"{name} does not run: {json.dumps(status)[:600]}")
        time.sleep(0.002)


def containerd_alone(mesh, node, count):
    """Milliseconds that the runtime needs for the same pods, asked by the agent's own client."""
    argv = [tool("cri_start"), node.containerd.socket, BUSYBOX, mesh.path("cri-logs"), node.containerd.cgroup, str(count)]
    os.makedirs(mesh.path("cri-logs"), exist_ok=True)
    return [float(line) for line in run_program(argv, timeout=120).stdout.split()]


def run(table, runs):
    ours, ready, bare = [], [], []
    for _ in range(runs):
        with Mesh("prc", join=False) as mesh:
            node = EdgeNode(mesh, "a")
            try:
                node.start()
                api = Api(mesh.cloud)
                for i in range(-2, PODS):  # the first ones warm up
                    body = sleeper(f"start{i + 2}", nodeName=node.agent.name)
                    got = started(api, f"start{i + 2}", body)
                    api.must("DELETE", f"{PATH}/start{i + 2}?gracePeriodSeconds=0")
                    if i >= 0:
                        ours.append(got[0] * 1e3)
                        ready.append(got[1] * 1e3)
                    time.sleep(0.5)
                bare += containerd_alone(mesh, node, PODS)
            finally:
                node.close()
    for p in (50, 99):
        table.add_percentile("POST to Running", "edgemesh", ours, p, "ms")
        table.add_percentile("POST to Ready", "edgemesh", ready, p, "ms")
        table.add_percentile("sandbox, container, start", "containerd alone", bare, p, "ms")
    for p in (50, 99):
        mine, other = (table.value(f"POST to Running p{p}", "edgemesh"), table.value(f"sandbox, container, start p{p}", "containerd alone"))
        table.goal(f"p{p} beyond containerd's own, ms", 100, mine - other, False)
