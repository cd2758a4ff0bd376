"""L4 on one node: through capture and the proxy, against no proxy, haproxy and nginx stream.

    pod (client, core 1) 172.30.1.2 - 172.30.1.1 node (proxy, core 0) 172.30.2.1 - 172.30.2.2 srv (core 1)
"""

import json

import peers
from harness import pinned
from lab.binaries import tool
from lab.proc import LabError, wait_for
from lab.topology import Lab

CIDR = "10.96.0.0/12"
FIRST_VIP = "10.96.0.1:80"
BACKEND = "172.30.2.2:9000"
NODE = "172.30.1.1"
WORKS = {"messages": "messages/s", "short": "connections/s", "up": "Gbit/s", "down": "Gbit/s"}


class L4Lab(Lab):
    def __init__(self):
        super().__init__()
        self.pod, self.hub, self.srv = (self.namespace(n) for n in ("pod", "node", "srv"))
        self.cable(self.pod, "eth0", self.hub, "pod")
        self.cable(self.hub, "srv", self.srv, "eth0")
        self.pod.ip("address add 172.30.1.2/24 dev eth0", "route add default via 172.30.1.1")
        self.hub.ip("address add 172.30.1.1/24 dev pod", "address add 172.30.2.1/24 dev srv")
        self.srv.ip("address add 172.30.2.2/24 dev eth0", "route add default via 172.30.2.1")
        self.hub.sysctl(net__ipv4__ip_forward=1)
        for ns in (self.pod, self.hub, self.srv):
            # BBR's pacing is for long ways; every variant gets the same.
            ns.sysctl(net__ipv4__tcp_congestion_control="reno", net__ipv4__ip_local_port_range="10000 60999",
                      net__ipv4__tcp_tw_reuse=1, net__core__somaxconn=4096)
        self.start("backend", self.srv.wrap(pinned(1, [tool("l4_backend"), "--listen", BACKEND])))
        self.wait_port(self.srv, 9000)

    def wait_port(self, ns, port):
        wait_for(lambda: ns.run(["ss", "-Htln", f"sport = :{port}"]).stdout.strip(), 10, f"port {port} listens")

    def proxy(self, name, argv, port=None):
        process = self.start(name, self.hub.wrap(pinned(0, argv)))
        if port:
            wait_for(lambda: not process.running() or self.hub.run(["ss", "-Htln", f"sport = :{port}"]).stdout.strip(),
                     10, f"{name} listens")
        if not process.running():
            raise LabError(f"{name} ended: {process.log_tail()}")
        return process

    def capture(self, services=10):
        process = self.proxy("l4_capture", [tool("l4_capture"), "--cidr", CIDR, "--endpoint", BACKEND, "--services",
                                            services])
        wait_for(lambda: '"ready"' in process.log() or not process.running(), 30, "l4_capture is ready")
        if not process.running():
            raise LabError(f"l4_capture ended: {process.log_tail()}")
        return process, json.loads(next(line for line in process.log().splitlines() if '"ready"' in line))

    def load(self, to, work, seconds=1.5, pid=0, connections=None):
        argv = [tool("l4_load"), "--to", to, "--work", work, "--seconds", seconds]
        if pid:
            argv += ["--pid", pid]
        if connections:
            argv += ["--connections", connections]
        return json.loads(self.pod.run(pinned(1, argv), timeout=120).stdout)


def start_variants(lab):
    """name -> (address to connect to, process or None)"""
    variants = {"no proxy": (BACKEND, None)}
    captured, _ = lab.capture()
    variants["edgemesh captured"] = (FIRST_VIP, captured)
    specs = [("edgemesh addressed", 7000, None), ("haproxy as shipped", 7001, (peers.haproxy, False)),
             ("haproxy tuned", 7002, (peers.haproxy, True)), ("nginx as shipped", 7003, (peers.nginx, False)),
             ("nginx tuned", 7004, (peers.nginx, True))]
    for name, port, maker in specs:
        listen = f"{NODE}:{port}"
        argv = maker[0](lab.dir, listen, BACKEND, maker[1]) if maker else \
            [tool("l4_proxy"), "--listen", listen, "--to", BACKEND]
        variants[name] = (listen, lab.proxy(name.replace(" ", "-"), argv, port))
    return variants


def worker_pid(lab, process):
    """nginx works in a child."""
    children = lab.hub.run(["pgrep", "-P", str(process.pid)], check=False).stdout.split()
    return int(children[0]) if children else process.pid


def throughput(table, runs):
    with L4Lab() as lab:
        variants = start_variants(lab)
        for _ in range(runs):
            for work, unit in WORKS.items():
                for name, (address, process) in variants.items():
                    result = lab.load(address, work, pid=worker_pid(lab, process) if process else 0)
                    if result["errors"]:
                        table.log(f"  {result['errors']} errors: {work} {name}")
                    table.add(work, name, result["value"], unit)
                    cost = result.get("cpu_ns_per_op")
                    if process and cost:
                        table.add(f"{work}, CPU of the proxy", name, cost / 1e3, "us each")


def scaling(table, runs):
    """Capture at 10 and at 10,000 services."""
    for _ in range(runs):
        for services in (10, 10_000):
            with L4Lab() as lab:
                process, ready = lab.capture(services)
                n = services
                last = f"10.96.{n >> 8}.{n & 255}:80"
                name = f"{services} services"
                table.add("connect through capture", name, lab.load(last, "connect")["value"], "us p50")
                table.add("program services", name, ready["capture_ms"] + ready["snapshot_ms"], "ms")
                process.stop()


def run(table, runs):
    throughput(table, runs)
    scaling(table, runs)
    ours = "edgemesh captured"
    tuned, all_peers = ("haproxy tuned", "nginx tuned"), (
        "haproxy as shipped", "haproxy tuned", "nginx as shipped", "nginx tuned")
    for direction in ("up", "down"):
        table.goal(f"bulk {direction} against the best tuned peer", 0.95, table.ratio(direction, ours, tuned), True)
        table.goal(f"bulk {direction} against haproxy as shipped", 5, table.ratio(direction, ours, all_peers[:1]), True)
    table.goal("messages/s against the best peer", 1.1, table.ratio("messages", ours, all_peers), True)
    table.goal("new connections/s against haproxy", 1.0, table.ratio("short", ours, all_peers[:2]), True)
    connect = [table.value("connect through capture", f"{n} services") for n in (10_000, 10)]
    table.goal("connect time at 10,000 services over that at 10", 1.1,
               connect[0] / connect[1] if all(connect) else None, False)
    table.goal("programming 10,000 services, ms", 100, table.value("program services", "10000 services"), False)
