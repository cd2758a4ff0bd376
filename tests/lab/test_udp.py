"""Datagrams: DNS and others through capture, on one node and between nodes."""

import json
import os

from lab.cases import case
from lab.mesh import APPS, Mesh
from lab.proc import LabError, wait_for
from lab.programs import PYTHON

ECHO, DNS = 7000, 53
POD = "10.244.1.2"
# What every path must carry whole: nothing, a byte, an Ethernet frame's worth, a jumbo's, the largest.
SIZES = (0, 1, 512, 1472, 1473, 9000, 65507)


# Datagrams go on unanswered until the socket is told that nobody took them.
REFUSED = r"""
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect((sys.argv[1], int(sys.argv[2])))
s.settimeout(3)
begin = time.monotonic()
try:
    s.send(b"HELLO")
    print("answer", s.recv(100))
except ConnectionRefusedError:
    print("refused", round(time.monotonic() - begin, 3))
except TimeoutError:
    print("silence")
"""


def udp_objects(name, ip, node):
    ports = [("echo", ECHO, ECHO), ("dns", DNS, 5353)]
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
         "spec": {"ports": [{"name": n, "port": p, "targetPort": t, "protocol": "UDP"} for n, p, t in ports]}},
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
         "metadata": {"name": f"{name}-lab", "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
         "addressType": "IPv4", "ports": [{"name": n, "port": t, "protocol": "UDP"} for n, _, t in ports],
         "endpoints": [{"addresses": [ip], "nodeName": node, "conditions": {"ready": True}}]}]


class UdpMesh(Mesh):
    """A mesh with a service udp-<letter> of each node's datagram application, and a pod on node-a."""

    def __init__(self, *kinds):
        super().__init__(*kinds)
        try:
            objects = []
            for name, agent in self.agents.items():
                node = agent.node
                for port in (ECHO, 5353):
                    app = node.start(f"udp{port}", [PYTHON, os.path.join(APPS, "udp_server.py"), name, str(port)])
                    wait_for(lambda a=app: "ready" in a.log(), 10, lambda a=app: f"udp_server: {a.log()}")
                objects += udp_objects(f"udp-{name[-1]}", node.ip, name)
            self.cloud.apply(*objects)
            self.wait_services([o["metadata"]["name"] for o in objects if o["kind"] == "Service"])
            self.pod = self.namespace("pod")
            node = self.agent("a").node
            self.cable(self.pod, "eth0", node.ns, "pod0")
            self.pod.ip(f"address add {POD}/24 dev eth0", "link set eth0 up", "route add default via 10.244.1.1")
            node.ns.ip("address add 10.244.1.1/24 dev pod0", "link set pod0 up")
            node.ns.sysctl(net__ipv4__ip_forward=1)
        except BaseException:
            self.keep_logs = True
            self.close()
            raise

    def vip(self, letter):
        return json.loads(self.cloud.kubectl("get", "service", f"udp-{letter}", "-o", "json").stdout)["spec"]["clusterIP"]

    def places(self):
        return {"the node": self.agent("a").node.run, "a pod": self.pod.run}

    def udp(self, run, mode, letter, *args, timeout=120):
        argv = [PYTHON, os.path.join(APPS, "udp_client.py"), mode, self.vip(letter), str(ECHO), *map(str, args)]
        done = run(argv, check=False, timeout=timeout)
        try:
            result = json.loads(done.stdout.splitlines()[-1])
        except (ValueError, IndexError):
            raise LabError(f"udp_client {mode}: {done.stderr[-1500:] or 'no output'}") from None
        assert result["ok"], f"udp_client {mode} {args} to udp-{letter}: {result}"
        return result

    def dig(self, run, letter):
        done = run(["dig", "+short", "+tries=3", "+time=2", f"@{self.vip(letter)}", "-p", str(DNS), "who.example", "TXT"],
                   check=False, timeout=30)
        assert done.stdout.strip() == f'"node-{letter}"', f"dig of udp-{letter}: {done.stdout} {done.stderr}"


@case(quick=True)
def udp_that_nobody_takes():
    """A datagram to a service whose endpoint is dead: ECONNREFUSED, for a process of the node and for a pod."""
    with UdpMesh("none") as mesh:
        agent = mesh.agent("a")
        objects = udp_objects("udp-dead", agent.node.ip, "node-a")
        objects[1]["ports"] = [{**port, "port": 7999} for port in objects[1]["ports"]]
        mesh.cloud.apply(*objects)
        mesh.wait_services(["udp-dead"])
        told = {}
        for name, run in mesh.places().items():
            said = run([PYTHON, "-c", REFUSED, mesh.vip("dead"), str(ECHO)], check=False, timeout=20).stdout.strip()
            assert said.startswith("refused"), f"{name}: {said or 'no output'}"
            alive = run([PYTHON, "-c", REFUSED, mesh.vip("a"), str(ECHO)], check=False, timeout=20).stdout.strip()
            assert not alive.startswith("refused"), f"{name}: a living endpoint: {alive}"
            told[name] = said
        sent = agent.metric("edgemesh_udp_unreachable_sent_total")
        assert sent >= len(told), f"{sent} messages were sent"
        return f"{told}"


@case(quick=True)
def udp_on_one_node():
    """Datagrams to a service of the same node, from a pod and from the node: DNS, and all sizes."""
    with UdpMesh("none") as mesh:
        agent = mesh.agent("a")
        for name, run in mesh.places().items():
            assert mesh.udp(run, "hello", "a")["answer"] == "hello from node-a", name
            mesh.udp(run, "sizes", "a", *SIZES)
            mesh.dig(run, "a")
        # Our own DNS server's port is not captured, and TCP to the same service address is no service.
        names = agent.node.run(["dig", "+short", "@169.254.96.16", "udp-a.default.svc.cluster.local"]).stdout.split()
        assert names == [mesh.vip("a")], names
        flows = agent.metric("edgemesh_udp_flows_opened_total")
        assert flows == 6, f"{flows} flows were opened"
        lost = agent.metric("edgemesh_udp_dropped_total")
        assert lost == 0, f"{lost} datagrams were dropped"
        wait_for(lambda: agent.metric("edgemesh_udp_flows_ended_total", reason="idle") >= 2, 20,
                 "flows of DNS end when they were answered", 0.5)
        lines = [line for line in agent.process.log().splitlines() if "proto=udp" in line]
        assert lines and "service=default/udp-a:dns" in lines[0] and "path=local" in lines[0], lines[:3]
        return f"sizes {SIZES[0]} to {SIZES[-1]}, {flows:.0f} flows"


@case(quick=True)
def udp_between_nodes():
    """Datagrams to a service of another node: through the punched, direct and relayed path, DNS and all sizes."""
    notes = []
    for kinds, wanted in ((("prc", "prc"), ("punched",)), (("none", "none"), ("direct", "punched")),
                          (("sym", "sym"), ("relayed",))):
        with UdpMesh(*kinds) as mesh:
            a, b = mesh.agent("a"), mesh.agent("b")
            for name, run in mesh.places().items():
                assert mesh.udp(run, "hello", "b")["answer"] == "hello from node-b", name
            path = a.wait_path("node-b", wanted, 10)
            for run in mesh.places().values():
                mesh.udp(run, "sizes", "b", *SIZES)
                mesh.dig(run, "b")
            opened, inbound = a.metric("edgemesh_udp_flows_opened_total"), b.metric("edgemesh_udp_inbound_opened_total")
            assert opened == inbound, f"{opened} flows, {inbound} came"
            lost = a.metric("edgemesh_udp_dropped_total") + b.metric("edgemesh_udp_dropped_total")
            assert lost == 0, f"{lost} datagrams were dropped"
            lines = [line for line in b.process.log().splitlines() if "proto=udp" in line and "service=inbound" in line]
            wait_for(lambda: any("proto=udp src=node/node-a" in line for line in b.process.log().splitlines()), 20,
                     lambda: f"a line of an inbound flow: {lines}", 0.5)
            notes.append(path)
    return ", ".join(notes)


@case(quick=True)
def udp_to_ipv6_services():
    """Datagrams to services with IPv6 addresses, on the same node and on another one."""
    with Mesh("none", "none", start=False) as mesh:
        config = mesh.path("cloud.yaml")
        with open(config, "w", encoding="ascii") as f:
            f.write("mesh: {serviceCidrs: [10.96.0.0/12, 'fd00:96::/108']}\n")
        mesh.cloud.extra += ["--config", config]
        mesh.cloud.start()
        mesh.join_all()
        objects = []
        for name, agent in mesh.agents.items():
            app = agent.node.start("udp", [PYTHON, os.path.join(APPS, "udp_server.py"), name, str(ECHO)])
            wait_for(lambda a=app: "ready" in a.log(), 10, lambda a=app: f"udp_server: {a.log()}")
            service, endpoints = udp_objects(f"six-{name[-1]}", agent.node.ip, name)
            service["spec"].update(ipFamilyPolicy="SingleStack", ipFamilies=["IPv6"])
            objects += [service, endpoints]
        mesh.cloud.apply(*objects)
        mesh.wait_services(["six-a", "six-b"])
        node = mesh.agent("a").node
        node.ns.ip("address add fd00:abcd::1/128 dev lo", "route add ::/0 dev lo")
        for letter in ("a", "b"):
            found = json.loads(mesh.cloud.kubectl("get", "service", f"six-{letter}", "-o", "json").stdout)
            vip = found["spec"]["clusterIP"]
            for mode, args in (("hello", ()), ("sizes", SIZES)):
                done = node.run([PYTHON, os.path.join(APPS, "udp_client.py"), mode, vip, str(ECHO), *map(str, args)],
                                check=False)
                assert done.returncode == 0, f"{mode} to six-{letter} at {vip}: {done.stdout} {done.stderr[-500:]}"
        return f"sizes {SIZES[0]} to {SIZES[-1]}"
