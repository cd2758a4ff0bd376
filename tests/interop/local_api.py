"""What local_api.sh runs: a cloud, an agent and a client-go program, all on loopback."""

import json
import os
import queue
import socket
import subprocess
import sys
import tempfile
import threading
import time

ENV = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(what, condition, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise SystemExit(f"local_api: not within {seconds} s: {what}")


class Probe:
    def __init__(self, program, server, node):
        self.process = subprocess.Popen([program, server, node], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, env=ENV)
        self.lines, self.queue = [], queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.queue.put(json.loads(line))

    def expect(self, what, matches, seconds=20):
        def found():
            while not self.queue.empty():
                self.lines.append(self.queue.get())
            return next((line for line in self.lines if matches(line)), None)
        line = wait_for(f"client-go: {what}; it said {self.lines[-5:]}", found, seconds)
        self.lines.remove(line)
        print(f"ok  {what}: {json.dumps(line)}")
        return line

    def tell(self, word):
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()


class Lab:
    def __init__(self, bin_dir, folder):
        self.bin, self.dir = bin_dir, folder
        self.hub, self.bootstrap, self.api, self.local = (free_port() for _ in range(4))
        self.admin_cloud, self.admin_agent = free_port(), free_port()
        self.cloud = self.agent = None
        self.state = f"{folder}/cloud"
        self.agent_state = f"{folder}/node"

    def run(self, *argv, stdin=None):
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, env=ENV, timeout=60)
        if done.returncode != 0:
            raise SystemExit(f"local_api: {' '.join(argv)}: {done.stderr or done.stdout}")
        return done.stdout

    def log(self, name):
        return open(f"{self.dir}/{name}.log", "a", encoding="utf-8")

    def start_cloud(self):
        argv = [f"{self.bin}/edgemesh-cloud", "--state-dir", self.state, "--advertise", "127.0.0.1",
                "--listen-hub", f"127.0.0.1:{self.hub}", "--listen-bootstrap", f"127.0.0.1:{self.bootstrap}",
                "--listen-api", f"127.0.0.1:{self.api}", "--listen-admin", f"127.0.0.1:{self.admin_cloud}"]
        self.cloud = subprocess.Popen(argv, stdout=self.log("cloud"), stderr=subprocess.STDOUT, env=ENV)
        wait_for("the cloud is up", lambda: os.path.exists(f"{self.state}/join-token") and self.reaches(self.api))

    @staticmethod
    def reaches(port):
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", port)) == 0

    def start_agent(self):
        argv = [f"{self.bin}/edgemesh-agent", "--config", f"{self.agent_state}/agent.yaml"]
        self.agent = subprocess.Popen(argv, stdout=self.log("agent"), stderr=subprocess.STDOUT, env=ENV)
        wait_for("the node's API is up", lambda: self.reaches(self.local))

    def join(self):
        os.makedirs(self.agent_state)
        with open(f"{self.state}/join-token", encoding="ascii") as f:
            token = f.read().strip()
        self.run(f"{self.bin}/edgemesh", "join", "--cloud", f"127.0.0.1:{self.bootstrap}", "--token", token, "--node",
                 "probe-node", "--state-dir", self.agent_state, "--config", f"{self.agent_state}/agent.yaml")
        config = {"nodeName": "probe-node", "stateDir": self.agent_state,
                  "cloud": {"hub": f"127.0.0.1:{self.hub}", "bootstrap": f"127.0.0.1:{self.bootstrap}"},
                  "dns": {"enable": False}, "capture": {"enable": False}, "p2p": {"enable": False},
                  "admin": {"listen": f"127.0.0.1:{self.admin_agent}"},
                  "metaServer": {"listen": f"127.0.0.1:{self.local}"}, "modules": {"metaServer": {"enable": True}}}
        with open(f"{self.agent_state}/agent.yaml", "w", encoding="ascii") as f:
            json.dump(config, f)

    def kubectl(self, *args, stdin=None):
        return self.run("kubectl", "--kubeconfig", f"{self.state}/admin.kubeconfig", *args, stdin=stdin)

    def apply(self, *objects):
        self.kubectl("apply", "-f", "-", stdin="\n".join(json.dumps(o) for o in objects))

    def stop(self):
        for process in (self.agent, self.cloud):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()


def settings(value):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "default"},
            "data": {"key": value}}


def pod(name):
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
            "spec": {"nodeName": "probe-node", "volumes": [{"name": "s", "configMap": {"name": "settings"}}],
                     "containers": [{"name": "c", "image": "none:1"}]}}


def service(name):
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
            "spec": {"ports": [{"port": 80}]}}


def play(lab, program):
    lab.start_cloud()
    lab.join()
    lab.start_agent()
    lab.apply(settings("one"), pod("reader"), service("web"))
    probe = Probe(program, f"http://127.0.0.1:{lab.local}", "probe-node")
    try:
        probe.expect("a typed client lists", lambda l: "list" in l)
        probe.expect("the informers are in step", lambda l: l.get("synced") is True)
        probe.expect("the config map is there", lambda l: l.get("name") == "settings" and l.get("value") == "one")
        lab.apply(settings("two"))
        probe.expect("a change comes through", lambda l: l.get("event") == "update" and l.get("value") == "two")
        lab.apply(service("second"))
        probe.expect("a new service is added", lambda l: l.get("event") == "add" and l.get("name") == "second")
        probe.tell("write")
        probe.expect("a write goes to the cloud", lambda l: l.get("write") == "ok")

        lab.cloud.kill()
        lab.cloud.wait()
        wait_for("the node notices", lambda: '"connected":false' in lab.run(
            "curl", "-s", f"http://127.0.0.1:{lab.admin_agent}/status").replace(" ", ""))
        probe.tell("read")
        probe.expect("a list without the cloud", lambda l: l.get("read") == 1)
        probe.tell("write")
        probe.expect("a write is refused", lambda l: l.get("write") == "ServiceUnavailable")
        late = Probe(program, f"http://127.0.0.1:{lab.local}", "probe-node")
        late.expect("a program that starts now has all of it",
                    lambda l: l.get("event") == "add" and l.get("value") == "two")
        late.process.stdin.close()

        lab.agent.kill()  # the node reboots, still without its cloud
        lab.agent.wait()
        lab.start_agent()
        time.sleep(1)
        probe.tell("read")
        probe.expect("a list after the agent was killed", lambda l: l.get("read") == 1)

        lab.start_cloud()
        lab.apply(settings("three"))
        probe.expect("the same informers go on", lambda l: l.get("event") == "update" and l.get("value") == "three", 60)
        lab.kubectl("delete", "service", "second")
        probe.expect("a service is gone", lambda l: l.get("event") == "delete" and l.get("name") == "second", 60)
        gone = [line for line in probe.lines if line.get("event") == "delete"]
        if gone:
            raise SystemExit(f"local_api: informers lost objects on the way: {gone}")
    finally:
        probe.process.kill()


def main():
    bin_dir, program = sys.argv[1:3]
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(bin_dir, folder)
        try:
            play(lab, program)
        except SystemExit:
            for name in ("cloud", "agent"):
                with open(f"{folder}/{name}.log", encoding="utf-8") as f:
                    print("".join(f.readlines()[-15:]), file=sys.stderr)
            raise
        finally:
            lab.stop()
    print("local_api: all passed")


if __name__ == "__main__":
    main()
