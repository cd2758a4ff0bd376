"""Namespaces and links. Everything has the prefix of this lab, so that several labs can coexist."""

import os
import re
import shutil

from .proc import LabError, run

NETNS = "/run/netns"


class Namespace:
    """One network namespace with its own resolv.conf."""

    def __init__(self, lab_prefix, name):
        self.name = name
        self.id = f"{lab_prefix}-{name}"
        run(["ip", "netns", "add", self.id])
        self.ip("link set lo up")

    @property
    def path(self):
        return f"{NETNS}/{self.id}"

    def ip(self, *commands, family=None):
        """ip commands, one string each, in one batch."""
        argv = ["ip", "-n", self.id] + ([family] if family else []) + ["-batch", "-"]
        run(argv, stdin="\n".join(commands) + "\n")

    def wrap(self, argv):
        """The command line that runs argv in here, with this namespace's /etc/resolv.conf."""
        return ["ip", "netns", "exec", self.id, *argv]

    def run(self, argv, **kw):
        return run(self.wrap(argv), **kw)

    def sysctl(self, **values):
        pairs = [f"{key.replace('__', '.')}={value}" for key, value in values.items()]
        run(["nsenter", f"--net={self.path}", "sysctl", "-q", "-w", *pairs])

    def rules(self, *lines, family=4):
        """iptables commands without the program's name, one string each."""
        program = "iptables" if family == 4 else "ip6tables"
        script = "\n".join(f"{program} -w {line}" for line in lines)
        run(["nsenter", f"--net={self.path}", "sh", "-e", "-c", script])

    def resolver(self, server, search=("svc.cluster.local",)):
        os.makedirs(f"/etc/netns/{self.id}", exist_ok=True)
        with open(f"/etc/netns/{self.id}/resolv.conf", "w", encoding="ascii") as f:
            f.write(f"nameserver {server}\n")
            if search:
                f.write(f"search {' '.join(search)}\n")
            f.write("options timeout:2 attempts:2\n")

    def destroy(self):
        run(["ip", "netns", "del", self.id], check=False)
        shutil.rmtree(f"/etc/netns/{self.id}", ignore_errors=True)


def veth(a, a_name, b, b_name):
    """A cable between two namespaces; both ends up. Offloads stay on (see Lab.wire_like)."""
    run(["ip", "link", "add", a_name, "netns", a.id, "type", "veth", "peer", "name", b_name, "netns", b.id])
    a.ip(f"link set {a_name} up")
    b.ip(f"link set {b_name} up")


def no_offload(ns, interface):
    """Packets of one MTU, as on a real wire: segmentation and merging off."""
    ns.run(["ethtool", "-K", interface, "tso", "off", "gso", "off", "gro", "off", "tx-udp-segmentation", "off"])


def owner_of(namespace_id):
    """The process id in a namespace's prefix, or None when it is not one of ours."""
    m = re.match(r"em([0-9a-z]+)-", namespace_id)
    return int(m.group(1), 36) if m else None


def base36(n):
    digits = ""
    while n:
        n, r = divmod(n, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[r] + digits
    return digits or "0"


def remove_left_over():
    """Removes namespaces of labs whose process is gone (killed with -9). Returns their names."""
    removed = []
    for entry in sorted(os.listdir(NETNS)) if os.path.isdir(NETNS) else []:
        pid = owner_of(entry)
        if pid is None or os.path.exists(f"/proc/{pid}"):
            continue
        pids = run(["ip", "netns", "pids", entry], check=False).stdout.split()
        for left in pids:
            try:
                os.kill(int(left), 9)
            except OSError:
                pass
        run(["ip", "netns", "del", entry], check=False)
        shutil.rmtree(f"/etc/netns/{entry}", ignore_errors=True)
        removed.append(entry)
    return removed


def need_root():
    if os.geteuid() != 0:
        raise LabError("the lab makes network namespaces: run it as root (sudo)")
