"""A whole mesh in one call: lab, relay, cloud, agents, an application on each node."""

import json
import os

from .programs import PYTHON, Agent, Cloud, service, slice_of
from .proc import LabError, wait_for
from .relay import Coturn
from .topology import Lab

APPS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "apps")
APP_PORT = 8080


class Mesh(Lab):
    """Mesh("prc", "sym") has node-a behind a port-restricted box and node-b behind a symmetric one.

    Service `app-<letter>` is the test application (apps/tcp_server.py) of that node.
    """

    def __init__(self, *kinds, netem=None, ipv6=False, offload=True, relay=True, start=True, join=True, **kw):
        super().__init__(offload=offload, **kw)
        self.agents = {}
        try:
            self.relay = Coturn(self, ipv6=ipv6).start() if relay else None
            self.cloud = Cloud(self, self.relay)
            for i, kind in enumerate(kinds):
                letter = chr(ord("a") + i)
                box = kind if not isinstance(kind, str) else self.box(kind, netem=netem[i] if netem else None)
                self.add_node(f"node-{letter}", box, ipv6=ipv6)
            if start:
                self.cloud.start()
                if join:
                    self.join_all()
        except BaseException:
            self.keep_logs = True
            self.close()
            raise

    def add_node(self, name, box, ipv6=False):
        node = self.node(name, box, ipv6=ipv6)
        self.agents[name] = Agent(self.cloud, node)
        return node

    def join_all(self):
        objects = []
        for name, agent in self.agents.items():
            agent.join().start(wait=False)
            objects += self.app(name)
        for agent in self.agents.values():
            agent.wait_ready()
        if objects:
            self.cloud.apply(*objects)
            self.wait_services([o["metadata"]["name"] for o in objects if o["kind"] == "Service"])

    def app(self, name):
        """Starts the application on a node; returns the objects that make a service of it."""
        node = self.agents[name].node
        process = node.start("app", [PYTHON, os.path.join(APPS, "tcp_server.py"), name, str(APP_PORT)])
        wait_for(lambda: "ready" in process.log(), 10, lambda: f"the application of {name}: {process.log()}")
        service_name = f"app-{name.split('-')[-1]}"
        return [service(service_name), slice_of(service_name, [(node.ip, name)])]

    def pod(self, letter):
        """A namespace behind node-<letter>, as a pod is."""
        pod, node = self.namespace(f"pod-{letter}"), self.agent(letter).node
        self.cable(pod, "eth0", node.ns, "pod0")
        pod.ip("address add 10.244.1.5/24 dev eth0", "link set eth0 up", "route add default via 10.244.1.1")
        node.ns.ip("address add 10.244.1.1/24 dev pod0", "link set pod0 up")
        node.ns.sysctl(net__ipv4__ip_forward=1)
        return pod

    def wait_services(self, names, timeout=10):
        for agent in self.agents.values():
            wait_for(lambda: all(agent.knows("default", n) for n in names), timeout,
                     lambda: f"{agent.name} knows {names}; it has {agent.http('/services')[:500]}")

    def agent(self, letter):
        return self.agents[f"node-{letter}"]

    def client(self, source, mode, target, *args, check=True, timeout=180, port=80):
        """Runs apps/tcp_client.py on node `source` against service app-`target`; the result as a dict."""
        host = f"app-{target}.default.svc.cluster.local" if len(target) == 1 else target
        argv = [PYTHON, os.path.join(APPS, "tcp_client.py"), mode, host, str(port), *map(str, args)]
        done = self.agent(source).node.run(argv, check=False, timeout=timeout)
        try:
            result = json.loads(done.stdout.splitlines()[-1])
        except (ValueError, IndexError):
            raise LabError(f"client {mode} on node-{source}: {done.stderr[-1500:] or 'no output'}") from None
        if check and not result["ok"]:
            raise LabError(f"client {mode} from node-{source} to {host}: {json.dumps(result)}")
        return result

    def start_client(self, source, mode, target, *args, port=80):
        host = f"app-{target}.default.svc.cluster.local" if len(target) == 1 else target
        argv = [PYTHON, os.path.join(APPS, "tcp_client.py"), mode, host, str(port), *map(str, args)]
        name = f"client-{len(self.processes)}"
        return Client(self.agent(source).node.start(name, argv))

    def probe(self, source, target, direct_timeout):
        host = f"app-{target}.default.svc.cluster.local"
        argv = [PYTHON, os.path.join(APPS, "probe.py"), host, "80", f"node-{target}", str(direct_timeout)]
        done = self.agent(source).node.run(argv, check=False, timeout=60 + direct_timeout)
        if done.returncode != 0:
            raise LabError(f"probe on node-{source}: {done.stderr[-1500:]}")
        result = json.loads(done.stdout.splitlines()[-1])
        if result["direct_ms"] is not None:
            logged = self.agent(source).logged_direct(f"node-{target}", result["started_at"])
            result["direct_ms"] = (logged - result["started_at"]) * 1e3 if logged else result["direct_ms"]
        return result


class Client:
    """A tcp_client.py that runs beside the test."""

    def __init__(self, process):
        self.process = process

    def result(self, timeout=120):
        if self.process.wait(timeout) is None:
            raise LabError(f"{self.process.name} did not end in {timeout} s")
        try:
            return json.loads(self.process.log().splitlines()[-1])
        except (ValueError, IndexError):
            raise LabError(f"{self.process.name}: {self.process.log()[-1500:]}") from None
