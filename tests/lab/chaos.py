"""The chaos run: scripts/chaos [--minutes 10] [--seed N] [--nodes 2]

A cloud, nodes behind NAT boxes, each with a containerd of its own, a Deployment and config maps that keep changing.
Cloud, agents and containerds are killed (-9) and links are cut at random. Checked all along: what the API has
acknowledged is there after each restart, and no resource version goes back. At the end, when all is up again: the
Deployment is as wanted, each node runs exactly the containers of its pods, and each pod sees the last config map.
Exit code 0: every invariant held. A failure prints the seed, which repeats the order of events (not their times).
"""

import argparse
import http.client
import json
import os
import random
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(os.path.dirname(HERE)), "bench")]
from kube_api import Api  # noqa: E402
from lab.mesh import Mesh  # noqa: E402
from lab.proc import LabError, wait_for  # noqa: E402
from lab.runtime import BUSYBOX  # noqa: E402
from lab.topology import remove_left_over, setup_signals  # noqa: E402
from test_edged import EdgeNode, pods  # noqa: E402

CONFIG_MAPS = 10
SETTLE = 120  # seconds for all to be as wanted, once everything is up
MAPS = "/api/v1/namespaces/default/configmaps"
DEPLOYMENT = "/apis/apps/v1/namespaces/default/deployments/web"


class Broken(Exception):
    """An invariant does not hold."""


class Workload:
    """Writes and what was acknowledged of them."""

    def __init__(self, cloud, rng):
        self.api, self.rng = Api(cloud), rng
        self.acknowledged = {}  # config map -> number of its last acknowledged write
        self.tried = {}         # config map -> number of its last write, acknowledged or not
        self.version = 0        # the highest resource version seen
        self.replicas, self.writes, self.unanswered, self.reads = 3, 0, 0, 0

    def begin(self):
        for i in range(CONFIG_MAPS):
            self.api.must("POST", MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"chaos-{i}"},
                                         "data": {"n": "0"}})
            self.acknowledged[i] = self.tried[i] = 0
        spec = {"terminationGracePeriodSeconds": 2,
                "containers": [{"name": "main", "image": BUSYBOX, "command": ["sleep", "36000"],
                                "volumeMounts": [{"name": "c", "mountPath": "/c"}]}],
                "volumes": [{"name": "c", "configMap": {"name": "chaos-0"}}]}
        self.api.must("POST", os.path.dirname(DEPLOYMENT), {
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {"replicas": self.replicas, "selector": {"matchLabels": {"app": "web"}},
                     "template": {"metadata": {"labels": {"app": "web"}}, "spec": spec}}})

    def call(self, *args):
        """The answer, or None when there was none: then nobody knows whether it was done."""
        try:
            status, answer = self.api.request(*args)
        except (OSError, http.client.HTTPException, ValueError):
            self.unanswered += 1
            return None
        if status >= 500 or status == 429:
            self.unanswered += 1
            return None
        if status >= 300:
            raise Broken(f"{args[0]} {args[1]}: {status} {str(answer)[:300]}")
        return answer

    def write(self):
        i = self.rng.randrange(CONFIG_MAPS)
        self.tried[i] += 1
        answer = self.call("PATCH", f"{MAPS}/chaos-{i}", {"data": {"n": str(self.tried[i])}}, "application/merge-patch+json")
        if answer is not None:
            self.writes += 1
            self.acknowledged[i] = self.tried[i]
            self.see(answer)

    def scale(self):
        wanted = self.rng.randrange(1, 6)
        if self.call("PATCH", DEPLOYMENT, {"spec": {"replicas": wanted}}, "application/merge-patch+json") is not None:
            self.replicas = wanted
            self.writes += 1

    def see(self, item):
        version = int(item["metadata"]["resourceVersion"])
        self.version = max(self.version, version)
        return version

    def check(self):
        """All config maps hold at least what was acknowledged."""
        answer = self.call("GET", MAPS)
        if answer is None:
            return False
        self.reads += 1
        now = int(answer["metadata"]["resourceVersion"])
        if now < self.version:
            raise Broken(f"the store went back from version {self.version} to {now}")
        held = {o["metadata"]["name"]: int(o["data"]["n"]) for o in answer["items"] if "n" in o.get("data", {})}
        for i, least in self.acknowledged.items():
            value = held.get(f"chaos-{i}")
            if value is None or not least <= value <= self.tried[i]:
                raise Broken(f"chaos-{i} holds {value}; acknowledged was {least}, tried {self.tried[i]}")
        return True


class Chaos:
    def __init__(self, mesh, nodes, rng):
        self.mesh, self.nodes, self.rng = mesh, nodes, rng
        self.counts = {}
        self.repairs = []  # (when, what, how)

    def strike(self):
        node = self.rng.choice(self.nodes)
        kind = self.rng.choice(("cloud", "agent", "containerd", "link"))
        target = "cloud" if kind == "cloud" else f"{kind} {node.agent.name}"
        if any(what == target for _, what, _ in self.repairs):
            return  # it is down already
        self.counts[kind] = self.counts.get(kind, 0) + 1
        away = self.rng.uniform(0, 6) if kind != "link" else self.rng.uniform(1, 15)
        log(f"{target} for {away:.1f} s")
        if kind == "cloud":
            self.mesh.cloud.process.kill()
            repair = self.mesh.cloud.start
        elif kind == "agent":
            node.agent.process.kill()
            repair = lambda: node.agent.start(wait=False)  # noqa: E731
        elif kind == "containerd":
            node.containerd.process.kill()
            repair = node.containerd.start
        else:
            box = node.agent.node.box.ns
            box.rules("-I FORWARD -j DROP")
            repair = lambda: box.rules("-D FORWARD -j DROP")  # noqa: E731
        self.repairs.append((time.monotonic() + away, target, repair))

    def repair(self, everything=False):
        """Names of what came back."""
        due = [r for r in self.repairs if everything or r[0] <= time.monotonic()]
        for entry in due:
            self.repairs.remove(entry)
            entry[2]()
        return [what for _, what, _ in due]


_begun = time.monotonic()


def log(text):
    print(f"{time.monotonic() - _begun:7.1f} s  {text}", flush=True)


def content(node, container):
    """What the pod's container sees of its config map."""
    done = node.containerd.ctr("tasks", "exec", "--exec-id", f"look{time.monotonic_ns()}", container, "cat", "/c/n", check=False)
    return done.stdout.strip()


def difference(workload, nodes):
    """What is not as wanted, or ''."""
    cloud = nodes[0].cloud
    deployment = workload.call("GET", DEPLOYMENT)
    if deployment is None:
        return "no answer from the API"
    status = deployment.get("status", {})
    wanted = deployment["spec"]["replicas"]
    if (status.get("readyReplicas", 0), status.get("replicas", 0)) != (wanted, wanted):
        return f"deployment: wanted {wanted}, status {status}"
    known = {}
    for p in pods(cloud):
        if p["metadata"].get("deletionTimestamp") or p["status"].get("phase") != "Running":
            return f"pod {p['metadata']['name']} is {p['status'].get('phase')}"
        known.setdefault(p["spec"].get("nodeName"), set()).add(p["metadata"]["name"])
    wanted_text = str(int(workload.call("GET", f"{MAPS}/chaos-0")["data"]["n"]))
    for node in nodes:
        running = node.running()
        if sorted(running.values()) != sorted(known.get(node.agent.name, ())):
            return f"{node.agent.name} runs {sorted(running.values())}, the API says {sorted(known.get(node.agent.name, ()))}"
        for container, name in running.items():
            seen = content(node, container)
            if seen != wanted_text:
                return f"{name} sees '{seen}' of the config map, the API has '{wanted_text}'"
    return ""


def run(minutes, seed, count):
    rng = random.Random(seed)
    with Mesh(*["prc"] * count, join=False) as mesh:
        nodes = [EdgeNode(mesh, chr(ord("a") + i)) for i in range(count)]
        try:
            for node in nodes:
                node.start()
            workload, chaos = Workload(mesh.cloud, rng), Chaos(mesh, nodes, rng)
            workload.begin()
            wait_for(lambda: not difference(workload, nodes), SETTLE, lambda: difference(workload, nodes))
            log("all runs; chaos begins")
            end, next_strike = time.monotonic() + minutes * 60, time.monotonic() + 2
            while time.monotonic() < end:
                back = chaos.repair()
                if back:
                    log(f"back: {', '.join(back)}")
                    workload.check()
                if time.monotonic() >= next_strike:
                    chaos.strike()
                    next_strike = time.monotonic() + rng.uniform(2, 10)
                workload.write()
                if rng.random() < 0.005:
                    workload.scale()
                if rng.random() < 0.05:
                    workload.check()
                time.sleep(0.02)
            chaos.repair(everything=True)
            log("everything is back")
            begun = time.monotonic()
            wait_for(lambda: not difference(workload, nodes), SETTLE, lambda: f"not as wanted: {difference(workload, nodes)}", 0.5)
            if not workload.check():
                raise Broken("the API does not answer at the end")
            log(f"all as wanted after {time.monotonic() - begun:.1f} s")
            events = ", ".join(f"{n} x {kind}" for kind, n in sorted(chaos.counts.items()))
            log(f"ok: {events}; {workload.writes} acknowledged writes, {workload.unanswered} without an answer, "
                f"{workload.reads} checks, 0 lost (seed {seed}, {count} nodes)")
        finally:
            for node in nodes:
                node.close()


def main():
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--nodes", type=int, default=2)
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(10**6)
    setup_signals()
    remove_left_over()
    log(f"seed {seed}")
    try:
        run(arguments.minutes, seed, arguments.nodes)
    except (Broken, LabError) as error:
        print(f"FAILED with seed {seed}: {error}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
