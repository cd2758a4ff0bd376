"""What the HTTP tables share: namespaces, backends, the proxies side by side, loads and what they cost.

    pod (load, core 1) 172.30.1.2 - 172.30.1.1 node (proxy, core 0) 172.30.2.1 - 172.30.2.2 srv (backend, core 1)
"""

import dataclasses
import json
import os
import re

import envoy
import http_peers
from harness import pinned
from lab.binaries import program, tool
from lab.proc import LabError
from table_l4 import BACKEND, NODE, L4Lab, worker_pid

HTTP1, GRPC = "172.30.2.2:9080", "172.30.2.2:9090"
PORTS = {"edgemesh": 7000, "haproxy": 7001, "nginx": 7002, "nghttpx": 7003, "envoy": 7004, "telemetry_off": 7005,
         "telemetry_on": 7006}
OURS = ("edgemesh", "telemetry_off", "telemetry_on")
PEERS = tuple(name for name in PORTS if name not in OURS)
SECONDS = 2


@dataclasses.dataclass
class Variant:
    name: str
    address: str
    process: object
    pid: int

    def cpu_ns(self):
        """CPU of all threads of the worker; the end of a thread would show as a fall, no proxy here ends one."""
        total = 0
        for task in os.listdir(f"/proc/{self.pid}/task"):
            with open(f"/proc/{self.pid}/task/{task}/schedstat", encoding="ascii") as f:
                total += int(f.readline().split()[0])
        return total


@dataclasses.dataclass
class Result:
    value: float  # requests/s
    done: int
    failed: int
    cpu_us: float  # of the proxy, a request


class HttpLab(L4Lab):
    """The namespaces of table l4 with HTTP backends; the L4 backend there stays idle."""

    def __init__(self):
        super().__init__()
        for name, to in (("http_backend", HTTP1), ("grpc_backend", GRPC)):
            self.start(name, self.srv.wrap(pinned(1, [tool(name), "--listen", to])))
            self.wait_port(self.srv, int(to.rsplit(":", 1)[1]))
        assert BACKEND not in (HTTP1, GRPC)

    def certificate(self):
        """(certificate, key, both in one file): P-256, self-signed."""
        cert, key, both = (os.path.join(self.dir, n) for n in ("cert.pem", "key.pem", "both.pem"))
        if not os.path.exists(both):
            self.pod.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                          "-keyout", key, "-out", cert, "-days", "30", "-subj", "/CN=bench"])
            with open(both, "w", encoding="ascii") as out:
                for part in (cert, key):
                    with open(part, encoding="ascii") as f:
                        out.write(f.read())
            for path in (cert, key, both):
                os.chmod(path, 0o644)
        return cert, key, both

    def variants(self, table, names, *, h2=False, upstream_h2=False, tls=False, base=0):
        """Starts the named proxies (those that can be had), each on its port plus `base`."""
        out = []
        for name in names:
            port = PORTS[name] + base
            way = http_peers.Way(f"{NODE}:{port}", GRPC if upstream_h2 else HTTP1, h2, upstream_h2,
                                 self.certificate() if tls else ())
            maker, arguments = getattr(http_peers, name), []
            if name in OURS + ("envoy",):
                arguments = [program("edgemesh-proxy") if name in OURS else envoy.binary(table)]
            if arguments == [None]:
                continue
            process = self.proxy(f"{name}-{port}", maker(self.dir, way, *arguments), port)
            out.append(Variant(name, way.listen, process, worker_pid(self, process)))
        return out

    def measure(self, variant, argv, parse):
        before = variant.cpu_ns()
        text = self.pod.run(pinned(1, argv), timeout=120).stdout
        spent = variant.cpu_ns() - before
        value, done, failed = parse(text)
        if not done:
            raise LabError(f"no request done: {' '.join(map(str, argv))}\n{text[-1500:]}")
        return Result(value, done, failed, spent / done / 1e3)

    def wrk(self, variant, *, close=False, tls=False, seconds=SECONDS, connections=64):
        argv = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s"]
        argv += ["-H", "Connection: close"] if close else []
        return self.measure(variant, argv + [f"http{'s' if tls else ''}://{variant.address}/"], parse_wrk)

    def h2load(self, variant, *, grpc=False, tls=False, seconds=SECONDS):
        argv = ["h2load", "-t1", "-c16", "-m16", f"-D{seconds}"]
        path, parse = "/", parse_h2load
        if grpc:
            message = os.path.join(self.dir, "message")
            with open(message, "wb") as f:
                f.write(bytes(5))
            argv += ["-d", message, "-H", "content-type: application/grpc", "-H", "te: trailers"]
            path, parse = "/bench.Echo/Unary", parse_grpc
        return self.measure(variant, argv + [f"http{'s' if tls else ''}://{variant.address}{path}"], parse)

    def open_loop(self, variant, rate, seconds=SECONDS):
        return json.loads(self.pod.run(pinned(1, [tool("http_load"), "--to", variant.address, "--rate", int(rate),
                                                  "--seconds", seconds]), timeout=120).stdout)


def parse_wrk(text):
    rate = float(re.search(r"Requests/sec:\s+([0-9.]+)", text).group(1))
    done = int(re.search(r"(\d+) requests in", text).group(1))
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    other = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    failed = sum(map(int, errors.groups())) if errors else 0
    return rate, done, failed + (int(other.group(1)) if other else 0)


def parse_h2load(text):
    rate = float(re.search(r"finished in [0-9.]+\w+, ([0-9.]+) req/s", text).group(1))
    counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text)
    good = int(re.search(r"status codes: (\d+) 2xx", text).group(1))
    # Answers that the end of the run cut off count as 2xx, not as succeeded.
    done = min(good, int(counts.group(1)))
    return rate, done, sum(int(n) for n in counts.groups()[1:]) + int(counts.group(1)) - done


def parse_grpc(text):
    """A gRPC error is an HTTP 200 without a message: what has not brought its 5 bytes has failed."""
    rate, done, failed = parse_h2load(text)
    messages = int(re.search(r"\((\d+)\) data", text).group(1)) // 5
    return rate, done, failed + max(0, done - messages)


def add(table, work, variant, result):
    if result.failed:
        table.add(f"{work}, failed", variant.name, result.failed, "requests (rounds without any left out)")
    table.add(work, variant.name, result.value, "requests/s")
    table.add(f"{work}, CPU", variant.name, result.cpu_us, "us a request")


def cpu_ratio(table, work, peers=PEERS):
    """Our CPU a request over that of the peer with the most requests/s."""
    measured = [p for p in peers if table.value(work, p)]
    if not measured or not table.value(work, "edgemesh"):
        return None
    best = max(measured, key=lambda p: table.value(work, p))
    return table.value(f"{work}, CPU", "edgemesh") / table.value(f"{work}, CPU", best)


def lowest_ratio(table, work, peers=PEERS):
    """Ours over the lowest of the peers: for latencies and memory."""
    mine = table.value(work, "edgemesh")
    rest = [v for v in (table.value(work, p) for p in peers) if v]
    return mine / min(rest) if mine and rest else None
