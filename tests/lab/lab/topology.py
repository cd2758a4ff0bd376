"""The lab's map: an internet, a cloud on it, NAT boxes, and nodes behind them.

    node-a 10.1.0.2 -- [nat a] 203.0.113.101 --+
                                               +-- internet (bridge) -- cloud 203.0.113.10, .11
    node-b 10.2.0.2 -- [nat b] 203.0.113.102 --+

IPv6 is routed everywhere (no translation): fd00:113::/64 is the internet, fd00:N::/64 a subnet.
Behind a `none` box the IPv4 addresses are public ones, 198.51.100.0/28 and up.
"""

import atexit
import os
import shutil
import signal
import subprocess
import tempfile

from . import nat
from .net import Namespace, base36, need_root, no_offload, remove_left_over, veth
from .proc import LabError, Process, run, wait_for

CLOUD_IP = "203.0.113.10"
CLOUD_IP_2 = "203.0.113.11"
CLOUD_IP6 = "fd00:113::10"
_live = []
_serial = 0
_last_logs = ""


class Box:
    """A NAT box (or router) with the subnet behind it."""

    def __init__(self, lab, index, kind):
        self.lab, self.index, self.kind = lab, index, kind
        self.ns = lab.namespace(f"nat{index}")
        self.nodes = []
        self.wan_ip = f"203.0.113.{100 + index}"
        if kind == "none":
            if index > 15:
                raise LabError("a lab has room for 15 public subnets")
            self.net, self.plen = f"198.51.100.{16 * index}", 28
            self._host = lambda i: f"198.51.100.{16 * index + i}"
        else:
            self.net, self.plen = f"10.{index}.0.0", 24
            self._host = lambda i: f"10.{index}.0.{i}"

    def host_ip(self, i):
        return self._host(i)

    def host_ip6(self, i):
        return f"fd00:{self.index}::{i}"

    def flush_mappings(self):
        """The box forgets its translations, as after a power cut."""
        self.ns.run(["conntrack", "-F"])

    def change_wan_ip(self, address):
        """The provider gives the box another address; the old mappings are gone with it."""
        self.ns.ip(f"address del {self.wan_ip}/24 dev wan", f"address add {address}/24 dev wan",
                   "route replace default via 203.0.113.1")
        self.wan_ip = address
        self.flush_mappings()

    def unblock_udp(self):
        self.ns.rules("-D FORWARD -p udp -j DROP")


class Node:
    """A machine behind a box."""

    def __init__(self, lab, name, box, index):
        self.lab, self.name, self.box = lab, name, box
        self.ns = lab.namespace(name)
        self.ip = box.host_ip(index)
        self.ip6 = box.host_ip6(index)

    def run(self, argv, **kw):
        return self.ns.run(argv, **kw)

    def start(self, name, argv, **kw):
        return self.lab.start(f"{self.name}.{name}", self.ns.wrap(argv), **kw)

    def change_ip(self, last):
        """A new address in the same subnet; the old one goes. IPv4."""
        new = self.box.host_ip(last)
        plen = self.box.plen
        self.ns.ip(f"address del {self.ip}/{plen} dev eth0", f"address add {new}/{plen} dev eth0",
                   f"route replace default via {self.box.host_ip(1)}")
        self.ip = new


class Lab:
    """Use as a context manager: everything it made is gone at the end, also after a failure."""

    def __init__(self, keep_logs=False, offload=True):
        global _serial
        need_root()
        self._closed = True
        _serial += 1
        self.prefix = f"em{base36(os.getpid())}-{base36(_serial)}"
        self.offload = offload
        self.keep_logs = keep_logs
        self.dir = tempfile.mkdtemp(prefix="edgemesh-lab-")
        self.namespaces, self.processes, self.boxes, self.nodes = [], [], [], []
        self._closed = False
        _live.append(self)
        try:
            self._internet()
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if error is not None:
            self.keep_logs = True
        self.close()

    # -- pieces ---------------------------------------------------------------------------------
    def namespace(self, name):
        ns = Namespace(self.prefix, name)
        self.namespaces.append(ns)
        return ns

    def cable(self, a, a_name, b, b_name):
        veth(a, a_name, b, b_name)
        if not self.offload:
            no_offload(a, a_name)
            no_offload(b, b_name)

    def _internet(self):
        self.inet = self.namespace("inet")
        # Frames that the bridge forwards are not the host firewall's business.
        run(["nsenter", f"--net={self.inet.path}", "sh", "-c",
             "for f in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -w $f ] || echo 0 > $f; done"])
        self.inet.ip("link add br0 type bridge", "link set br0 up", "address add 203.0.113.1/24 dev br0",
                     "address add fd00:113::1/64 dev br0 nodad", "route add blackhole 10.0.0.0/8")
        self.inet.sysctl(net__ipv4__ip_forward=1, net__ipv6__conf__all__forwarding=1,
                         net__ipv4__conf__all__send_redirects=0, net__ipv4__conf__br0__send_redirects=0)
        self.cloud_ns = self.namespace("cloud")
        self.cable(self.cloud_ns, "eth0", self.inet, "cloud")
        self.inet.ip("link set cloud master br0")
        # The default route matters: without one, a relay that is asked to send to an address it
        # cannot reach ends the whole allocation.
        self.cloud_ns.ip(f"address add {CLOUD_IP}/24 dev eth0", f"address add {CLOUD_IP_2}/24 dev eth0",
                         f"address add {CLOUD_IP6}/64 dev eth0 nodad", "route add default via 203.0.113.1",
                         "route add default via fd00:113::1")

    def box(self, kind, netem=None):
        """A box of one of nat.KINDS. `netem`: a Netem that its line to the internet goes through."""
        if kind not in nat.KINDS:
            raise LabError(f"no NAT kind '{kind}' (want: {', '.join(nat.KINDS)})")
        box = Box(self, len(self.boxes) + 1, kind)
        self.boxes.append(box)
        port = f"p{box.index}"
        if netem is None:
            self.cable(box.ns, "wan", self.inet, port)
        else:
            netem.start(self, box.ns, "wan", self.inet, port)
        self.inet.ip(f"link set {port} master br0", f"link set {port} up")
        box.ns.ip("link add lan type bridge", "link set lan up", "link set wan up",
                  f"address add {box.host_ip(1)}/{box.plen} dev lan", f"address add {box.wan_ip}/24 dev wan",
                  f"address add {box.host_ip6(1)}/64 dev lan nodad",
                  f"address add fd00:113::{100 + box.index}/64 dev wan nodad",
                  "route add default via 203.0.113.1", "route add default via fd00:113::1")
        box.ns.sysctl(net__ipv4__ip_forward=1, net__ipv6__conf__all__forwarding=1,
                      net__ipv4__conf__all__send_redirects=0)
        self.inet.ip(f"route add fd00:{box.index}::/64 via fd00:113::{100 + box.index}")
        if kind == "none":
            self.inet.ip(f"route add {box.net}/{box.plen} via {box.wan_ip}")
        box.ns.rules("-P FORWARD ACCEPT", *nat.rules(kind, box.host_ip(2)))
        if kind == "block":
            box.ns.rules("-A FORWARD -p udp -j DROP", family=6)
        return box

    def node(self, name, box, ipv4=True, ipv6=False):
        index = 2 + len(box.nodes)
        node = Node(self, name, box, index)
        box.nodes.append(node)
        self.nodes.append(node)
        self.cable(node.ns, "eth0", box.ns, f"h{index}")
        box.ns.ip(f"link set h{index} master lan")
        if ipv4:
            node.ns.ip(f"address add {node.ip}/{box.plen} dev eth0", f"route add default via {box.host_ip(1)}")
        if ipv6:
            node.ns.ip(f"address add {node.ip6}/64 dev eth0 nodad", f"route add default via {box.host_ip6(1)}")
        else:
            # No link-local candidates either: a test says itself when it wants IPv6.
            node.ns.sysctl(net__ipv6__conf__eth0__disable_ipv6=1)
        return node

    # -- programs -------------------------------------------------------------------------------
    def start(self, name, argv, **kw):
        if kw.pop("pipe", False):
            kw["stdin"] = subprocess.PIPE
        process = Process(name, argv, os.path.join(self.dir, f"{name}.log"), **kw)
        self.processes.append(process)
        return process

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def close(self):
        if self._closed:
            return
        global _last_logs
        self._closed = True
        _last_logs = self.logs() + f"\nall logs: {self.dir}" if self.keep_logs else ""
        for process in reversed(self.processes):
            process.signal(signal.SIGTERM)
        for process in reversed(self.processes):
            if process.wait(3) is None:
                process.kill()
        for ns in reversed(self.namespaces):
            for pid in run(["ip", "netns", "pids", ns.id], check=False).stdout.split():
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except OSError:
                    pass
            ns.destroy()
        if not self.keep_logs:
            shutil.rmtree(self.dir, ignore_errors=True)
        if self in _live:
            _live.remove(self)

    def logs(self, lines=12):
        """The last lines of every program's log, for a failure report."""
        out = []
        for process in self.processes:
            tail = process.log_tail(lines)
            state = "running" if process.running() else f"ended with {process.exit_code()}"
            if tail:
                out.append(f"--- {process.name} ({state}): {process.log_path}\n{tail}")
        return "\n".join(out)


def close_all():
    """Ends the labs that are open. For the end of a test and of the process."""
    for lab in list(_live):
        lab.close()


def last_logs():
    """The log tails of the last lab that was closed after a failure."""
    return _last_logs


def _on_signal(number, _frame):
    raise SystemExit(128 + number)


def setup_signals():
    """SIGTERM and SIGHUP end a run like Ctrl-C does: through the clean-up."""
    signal.signal(signal.SIGTERM, _on_signal)
    signal.signal(signal.SIGHUP, _on_signal)


atexit.register(close_all)

__all__ = ["Lab", "Box", "Node", "CLOUD_IP", "CLOUD_IP_2", "CLOUD_IP6", "LabError", "remove_left_over",
           "setup_signals", "close_all", "last_logs", "wait_for"]
