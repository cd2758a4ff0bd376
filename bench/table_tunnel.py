"""The tunnel across two NATs against TCP and TLS over TCP on the same path. Side a has core 0, side b core 1.

TCP cannot cross the boxes by itself: the far box forwards the peers' ports (which a real one would not).
"""

import json
import time

from harness import pinned
from lab.binaries import tool
from lab.mesh import Mesh
from lab.netem import Netem
from lab.proc import LabError, wait_for
from lab.programs import service, slice_of

LOAD_PORT, IPERF_PORT, TLS_PORT = 9000, 5201, 7443
CONGESTION = ("bbr", "cubic")
SECONDS = 4
PATHS = {  # name -> (NAT kinds, offloads, line of side a)
    "offloads": (("prc", "prc"), True, None),
    "no offloads": (("prc", "prc"), False, None),
    "40 ms 400 Mbit/s": (("prc", "prc"), True, dict(delay_ms=20, rate_mbit=400)),
    "40 ms 400 Mbit/s 1 % loss": (("prc", "prc"), True, dict(delay_ms=20, rate_mbit=400, loss_percent=1)),
}


class TunnelLab(Mesh):
    def __init__(self, kinds, offload, line):
        netem = [Netem(**line) if line else None, None]
        super().__init__(*kinds, netem=netem, offload=offload)
        a, self.b = self.agent("a"), self.agent("b")
        for agent in (a, self.b):
            # The hops between an application and its agent: BBR's pacing is for long ways, and the default
            # of most systems is another. What crosses the NATs names its own.
            agent.node.ns.sysctl(net__ipv4__tcp_congestion_control="reno")
        for agent, core in ((a, 0), (self.b, 1)):
            self.run_on(core, agent.process.pid)
        node = self.b.node
        node.start("load-server", pinned(1, [tool("l4_backend"), "--listen", f"{node.ip}:{LOAD_PORT}"]))
        self.cloud.apply(service("load", LOAD_PORT, LOAD_PORT), slice_of("load", [(node.ip, "node-b")], LOAD_PORT))
        self.wait_services(["load"])
        self.vip = json.loads(self.cloud.kubectl("get", "service", "load", "-o", "json").stdout)["spec"]["clusterIP"]
        self.servers()
        self.client("a", "hello", "b")
        wanted = ("relayed",) if "sym" in kinds else ("punched", "direct")
        a.wait_path("node-b", wanted, 10)

    def run_on(self, core, pid):
        self.cloud_ns.run(["taskset", "-a", "-p", "-c", str(core), str(pid)])

    def servers(self):
        """The peers' servers, and the way in for them."""
        box, node = self.b.node.box, self.b.node
        for congestion in CONGESTION:
            port = TLS_PORT + CONGESTION.index(congestion)
            node.start(f"tls-{congestion}", pinned(1, [tool("tls_bulk"), "--listen", f"{node.ip}:{port}", "--congestion",
                                                       congestion]))
        node.start("iperf3", pinned(1, ["iperf3", "-s", "-p", IPERF_PORT]))
        for port in (IPERF_PORT, TLS_PORT, TLS_PORT + 1):
            box.ns.rules(f"-t nat -I PREROUTING -i wan -p tcp --dport {port} -j DNAT --to-destination {node.ip}",
                         f"-I FORWARD -i wan -p tcp --dport {port} -j ACCEPT")
        wait_for(lambda: str(TLS_PORT + 1) in node.run(["ss", "-Htln"]).stdout, 10, "the peers' servers listen")

    def iperf(self, congestion):
        argv = ["iperf3", "-c", self.b.node.box.wan_ip, "-p", IPERF_PORT, "-t", SECONDS, "-O", "1", "-C", congestion, "-J"]
        out = json.loads(self.agent("a").node.run(pinned(0, argv), timeout=60).stdout)
        return out["end"]["sum_received"]["bits_per_second"] / 1e6

    def tls(self, congestion):
        port = TLS_PORT + CONGESTION.index(congestion)
        argv = [tool("tls_bulk"), "--to", f"{self.b.node.box.wan_ip}:{port}", "--seconds", SECONDS, "--congestion",
                congestion]
        return json.loads(self.agent("a").node.run(pinned(0, argv), timeout=60).stdout)["mbit"]

    def tunnel(self, work):
        argv = [tool("l4_load"), "--to", f"{self.vip}:{LOAD_PORT}", "--work", work, "--seconds", SECONDS]
        out = json.loads(self.agent("a").node.run(pinned(0, argv), timeout=60).stdout)
        if out["errors"]:
            raise LabError(f"l4_load {work} through the tunnel: {out}")
        return out["value"] * 1e3


def bulk(table, path, runs):
    kinds, offload, line = PATHS[path]
    with TunnelLab(kinds, offload, line) as lab:
        for _ in range(runs):
            for congestion in CONGESTION:
                table.add(path, f"iperf3 TCP {congestion}", lab.iperf(congestion), "Mbit/s")
                table.add(path, f"TLS over TCP {congestion}", lab.tls(congestion), "Mbit/s")
            # The same direction as the peers: from a to b.
            table.add(path, "edgemesh tunnel", lab.tunnel("up"), "Mbit/s")
            table.add(path, "edgemesh tunnel, towards a", lab.tunnel("down"), "Mbit/s")


def relay(table, runs):
    with TunnelLab(("sym", "sym"), True, None) as lab:
        for _ in range(runs):
            table.add("offloads", "edgemesh relayed", lab.tunnel("up"), "Mbit/s")


def new_stream(table, runs):
    """First byte of an answer through an open tunnel at 40 ms; a TCP connection there needs two round trips."""
    with TunnelLab(("prc", "prc"), True, dict(delay_ms=20)) as lab:
        time.sleep(1)
        for _ in range(max(runs, 5)):
            first = lab.client("a", "hello", "b")["first_byte_ms"]
            table.add("new stream at 40 ms", "edgemesh tunnel", first, "ms")
            table.add("new stream at 40 ms", "TCP connection", tcp_first_byte(lab), "ms")


def tcp_first_byte(lab):
    """Connect and the TLS peer's first answer without TLS: two round trips."""
    code = ("import socket,time\nt=time.monotonic()\ns=socket.create_connection(('%s',%d))\n"
            "s.sendall(b'no TLS\\r\\n')\ntry: s.recv(1)\nexcept ConnectionResetError: pass  # its refusal is an answer\nprint((time.monotonic()-t)*1e3)" % (lab.b.node.box.wan_ip, TLS_PORT))
    return float(lab.agent("a").node.run(["/usr/bin/python3", "-c", code]).stdout)


def run(table, runs):
    for path in PATHS:
        bulk(table, path, runs)
    relay(table, runs)
    new_stream(table, runs)
    tls = ("TLS over TCP bbr", "TLS over TCP cubic")
    for path in ("offloads", "no offloads"):
        table.goal(f"{path}: tunnel against TLS over TCP (the better)", 1.0, table.ratio(path, "edgemesh tunnel", tls), True)
    lossy = "40 ms 400 Mbit/s 1 % loss"
    table.goal(f"{lossy}: tunnel against TLS over TCP with BBR", 1.3,
               table.ratio(lossy, "edgemesh tunnel", tls[:1]), True)
    first = table.value("new stream at 40 ms", "edgemesh tunnel")
    table.goal("round trips to the first byte of a new stream", 1.2, first / 40 if first else None, False)
