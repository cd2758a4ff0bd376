"""What pods on a node find: variables, files, users, limits; and what the node says of itself."""

import base64
import glob
import json
import os

from lab.cases import case
from lab.mesh import Mesh
from lab.proc import wait_for
from lab.runtime import BUSYBOX
from test_edged import EdgeNode

SCRIPT = """
trap 'exit 0' TERM
echo user=$(id -u) groups=$(id -G) pass=$PASS node=$NODE name=$(hostname) args=$1
echo secret=$(cat /secret/pass) mode=$(stat -Lc %a /secret/pass) labels=$(cat /info/labels)
echo sub=$(cat /sub.txt) hosts=$(grep -c "$POD_IP" /etc/hosts) dns=$(grep -c svc.cluster.local /etc/resolv.conf)
touch /etc/file 2>/dev/null && echo root=writable || echo root=readonly
touch /data/file && echo data=writable
echo shares=$(cat /sys/fs/cgroup/cpu/cpu.shares 2>/dev/null || cat /sys/fs/cgroup/cpu.weight)
echo ready
while :; do read text < /config/text; [ "$text" = "$last" ] || echo config=$text; last=$text; sleep 0.2; done
"""


def pod():
    def field(path):
        return {"fieldRef": {"fieldPath": path}}
    return {"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "full", "namespace": "default", "labels": {"app": "full"}},
            "spec": {
                "terminationGracePeriodSeconds": 2,
                "securityContext": {"runAsUser": 1234, "fsGroup": 2345},
                "volumes": [{"name": "config", "configMap": {"name": "settings"}},
                            {"name": "secret", "secret": {"secretName": "login", "defaultMode": 0o400}},
                            {"name": "data", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
                            {"name": "info", "downwardAPI": {"items": [
                                {"path": "labels", **field("metadata.labels")}]}}],
                "containers": [{
                    "name": "main", "image": BUSYBOX, "command": ["sh", "-c", SCRIPT, "sh", "$(NODE)-x"],
                    "resources": {"requests": {"cpu": "500m"}, "limits": {"memory": "64Mi"}},
                    "securityContext": {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False},
                    "env": [{"name": "PASS", "valueFrom": {"secretKeyRef": {"name": "login", "key": "pass"}}},
                            {"name": "NODE", "valueFrom": field("spec.nodeName")},
                            {"name": "POD_IP", "valueFrom": field("status.podIP")}],
                    "volumeMounts": [{"name": "config", "mountPath": "/config"},
                                     {"name": "secret", "mountPath": "/secret"},
                                     {"name": "data", "mountPath": "/data"},
                                     {"name": "info", "mountPath": "/info"},
                                     {"name": "config", "mountPath": "/sub.txt", "subPath": "text"}]}]}}


def config(text):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "default"},
            "data": {"text": text + "\n"}}


def log(agent):
    lines = []
    for path in glob.glob(os.path.join(agent.state, "logs", "default_full_*", "main", "*.log")):
        with open(path, encoding="utf-8", errors="replace") as f:
            lines += [line.split(" ", 3)[3].rstrip("\n") for line in f if line.count(" ") >= 3]
    return lines


def pod_folders(agent):
    folder = os.path.join(agent.state, "pods")
    return os.listdir(folder) if os.path.isdir(folder) else []


@case(quick=True)
def pods_get_what_their_spec_names():
    """A pod waits for its config map, then runs with its variables, files, user and limits; a change of the config map
    reaches it; deleted, its folder is gone. The node's status has its capacity."""
    with Mesh("prc", join=False) as mesh:
        node = EdgeNode(mesh, "a")
        try:
            node.start()
            cloud, agent = mesh.cloud, node.agent
            status = wait_for(lambda: json.loads(cloud.kubectl("get", "node", agent.name, "-o", "json").stdout)["status"],
                              10, "the node is there")
            assert status["allocatable"]["pods"] == "110", status["allocatable"]
            assert status["nodeInfo"]["containerRuntimeVersion"].startswith("containerd://"), status["nodeInfo"]
            secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login", "namespace": "default"},
                      "data": {"pass": base64.b64encode(b"hunter2").decode()}}
            cloud.apply(secret, pod())
            wait_for(lambda: "ContainerCreating" in cloud.kubectl("get", "pod", "full").stdout, 15,
                     lambda: f"the pod waits: {cloud.kubectl('get', 'pods').stdout}")
            cloud.apply(config("one"))
            lines = wait_for(lambda: (lambda l: l if "config=one" in l else None)(log(agent)), 30,
                             lambda: f"it runs: {log(agent)}\n{cloud.kubectl('get', 'pods').stdout}\n"
                                     f"{agent.process.log_tail(30)}")
            text = "\n".join(lines)
            for wanted in ("user=1234", "2345", "pass=hunter2", f"node={agent.name}", "name=full",
                           f"args={agent.name}-x", "secret=hunter2", "mode=440", 'labels=app="full"', "sub=one",
                           "hosts=1", "dns=1", "root=readonly", "data=writable"):
                assert wanted in text, (wanted, text)
            cloud.apply(config("two"))
            wait_for(lambda: "config=two" in log(agent), 15, lambda: f"the change is seen: {log(agent)}")
            assert len(pod_folders(agent)) == 1, pod_folders(agent)
            cloud.kubectl("delete", "pod", "full", "--wait=false")
            wait_for(lambda: not pod_folders(agent), 20, lambda: f"nothing is left: {pod_folders(agent)}\n"
                     f"{agent.process.log_tail(30)}")
            return text.replace("\n", "; ")
        finally:
            node.close()
