"""The real programs in the lab: edgemesh-cloud, edgemesh-agent, the edgemesh command, kubectl."""

import datetime
import json
import os
import re
import sys

from .binaries import program
from .proc import LabError, run, wait_for
from .topology import CLOUD_IP

PYTHON = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
HUB_PORT, BOOTSTRAP_PORT, API_PORT = 10000, 10002, 6443
MESH_DNS = "169.254.96.16"


def clean_env(**more):
    """Without proxies, which would catch the lab's own requests."""
    env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    env.update(more)
    return env


class Cloud:
    """edgemesh-cloud in the cloud namespace."""

    def __init__(self, lab, relay=None, extra=()):
        self.lab, self.relay, self.extra = lab, relay, list(extra)
        self.state = lab.path("cloud")
        self.process = None

    def argv(self):
        argv = [program("edgemesh-cloud"), "--state-dir", self.state, "--advertise", CLOUD_IP]
        if self.relay:
            argv += ["--turn", self.relay.address, "--turn-secret-file", self.relay.secret_file]
        return argv + self.extra

    def start(self, timeout=20):
        os.makedirs(self.state, exist_ok=True)
        self.process = self.lab.start("edgemesh-cloud", self.lab.cloud_ns.wrap(self.argv()), env=clean_env())
        wait_for(self._ready, timeout, lambda: f"edgemesh-cloud is up\n{self.process.log_tail(30)}")
        return self

    def _ready(self):
        if not self.process.running():
            raise LabError(f"edgemesh-cloud ended ({self.process.exit_code()}):\n{self.process.log_tail(30)}")
        if not (os.path.exists(self.kubeconfig) and os.path.exists(self._token_file)):
            return False
        listening = self.lab.cloud_ns.run(["ss", "-Htln"]).stdout
        return all(re.search(rf":{port}\s", listening) for port in (HUB_PORT, BOOTSTRAP_PORT, API_PORT))

    @property
    def kubeconfig(self):
        return os.path.join(self.state, "admin.kubeconfig")

    @property
    def _token_file(self):
        return os.path.join(self.state, "join-token")

    @property
    def token(self):
        with open(self._token_file, encoding="ascii") as f:
            return f.read().strip()

    def new_token(self, *flags):
        """What `edgemesh-cloud token create` prints."""
        argv = [program("edgemesh-cloud"), "token", "create", "--state-dir", self.state, *flags]
        return run(argv, env=clean_env()).stdout.strip()

    def kubectl(self, *args, stdin=None, check=True, timeout=60):
        env = clean_env(KUBECONFIG=self.kubeconfig, HOME=self.lab.dir)
        return run(self.lab.cloud_ns.wrap(["kubectl", *args]), stdin=stdin, check=check, timeout=timeout, env=env)

    def apply(self, *objects):
        text = "\n".join(json.dumps(o) for o in objects)
        return self.kubectl("apply", "-f", "-", stdin=text)


class Agent:
    """edgemesh-agent on a node."""

    def __init__(self, cloud, node, extra=()):
        self.cloud, self.node, self.extra = cloud, node, list(extra)
        self.lab, self.name = node.lab, node.name
        self.state = self.lab.path(node.name)
        self.config = os.path.join(self.state, "agent.yaml")
        self.process = None
        self.env = {}  # more of the agent's environment
        node.ns.resolver(MESH_DNS)

    def join(self, *flags, token=None):
        os.makedirs(self.state, exist_ok=True)
        self.node.run([program("edgemesh"), "join", "--cloud", f"{CLOUD_IP}:{BOOTSTRAP_PORT}", "--token",
                       token or self.cloud.token, "--node", self.name, "--state-dir", self.state, "--config",
                       self.config, *flags],
                      timeout=30, env=clean_env())
        return self

    def start(self, wait=True, timeout=20):
        argv = [program("edgemesh-agent"), "--config", self.config, "--state-dir", self.state, *self.extra]
        self.process = self.node.start("edgemesh-agent", argv, env=clean_env(**self.env))
        if wait:
            self.wait_ready(timeout)
        return self

    def wait_ready(self, timeout=20):
        wait_for(lambda: self._alive() and self.http("/readyz", check=False).startswith("ok"), timeout,
                 lambda: f"the agent of {self.name} is ready\n{self.process.log_tail(30)}")

    def _alive(self):
        if not self.process.running():
            raise LabError(f"the agent of {self.name} ended ({self.process.exit_code()}):\n"
                           f"{self.process.log_tail(30)}")
        return True

    def http(self, path, method="GET", check=True):
        argv = ["curl", "-sS", "--max-time", "10", "--noproxy", "*", "-X", method, f"http://127.0.0.1:15000{path}"]
        return self.node.run(argv, check=check).stdout

    def cli(self, *args, check=True):
        return self.node.run([program("edgemesh"), *args], check=check, env=clean_env())

    def status(self):
        return json.loads(self.cli("status", "-o", "json").stdout)

    def connected(self):
        return bool(json.loads(self.http("/status") or "{}").get("channel", {}).get("connected"))

    def peer(self, name):
        """The entry of a peer, or {}."""
        peers = json.loads(self.http("/peers") or "[]")
        peers = peers if isinstance(peers, list) else peers.get("peers", [])
        return next((p for p in peers if p.get("node") == name), {})

    def path_to(self, name):
        return self.peer(name).get("path", "none")

    def wait_path(self, name, kinds, timeout):
        return wait_for(lambda: self.path_to(name) if self.path_to(name) in kinds else None, timeout,
                        lambda: f"path {self.name} to {name} is {' or '.join(kinds)}; it is {self.peer(name)}")

    def logged_direct(self, name, since):
        """When (Unix seconds, `since` at the earliest) the log says that the path is a direct one; or None."""
        for line in self.process.log().splitlines():
            m = re.match(rf"(\S+)Z \S+ +p2p: node {name}: (punched|direct) path", line)
            if m:
                at = datetime.datetime.fromisoformat(m.group(1)).replace(tzinfo=datetime.timezone.utc).timestamp()
                if at >= since:
                    return at
        return None

    def metric(self, name, **labels):
        """The sum of a metric's samples that have these labels."""
        total = 0.0
        for line in self.http("/metrics").splitlines():
            m = re.match(r"([a-zA-Z0-9_:]+)(?:\{(.*)\})? (\S+)$", line)
            if m and m.group(1) == name:
                have = dict(re.findall(r'(\w+)="([^"]*)"', m.group(2) or ""))
                if all(have.get(k) == v for k, v in labels.items()):
                    total += float(m.group(3))
        return total

    def knows(self, namespace, service):
        """Whether the service is known here with an endpoint."""
        for entry in json.loads(self.http("/services") or "[]"):
            if entry.get("namespace") == namespace and entry.get("name") == service:
                return True
        return False


def service(name, port=80, target=8080, **spec):
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
            "spec": {"ports": [{"name": "tcp", "port": port, "targetPort": target}], **spec}}


def slice_of(name, endpoints, target=8080, family="IPv4"):
    """An EndpointSlice; `endpoints` is a list of (address, node name)."""
    return {
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": f"{name}-lab{'-6' if family == 'IPv6' else ''}", "namespace": "default",
                     "labels": {"kubernetes.io/service-name": name}},
        "addressType": family, "ports": [{"name": "tcp", "port": target, "protocol": "TCP"}],
        "endpoints": [{"addresses": [a], "nodeName": n, "conditions": {"ready": True}} for a, n in endpoints],
    }
