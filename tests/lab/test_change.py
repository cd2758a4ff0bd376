"""What goes on when something breaks: addresses, mappings, the relay, the cloud, an agent."""

import signal
import time

from lab.cases import case
from lab.mesh import Mesh
from lab.proc import wait_for
from lab.programs import CLOUD_IP, HUB_PORT, service, slice_of

DIRECT = ("direct", "punched")
RECOVERY_MS = 2000


def tunnel(mesh, kinds=DIRECT, source="a", target="b"):
    """Opens the path and waits until it is of one of these kinds."""
    mesh.client(source, "hello", target)
    return mesh.agent(source).wait_path(f"node-{target}", kinds, 10)


def during(mesh, seconds, act, at=2.0, source="a", target="b"):
    """An echo connection that lives through act(); its result."""
    client = mesh.start_client(source, "echo", target, seconds)
    time.sleep(at)
    act()
    result = client.result(seconds + 60)
    assert result["ok"], f"the open connection broke: {result}"
    return result


@case()
def client_address_changes():
    """A node changes its address in the middle of a download, which ends whole."""
    with Mesh("prc", "prc") as mesh:
        tunnel(mesh)
        client = mesh.start_client("a", "download", "b", 120_000_000, 5, 20_000_000)
        time.sleep(2)
        mesh.agent("a").node.change_ip(77)
        result = client.result(90)
        assert result["ok"], result
        assert mesh.agent("a").wait_path("node-b", DIRECT, 15)
        return f"120 MB whole; longest gap {result['longest_gap_ms']:.0f} ms"


@case()
def wan_address_changes():
    """The provider gives the NAT box another address; an open connection goes on."""
    with Mesh("prc", "prc") as mesh:
        tunnel(mesh)
        result = during(mesh, 15, lambda: mesh.boxes[0].change_wan_ip("203.0.113.150"))
        mesh.agent("a").wait_path("node-b", DIRECT, 15)
        return f"longest answer {result['longest_ms']:.0f} ms"


@case(quick=True)
def nat_forgets():
    """The NAT boxes forget their mappings; an open connection goes on within 2 s."""
    with Mesh("prc", "prc") as mesh:
        tunnel(mesh)
        result = during(mesh, 6, lambda: [box.flush_mappings() for box in mesh.boxes])
        assert result["longest_ms"] < RECOVERY_MS, f"took {result['longest_ms']:.0f} ms"
        result2 = during(mesh, 6, mesh.boxes[1].flush_mappings)
        assert result2["longest_ms"] < RECOVERY_MS, f"took {result2['longest_ms']:.0f} ms (far box alone)"
        return f"both boxes: {result['longest_ms']:.0f} ms; the far one: {result2['longest_ms']:.0f} ms"


@case()
def relay_restarts():
    """The relay is killed and started: direct paths do not notice, relayed ones come back."""
    with Mesh("prc", "prc", "sym", "sym") as mesh:
        tunnel(mesh)
        tunnel(mesh, ("relayed",), "c", "d")

        def restart():
            mesh.relay.kill()
            time.sleep(2)
            mesh.relay.start()

        result = during(mesh, 8, restart)
        assert result["longest_ms"] < 1000, f"the direct path stood still: {result}"
        begin = time.monotonic()
        wait_for(lambda: mesh.client("c", "hello", "d", "5", check=False)["ok"], 30,
                 lambda: f"relayed again; {mesh.agent('c').peer('node-d')}")
        return (f"direct: longest answer {result['longest_ms']:.0f} ms; "
                f"relayed: answers {time.monotonic() - begin:.1f} s after the other test's end")


def cloud_away(seconds):
    with Mesh("prc", "prc", "none") as mesh:
        tunnel(mesh)
        client = mesh.start_client("a", "echo", "b", seconds + 6, 0.1)
        time.sleep(1)
        mesh.cloud.process.kill()
        end = time.monotonic() + seconds
        tries = 0
        while time.monotonic() < end:
            mesh.client("a", "hello", "b")
            tries += 1
            time.sleep(1)
        wait_for(lambda: not mesh.agent("a").connected(), 10, "the agent notices that the cloud is gone")
        mesh.cloud.start()
        begin = time.monotonic()
        wait_for(lambda: all(a.connected() for a in mesh.agents.values()), 40, "all agents are back")
        back = time.monotonic() - begin
        node = mesh.agent("b").node
        mesh.cloud.apply(service("late"), slice_of("late", [(node.ip, "node-b")]))
        mesh.wait_services(["late"])
        mesh.client("a", "hello", "late.default.svc.cluster.local")
        result = client.result(60)
        assert result["ok"], f"the open connection broke: {result}"
        return f"{tries} new connections meanwhile; agents back {back:.1f} s after the cloud; longest answer " \
               f"{result['longest_ms']:.0f} ms"


@case(quick=True)
def cloud_link_goes_silent():
    """Packets between node and cloud vanish, no RST: both notice within 5 s, and the channel comes back."""
    with Mesh("prc", "prc") as mesh:
        tunnel(mesh)
        a, box = mesh.agent("a"), mesh.agent("a").node.box.ns
        drops = [f"FORWARD -p tcp -d {CLOUD_IP} --dport {HUB_PORT} -j DROP",
                 f"FORWARD -p tcp -s {CLOUD_IP} --sport {HUB_PORT} -j DROP"]
        assert a.connected()
        time.sleep(1.3)  # somewhere between two pings
        begin = time.monotonic()
        box.rules(*(f"-I {drop}" for drop in drops))
        wait_for(lambda: not a.connected(), 10, "the agent notices that the link is dead")
        noticed = time.monotonic() - begin
        wait_for(lambda: "node node-a disconnected: silent" in mesh.cloud.process.log(), 10, "so does the cloud")
        cloud_noticed = time.monotonic() - begin
        mesh.client("a", "hello", "b")  # by what it knows
        time.sleep(2)
        assert not a.connected()
        lifted = time.monotonic()
        box.rules(*(f"-D {drop}" for drop in drops))
        wait_for(a.connected, 40, "the agent is back")
        back = time.monotonic() - lifted
        assert noticed < 5, f"the agent noticed after {noticed:.1f} s"
        assert cloud_noticed < 5.5, f"the cloud noticed after {cloud_noticed:.1f} s"
        node = mesh.agent("b").node
        mesh.cloud.apply(service("late"), slice_of("late", [(node.ip, "node-b")]))
        mesh.wait_services(["late"])
        return f"noticed after {noticed:.1f} s (cloud {cloud_noticed:.1f} s); back {back:.1f} s after the drop was lifted"


@case()
def cloud_away_a_minute():
    """The cloud is killed for a minute: open and new connections go on, and it comes back."""
    return cloud_away(60)


@case(quick_only=True)
def cloud_away_shortly():
    """The cloud is killed for some seconds: open and new connections go on."""
    return cloud_away(7)


@case(quick=True)
def agent_starts_without_cloud():
    """An agent that starts with no cloud in reach serves what it knew."""
    with Mesh("none", "none") as mesh:
        tunnel(mesh)
        mesh.cloud.process.kill()
        mesh.agent("a").process.stop()
        mesh.agent("a").start()
        result = mesh.client("a", "hello", "b", "10")
        return f"first byte {result['first_byte_ms']:.0f} ms"


@case(quick=True)
def agent_killed():
    """kill -9 of an agent: nothing stays blocked, and it is back within 2 s."""
    with Mesh("prc", "prc") as mesh:
        tunnel(mesh)
        agent = mesh.agent("a")
        server = mesh.start("plain-server", mesh.cloud_ns.wrap(
            # Not http.server's own: it asks DNS for its name, which may be far away from here.
            ["/usr/bin/python3", "-c", "import http.server as h, socketserver as s\n"
             "s.TCPServer(('', 8088), h.SimpleHTTPRequestHandler).serve_forever()"]))
        wait_for(lambda: ":8088" in mesh.cloud_ns.run(["ss", "-Htln"]).stdout, 10, lambda: f"server: {server.log()}")
        agent.process.kill()
        agent.node.run(["curl", "-sS", "--noproxy", "*", "--max-time", "3", "-o", "/dev/null", "http://203.0.113.10:8088/"])
        begin = time.monotonic()
        agent.start()
        wait_for(lambda: mesh.client("a", "hello", "b", "2", check=False)["ok"], 10, "the service answers again")
        took = time.monotonic() - begin
        assert took < 2, f"back after {took:.1f} s"
        # And at an orderly end nothing of ours is left.
        agent.process.stop(15)
        left = agent.node.run(["iptables-save"]).stdout + agent.node.run(["ip", "rule"]).stdout
        assert "edgemesh" not in left.lower() and "19782" not in left, f"left behind:\n{left}"
        return f"plain traffic goes on; back in {took * 1e3:.0f} ms; nothing left after SIGTERM"


@case(quick=True)
def far_agent_killed():
    """The far agent is killed: an error within the connect timeout, or another endpoint if there is one."""
    with Mesh("prc", "prc", "prc") as mesh:
        b, c = mesh.agent("b").node, mesh.agent("c").node
        mesh.cloud.apply(service("both"), slice_of("both", [(b.ip, "node-b"), (c.ip, "node-c")]))
        mesh.wait_services(["both"])
        tunnel(mesh)
        tunnel(mesh, target="c")
        mesh.agent("b").process.kill()
        result = mesh.client("a", "hello", "b", "30", check=False)
        assert not result["ok"], "an agent that is dead has answered"
        # connectTimeout is 5 s.
        assert result["elapsed_s"] < 6.5, f"the error came after {result['elapsed_s']:.1f} s"
        slowest = 0
        for _ in range(10):
            other = mesh.client("a", "hello", "both.default.svc.cluster.local", "30")
            assert other["answer"] == "hello from node-c", other
            slowest = max(slowest, other["first_byte_ms"])
        return f"error after {result['elapsed_s']:.1f} s; ten connections by the other endpoint, slowest {slowest:.0f} ms"


@case(quick=True)
def capture_is_repaired():
    """Another program flushes the firewall: the rules come back."""
    with Mesh("none", "none") as mesh:
        tunnel(mesh)
        mesh.agent("a").node.ns.rules("-t mangle -F", "-t nat -F")
        begin = time.monotonic()
        wait_for(lambda: mesh.client("a", "hello", "b", "2", check=False)["ok"], 35, "the service answers again")
        return f"repaired after {time.monotonic() - begin:.1f} s"


@case(quick=True)
def agent_drains():
    """SIGTERM: open connections may end by themselves before the agent does."""
    with Mesh("none", "none") as mesh:
        tunnel(mesh)
        client = mesh.start_client("a", "download", "b", 20_000_000, 2, 10_000_000)
        time.sleep(0.5)
        mesh.agent("a").process.signal(signal.SIGTERM)
        result = client.result(60)
        assert result["ok"], f"the download was cut: {result}"
        assert mesh.agent("a").process.wait(15) == 0, f"exit code {mesh.agent('a').process.exit_code()}"
        return "a download ended whole"
