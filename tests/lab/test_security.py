"""Who is refused: other CAs, expired certificates, other names, targets that are no endpoint."""

import json
import os
import shutil
import time

from lab.cases import case
from lab.mesh import APPS, Mesh
from lab.pki import Pki
from lab.proc import run, wait_for
from lab.programs import CLOUD_IP, HUB_PORT, PYTHON, Agent, service, slice_of

DIRECT_PORT = 15008
# Any certificate of the mesh may connect, but is not a peer that node-b knows of: "node-x".


def mesh_pki(mesh):
    state = mesh.cloud.state
    return Pki(mesh.path("pki"), os.path.join(state, "ca", "ca.crt"), os.path.join(state, "ca", "ca.key"))


def connect(mesh, cert, key, authority, target="b"):
    """A CONNECT from node-a's machine to the agent of node-b, with this certificate."""
    ca = os.path.join(mesh.cloud.state, "ca", "ca.crt")
    argv = [PYTHON, os.path.join(APPS, "h2_connect.py"), mesh.agent(target).node.ip, str(DIRECT_PORT), cert, key, ca,
            authority]
    return json.loads(mesh.agent("a").node.run(argv).stdout)


@case(quick=True)
def strangers_are_refused():
    """The direct port takes certificates of the mesh CA only, and none that has expired."""
    with Mesh("none", "none") as mesh:
        pki, other = mesh_pki(mesh), Pki(mesh.path("other-pki"))
        endpoint = f"{mesh.agent('b').node.ip}:8080"
        good = connect(mesh, *pki.node("node-a"), endpoint)
        assert good == {"status": 200}, f"a good certificate: {good}"
        foreign = connect(mesh, *other.node("node-a"), endpoint)
        assert "refused" in foreign, f"another CA's certificate: {foreign}"
        expired = connect(mesh, *pki.node("node-a", expired=True), endpoint)
        assert "refused" in expired, f"an expired certificate: {expired}"
        domain = connect(mesh, *pki.node("node-a2", trust_domain="elsewhere.example"), endpoint)
        assert "refused" in domain or domain.get("status") == 403, f"another trust domain: {domain}"
        assert mesh.client("a", "hello", "b")["ok"]
        return "another CA, expired, another trust domain"


@case(quick=True)
def only_endpoints_are_reached():
    """CONNECT to what is no endpoint gives 403, and is counted: the agent is no open proxy."""
    with Mesh("none", "none") as mesh:
        cert, key = mesh_pki(mesh).node("node-a")
        b = mesh.agent("b")
        before = total_refused(b)
        targets = [f"{b.node.ip}:22", "127.0.0.1:15000", f"{CLOUD_IP}:6443", "[::1]:15000", f"{mesh.agent('a').node.ip}:8080"]
        for target in targets:
            got = connect(mesh, cert, key, target)
            assert got == {"status": 403}, f"CONNECT {target}: {got}"
        counted = total_refused(b) - before
        assert counted == len(targets), f"{counted} refusals counted, not {len(targets)}"
        return f"{len(targets)} targets: 403 each, counted"


def total_refused(agent):
    """The sum of the inbound counters for refused targets."""
    total = 0.0
    for line in agent.http("/metrics").splitlines():
        if line.startswith("edgemesh_proxy_inbound") and ("refused" in line or "denied" in line or "403" in line):
            total += float(line.rsplit(" ", 1)[1])
    return total


class Impostor(Agent):
    """A whole agent on node-b's machine with a certificate of our choice: it answers CONNECT like any other.

    The cloud takes it for node-b, whatever it shows its peers: hub_relay.py speaks to the hub for it.
    """

    def __init__(self, mesh, serial, name, pair, ca, path, relay_pair):
        super().__init__(mesh.cloud, mesh.agent("b").node)
        self.real, self.relay_pair = mesh.agent("b"), relay_pair
        self.port = 17000 + serial
        self.state = mesh.path(f"impostor-{serial}")
        self.config = os.path.join(self.state, "agent.yaml")
        shutil.copytree(self.real.state, self.state)  # with the services that node-b knows
        for source, target in ((pair[0], "node.crt"), (pair[1], "node.key"), (ca, "ca.crt")):
            shutil.copy(source, os.path.join(self.state, target))
        with open(os.path.join(self.state, "ca.crt"), "a", encoding="ascii") as f:
            # It believes node-a, so that nothing but node-a's check stands in its way.
            with open(os.path.join(mesh.cloud.state, "ca", "ca.crt"), encoding="ascii") as mesh_ca:
                f.write(mesh_ca.read())
        with open(self.config, "w", encoding="ascii") as f:
            f.write(f"nodeName: {name}\nstateDir: {self.state}\np2p: {path}\ncloud:\n"
                    f"  hub: 127.0.0.1:{self.port}\n  bootstrap: 127.0.0.1:9\n")
        self.claims = name
        self.relay = None

    def start(self, wait=True, timeout=20):
        state = self.real.state
        self.relay = self.node.start(
            f"hub-relay-{self.port}",
            [PYTHON, os.path.join(APPS, "hub_relay.py"), str(self.port), *self.relay_pair, CLOUD_IP, str(HUB_PORT),
             os.path.join(state, "node.crt"), os.path.join(state, "node.key"), self.claims, "node-b"])
        wait_for(lambda: "ready" in self.relay.log(), 10, lambda: f"the hub relay listens: {self.relay.log()}")
        super().start(wait, timeout)
        wait_for(self.connected, 10, lambda: f"the impostor reaches the hub: {self.process.log_tail(20)}")
        return self

    def stop(self):
        self.process.stop(15)
        self.relay.stop()


def impostors(mesh, path):
    """Yields (what, words of which the refusal has one or None, a running Impostor)."""
    pki, other = mesh_pki(mesh), Pki(mesh.path("other-pki"))
    certificates = [("node-b itself", "node-b", pki.node("node-b"), pki.cert, None),
                    ("another CA", "node-b", other.node("node-b"), other.cert, ("mesh CA", "self-signed", "issuer")),
                    ("expired", "node-b", pki.node("node-b", expired=True), pki.cert, ("expired",)),
                    ("another node", "node-c", pki.node("node-c"), pki.cert, ("node-c",))]
    relay_pair = pki.server("127.0.0.1")
    for serial, (what, name, pair, ca, words) in enumerate(certificates):
        impostor = Impostor(mesh, serial, name, pair, ca, path, relay_pair).start()
        mesh.agents["node-b"], real = impostor, mesh.agents["node-b"]
        try:
            yield what, words
        finally:
            mesh.agents["node-b"] = real
            impostor.stop()


def refuse_impostors(kind, path, boxes, named_may_dial):
    with Mesh(*boxes) as mesh:
        node = mesh.agent("b").node
        # node-c may take streams for the same address: a certificate of its name would do at node-b's place.
        mesh.cloud.apply(service("decoy"), slice_of("decoy", [(node.ip, "node-c")]))
        mesh.wait_services(["decoy"])
        mesh.client("a", "hello", "b")
        a = mesh.agent("a")
        a.wait_path("node-b", ("direct", "punched"), 10)
        mesh.agent("b").process.stop(15)
        times = []
        for what, words in impostors(mesh, path):
            log = len(a.process.log())
            begin = time.monotonic()
            if words is None:
                wait_for(lambda: mesh.client("a", "hello", "b", "20", check=False)["ok"], 20, f"{what} is reached")
                mesh.client("b", "hello", "a")
                assert a.path_to("node-b") == kind, f"{what} is reached by another path: {a.peer('node-b')}"
                continue
            def refused():
                result = mesh.client("a", "hello", "b", "20", check=False)
                assert not result["ok"], f"{what}: the impostor was believed: {result}"
                return any(word in a.process.log()[log:] for word in words)

            # The first attempts may end because the node of that name has just changed.
            wait_for(refused, 30, lambda: f"the log says why ({what}): {a.process.log()[log:][-1500:]}")
            if what != "another node" or not named_may_dial:
                for _ in range(3):
                    result = mesh.client("b", "hello", "a", "20", check=False)
                    assert not result["ok"], f"{what}: the impostor's stream was taken: {result}"
            times.append(f"{what} {time.monotonic() - begin:.1f} s")
        return "refused both ways: " + ", ".join(times)


@case(quick=True)
def impostors_on_the_tunnel():
    """Whoever signals as node-b with another CA's, an expired, or another node's certificate gets no stream."""
    return refuse_impostors("punched", "{direct: false}", ("prc", "prc"), False)


@case()
def impostors_on_the_direct_path():
    """Whoever answers at node-b's address with such a certificate gets no stream, nor may it open one."""
    # As itself, node-c may dial whom it likes.
    return refuse_impostors("direct", "{ice: false}", ("none", "none"), True)


def hub(mesh, cert, key, node):
    """The first line of the hub's answer to a WebSocket request as `node`."""
    request = (f"GET /e632aba927ea4ac2b575ec1603d56f10/{node}/events HTTP/1.1\r\nHost: cloud\r\nUpgrade: websocket\r\n"
               "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
               f"node_id: {node}\r\n\r\n")
    argv = ["timeout", "3", "openssl", "s_client", "-quiet", "-connect", f"{CLOUD_IP}:{HUB_PORT}", "-cert", cert, "-key",
            key]
    done = run(mesh.agent("a").node.ns.wrap(argv), stdin=request + "\r\n", check=False, timeout=20)
    return (done.stdout.splitlines() or ["no answer"])[0]


@case(quick=True)
def hub_checks_names():
    """The hub takes a node by its certificate: another node's name, another CA, an expired one are refused."""
    with Mesh("none", "none") as mesh:
        pki, other = mesh_pki(mesh), Pki(mesh.path("other-pki"))
        # Good first, under a name that is free.
        assert " 101 " in hub(mesh, *pki.node("node-x"), "node-x") + " ", "a good certificate was refused"
        for what, (cert, key) in {"another node's name": pki.node("node-y"), "another CA": other.node("node-b"),
                                  "expired": pki.node("node-b", expired=True)}.items():
            answer = hub(mesh, cert, key, "node-b")
            assert " 101 " not in answer + " ", f"{what} was let in: {answer}"
        time.sleep(0.3)
        assert mesh.agent("b").connected(), "the real node-b lost its connection"
        return "another node's name, another CA, expired"


def put_out(mesh, what, act):
    """node-b's certificate ends by act(): its channel, its connections and its streams end, and stay refused."""
    a, b = mesh.agent("a"), mesh.agent("b")
    mesh.client("a", "hello", "b")
    mesh.client("b", "hello", "a")
    path = a.wait_path("node-b", ("direct", "punched"), 10)
    old = [shutil.copy(os.path.join(b.state, name), mesh.path(f"old-{name}")) for name in ("node.crt", "node.key")]
    echoes = [mesh.start_client("a", "echo", "b", 60), mesh.start_client("b", "echo", "a", 60)]
    time.sleep(1)
    begin = time.monotonic()
    act()
    wait_for(lambda: not b.process.running() or not b.connected(), 5, "the hub ends node-b's session")
    for echo in echoes:
        result = echo.result(10)
        assert not result["ok"], f"{what}: an open connection by the {path} path went on: {result}"
    cut = time.monotonic() - begin
    return old, cut


def refused_everywhere(mesh, old):
    answer = hub(mesh, *old, "node-b")
    assert " 403 " in answer, f"the hub lets the old certificate in: {answer}"
    argv = ["curl", "-sk", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", "--cert", old[0], "--key", old[1],
            f"https://{CLOUD_IP}:6443/api/v1/nodes/node-b"]
    answer = run(mesh.agent("a").node.ns.wrap(argv), check=False, timeout=20).stdout
    assert answer == "401", f"the API lets the old certificate in: {answer}"
    for source, target in (("a", "b"), ("b", "a")):
        result = mesh.client(source, "hello", target, "20", check=False)
        assert not result["ok"], f"a new connection from {source} to {target} was served: {result}"


def restart_both(mesh, old):
    """Both remember it: the cloud over a restart, and an agent that starts with no cloud in reach."""
    a = mesh.agent("a")
    mesh.cloud.process.kill()
    a.process.kill()
    a.start()
    result = mesh.client("b", "hello", "a", "20", check=False)
    assert not result["ok"], f"after a restart without the cloud: {result}"
    mesh.cloud.start()
    wait_for(a.connected, 40, "node-a is back")
    assert " 403 " in hub(mesh, *old, "node-b"), "the cloud has forgotten it"


def deleted_node(*boxes, restarts=True):
    with Mesh(*boxes) as mesh:
        a, b = mesh.agent("a"), mesh.agent("b")
        old, cut = put_out(mesh, "deleted", lambda: mesh.cloud.kubectl("delete", "node", "node-b"))
        refused_everywhere(mesh, old)
        assert "revoked" in b.process.log(), f"node-b is not told why: {b.process.log_tail(10)}"
        if restarts:
            restart_both(mesh, old)
        b.process.stop(15)
        b.join("--force").start()
        wait_for(lambda: mesh.client("a", "hello", "b", "20", check=False)["ok"], 20, "node-b is reached again")
        wait_for(lambda: mesh.client("b", "hello", "a", "20", check=False)["ok"], 20, "node-b reaches node-a again")
        assert " 403 " in hub(mesh, *old, "node-b"), "the old certificate is good again"
        return f"cut within {cut:.1f} s, refused{' after restarts' if restarts else ''}, back with a token"


@case(quick=True)
def deleted_nodes_are_put_out():
    """kubectl delete node: its channel and connections end, its certificate opens nothing; a token brings it back."""
    return deleted_node("prc", "prc", restarts=False)


@case()
def deletions_are_remembered():
    """The same, and the cloud and the other node start again in between."""
    return deleted_node("prc", "prc")


@case()
def deleted_nodes_are_put_out_of_the_direct_path():
    """The same where both nodes have public addresses."""
    return deleted_node("none", "none")


@case()
def replaced_nodes_are_put_out():
    """A token with --replace gives node-b's name to another machine: the old one's certificate counts no more."""
    with Mesh("prc", "prc", "prc") as mesh:
        new = mesh.agent("c")
        new.process.stop(15)
        token = mesh.cloud.new_token("--node", "node-b", "--replace")
        new.name = "node-b"
        old, cut = put_out(mesh, "replaced", lambda: new.join("--force", token=token))
        assert " 403 " in hub(mesh, *old, "node-b"), "the hub lets the old certificate in"
        new.start()
        wait_for(new.connected, 10, "the new node-b is connected")
        return f"cut within {cut:.1f} s"


@case(quick=True)
def wrong_token():
    """Joining with a wrong token, or a wrong address, ends with one line that says what to do."""
    with Mesh("none", join=False) as mesh:
        agent = mesh.agent("a")
        good = mesh.cloud.token
        for token in ("nonsense", good[:-4] + "AAAA", "0" * 64 + "." + good.split(".", 1)[1]):
            argv = ["join", "--cloud", f"{CLOUD_IP}:10002", "--token", token, "--node", "node-a", "--state-dir",
                    mesh.path("x"), "--config", mesh.path("x", "agent.yaml")]
            done = agent.cli(*argv, check=False)
            text = done.stderr.strip()
            assert done.returncode != 0 and 0 < len(text.splitlines()) <= 2, f"{token[:20]}: {done.returncode} {text}"
        begin = time.monotonic()
        done = agent.cli("join", "--cloud", f"{CLOUD_IP}:9", "--token", good, "--node", "node-a", "--state-dir",
                         mesh.path("x"), "--config", mesh.path("x", "agent.yaml"), check=False)
        assert done.returncode != 0 and time.monotonic() - begin < 15, f"{done.returncode} {done.stderr}"
        return done.stderr.strip().splitlines()[-1]
