"""edgemesh-proxy while what is around it changes, under load: requests that fail are those that had to."""

import itertools
import os
import random
import re
import signal
import time

from lab.binaries import program
from lab.cases import case
from lab.proc import wait_for
from lab.topology import Lab

# What stands behind the proxy under test: a proxy that answers by itself, on several ports.
PORTS = range(9001, 9007)
ORIGIN = """
listeners:
%s
routes:
- name: r
  hosts: [{domains: ["*"], routes: [{match: {prefix: /}, %%srespond: {body: fine}}]}]
""" % "\n".join(f'- {{name: l{p}, address: "127.0.0.1:{p}", chains: [{{http: {{routes: r}}}}]}}' for p in PORTS)
FRONT = """
%s
listeners:
- {name: web, address: "127.0.0.1:8080", chains: [{http: {routes: web}}]}
routes:
- name: web
  hosts: [{domains: ["*"], routes: [{match: {prefix: /}, cluster: web, responseHeaders: {set: {x-round: "%s"}}%s}]}]
clusters:
- {name: web, protocol: %s, endpoints: [%s], circuitBreakers: {default: {maxRetries: 1000}}}
"""

LOADS = itertools.count()  # each with a log of its own


def front(ports, protocol="http1", number=0, more="", top=""):
    return FRONT % (top, number, more, protocol, ", ".join(f'{{address: "127.0.0.1:{p}"}}' for p in ports))


class Proxy:
    """One in the namespace; its configuration is replaced as a whole."""

    def __init__(self, lab, ns, name, config, admin=15000):
        self.ns, self.admin, self.path = ns, admin, lab.path(f"{name}.yaml")
        self.lab, self.name = lab, name
        self.write(config)
        self.argv = ns.wrap([program("edgemesh-proxy"), "--config", self.path, "--workers", "2", "--drain-seconds", "5",
                             "--admin", f"127.0.0.1:{admin}"])
        self.process = lab.start(name, self.argv)
        self.wait()

    def start(self):
        """Again, after a kill."""
        if self.process in self.lab.processes:
            self.lab.processes.remove(self.process)
        before = self.process.log().count(" runs")
        self.process = self.lab.start(self.name, self.argv)
        self.wait(before)

    def wait(self, before=0):
        wait_for(lambda: self.process.log().count(" runs") > before or not self.process.running(), 10, self.process.log)

    def write(self, config):
        with open(self.path + ".new", "w", encoding="ascii") as f:
            f.write(config)
        os.rename(self.path + ".new", self.path)

    def count(self, family, **labels):
        """The sum of a family's lines that have these labels."""
        text = self.ns.run(["curl", "-sS", f"http://127.0.0.1:{self.admin}/metrics"]).stdout
        total = 0
        for line in text.splitlines():
            if re.match(family + r"[{ ]", line) and all(f'{k}="{v}"' in line for k, v in labels.items()):
                total += float(line.rsplit(" ", 1)[1])
        return int(total)


def start_load(lab, ns, seconds, *args):
    return lab.start(f"load-{next(LOADS)}", ns.wrap(["h2load", "-D", str(seconds), *args, "http://127.0.0.1:8080/"]))


def result(load, seconds):
    load.wait(seconds + 20)
    text = load.log()
    done = re.search(r"requests: (\d+) total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored", text)
    codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
    assert done and codes, text
    return {"done": int(done[2]), "errored": int(done[5]), "2xx": int(codes[1]), "5xx": int(codes[4])}


def nothing_failed(got, least):
    assert got["errored"] == 0 and got["5xx"] == 0 and got["2xx"] >= least, got


def reloads(proxy, configs, seconds, rate):
    """Writes and reloads `rate` times a second as far as it goes; how often it was done."""
    begun, rounds = time.monotonic(), 0
    for text in configs:
        proxy.write(text)
        proxy.process.signal(signal.SIGHUP)
        rounds += 1
        now = time.monotonic() - begun
        if now > seconds:
            return rounds
        time.sleep(max(0, rounds / rate - now))
    return rounds


@case()
def endpoints_come_and_go():
    """A hundred times a second the endpoints change under load, over HTTP/1 and HTTP/2: nothing fails."""
    seconds, notes = 10, []
    with Lab() as lab:
        ns = lab.namespace("faults")
        origin = Proxy(lab, ns, "origin", ORIGIN % "", admin=15001)
        tested = Proxy(lab, ns, "front", front(PORTS))
        for protocol in ("http1", "http2"):
            draw = random.Random(7)
            load = start_load(lab, ns, seconds, "-c16", "-m4")
            configs = (front(draw.sample(PORTS, draw.randint(1, len(PORTS))), protocol, n) for n in itertools.count())
            rounds = reloads(tested, configs, seconds - 1, 100)
            got = result(load, seconds)
            nothing_failed(got, 1000)
            wait_for(lambda r=rounds: f"x-round: {r - 1}\n" in ns.run(["curl", "-sSi", "http://127.0.0.1:8080/"]).stdout, 5,
                     "the last configuration is in force")
            notes.append(f"{protocol}: {rounds} changes, {got['2xx']} requests, 0 failed")
            assert rounds > 50 * (seconds - 1), f"{rounds} changes in {seconds - 1} s"
        assert origin.process.running()
    return "; ".join(notes)


@case()
def endpoints_die_and_return():
    """One of two processes behind the proxy is killed and started again and again: with a retry policy for
    connects and resets no request fails."""
    seconds = 12
    with Lab() as lab:
        ns = lab.namespace("faults")
        Proxy(lab, ns, "sound", ORIGIN % "", admin=15001)
        mortal = Proxy(lab, ns, "mortal", (ORIGIN % "").replace(":90", ":91"), admin=15002)
        tested = Proxy(lab, ns, "front", front([9001, 9101], "http1", 0, ", retry: {on: [reset, connect-failure], attempts: 3}"))
        load = start_load(lab, ns, seconds, "-c16", "-m4")
        killed, end = 0, time.monotonic() + seconds - 2
        while time.monotonic() < end:
            time.sleep(0.2)
            mortal.process.kill()
            killed += 1
            time.sleep(0.2)
            mortal.start()
        got = result(load, seconds)
        nothing_failed(got, 1000)
        again = tested.count("edgemesh_http_retries_total") + tested.count("edgemesh_http_repeated_total")
        assert killed > 5 and again > 0, (killed, again)
    return f"{killed} kills, {got['2xx']} requests, {again} sent again, 0 failed"


@case()
def a_proxy_behind_restarts_under_load():
    """Hot restarts of a proxy behind the proxy, over HTTP/2, without a retry policy: no request fails, with a
    body or without."""
    seconds, notes = 12, []
    with Lab() as lab:
        ns = lab.namespace("faults")
        behind = Proxy(lab, ns, "behind", ORIGIN % "", admin=15001)
        tested = Proxy(lab, ns, "front", front([9001], "http2"))
        pids = [behind.process.pid]
        body = lab.path("body")
        with open(body, "w", encoding="ascii") as f:
            f.write("x" * 500)
        try:
            for name, more in (("GET", ()), ("POST", ("-d", body))):
                load = start_load(lab, ns, seconds, "-c16", "-m8", *more)
                begun, done = time.monotonic(), 0
                while time.monotonic() < begun + seconds - 3:
                    served = len(re.findall(r"process \d+ serves", behind.process.log()))
                    os.kill(pids[-1], signal.SIGUSR2)
                    wait_for(lambda n=served: len(re.findall(r"process \d+ serves", behind.process.log())) > n, 20,
                             behind.process.log_tail)
                    pids.append(int(re.findall(r"process (\d+) serves", behind.process.log())[-1]))
                    done += 1
                    time.sleep(0.2)
                got = result(load, seconds)
                nothing_failed(got, 1000)
                notes.append(f"{name}: {done} restarts, {got['2xx']} requests, 0 failed")
            notes.append(f"{tested.count('edgemesh_http_repeated_total')} sent again")
        finally:
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
    return "; ".join(notes)


@case()
def overload_under_load():
    """Twice the requests that may be open: those that are over the limit get 503 at once and are counted, the
    others go through, and when the load has gone nothing is refused."""
    seconds = 8
    with Lab() as lab:
        ns = lab.namespace("faults")
        slow = "policies: {fault: {delay: {time: 20ms}}}, "
        origin = Proxy(lab, ns, "origin", ORIGIN % slow, admin=15001)
        tested = Proxy(lab, ns, "front", front(PORTS, "http2", top="overload: {maxRequests: 64}"))
        got = result(start_load(lab, ns, seconds, "-c16", "-m8"), seconds)
        refused = tested.count("edgemesh_http_overloaded_total")
        served = origin.count("edgemesh_http_answers_total", **{"class": "2xx"})
        assert got["errored"] == 0 and got["2xx"] > 1000 and got["5xx"] > 1000, got
        # At the end of its time h2load leaves what is open: as many as there are streams.
        assert abs(refused - got["5xx"]) <= 128 and abs(served - got["2xx"]) <= 128, f"{got}, {refused} refused, {served} served"
        after = result(start_load(lab, ns, 3, "-c4", "-m4"), 3)
        nothing_failed(after, 100)
    return f"{got['2xx']} answered, {got['5xx']} refused ({refused} counted), afterwards {after['2xx']} answered, 0 refused"
