"""A line with delay, loss and a rate, between two namespaces (bench/tools/netem.cc)."""

from .binaries import tool
from .proc import LabError, wait_for


class Netem:
    """`delay_ms` is one way. Pass it to Lab.box(netem=...), or call start()."""

    def __init__(self, delay_ms=0.0, rate_mbit=0.0, loss_percent=0.0, queue_bytes=2_000_000):
        self.args = ["--delay", delay_ms, "--rate", rate_mbit, "--loss", loss_percent, "--queue", queue_bytes]
        self.process = None

    def start(self, lab, a, a_name, b, b_name):
        argv = [tool("netem"), "--a", f"{a.path}:{a_name}", "--b", f"{b.path}:{b_name}", *self.args]
        self.process = lab.start(f"netem.{b_name}", argv, pipe=True)
        wait_for(lambda: "ready" in self.process.log() or not self.process.running(), 5, "netem starts")
        if not self.process.running():
            raise LabError(f"netem did not start: {self.process.log()}")

    def set(self, **values):
        """set(delay=20, loss=100): milliseconds one way, percent; rate in Mbit/s."""
        for name, value in values.items():
            self.process.stdin.write(f"{name} {value}\n".encode())
        self.process.stdin.flush()
