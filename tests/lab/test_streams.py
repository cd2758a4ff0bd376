"""What kubectl asks of pods: logs, exec, attach, cp, port-forward, top; the pods' node is behind a NAT."""

import base64
import hashlib
import json
import os
import re
import subprocess
import threading
import time

from lab.cases import case
from lab.mesh import Mesh
from lab.proc import LabError, wait_for
from lab.programs import PYTHON, clean_env
from lab.runtime import BUSYBOX
from test_edged import EdgeNode, pod, wait_shown

KUBECTLS = "/usr/lib/google-cloud-sdk/bin"


class Kubectl:
    """kubectl in the cloud's namespace that runs on; its output comes in lines."""

    def __init__(self, cloud, *args, program="kubectl", stdin=False):
        env = clean_env(KUBECONFIG=cloud.kubeconfig, HOME=cloud.lab.dir)
        self._process = subprocess.Popen(
            cloud.lab.cloud_ns.wrap([program, *args]), env=env, stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.lines, self.errors = [], []
        for source, into in ((self._process.stdout, self.lines), (self._process.stderr, self.errors)):
            threading.Thread(target=self._collect, args=(source, into), daemon=True).start()

    @staticmethod
    def _collect(source, into):
        for line in source:
            into.append(line.decode(errors="replace").rstrip("\n"))

    def write(self, data):
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def wait_line(self, text, timeout=10):
        wait_for(lambda: any(text in line for line in self.lines), timeout,
                 lambda: f"'{text}' comes; there is {self.lines[-20:]} {self.errors[-20:]}")

    def wait_end(self, timeout=10):
        return wait_for(lambda: (self._process.poll(),) if self._process.poll() is not None else None, timeout,
                        lambda: f"kubectl ends; {self.lines[-5:]} {self.errors[-5:]}")[0]

    def stop(self):
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


def main_container(command, **more):
    return {"name": "main", "image": BUSYBOX, "command": ["sh", "-c", command], **more}


COUNTS = "i=0; while :; do i=$((i+1)); echo line $i; [ -e /tmp/end ] && exit 3; sleep 0.2; done"


def start_pods(node):
    node.start()
    page = {"name": "page", "image": BUSYBOX, "command": ["sh", "-c", "echo hello from $HOSTNAME > /tmp/index.html; "
                                                          "exec httpd -f -p 127.0.0.1:8080 -h /tmp"]}
    node.cloud.apply(pod("count", [main_container(COUNTS)]), pod("web", [main_container("cat", stdin=True), page]))
    wait_shown(node, "1/1", "Running", "app=count")
    wait_shown(node, "2/2", "Running", "app=web")


def check_logs(cloud):
    log = wait_for(lambda: [line for line in [cloud.kubectl("logs", "count").stdout] if "line 5" in line], 10,
                   "the log has five lines")[0].splitlines()
    assert log[:5] == [f"line {i}" for i in range(1, 6)], log
    tail = cloud.kubectl("logs", "count", "--tail=2", "--timestamps").stdout.splitlines()
    assert len(tail) == 2 and re.match(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z line \d+$", tail[1]), tail
    assert len(cloud.kubectl("logs", "count", "--since=1s").stdout.splitlines()) <= 8
    following = Kubectl(cloud, "logs", "-f", "count", "--tail=1")
    try:
        wait_for(lambda: len(following.lines) >= 4, 10, lambda: f"lines come: {following.lines} {following.errors}")
        numbers = [int(line.split()[1]) for line in list(following.lines)]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), numbers
        cloud.kubectl("exec", "count", "--", "sh", "-c", "echo > /tmp/end")
        # The container ends, and the log with it.
        assert following.wait_end(15) == 0, following.errors
    finally:
        following.stop()
    wait_for(lambda: "line 1\n" in cloud.kubectl("logs", "count", "--previous", check=False).stdout, 20,
             lambda: f"the log of the container before: {cloud.kubectl('logs', 'count', '--previous', check=False)}")
    unknown = cloud.kubectl("logs", "web", check=False)
    assert unknown.returncode != 0 or "Defaulted container" in unknown.stderr, unknown
    wrong = cloud.kubectl("logs", "web", "-c", "absent", check=False)
    assert wrong.returncode != 0 and "container absent is not valid for pod web" in wrong.stderr, wrong


def check_exec(cloud, program="kubectl"):
    def kubectl(*args, stdin=None, **more):
        argv = cloud.lab.cloud_ns.wrap([program, *args])
        return subprocess.run(argv, input=stdin, capture_output=True, timeout=30, check=False,
                              env=clean_env(KUBECONFIG=cloud.kubeconfig, HOME=cloud.lab.dir), **more)
    done = kubectl("exec", "web", "-c", "main", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout) == (7, b"out\n") and done.stderr.startswith(b"err\n"), done
    data = os.urandom(1 << 20)
    done = kubectl("exec", "-i", "web", "-c", "main", "--", "cat", stdin=data)
    assert done.returncode == 0 and done.stdout == data, (done.returncode, len(done.stdout), done.stderr)
    done = kubectl("exec", "web", "-c", "main", "--", "absent")
    assert done.returncode != 0 and b"absent" in done.stderr, done


def check_attach(cloud, program="kubectl"):
    attached = Kubectl(cloud, "attach", "-i", "web", "-c", "main", stdin=True, program=program)
    try:
        attached.write(f"through attach {program}\n".encode())
        attached.wait_line(f"through attach {program}")
    finally:
        attached.stop()


def check_copies(cloud, size=5 << 20):
    source, back = cloud.lab.path("copied"), cloud.lab.path("copied-back")
    data = os.urandom(size)
    with open(source, "wb") as f:
        f.write(data)
    cloud.kubectl("cp", "-c", "main", source, "web:/tmp/copied")
    inside = cloud.kubectl("exec", "web", "-c", "main", "--", "sha256sum", "/tmp/copied").stdout.split()[0]
    assert inside == hashlib.sha256(data).hexdigest()
    cloud.kubectl("cp", "-c", "main", "web:/tmp/copied", back)
    with open(back, "rb") as f:
        assert f.read() == data


def check_port_forward(cloud, program="kubectl", port=18080):
    forwarding = Kubectl(cloud, "port-forward", "web", f"{port}:8080", program=program)
    try:
        forwarding.wait_line("Forwarding from 127.0.0.1")
        get = ["curl", "-sS", "--noproxy", "*", "--max-time", "10"]
        for _ in range(3):
            said = cloud.lab.cloud_ns.run([*get, f"http://127.0.0.1:{port}/index.html"]).stdout
            assert said == "hello from web\n", said
    finally:
        forwarding.stop()


def check_top(cloud):
    """Rows of `kubectl top`, without their heads."""
    rows = cloud.kubectl("top", "pod", "--containers", "--no-headers").stdout.splitlines()
    found = {tuple(row.split()[:2]): row.split()[2:] for row in rows}
    assert {("web", "main"), ("web", "page"), ("count", "main")} <= set(found), rows
    for cpu, memory in found.values():
        assert re.fullmatch(r"\d+m", cpu) and re.fullmatch(r"\d+Mi", memory), rows
    node = cloud.kubectl("top", "node", "--no-headers").stdout.split()
    assert node[0] == "node-a" and re.fullmatch(r"\d+m", node[1]) and int(node[3].removesuffix("Mi")) > 10, node
    one = cloud.kubectl("top", "pod", "web", "--no-headers").stdout.split()
    assert one[0] == "web", one


@case(quick=True)
def kubectl_talks_to_pods():
    """Real kubectl: logs (-f, --tail, --since, --previous), exec with exit code and input, cp, attach, port-forward
    to a port on the pod's own loopback; a node that is away is named at once."""
    with Mesh("prc", join=False) as mesh:
        node = EdgeNode(mesh, "a")
        try:
            start_pods(node)
            cloud = mesh.cloud
            check_logs(cloud)
            check_exec(cloud)
            check_attach(cloud)
            check_copies(cloud)
            check_port_forward(cloud)
            check_top(cloud)
            node.agent.process.stop()
            began = time.monotonic()
            away = cloud.kubectl("logs", "web", "-c", "main", check=False)
            assert away.returncode != 0 and "node node-a is not connected" in away.stderr, away
            assert time.monotonic() - began < 5
            return f"a node that is away: {away.stderr.strip()}"
        except LabError as e:
            raise LabError(f"{e}\n{node.agent.process.log_tail(30)}\n{mesh.cloud.process.log_tail(20)}") from e
        finally:
            node.close()


# exec as clients other than kubectl do it: frames of a WebSocket, the first byte is the channel.
WEBSOCKET_EXEC = """
import base64, os, socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[1])
context.load_cert_chain(sys.argv[2])
stream = context.wrap_socket(socket.create_connection(("127.0.0.1", 6443), 10), server_hostname="127.0.0.1")
key = base64.b64encode(os.urandom(16)).decode()
path = "/api/v1/namespaces/default/pods/web/exec?container=main&command=echo&command=out&stdout=true"
stream.sendall((f"GET {path} HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\n"
                f"Sec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: {key}\\r\\n"
                "Sec-WebSocket-Protocol: v4.channel.k8s.io\\r\\n\\r\\n").encode())
got = b""
while b"Success" not in got:
    more = stream.recv(65536)
    if not more:
        break
    got += more
sys.stdout.write(repr(got))
"""


def check_websocket(cloud):
    user = json.loads(cloud.kubectl("config", "view", "--raw", "-o", "json").stdout)
    parts = {"ca": user["clusters"][0]["cluster"]["certificate-authority-data"],
             "cert": user["users"][0]["user"]["client-certificate-data"], "key": user["users"][0]["user"]["client-key-data"]}
    parts = {name: base64.b64decode(text).decode() for name, text in parts.items()}
    files = {"ca": parts["ca"], "pair": parts["cert"] + parts["key"]}
    for name, text in files.items():
        with open(cloud.lab.path(f"ws-{name}"), "w", encoding="ascii") as f:
            f.write(text)
    said = cloud.lab.cloud_ns.run([PYTHON, "-c", WEBSOCKET_EXEC, cloud.lab.path("ws-ca"), cloud.lab.path("ws-pair")],
                                  timeout=20).stdout
    assert "101 Switching" in said and "\\x01out\\n" in said and "Success" in said, said


@case()
def every_kubectl_talks_to_pods():
    """The same with each kubectl of this machine: SPDY alone (before 1.29), WebSockets first (from 1.30 on); and a
    client with the WebSockets that containerd speaks."""
    programs = sorted(os.path.join(KUBECTLS, f) for f in os.listdir(KUBECTLS) if re.fullmatch(r"kubectl\.1\.\d+", f)) \
        if os.path.isdir(KUBECTLS) else ["kubectl"]
    with Mesh("sym", join=False) as mesh:
        node = EdgeNode(mesh, "a")
        try:
            start_pods(node)
            for i, program in enumerate(programs):
                check_exec(mesh.cloud, program)
                check_attach(mesh.cloud, program)
                check_port_forward(mesh.cloud, program, 18081 + i)
            check_websocket(mesh.cloud)
            return " ".join(os.path.basename(p) for p in programs)
        finally:
            node.close()
