"""coturn in the cloud namespace, and the check of NAT boxes with its tools."""

import re

from .binaries import ROOT  # noqa: F401  (kept importable from here for scripts)
from .proc import LabError, run, wait_for
from .topology import CLOUD_IP, CLOUD_IP6, CLOUD_IP_2

SECRET = "lab-secret"
PORT = 3478


class Coturn:
    """A turnserver with credentials by shared secret, as edgemesh-cloud hands them out."""

    def __init__(self, lab, ipv6=False):
        self.lab = lab
        self.config = lab.path("turnserver.conf")
        listen = [CLOUD_IP, CLOUD_IP_2] + ([CLOUD_IP6] if ipv6 else [])
        lines = [f"listening-ip={ip}" for ip in listen]
        lines += [f"relay-ip={CLOUD_IP}"] + ([f"relay-ip={CLOUD_IP6}"] if ipv6 else [])
        lines += [
            f"listening-port={PORT}", "min-port=49152", "max-port=65000", "realm=edgemesh.test", "fingerprint",
            "use-auth-secret", f"static-auth-secret={SECRET}", "no-tls", "no-dtls", "no-cli", "no-multicast-peers",
            "log-file=stdout", "simple-log", f"pidfile={lab.path('turnserver.pid')}",
            f"userdb={lab.path('turndb')}", "total-quota=10000", "user-quota=10000",
        ]
        with open(self.config, "w", encoding="ascii") as f:
            f.write("\n".join(lines) + "\n")
        with open(self.secret_file, "w", encoding="ascii") as f:
            f.write(SECRET + "\n")
        self.process = None

    @property
    def secret_file(self):
        return self.lab.path("turn-secret")

    @property
    def address(self):
        return f"{CLOUD_IP}:{PORT}"

    def start(self):
        self.process = self.lab.start("coturn", self.lab.cloud_ns.wrap(["turnserver", "-c", self.config]))
        wait_for(self._listens, 10, lambda: f"coturn listens\n{self.process.log_tail()}")
        return self

    def _listens(self):
        if not self.process.running():
            raise LabError(f"coturn ended:\n{self.process.log_tail()}")
        out = self.lab.cloud_ns.run(["ss", "-Htln", f"sport = :{PORT}"]).stdout
        return CLOUD_IP in out

    def kill(self):
        self.process.kill()


def nat_behaviour(node):
    """What the box in front of `node` does, measured by STUN (RFC 5780): (mapping, filtering)."""
    out = ""
    for flag in ("-m", "-f"):
        argv = ["turnutils_natdiscovery", flag, CLOUD_IP]
        out += run(["timeout", "12", *node.ns.wrap(argv)], check=False).stdout
    found = re.findall(r"NAT with (.+) (Mapping|Filtering)!", out)
    if "No NAT detected" in out:
        found.append(("No", "Mapping"))
    kinds = {word: text.replace("Dependent", "dependent").lower() for text, word in found}
    return kinds.get("Mapping", "no answer"), kinds.get("Filtering", "no answer")
