"""How long the first contact of two nodes takes: the first byte of an answer, and the direct path."""

from harness import percentile  # noqa: F401  (the report's percentiles)
from lab.mesh import Mesh

PAIRS = {"prc:prc": ("prc", "prc"), "sym:sym (relay only)": ("sym", "sym")}


def restart(mesh):
    """Both agents forget their tunnels. Returns when both are on the channel again."""
    for agent in mesh.agents.values():
        agent.process.stop(15)
    for agent in mesh.agents.values():
        agent.start(wait=False)
    for agent in mesh.agents.values():
        agent.wait_ready()
    mesh.wait_services(["app-a", "app-b"])


def measure(table, name, kinds, runs):
    first, direct = [], []
    can = "sym" not in kinds
    with Mesh(*kinds) as mesh:
        for i in range(runs):
            if i:
                restart(mesh)
            result = mesh.probe("a", "b", 10 if can else 0.1)
            if result["first_byte_ms"] is None:
                table.log(f"  no answer: {result['answer']}")
                continue
            first.append(result["first_byte_ms"])
            if result["direct_ms"] is not None:
                direct.append(result["direct_ms"])
            table.log(f"  {name}: first byte {first[-1]:.0f} ms, direct {result['direct_ms']}")
    for values, work in ((first, "first byte"), (direct, "direct path")):
        for p in (50, 99):
            if values:
                table.add_percentile(work, name, values, p, "ms")


def run(table, runs):
    for name, kinds in PAIRS.items():
        measure(table, name, kinds, runs)
    table.goal("direct path at zero RTT, p50, ms", 50, table.value("direct path p50", "prc:prc"), False)
