"""Kinds of NAT box, as iptables rules.

    kind  mapping of a host's port      who may answer                       like
    none  (router, no translation)      anybody                              a public address
    full  one for all destinations      anybody (UDP)                        a forwarded port
    prc   one for all destinations      address and port that was written to most home routers
    sym   a new one per destination     the same                             carrier-grade, some firewalls
    block the same as prc, TCP only     no UDP at all                        a strict company network

Every box but `none` drops new packets that come in from outside, also those to itself. Home routers do
so; without it an early packet of the peer leaves a connection tracking entry that takes the port which
the translation would have kept, and a port-restricted NAT looks symmetric to that peer.
"""

KINDS = ("none", "full", "prc", "sym", "block")


def _common():
    return [
        "-A INPUT -i wan -m conntrack --ctstate NEW -j DROP",
        "-A INPUT -i wan -m conntrack --ctstate INVALID -j DROP",
    ]


def rules(kind, host):
    """The IPv4 rules of a box with interfaces `lan` and `wan`; `host` is who gets a full cone's packets."""
    if kind == "none":
        return []
    lines = _common()
    masquerade = "-t nat -A POSTROUTING -o wan -j MASQUERADE"
    if kind == "sym":
        masquerade += " --random-fully"
    lines.append(masquerade)
    if kind == "full":
        lines.append(f"-t nat -A PREROUTING -i wan -p udp -j DNAT --to-destination {host}")
        lines.append("-A FORWARD -i wan -p udp -j ACCEPT")
    if kind == "block":
        lines.append("-A FORWARD -p udp -j DROP")
    lines.append("-A FORWARD -i wan -m conntrack --ctstate NEW -j DROP")
    return lines


def possible_paths(a, b):
    """The best paths from a host behind `a` to one behind `b`."""
    if {a, b} == {"none", "block"}:
        # TCP 15008 of the public one; from its own side only when the other has dialed it.
        return ("direct",) if b == "none" else ("direct", "relayed")
    if "block" in (a, b) or a == b == "sym":
        return ("relayed",)
    # A symmetric box's new port is not the one that a port-restricted box wrote to.
    if {a, b} == {"sym", "prc"}:
        return ("relayed",)
    return ("direct", "punched")
