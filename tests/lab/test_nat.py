"""Pairs of NAT boxes, IPv6, one NAT for both: which path is found, and how fast."""

import concurrent.futures

from lab import nat
from lab.cases import case
from lab.mesh import Mesh
from lab.proc import LabError
from lab.relay import Coturn, nat_behaviour
from lab.topology import Lab

DIRECT = ("direct", "punched")
FREE, BOUND, SILENT = "endpoint independent", "address and port dependent", "no answer"
EXPECTED = {"none": (FREE, FREE), "full": (FREE, FREE), "prc": (FREE, BOUND), "sym": (BOUND, BOUND),
            "block": (SILENT, SILENT)}


@case(quick=True)
def nat_boxes_behave():
    """Each kind of box translates and filters as it says, measured with STUN."""
    with Lab() as lab:
        Coturn(lab).start()
        nodes = {kind: lab.node(f"n-{kind}", lab.box(kind)) for kind in nat.KINDS}
        with concurrent.futures.ThreadPoolExecutor(len(nodes)) as pool:
            found = dict(zip(nodes, pool.map(nat_behaviour, nodes.values())))
        wrong = {k: v for k, v in found.items() if v != EXPECTED[k]}
        assert not wrong, f"measured (mapping, filtering): {wrong}"
    return "mapping and filtering as expected: " + " ".join(nat.KINDS)


def check_pair(mesh, source, target, kinds):
    """One row of the table; LabError when the path is not the one that these boxes allow."""
    wanted = nat.possible_paths(*kinds)
    direct = wanted[-1] in DIRECT
    result = mesh.probe(source, target, 8 if direct else 0.5)
    name = f"{kinds[0]}:{kinds[1]}"
    if result["answer"] != f"hello from node-{target}":
        raise LabError(f"{name}: no answer: {result['answer']}\n{mesh.agent(source).cli('status').stdout}")
    if result["path"] not in wanted:
        peer = mesh.agent(source).peer(f"node-{target}")
        raise LabError(f"{name}: the path is {result['path']}, and should be {' or '.join(wanted)}: {peer}")
    to_direct = f"{result['direct_ms']:.0f}" if direct else "-"
    return f"{name:12} {result['path']:8} {result['first_byte_ms']:8.0f} {to_direct:>10}"


def matrix(left, right, pairs=None):
    """One lab, the left kinds as clients and the right ones as servers; each pair meets once."""
    rows, errors = ["pair         path     first byte ms  direct ms"], []
    with Mesh(*left, *right) as mesh:
        for i, a in enumerate(left):
            for j, b in enumerate(right):
                if pairs is not None and (a, b) not in pairs:
                    continue
                try:
                    rows.append(check_pair(mesh, chr(97 + i), chr(97 + len(left) + j), (a, b)))
                except LabError as error:
                    errors.append(str(error))
        if errors:
            raise LabError("\n".join(errors + rows))
    return "\n".join(rows)


@case()
def nat_matrix():
    """Every pair of the five kinds connects, by the best path that is possible."""
    return matrix(nat.KINDS, nat.KINDS)


@case(quick_only=True)
def nat_pairs():
    """Six telling pairs of NAT boxes."""
    return matrix(("prc", "sym"), ("none", "prc", "block"))


@case(quick=True)
def same_nat():
    """Two nodes behind one NAT find each other inside it."""
    with Mesh("prc", start=False) as mesh:
        mesh.add_node("node-b", mesh.boxes[0])
        mesh.cloud.start()
        mesh.join_all()
        result = mesh.probe("a", "b", 8)
        peer = mesh.agent("a").peer("node-b")
        assert result["path"] in DIRECT, f"path {result['path']}: {peer}"
        # ICE's checks may have tried the way through the box and back, too: what counts is the pair in use.
        assert mesh.agent("b").node.ip in str(peer), f"the tunnel goes through the NAT box, not beside it: {peer}"
        return f"{result['path']}, first byte {result['first_byte_ms']:.0f} ms, direct {result['direct_ms']:.0f} ms"


@case()
def ipv6():
    """Nodes with IPv4 behind symmetric NATs and routed IPv6 find each other directly over IPv6."""
    with Mesh("sym", "sym", ipv6=True) as mesh:
        result = mesh.probe("a", "b", 10)
        peer = mesh.agent("a").peer("node-b")
        assert result["path"] in DIRECT, f"path {result['path']}: {peer}"
        mesh.client("a", "download", "b", 50_000_000, 1)
        return f"{result['path']}, first byte {result['first_byte_ms']:.0f} ms, direct {result['direct_ms']:.0f} ms"
