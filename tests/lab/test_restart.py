"""edgemesh-proxy hands over to a new process: nothing is refused, nothing is lost."""

import json
import os
import re
import signal

from lab.binaries import program
from lab.cases import case
from lab.mesh import APPS
from lab.proc import wait_for
from lab.programs import PYTHON
from lab.topology import Lab

BYTES = 64 << 20
CONFIG = """
listeners:
- {name: web, address: 127.0.0.1:8080, chains: [{http: {routes: web}}]}
- {name: dns, kind: udp, address: 127.0.0.1:5353, udpCluster: echo}
routes:
- name: web
  hosts: [{domains: ["*"], routes: [{match: {prefix: /}, cluster: web, timeouts: {route: 60s}}]}]
clusters:
- {name: web, endpoints: [{address: "127.0.0.1:8081"}]}
- {name: echo, endpoints: [{address: "127.0.0.1:8082"}]}
"""


class Proxy:
    """A proxy that is restarted: `pid` is the one that serves."""

    def __init__(self, lab, ns):
        self.lab, self.ns, self.config = lab, ns, lab.path("proxy.yaml")
        self.write(CONFIG)
        self.process = lab.start("proxy", ns.wrap([program("edgemesh-proxy"), "--config", self.config, "--workers", "2",
                                                   "--admin", "127.0.0.1:15000"]))
        wait_for(lambda: "runs" in self.log() or not self.process.running(), 10, lambda: f"it runs: {self.log()}")
        self.pid, self.all = self.process.pid, [self.process.pid]

    def write(self, text):
        with open(self.config, "w", encoding="ascii") as f:
            f.write(text)

    def log(self):
        return self.process.log()

    def restart(self):
        """Returns the successor's process id."""
        before = len(self.served())
        os.kill(self.pid, signal.SIGUSR2)
        wait_for(lambda: len(self.served()) > before, 20, lambda: f"a successor serves: {self.process.log_tail()}")
        self.pid = self.served()[-1]
        self.all.append(self.pid)

    def served(self):
        return [int(pid) for pid in re.findall(r"hot restart: process (\d+) serves", self.log())]

    def alive(self):
        return [pid for pid in self.all if os.path.exists(f"/proc/{pid}") and not _is_dead(pid)]

    def end(self):
        for pid in self.alive():
            os.kill(pid, signal.SIGKILL)


def _is_dead(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as f:
            return f.read().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


@case(quick=True)
def proxy_restarts_under_load():
    """Five hot restarts of edgemesh-proxy under load: no request fails, a download over them all is whole,
    flows of datagrams go on."""
    with Lab() as lab:
        ns = lab.namespace("proxy")
        app = lab.start("app", ns.wrap([PYTHON, os.path.join(APPS, "http_server.py"), "web", "8081"]))
        echo = lab.start("echo", ns.wrap([PYTHON, os.path.join(APPS, "udp_server.py"), "echo", "8082", "127.0.0.1"]))
        for each in (app, echo):
            wait_for(lambda p=each: "ready" in p.log(), 10, each.log)
        proxy = Proxy(lab, ns)
        try:
            clients = [PYTHON, os.path.join(APPS, "http_clients.py")]
            load = lab.start("load", ns.wrap([*clients, "127.0.0.1:8080", "8"]))
            probe = lab.start("probe", ns.wrap([*clients, "127.0.0.1:15000", "8", "/healthz"]))
            flows = lab.start("flows", ns.wrap([PYTHON, os.path.join(APPS, "udp_client.py"), "keep", "127.0.0.1", "5353",
                                                "50", "8"]))
            # Slow enough to last over several restarts; the first process ends when it is through.
            download = lab.start("download", ns.wrap(
                ["curl", "-sS", "--limit-rate", str(BYTES // 5), "-o", "/dev/null", "-w", "%{size_download}",
                 f"http://127.0.0.1:8080/bytes/{BYTES}"]))
            wait_for(lambda: download.running(), 2, "the download has begun")
            for _ in range(5):
                proxy.restart()
            flows.wait(30)
            datagrams = json.loads(flows.log().splitlines()[-1])
            assert datagrams["ok"] and datagrams["answered"] > 1000, datagrams
            for process in (probe, load):
                process.wait(30)
                result = json.loads(process.log().splitlines()[-1])
                assert not result["failed"], f"{process.name}: {result}"
            assert result["answered"] > 1000 and result["connections"] > 300, result
            download.wait(30)
            assert download.log().strip() == str(BYTES), f"the download: {download.log()}"
            wait_for(lambda: proxy.alive() == [proxy.pid], 15, lambda: f"the old ones end: {proxy.alive()}")
            health = ns.run(["curl", "-sS", "http://127.0.0.1:15000/healthz"]).stdout
            assert health.strip() == "ok", f"the admin endpoint of the last one: {health}"
            return f"{result['answered']} requests, {result['connections']} connections, 0 failed; {datagrams['answered']} datagrams of 50 flows, " \
                   "0 lost"
        finally:
            proxy.end()


@case(quick=True)
def proxy_restart_that_fails():
    """A successor whose configuration is wrong changes nothing; with a right one the next restart works."""
    with Lab() as lab:
        ns = lab.namespace("proxy")
        app = lab.start("app", ns.wrap([PYTHON, os.path.join(APPS, "http_server.py"), "web", "8081"]))
        wait_for(lambda: "ready" in app.log(), 10, app.log)
        proxy = Proxy(lab, ns)
        curl = ["curl", "-sS", "--max-time", "5", "http://127.0.0.1:8080/"]
        try:
            for text, says in ((CONFIG + "bogus: 1\n", "bogus"),
                               (CONFIG.replace("127.0.0.1:5353", "192.0.2.1:5353"), "192.0.2.1")):
                proxy.write(text)
                goes_on = proxy.log().count("this process goes on")
                os.kill(proxy.pid, signal.SIGUSR2)
                wait_for(lambda n=goes_on: proxy.log().count("this process goes on") > n, 10, proxy.log)
                assert says in proxy.log(), f"the log says what is wrong: {proxy.process.log_tail()}"
                assert ns.run(curl).stdout.startswith("web "), "the old one serves"
            proxy.write(CONFIG.replace("name: web, address: 127.0.0.1:8080", "name: other, address: 127.0.0.1:8080"))
            proxy.restart()
            assert ns.run(curl).stdout.startswith("web "), "the new one serves, under another listener's name"
        finally:
            proxy.end()
