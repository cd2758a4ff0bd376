"""Pods that nodes run: kubectl, the channel, the agent's edged, containerd."""

import json
import os
import subprocess

from lab.cases import case
from lab.mesh import Mesh
from lab.proc import wait_for
from lab.runtime import BUSYBOX, Containerd


def deployment(name="web", replicas=1, command=("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"), **pod):
    spec = {"terminationGracePeriodSeconds": 5,
            "containers": [{"name": "main", "image": BUSYBOX, "command": list(command)}], **pod}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "default"},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
                     "template": {"metadata": {"labels": {"app": name}}, "spec": spec}}}


class EdgeNode:
    """An agent with edged and a containerd of its own."""

    def __init__(self, mesh, letter):
        self.mesh, self.agent, self.cloud = mesh, mesh.agent(letter), mesh.cloud
        self.containerd = Containerd(mesh, self.agent.node.ns, name=f"containerd-{letter}", cni=True)

    def start(self):
        self.containerd.load_images()
        self.agent.join()
        folder = os.path.join(self.agent.state, "logs")
        os.makedirs(folder, exist_ok=True)
        with open(self.agent.config, "a", encoding="ascii") as f:
            f.write(f"modules: {{edged: {{enable: true}}}}\n"
                    f"log: {{components: {{edged: debug}}}}\n"
                    f"edged: {{runtime: 'unix://{self.containerd.socket}', logDir: '{folder}', "
                    f"cgroupParent: '{self.containerd.cgroup}'}}\n")
        self.agent.start()
        wait_for(self.agent.connected, 10, f"{self.agent.name} is connected")
        wait_for(self.takes_pods, 10, f"{self.agent.name} has room for pods")
        return self

    def takes_pods(self):
        found = self.cloud.kubectl("get", "node", self.agent.name, "-o", "jsonpath={.status.allocatable.pods}", check=False)
        return found.returncode == 0 and found.stdout == "110"

    def running(self):
        """Names and ids of the containers that run, without the pause ones."""
        found = {}
        for name in self.containerd.ctr("tasks", "list", "-q").stdout.split():
            labels = json.loads(self.containerd.ctr("containers", "info", name).stdout)["Labels"]
            if labels.get("io.cri-containerd.kind") == "container":
                found[name] = labels["io.kubernetes.pod.name"]
        return found

    def token(self, container):
        """What the container finds where programs look for the token of their service account."""
        path = "/var/run/secrets/kubernetes.io/serviceaccount/token"
        return self.containerd.ctr("tasks", "exec", "--exec-id", "token", container, "cat", path).stdout

    def power_off(self):
        """Nothing of the runtime and of its containers runs any more."""
        self.containerd.process.kill()
        # The shims first: else they would tell of the end of their containers.
        containers = []
        for shim in self.containerd.shims():
            with open(f"/proc/{shim}/task/{shim}/children", encoding="ascii") as f:
                containers += f.read().split()
            subprocess.run(["kill", "-9", str(shim)], check=False)
        for pid in containers:
            subprocess.run(["kill", "-9", pid], check=False)

    def close(self):
        self.containerd.close()


def pods(cloud, label="app=web"):
    text = cloud.kubectl("get", "pods", "-l", label, "-o", "json").stdout
    return json.loads(text)["items"]


def shown(cloud, label="app=web"):
    """What kubectl shows: a list of rows of words."""
    return [line.split() for line in cloud.kubectl("get", "pods", "-l", label, "--no-headers").stdout.splitlines()]


def wait_shown(node, ready, status, label="app=web", timeout=30):
    def there():
        rows = shown(node.cloud, label)
        return rows if rows and all(r[1] == ready and r[2] == status for r in rows) else None
    return wait_for(there, timeout, lambda: f"pods are {ready} {status}; they are {shown(node.cloud, label)}\n"
                    f"{node.agent.process.log_tail(40)}")


@case(quick=True)
def pods_run_and_go():
    """A Deployment runs on a node with a container runtime, kubectl shows it with its address; the agent's restart
    leaves the containers alone; deleted, nothing is left of it anywhere."""
    with Mesh("prc", join=False) as mesh:
        node = EdgeNode(mesh, "a")
        try:
            node.start()
            cloud = mesh.cloud
            cloud.apply(deployment(replicas=2))
            wait_shown(node, "1/1", "Running")
            addresses = [p["status"].get("podIP", "") for p in pods(cloud)]
            assert len(set(addresses)) == 2 and all(a.startswith("10.88.") for a in addresses), addresses
            before = node.running()
            assert len(before) == 2, before
            node.agent.process.kill()
            node.agent.start()
            wait_for(node.agent.connected, 10, "the agent is connected again")
            wait_shown(node, "1/1", "Running")
            assert node.running() == before, (node.running(), before)
            cloud.kubectl("delete", "deployment", "web", "--wait=false")
            wait_for(lambda: not pods(cloud), 30, lambda: f"the pods are gone from the API: {shown(cloud)}\n"
                     f"{node.agent.process.log_tail(40)}")
            wait_for(lambda: not node.containerd.ctr("containers", "list", "-q").stdout.split(), 10,
                     "nothing is left at the runtime")
            return f"addresses {addresses}"
        finally:
            node.close()


def status_of(cloud, label="app=web"):
    """The one container's status of the one pod, or {}."""
    found = pods(cloud, label)
    return (found[0].get("status", {}).get("containerStatuses") or [{}])[0] if found else {}


@case()
def a_container_that_crashes_is_held_back():
    """A container that ends with an error is started again, then waits in CrashLoopBackOff; kubectl shows why."""
    with Mesh("prc", join=False) as mesh:
        node = EdgeNode(mesh, "a")
        try:
            node.start()
            mesh.cloud.apply(deployment(command=("sh", "-c", "exit 3")))
            wait_shown(node, "0/1", "CrashLoopBackOff")
            status = status_of(mesh.cloud)
            assert status["restartCount"] == 1, status
            ended = status["lastState"]["terminated"]
            assert ended["exitCode"] == 3 and ended["reason"] == "Error", status
            wait_for(lambda: status_of(mesh.cloud)["restartCount"] == 2, 20, "it is tried again after the back-off")
            return status["state"]["waiting"]["message"]
        finally:
            node.close()


@case()
def pods_run_again_after_a_reboot_without_the_cloud():
    """Containerd, the containers and the agent are killed and started again while the cloud is away: the pods run
    again; when the cloud is back it hears the truth and nothing is started once more."""
    with Mesh("prc", join=False) as mesh:
        node = EdgeNode(mesh, "a")
        try:
            node.start()
            cloud = mesh.cloud
            cloud.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "colour", "namespace": "default"},
                         "data": {"colour": "blue"}},
                        deployment(containers=[{
                            "name": "main", "image": BUSYBOX, "envFrom": [{"configMapRef": {"name": "colour"}}],
                            "command": ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]}]))
            wait_shown(node, "1/1", "Running")
            before = node.running()
            token = node.token(*before)
            assert token.count(".") == 2, token
            cloud.process.kill()
            node.agent.process.kill()
            node.power_off()
            assert not node.containerd.shims()
            node.containerd.start()
            node.agent.start(wait=False)
            wait_for(lambda: len(node.running()) == 1, 30, lambda: f"the pod runs again\n{node.agent.process.log_tail(40)}")
            again = node.running()
            assert set(again) != set(before)
            assert node.token(*again) == token, "the token of its service account is the one from before"
            cloud.start()
            wait_for(lambda: status_of(cloud).get("restartCount") == 1 and status_of(cloud).get("ready"), 20,
                     lambda: f"the cloud knows: {status_of(cloud)}\n{node.agent.process.log_tail(40)}")
            assert node.running() == again
            return f"restarts: {status_of(cloud)['restartCount']}"
        finally:
            node.close()


def pod(name, containers, **spec):
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
            "spec": {"terminationGracePeriodSeconds": 2, "containers": containers, **spec}}


@case()
def what_kubectl_shows_of_pods():
    """Init containers, a sidecar, HTTP and TCP probes, one that ends, one without its image: as on any cluster."""
    with Mesh("prc", join=False) as mesh:
        node = EdgeNode(mesh, "a")
        try:
            node.start()
            box = {"image": BUSYBOX}
            probe = {"periodSeconds": 1, "failureThreshold": 2}
            web = {**box, "name": "web", "command": ["httpd", "-f", "-p", "8080", "-h", "/tmp"],
                   "volumeMounts": [{"name": "pages", "mountPath": "/tmp"}], "ports": [{"name": "http", "containerPort": 8080}],
                   "readinessProbe": {"httpGet": {"path": "/index.html", "port": "http"}, **probe},
                   "livenessProbe": {"tcpSocket": {"port": 8080}, **probe},
                   "startupProbe": {"exec": {"command": ["true"]}, **probe}}
            first = {**box, "name": "first", "command": ["sh", "-c", "echo hello > /tmp/index.html"],
                     "volumeMounts": [{"name": "pages", "mountPath": "/tmp"}]}
            side = {**box, "name": "side", "restartPolicy": "Always", "command": ["sleep", "3600"]}
            mesh.cloud.apply(
                pod("web", [web], initContainers=[first, side], volumes=[{"name": "pages", "emptyDir": {}}]),
                pod("ends", [{**box, "name": "main", "command": ["true"]}], restartPolicy="Never"),
                pod("fails", [{**box, "name": "main", "command": ["sh", "-c", "exit 4"]}], restartPolicy="Never"),
                pod("imageless", [{"name": "main", "image": "absent:1", "imagePullPolicy": "Never"}]))
            wait_shown(node, "2/2", "Running", "app=web")
            wait_shown(node, "0/1", "Completed", "app=ends")
            wait_shown(node, "0/1", "Error", "app=fails")
            wait_shown(node, "0/1", "ErrImageNeverPull", "app=imageless")
            address = pods(mesh.cloud, "app=web")[0]["status"]["podIP"]
            said = node.agent.node.run(["curl", "-sS", "--noproxy", "*", f"http://{address}:8080/index.html"]).stdout
            assert said.strip() == "hello", said
            described = mesh.cloud.kubectl("describe", "pod", "web").stdout
            assert "Ready             True" in described, described
            return " ".join(" ".join(r[:3]) + ";" for r in shown(mesh.cloud, "app"))
        finally:
            node.close()
