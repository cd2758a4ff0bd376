"""Programs that the lab starts: each is known, logged to a file, and ended with the lab."""

import os
import signal
import subprocess
import time


class LabError(Exception):
    """Something in the lab did not work; the message says what, with the output that explains it."""


def run(argv, *, check=True, timeout=60, stdin=None, env=None):
    """Runs a command to its end and returns the CompletedProcess (text)."""
    try:
        done = subprocess.run(
            [str(a) for a in argv], input=stdin, text=True, errors="replace", timeout=timeout,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
    except subprocess.TimeoutExpired as e:
        raise LabError(f"no end after {timeout} s: {' '.join(map(str, argv))}") from e
    if check and done.returncode != 0:
        detail = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise LabError(f"exit {done.returncode}: {' '.join(map(str, argv))}\n{detail}")
    return done


class Process:
    """One background program. Its output goes to `log_path`."""

    def __init__(self, name, argv, log_path, stdin=None, env=None):
        self.name = name
        self.argv = [str(a) for a in argv]
        self.log_path = log_path
        with open(log_path, "ab") as log:
            self._popen = subprocess.Popen(
                self.argv, stdin=stdin or subprocess.DEVNULL, stdout=log, stderr=log, env=env,
                start_new_session=True)
        self.pid = self._popen.pid

    @property
    def stdin(self):
        return self._popen.stdin

    def running(self):
        return self._popen.poll() is None

    def exit_code(self):
        return self._popen.poll()

    def signal(self, number):
        if self.running():
            os.kill(self.pid, number)

    def wait(self, timeout=10):
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, timeout=5):
        """SIGTERM, and SIGKILL when that has no effect in time. Returns the exit code."""
        if self.running():
            self.signal(signal.SIGTERM)
            if self.wait(timeout) is None:
                self.kill()
        return self._popen.returncode

    def kill(self):
        if self.running():
            self.signal(signal.SIGKILL)
            self._popen.wait()

    def log(self):
        try:
            with open(self.log_path, encoding="utf-8", errors="replace") as f:
                return f.read()
        except OSError:
            return ""

    def log_tail(self, lines=15):
        return "\n".join(self.log().splitlines()[-lines:])

    # Resources, for the leak checks.
    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def memory_kib(self):
        """Proportional set size: what the process costs this machine."""
        with open(f"/proc/{self.pid}/smaps_rollup", encoding="ascii") as f:
            for line in f:
                if line.startswith("Pss:"):
                    return int(line.split()[1])
        raise LabError(f"no memory figure for {self.name}")

    def private_kib(self):
        """Private memory: what would be free without the process."""
        total = 0
        with open(f"/proc/{self.pid}/smaps_rollup", encoding="ascii") as f:
            for line in f:
                if line.startswith(("Private_Clean:", "Private_Dirty:")):
                    total += int(line.split()[1])
        return total

    def cpu_seconds(self):
        total = 0
        for task in os.listdir(f"/proc/{self.pid}/task"):
            with open(f"/proc/{self.pid}/task/{task}/schedstat", encoding="ascii") as f:
                total += int(f.read().split()[0])
        return total / 1e9


def wait_for(condition, timeout, what, interval=0.05):
    """Polls until condition() gives something true and returns that; LabError with `what` if not."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise LabError(f"not within {timeout} s: {what() if callable(what) else what}")
        time.sleep(interval)
