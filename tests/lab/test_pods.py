"""Pods on their way to nodes: kubectl, controllers, channel, the node's disk."""

import json
import os
import sqlite3

from lab.cases import case
from lab.mesh import Mesh
from lab.proc import wait_for

MANIFEST = {
    "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
    "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}},
             "template": {"metadata": {"labels": {"app": "web"}},
                          "spec": {"volumes": [{"name": "settings", "configMap": {"name": "settings"}}],
                                   "containers": [{"name": "web", "image": "web:1"}]}}}}
SETTINGS = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "default"},
            "data": {"colour": "blue"}}


def takes_pods(cloud, node):
    """Says what an agent with a container runtime says: this node has room for pods."""
    path = f"/api/v1/nodes/{node}"
    wait_for(lambda: cloud.kubectl("get", "--raw", path, check=False).returncode == 0, 10, f"{node} is in the API")
    status = json.loads(cloud.kubectl("get", "--raw", path).stdout)
    status["status"]["allocatable"] = {"cpu": "2", "memory": "1Gi", "pods": "10"}
    cloud.kubectl("replace", "--raw", f"{path}/status", "-f", "-", stdin=json.dumps(status))


def stored(agent):
    """Key and object of what the node keeps on its disk."""
    database = sqlite3.connect(f"file:{os.path.join(agent.state, 'meta.db')}?mode=ro", uri=True)
    try:
        rows = database.execute("SELECT key, value FROM meta WHERE type IN ('pod', 'configmap')").fetchall()
    finally:
        database.close()
    return {key: json.loads(value) for key, value in rows}


def pods_of(agent):
    return sorted(key for key in stored(agent) if key.startswith("default/pod/web-"))


@case(quick=True)
def deployment_reaches_the_disk_of_its_nodes():
    """A Deployment becomes pods on two nodes, is on their disks with its config map, follows changes made while a
    node was away, and goes."""
    with Mesh("prc", "prc") as mesh:
        a, b, cloud = mesh.agent("a"), mesh.agent("b"), mesh.cloud
        for agent in (a, b):
            wait_for(agent.connected, 10, f"{agent.name} is connected")
            takes_pods(cloud, agent.name)
        cloud.apply(SETTINGS, MANIFEST)
        for agent in (a, b):
            wait_for(lambda: len(pods_of(agent)) == 1, 10, f"{agent.name} keeps one pod of web")
            wait_for(lambda: "default/configmap/settings" in stored(agent), 5, f"{agent.name} keeps the config map")
        listed = cloud.kubectl("get", "pods", "-o", "wide").stdout
        assert "node-a" in listed and "node-b" in listed, listed
        syncs = json.loads(cloud.kubectl("get", "--raw", "/apis/reliablesyncs.kubeedge.io/v1alpha1/objectsyncs").stdout)
        # Of each node: the pod, its settings, and kube-root-ca.crt.
        assert len(syncs["items"]) == 6, [s["metadata"]["name"] for s in syncs["items"]]

        # Changed while the node is away: it hears of it when it is back, and keeps what it has meanwhile.
        a.process.kill()
        assert len(pods_of(a)) == 1
        cloud.apply({**SETTINGS, "data": {"colour": "red"}})
        wait_for(lambda: stored(b)["default/configmap/settings"]["data"] == {"colour": "red"}, 5, "node-b has the change")
        assert stored(a)["default/configmap/settings"]["data"] == {"colour": "blue"}
        a.start()
        wait_for(lambda: stored(a)["default/configmap/settings"]["data"] == {"colour": "red"}, 10, "node-a has the change")

        cloud.kubectl("delete", "deployment", "web", "--wait=false")
        finish_pods(cloud)
        for agent in (a, b):
            wait_for(lambda: not stored(agent), 10, lambda: f"{agent.name} keeps nothing of web: {list(stored(agent))}")
        return listed.splitlines()[1]


def finish_pods(cloud):
    """What the nodes' runtimes do when a pod's time has come: they confirm that it has ended."""
    def ended():
        pods = json.loads(cloud.kubectl("get", "--raw", "/api/v1/namespaces/default/pods").stdout)["items"]
        for pod in pods:
            if "deletionTimestamp" in pod["metadata"]:
                cloud.kubectl("delete", "pod", pod["metadata"]["name"], "--force", "--grace-period=0", "--wait=false",
                              check=False)
        return not pods
    wait_for(ended, 15, "the pods are gone")
