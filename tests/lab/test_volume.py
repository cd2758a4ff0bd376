"""Much data and many connections: nothing lost, nothing leaked."""

import time

from lab.cases import case
from lab.mesh import Mesh
from lab.proc import wait_for

DIRECT = ("direct", "punched")
GIB = 1 << 30


def ready(mesh):
    mesh.client("a", "hello", "b")
    mesh.agent("a").wait_path("node-b", DIRECT, 10)


class Flat:
    """Compares descriptors and memory of both agents before and after. A first round of the same work
    warms up (pools, allocator), so that growth is a leak."""

    def __init__(self, mesh, slack_kib=4096, slack_fds=6):
        self.agents = [mesh.agent("a"), mesh.agent("b")]
        self.slack_kib, self.slack_fds = slack_kib, slack_fds
        self.before = self._figures()

    def _figures(self):
        return [(a.process.descriptors(), a.process.memory_kib()) for a in self.agents]

    def check(self):
        def settled():
            return all(now[0] <= then[0] + self.slack_fds for now, then in zip(self._figures(), self.before))

        wait_for(settled, 20, lambda: f"descriptors are back: before {self.before}, now {self._figures()}", 0.5)
        after = self._figures()
        for agent, then, now in zip(self.agents, self.before, after):
            grown = now[1] - then[1]
            assert grown < self.slack_kib, f"{agent.name} has grown by {grown} KiB: {then} to {now}"
        return ", ".join(f"{a.name} {n[0]} descriptors {n[1] / 1024:.1f} MiB" for a, n in zip(self.agents, after))


def volume(total):
    with Mesh("prc", "prc") as mesh:
        ready(mesh)
        mesh.client("a", "download", "b", 32 << 20, 1)
        mesh.client("a", "upload", "b", 32 << 20, 1)
        flat = Flat(mesh)
        down = mesh.client("a", "download", "b", total, 7, timeout=600)
        up = mesh.client("a", "upload", "b", total, 8, timeout=600)
        return f"down {down['mbit']:.0f} Mbit/s, up {up['mbit']:.0f} Mbit/s; {flat.check()}"


@case()
def one_gib_each_way():
    """1 GiB each way through the punched tunnel, compared by checksum; memory flat."""
    return volume(GIB)


@case(quick_only=True)
def sixty_four_mib_each_way():
    """64 MiB each way through the punched tunnel, compared by checksum."""
    return volume(64 << 20)


@case()
def relayed_volume():
    """64 MiB each way through the relay, compared by checksum."""
    with Mesh("sym", "sym") as mesh:
        mesh.client("a", "hello", "b")
        down = mesh.client("a", "download", "b", 64 << 20, 3)
        up = mesh.client("a", "upload", "b", 64 << 20, 4)
        assert mesh.agent("a").path_to("node-b") == "relayed", mesh.agent("a").peer("node-b")
        return f"down {down['mbit']:.0f} Mbit/s, up {up['mbit']:.0f} Mbit/s"


def many_short(count):
    with Mesh("prc", "prc") as mesh:
        ready(mesh)
        mesh.client("a", "short", "b", 500, 50)
        flat = Flat(mesh)
        result = mesh.client("a", "short", "b", count, 50, timeout=300)
        return f"{result['per_second']:.0f} connections/s; {flat.check()}"


@case()
def ten_thousand_short():
    """10,000 short connections: each is answered, no descriptor leaks."""
    return many_short(10_000)


@case(quick_only=True)
def two_thousand_short():
    """2,000 short connections: each is answered, no descriptor leaks."""
    return many_short(2_000)


@case(quick=True)
def thousand_concurrent():
    """1,000 connections at once, each used twice."""
    with Mesh("prc", "prc") as mesh:
        ready(mesh)
        mesh.client("a", "concurrent", "b", 1000)
        flat = Flat(mesh)
        mesh.client("a", "concurrent", "b", 1000, 1)
        return flat.check()


@case(quick=True)
def half_close():
    """A client that ends its direction still reads the answer; over each kind of path."""
    with Mesh("prc", "prc", "none", "none", "sym") as mesh:
        for source, target in (("a", "b"), ("c", "d"), ("a", "e"), ("b", "b")):
            for _ in range(5):
                mesh.client(source, "halfclose", target)
        return "punched, direct, relayed and local"


def slow(seconds):
    with Mesh("prc", "prc") as mesh:
        ready(mesh)
        rate = 4_000_000
        clients = [mesh.start_client("a", "download", "b", rate * seconds, 1, rate),
                   mesh.start_client("a", "upload", "b", rate * seconds, 2, rate),
                   mesh.start_client("b", "download", "a", rate * seconds, 3, rate),
                   mesh.start_client("b", "upload", "a", rate * seconds, 4, rate)]
        time.sleep(1)
        # A reader at 4 MB/s in front of a writer that has everything at hand: the agents must not buffer it.
        before = [mesh.agent(x).process.memory_kib() for x in "ab"]
        fast = mesh.client("a", "download", "b", 64 << 20, 9)
        after = [mesh.agent(x).process.memory_kib() for x in "ab"]
        for client in clients:
            result = client.result(120)
            assert result["ok"], result
        grown = max(now - then for then, now in zip(before, after))
        assert grown < 65536, f"the agents buffered {grown} KiB"
        return f"four slow transfers; a fast one beside them {fast['mbit']:.0f} Mbit/s; memory {before} to {after} KiB"


@case(quick=True)
def slow_ends():
    """Slow readers and slow writers: nothing lost, bounded memory, others not held up."""
    return slow(5)
