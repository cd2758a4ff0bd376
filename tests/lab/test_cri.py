"""The agent's client of the container runtime, against containerd."""

import os

from lab.binaries import test_program
from lab.cases import case
from lab.runtime import BUSYBOX, Containerd
from lab.topology import Lab


def walk(lab, containerd, kind):
    logs = lab.path(f"logs-{kind}")
    os.makedirs(logs)
    done = lab.cloud_ns.run([test_program("cri_walk"), containerd.socket, BUSYBOX, logs, containerd.cgroup, kind], check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("walked"), done.stdout
    assert not containerd.shims(), f"shims are left: {containerd.shims()}"
    times = {line.split(" ms  ")[1]: line.split()[0] for line in done.stdout.splitlines() if " ms  " in line}
    return f"{kind}: sandbox {times['RunPodSandbox']} ms, start {times['StartContainer']} ms, exec {times['ExecSync']} ms"


@case(quick=True)
def cri_on_containerd():
    """A sandbox and a container on containerd, from the first question to the last trace: all calls, real answers."""
    with Lab() as lab, Containerd(lab, lab.cloud_ns) as containerd:
        containerd.load_images()
        return walk(lab, containerd, "host")


@case()
def cri_with_pod_network():
    """The same with a network of the pod's own, made by CNI plugins."""
    with Lab() as lab, Containerd(lab, lab.cloud_ns, cni=True) as containerd:
        containerd.load_images()
        return walk(lab, containerd, "cni")
