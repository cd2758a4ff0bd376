"""Configuration replaced under load, and what 10,000 clusters with 10,000 routes cost, also beside peers."""

import os
import re
import signal
import statistics
import threading
import time

import reload_peers
from harness import pinned
from http_lab import HTTP1, NODE, HttpLab, Variant
from lab.binaries import program
from lab.proc import LabError, wait_for

PORT, ADMIN = 7000, f"{NODE}:15000"
COUNT, HALF = 10_000, 5_000
EVERY = 0.1
SECONDS = 4
RATE = 10_000
ANONYMOUS = "anonymous memory, all processes"
CHANGED = "change of one route, until a request sees it"


def configuration(count, marker, mark="m0"):
    """`count` clusters with a route each, then the one that is used. `marker` is what changes of a cluster, `mark` what
    changes of a route."""
    def cluster(name, seconds=None):
        timeout = f", connectTimeout: {seconds}s" if seconds else ""
        return f'- {{name: {name}, endpoints: [{{address: "{HTTP1}"}}]{timeout}}}'
    lines = ["listeners:", "- name: web", f"  address: {NODE}:{PORT}", "  chains:", "  - http: {routes: web}", "routes:",
             "- name: web", "  hosts:", "  - name: all", '    domains: ["*"]', "    routes:"]
    lines += [f"    - {{match: {{path: /{i}}}, cluster: c{i}}}" for i in range(count)]
    lines += [f"    - {{match: {{path: /mark}}, respond: {{body: {mark}}}}}",
              "    - {match: {prefix: /}, cluster: backend}", "clusters:"]
    lines += [cluster(f"c{i}") for i in range(1, count)]
    if count:
        lines.append(cluster("c0", 3 + marker))
    # Under load it is the cluster in use that changes, so that its pools are built anew.
    lines.append(cluster("backend", 3 + (0 if count else marker)))
    return "\n".join(lines) + "\n"


class Proxy:
    def __init__(self, lab, count):
        self.lab, self.path, self.count = lab, os.path.join(lab.dir, f"reload-{count}.yaml"), count
        self.write(0)
        argv = [program("edgemesh-proxy"), "--config", self.path, "--workers", "1", "--admin", ADMIN,
                "--log-level", "info"]
        self.process = lab.start(f"edgemesh-{count}", lab.hub.wrap(pinned(0, argv)))
        wait_for(lambda: not self.process.running() or
                 lab.hub.run(["ss", "-Htln", f"sport = :{PORT}"]).stdout.strip(), 60, "the proxy listens")
        if not self.process.running():
            raise LabError(f"{count} clusters: {self.process.log_tail()}")
        self.variant = Variant("edgemesh", f"{NODE}:{PORT}", self.process, self.process.pid)

    def write(self, marker, mark="m0"):
        text = configuration(self.count, marker, mark)
        with open(self.path + ".new", "w", encoding="ascii") as f:
            f.write(text)
        os.rename(self.path + ".new", self.path)

    def in_force_ms(self):
        """What the last reload cost the main loop, by the proxy's own word; the reading is done beside it."""
        return float(re.findall(r"in force, in ([0-9.]+) ms", self.process.log_tail())[-1])

    def seen_ms(self, mark):
        """From the signal to the first new connection that is answered by the new configuration."""
        began = time.monotonic()
        self.process.signal(signal.SIGHUP)
        url = f"http://{self.variant.address}/mark"
        wait_for(lambda: self.lab.pod.run(["curl", "-s", "-m", "5", url], check=False).stdout == mark, 60,
                 "the changed route answers", 0.002)
        return (time.monotonic() - began) * 1e3

    def reload_ms(self):
        """The time of POST /reload: the file read, checked, and in force."""
        out = self.lab.hub.run(["curl", "-sS", "-f", "-o", "/dev/null", "-w", "%{time_total}", "-X", "POST",
                                f"http://{ADMIN}/reload"]).stdout
        return float(out) * 1e3


def under_load(table, lab, reloading):
    proxy = Proxy(lab, 0)
    stop, times, refused = threading.Event(), [], []

    def reloads():
        while not stop.wait(EVERY):
            proxy.write(1 - len(times) % 2)
            try:
                times.append(proxy.reload_ms())
            except LabError as error:
                refused.append(error)
    thread = threading.Thread(target=reloads)
    if reloading:
        thread.start()
    try:
        result = lab.wrk(proxy.variant, seconds=SECONDS)
        paced = lab.open_loop(proxy.variant, RATE, SECONDS)
    finally:
        stop.set()
        if reloading:
            thread.join()
    name = "10 reloads a second" if reloading else "no reload"
    table.add("requests under load", name, result.value, "requests/s")
    table.add("failed requests", name, result.failed + paced["errors"], "requests")
    for p in ("p50", "p99"):
        table.add(f"{RATE} requests/s, {p}", name, paced[f"{p}_us"], "us")
    if reloading:
        if refused or not times:
            raise LabError(f"{len(refused)} of {len(refused) + len(times)} reloads refused: {refused[:1]}")
        table.add("reloads done", name, len(times), "reloads")
        table.add("a reload under load", name, statistics.median(times), "ms")
    if not proxy.process.running():
        raise LabError(f"the proxy ended: {proxy.process.log_tail()}")
    proxy.process.stop()


def large(table, lab):
    used = {}
    for count in (0, HALF, COUNT):
        try:
            proxy = Proxy(lab, count)
        except LabError as error:
            table.log(f"  no row: {error}")
            continue
        time.sleep(2)
        used[count] = proxy.process.private_kib() * 1024
        label = f"{count} clusters and routes"
        mine = f"edgemesh, {label}"
        table.add(ANONYMOUS, mine, reload_peers.anonymous_mb(lab, proxy.process.pid), "MB")
        proxy.write(1)
        table.add("change of one cluster, whole file", label, proxy.reload_ms(), "ms")
        if count:
            table.add("change of one cluster, in force", label, proxy.in_force_ms(), "ms")
            proxy.write(1, "m1")
            table.add(CHANGED, mine, proxy.seen_ms("m1"), "ms")
            table.add("change of one route, in force", label, proxy.in_force_ms(), "ms")
        time.sleep(2)
        table.add("private memory", label, used[count] / 1e6, "MB")
        table.add(f"{ANONYMOUS} after changes", mine, reload_peers.anonymous_mb(lab, proxy.process.pid), "MB")
        table.add("private memory after changes", label, proxy.process.private_kib() * 1024 / 1e6, "MB")
        proxy.process.stop()
        if count:
            table.add("memory of the configuration", label, (used[count] - used[0]) / 1e6, "MB")


def peers(table, lab):
    for name in reload_peers.NAMES:
        try:
            peer = reload_peers.Peer(lab, name, COUNT)
            label = f"{name}, {COUNT} clusters and routes"
            time.sleep(2)
            table.add(ANONYMOUS, label, peer.memory_mb(), "MB")
            table.add(CHANGED, label, peer.reload_ms("m1"), "ms")
            time.sleep(2)
            table.add(f"{ANONYMOUS} after changes", label, peer.memory_mb(), "MB")
            peer.process.stop()
        except LabError as error:
            table.log(f"  no row: {error}")


def run(table, runs):
    with HttpLab() as lab:
        for _ in range(runs):
            for reloading in (False, True):
                under_load(table, lab, reloading)
            large(table, lab)
            peers(table, lab)
    label = f"{COUNT} clusters and routes"
    # The worst round, not the median: the goal is that none fails.
    failed = table.samples.get(("failed requests", "10 reloads a second"))
    table.goal("failed requests at 10 reloads a second", 0, max(failed) if failed else None, False)
    table.goal("memory of 10,000 clusters and routes, MB", 40, table.value("memory of the configuration", label), False)
    table.goal("a change among 10,000 clusters in force, ms", 10,
               table.value("change of one cluster, in force", label), False)
    table.goal("a changed route among 10,000 of a host in force, ms", 10,
               table.value("change of one route, in force", label), False)
