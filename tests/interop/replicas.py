#!/usr/bin/python3
"""Two edgemesh-cloud on one Kubernetes API: tests/interop/replicas.py [folder of our programs]

A third edgemesh-cloud serves the API in the place of a kube-apiserver. Both replicas have one CA, by a backup of the
first. Four agents spread over them; two that are at different replicas find a path to each other by ICE, whose signals
pass from replica to replica. The leader is killed: the other leads when the lease has run out, takes the nodes, and
tells them of what changes. Everything is in a network namespace of its own, which takes root.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

from local_api import ENV, Lab, free_port, service, wait_for


class Replica(Lab):
    """edgemesh-cloud with --kubeconfig."""

    def __init__(self, bin_dir, folder, name, kubeconfig):
        super().__init__(bin_dir, folder)
        self.name, self.kubeconfig = name, kubeconfig
        self.state = f"{folder}/{name}"

    def start(self):
        argv = [f"{self.bin}/edgemesh-cloud", "--state-dir", self.state, "--advertise", "127.0.0.1", "--kubeconfig",
                self.kubeconfig, "--listen-hub", f"127.0.0.1:{self.hub}", "--listen-bootstrap",
                f"127.0.0.1:{self.bootstrap}", "--listen-admin", f"127.0.0.1:{self.admin_cloud}"]
        self.cloud = subprocess.Popen(argv, stdout=self.log(self.name), stderr=subprocess.STDOUT, env=ENV)
        wait_for(f"{self.name} is up", lambda: os.path.exists(f"{self.state}/join-token") and self.reaches(self.hub))

    def metric(self, name):
        text = subprocess.run(["curl", "-s", f"http://127.0.0.1:{self.admin_cloud}/metrics"], capture_output=True,
                              text=True, env=ENV, check=False).stdout
        return next((float(line.split()[-1]) for line in text.splitlines() if line.startswith(name + " ")), None)

    def leads(self):
        return self.metric("edgemesh_cloud_leader") == 1

    def nodes(self):
        text = subprocess.run(["curl", "-s", f"http://127.0.0.1:{self.admin_cloud}/nodes"], capture_output=True,
                              text=True, env=ENV, check=False).stdout
        return sorted(n["node"] for n in json.loads(text or "[]"))


class Node:
    def __init__(self, lab, name, replicas):
        self.lab, self.name, self.admin, self.replicas = lab, name, free_port(), replicas
        self.state = f"{lab.dir}/{name}"
        self.process = None

    def start(self):
        first, second = self.replicas
        os.makedirs(self.state)
        with open(f"{first.state}/join-token", encoding="ascii") as f:
            token = f.read().strip()
        self.lab.run(f"{self.lab.bin}/edgemesh", "join", "--cloud", f"127.0.0.1:{first.bootstrap}", "--token", token,
                     "--node", self.name, "--state-dir", self.state, "--config", f"{self.state}/agent.yaml")
        config = {"nodeName": self.name, "stateDir": self.state,
                  "cloud": {"hub": f"127.0.0.1:{first.hub}", "moreHubs": [f"127.0.0.1:{second.hub}"],
                            "bootstrap": f"127.0.0.1:{first.bootstrap}"},
                  "dns": {"enable": False}, "capture": {"enable": False},
                  "p2p": {"direct": False, "directListen": f"127.0.0.1:{free_port()}"},
                  "admin": {"listen": f"127.0.0.1:{self.admin}"}}
        with open(f"{self.state}/agent.yaml", "w", encoding="ascii") as f:
            json.dump(config, f)
        self.process = subprocess.Popen([f"{self.lab.bin}/edgemesh-agent", "--config", f"{self.state}/agent.yaml"],
                                        stdout=self.lab.log(self.name), stderr=subprocess.STDOUT, env=ENV)

    def knows(self, name):
        text = subprocess.run(["curl", "-s", f"http://127.0.0.1:{self.admin}/services"], capture_output=True, text=True,
                              env=ENV, check=False).stdout
        return any(s.get("name") == name for s in json.loads(text or "[]"))


def lease(api):
    text = api.kubectl("get", "lease", "edgemesh-cloud", "-n", "kube-system", "-o", "json")
    return json.loads(text)["spec"]


def ready(api, node):
    conditions = json.loads(api.kubectl("get", "node", node, "-o", "json"))["status"].get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def play(api, one, two, nodes):
    api.start_cloud()
    one.start()
    api.run(f"{api.bin}/edgemesh-cloud", "backup", "--to", f"{api.dir}/seed", "--state-dir", one.state)
    api.run(f"{api.bin}/edgemesh-cloud", "restore", "--from", f"{api.dir}/seed", "--state-dir", two.state)
    two.start()
    wait_for("one of the two leads", lambda: one.leads() != two.leads())
    spec = lease(api)
    assert spec["leaseDurationSeconds"] == 15, spec
    print(f"ok  {spec['holderIdentity']} leads")
    for node in nodes:
        node.start()
    names = [n.name for n in nodes]
    wait_for("the nodes are there", lambda: sorted(one.nodes() + two.nodes()) == names, 30)
    assert one.nodes() and two.nodes(), (one.nodes(), two.nodes())
    print(f"ok  the nodes spread: {one.nodes()} and {two.nodes()}")
    api.apply(service("web"))
    wait_for("all nodes know the service", lambda: all(n.knows("web") for n in nodes))
    wait_for("all nodes are ready", lambda: all(ready(api, n) for n in names))
    print("ok  each replica serves its own nodes")

    by_name = {n.name: n for n in nodes}
    for here, there in ((one, two), (two, one)):
        near, far = by_name[here.nodes()[0]], there.nodes()[0]
        began = time.monotonic()
        api.run(f"{api.bin}/edgemesh", "path", far, "--admin", f"127.0.0.1:{near.admin}")
        print(f"ok  {near.name} and {far}, at different replicas, have a path after "
              f"{(time.monotonic() - began) * 1000:.0f} ms")
        assert here.metric("edgemesh_siblings_passed_total") > 0

    leader, other = (one, two) if one.leads() else (two, one)
    leader.cloud.kill()
    leader.cloud.wait()
    killed = time.monotonic()
    wait_for("the nodes go to the other replica", lambda: other.nodes() == names, 30)
    print(f"ok  the nodes are with the other replica after {time.monotonic() - killed:.1f} s")
    wait_for("the other replica leads", other.leads, 25)
    took = time.monotonic() - killed
    assert took > 8, "the lease of the dead one ran still"
    again = lease(api)
    assert again["leaseTransitions"] == spec["leaseTransitions"] + 1, again
    print(f"ok  the other one leads after {took:.1f} s")
    api.apply(service("later"))
    wait_for("all nodes know the new service", lambda: all(n.knows("later") for n in nodes))
    assert all(ready(api, n) for n in names)

    leader.start()
    time.sleep(3)
    assert other.leads() and not leader.leads()
    other.cloud.terminate()
    other.cloud.wait()
    stopped = time.monotonic()
    wait_for("a lease that was given back is taken at once", leader.leads, 8)
    print(f"ok  stopped in order, it is followed after {time.monotonic() - stopped:.1f} s")
    wait_for("the nodes are back", lambda: leader.nodes() == names, 30)


def own_namespace():
    if os.environ.get("REPLICAS_NAMESPACE"):
        return
    ENV["REPLICAS_NAMESPACE"] = "yes"
    os.execvpe("unshare", ["unshare", "--net", sys.executable, os.path.realpath(__file__), *sys.argv[1:]], ENV)


def main():
    own_namespace()
    for command in ("link set lo up", "link add eth0 type veth peer name eth1", "addr add 10.99.0.1/24 dev eth0",
                    "link set eth0 up", "link set eth1 up"):
        subprocess.run(["ip", *command.split()], check=True)
    bin_dir = os.path.realpath(sys.argv[1] if len(sys.argv) > 1 else "build/release/bin")
    with tempfile.TemporaryDirectory() as folder:
        api = Lab(bin_dir, folder)
        kubeconfig = f"{api.state}/admin.kubeconfig"
        one, two = (Replica(bin_dir, folder, name, kubeconfig) for name in ("one", "two"))
        nodes = [Node(api, f"spread-{i}", (one, two)) for i in range(4)]
        try:
            play(api, one, two, nodes)
        except (SystemExit, AssertionError):
            for name in ("one", "two", "spread-0"):
                if os.path.exists(f"{folder}/{name}.log"):
                    with open(f"{folder}/{name}.log", encoding="utf-8") as f:
                        print(name, "".join(f.readlines()[-15:]), file=sys.stderr)
            raise
        finally:
            for process in [n.process for n in nodes] + [one.cloud, two.cloud, api.cloud]:
                if process is not None and process.poll() is None:
                    process.kill()
                    process.wait()
    print("replicas: all passed")


if __name__ == "__main__":
    main()
