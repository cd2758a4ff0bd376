"""containerd for a lab: its own state, socket and network namespace, and images made here without a registry."""

import copy
import glob
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile

from .proc import LabError, run, wait_for

PAUSE = "registry.k8s.io/pause:3.6"
BUSYBOX = "docker.io/library/lab-busybox:1"
PAUSE_SOURCE = """
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void end(int n) { (void)n; _exit(0); }
static void reap(int n) { (void)n; while (waitpid(-1, 0, WNOHANG) > 0) {} }
int main(void) {
  signal(SIGTERM, end);
  signal(SIGINT, end);
  signal(SIGCHLD, reap);
  for (;;) pause();
}
"""
APPLETS = ("sh", "cat", "dd", "echo", "env", "false", "hostname", "httpd", "id", "ip", "ls", "nc", "ping", "ps", "sha256sum",
           "sleep", "tar", "true", "wget")
CNI = {"cniVersion": "0.4.0", "name": "lab", "plugins": [
    {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": True, "hairpinMode": True,
     "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
    {"type": "portmap", "capabilities": {"portMappings": True}}]}


def _layer(files, links):
    """A tar of files {path: (bytes, mode)} and symbolic links {path: target}."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        folders = sorted({os.path.dirname(p) for p in [*files, *links]} | {"tmp", "etc", "proc", "sys", "dev"})
        for folder in filter(None, folders):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(entry)
        for path, (content, mode) in sorted(files.items()):
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
        for path, target in sorted(links.items()):
            entry = tarfile.TarInfo(path)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    return data.getvalue()


def oci_archive(path, name, files, links, command):
    """Writes an image of one layer as an OCI layout in a tar, as `ctr images import` takes it."""
    layer = _layer(files, links)
    packed = gzip.compress(layer, 1, mtime=0)
    blobs = {}

    def blob(content, media_type):
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    config = {"architecture": machine, "os": "linux", "config": {"Entrypoint": command, "Env": ["PATH=/bin"]},
              "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]}}
    kind = "application/vnd.oci.image"
    manifest = {"schemaVersion": 2, "mediaType": f"{kind}.manifest.v1+json",
                "config": blob(json.dumps(config).encode(), f"{kind}.config.v1+json"),
                "layers": [blob(packed, f"{kind}.layer.v1.tar+gzip")]}
    top = blob(json.dumps(manifest).encode(), f"{kind}.manifest.v1+json")
    top["annotations"] = {"io.containerd.image.name": name}
    blobs["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [top]}).encode()
    blobs["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
    with tarfile.open(path, "w") as tar:
        for blob_path, content in blobs.items():
            entry = tarfile.TarInfo(blob_path)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def pause_image(path):
    program = path + ".bin"
    run(["cc", "-O1", "-static", "-x", "c", "-", "-o", program], stdin=PAUSE_SOURCE)
    with open(program, "rb") as f:
        oci_archive(path, PAUSE, {"pause": (f.read(), 0o755)}, {}, ["/pause"])


def busybox_image(path, name=BUSYBOX, programs=None):
    """`programs`: static ones beside it, {name: path}."""
    program = shutil.which("busybox")
    if not program:
        raise LabError("busybox is not installed: run scripts/deps lab")
    with open(program, "rb") as f:
        content = f.read()
    files = {"bin/busybox": (content, 0o755), "etc/passwd": (b"root:x:0:0:root:/:/bin/sh\n", 0o644)}
    for own, source in (programs or {}).items():
        with open(source, "rb") as f:
            files[f"bin/{own}"] = (f.read(), 0o755)
    oci_archive(path, name, files, {f"bin/{a}": "busybox" for a in APPLETS}, ["/bin/sh"])


class Containerd:
    """One containerd in a namespace of a lab. close() leaves no shim, mount or process behind."""

    def __init__(self, lab, ns, name="containerd", cni=False):
        self.lab, self.ns = lab, ns
        self.dir = lab.path(name)
        self.cgroup = f"/{lab.prefix}-{name}"  # for cgroup_parent; removed at the end
        self.socket = os.path.join(self.dir, "run", "c.sock")
        os.makedirs(os.path.join(self.dir, "run"))
        os.makedirs(os.path.join(self.dir, "cni"))
        if cni:
            network = copy.deepcopy(CNI)
            network["plugins"][0]["ipam"]["dataDir"] = os.path.join(self.dir, "addresses")
            with open(os.path.join(self.dir, "cni", "10-lab.conflist"), "w", encoding="ascii") as f:
                json.dump(network, f)
        config = os.path.join(self.dir, "config.toml")
        with open(config, "w", encoding="ascii") as f:
            f.write(self._config())
        self.name, self.config = name, config
        self._closed = False
        self.start()

    def start(self):
        """Starts it, also again after it ended: what ran is still known to it."""
        # Only the network is the lab's: mounts and cgroups are the machine's, under names of our own.
        argv = ["nsenter", f"--net={self.ns.path}", "containerd", "--config", self.config]
        self.process = self.lab.start(self.name, argv)
        wait_for(lambda: self.ctr("version", check=False).returncode == 0, 15,
                 lambda: f"containerd answers\n{self.process.log_tail()}")

    def _config(self):
        # Without restrict_oom_score_adj nothing starts where this process may not lower its own score.
        return f"""version = 2
root = "{self.dir}/root"
state = "{self.dir}/run/state"
[grpc]
  address = "{self.socket}"
[ttrpc]
  address = "{self.socket}.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "{self.dir}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
    Root = "{self.dir}/run/runc"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{self.dir}/cni"
"""

    def ctr(self, *argv, check=True):
        return run(["ctr", "--address", self.socket, "-n", "k8s.io", *argv], check=check, timeout=30)

    def load(self, archive):
        self.ctr("images", "import", archive)

    def load_images(self):
        """The pause and the busybox image."""
        for make, name in ((pause_image, "pause.tar"), (busybox_image, "busybox.tar")):
            path = os.path.join(self.dir, name)
            make(path)
            self.load(path)

    def shims(self):
        """Process ids of the shims of this containerd."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    words = f.read().split(b"\0")
            except OSError:
                continue
            if words[0].endswith(b"containerd-shim-runc-v2") and self.socket.encode() in words:
                found.append(int(pid))
        return found

    def close(self):
        """Removes what a failed test left running, then containerd, its mounts and files."""
        if self._closed:
            return
        self._closed = True
        try:
            self._remove_all()
        except LabError as error:
            print(f"containerd did not clean up: {error}")
        self.process.stop()
        for pid in self.shims():
            subprocess.run(["kill", "-9", str(pid)], check=False)
        with open("/proc/self/mounts", encoding="utf-8") as f:
            mounts = [line.split()[1] for line in f if line.split()[1].startswith(self.dir + "/")]
        for mount in reversed(mounts):
            subprocess.run(["umount", "-l", mount], check=False)
        for top in glob.glob(f"/sys/fs/cgroup{self.cgroup}") + glob.glob(f"/sys/fs/cgroup/*{self.cgroup}"):
            for folder, _, _ in os.walk(top, topdown=False):
                try:
                    os.rmdir(folder)
                except OSError:
                    pass  # a process that is ending; the next lab does not mind

    def _remove_all(self):
        """Ends tasks and pods' network namespaces that a failed test left."""
        if not self.process.running():
            self.start()
        for name in self.ctr("containers", "list", "-q").stdout.split():
            spec = json.loads(self.ctr("containers", "info", name).stdout)["Spec"]
            self.ctr("tasks", "rm", "-f", name, check=False)
            self.ctr("containers", "rm", name, check=False)
            for space in spec["linux"].get("namespaces", ()):
                path = space.get("path", "")
                if space["type"] == "network" and os.path.basename(path).startswith("cni-"):
                    run(["ip", "netns", "del", os.path.basename(path)], check=False)
            for cached in glob.glob(f"/var/lib/cni/results/*-{name}-*"):
                os.unlink(cached)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.close()
