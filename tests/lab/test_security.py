"""Who is refused: other CAs, expired certificates, other names, targets that are no endpoint."""

import json
import os
import time

from lab.cases import case
from lab.mesh import APPS, Mesh
from lab.pki import Pki
from lab.proc import run, wait_for
from lab.programs import CLOUD_IP, HUB_PORT, PYTHON

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


@case(quick=True)
def another_nodes_name_is_refused():
    """Whoever answers at node-b's address with another node's certificate gets no stream."""
    with Mesh("none", "none") as mesh:
        pki = mesh_pki(mesh)
        mesh.client("a", "hello", "b")
        mesh.agent("a").wait_path("node-b", ("direct", "punched"), 10)
        mesh.agent("b").process.stop(15)
        crt, key = pki.node("node-c")
        impostor = mesh.agent("b").node.start(
            "impostor", ["openssl", "s_server", "-accept", str(DIRECT_PORT), "-cert", crt, "-key", key, "-CAfile",
                         pki.cert, "-alpn", "h2", "-Verify", "1", "-naccept", "1000", "-state"], pipe=True)
        wait_for(lambda: "ACCEPT" in impostor.log(), 10, lambda: f"the impostor listens: {impostor.log()}")
        result = mesh.client("a", "hello", "b", "20", check=False)
        assert not result["ok"], f"the impostor was believed: {result}"
        wait_for(lambda: "SSL_accept" in impostor.log(), 20, "the impostor was dialed")
        log = mesh.agent("a").process.log()
        assert "node-c" in log or "spiffe" in log.lower(), "the agent's log does not say whose certificate it saw"
        return "refused, and the log names the identity that was found"


def hub(mesh, cert, key, node):
    """The first line of the hub's answer to a WebSocket request as `node`."""
    request = (f"GET /e632aba927ea4ac2b575ec1603d56f10/{node}/events HTTP/1.1\r\nHost: cloud\r\nUpgrade: websocket\r\n"
               "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
               f"node_id: {node}\r\n\r\n")
    argv = ["timeout", "5", "openssl", "s_client", "-quiet", "-connect", f"{CLOUD_IP}:{HUB_PORT}", "-cert", cert, "-key",
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
