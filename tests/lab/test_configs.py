"""The files in configs/ do what the README says, and joining works with nothing but its defaults."""

import os
import re
import subprocess

from lab.binaries import ROOT, program
from lab.cases import case
from lab.mesh import Mesh
from lab.proc import LabError, run, wait_for
from lab.programs import BOOTSTRAP_PORT, clean_env
from lab.relay import PORT, SECRET, Coturn
from lab.topology import CLOUD_IP

CONFIGS = os.path.join(ROOT, "configs")


def _sample(name):
    with open(os.path.join(CONFIGS, name), encoding="utf-8") as f:
        return f.read()


class SampleCoturn(Coturn):
    """coturn as configs/coturn.conf says: the secret is put in, as the README tells, and nothing else is changed."""

    def __init__(self, lab):
        super().__init__(lab)
        text = _sample("coturn.conf")
        assert text.count("REPLACE-WITH-THE-SECRET") == 1, "the sample names the place of the secret"
        with open(self.config, "w", encoding="utf-8") as f:
            f.write(text.replace("REPLACE-WITH-THE-SECRET", SECRET))

    def start(self):
        argv = ["turnserver", "-c", self.config, "--pidfile", self.lab.path("turn.pid"),
                "--userdb", self.lab.path("turndb")]
        self.process = self.lab.start("coturn", self.lab.cloud_ns.wrap(argv))
        wait_for(self._listens, 10, lambda: f"coturn listens with the sample\n{self.process.log_tail()}")
        return self


@case(quick=True)
def sample_relay_relays():
    """coturn with configs/coturn.conf carries a connection between two nodes that have no other way."""
    with Mesh("sym", "sym", relay=False, start=False) as mesh:
        mesh.relay = mesh.cloud.relay = SampleCoturn(mesh).start()
        mesh.cloud.start()
        mesh.join_all()
        mesh.client("a", "hello", "b")
        path = mesh.agent("a").wait_path("node-b", ("relayed",), 15)
        log = mesh.relay.process.log()
        bad = [line for line in log.splitlines() if re.search(r"(?i)unknown|bad configuration|deprecated", line)]
        assert not bad, f"coturn complains of the sample: {bad[:3]}"
        return f"{path}, port {PORT}"


@case(quick=True)
def samples_are_accepted():
    """Every YAML file in configs/ is what its program takes, or Kubernetes: what our own API says to it."""
    programs = {name + ".yaml": "edgemesh-" + name for name in ("agent", "cloud", "proxy")}
    objects = []
    for folder, _, names in os.walk(CONFIGS):
        for name in (n for n in names if n.endswith(".yaml")):
            path = os.path.join(folder, name)
            if folder == CONFIGS:
                done = run([program(programs.pop(name)), "--config", path, "--check-config"], check=False)
                assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
            else:
                objects.append(path)
    assert not programs, f"samples are missing: {list(programs)}"
    with Mesh(relay=False) as mesh:
        for path in objects:
            mesh.cloud.kubectl("apply", "--server-side", "--validate=strict", "-f", path)


@case(quick=True)
def units_are_right():
    """systemd finds nothing wrong with the units in configs/systemd."""
    with Mesh(relay=False, start=False) as mesh:
        folder = mesh.path("units")
        os.makedirs(folder, exist_ok=True)
        names = sorted(os.listdir(os.path.join(CONFIGS, "systemd")))
        assert names, "there are units"
        for name in names:
            text = _sample(os.path.join("systemd", name))
            # The built programs in place of the installed ones: that they are there is checked, too.
            text = re.sub(r"/usr/bin/(edgemesh[a-z-]*)", lambda m: program(m.group(1)), text)
            with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
                f.write(text)
        done = run(["systemd-analyze", "verify", *(os.path.join(folder, n) for n in names)], check=False)
        said = [line for line in (done.stdout + done.stderr).splitlines() if "edgemesh" in line]
        assert done.returncode == 0 and not said, f"exit {done.returncode}: {said or done.stderr[-500:]}"
        return ", ".join(names)


@case(quick=True)
def samples_are_taken():
    """The programs take configs/cloud.yaml and configs/agent.yaml as they are."""
    for name, config in (("edgemesh-cloud", "cloud.yaml"), ("edgemesh-agent", "agent.yaml")):
        run([program(name), "--config", os.path.join(CONFIGS, config), "--check-config"])


# /etc and /var/lib of its own: the machine's stay as they are.
_DEFAULTS = """
mkdir "$1/etc" && mount -t tmpfs tmpfs "$1/etc" && cp -a /etc/. "$1/etc" && mount --bind "$1/etc" /etc
mount -t tmpfs tmpfs /var/lib
rm -rf /etc/edgemesh
hostname "$2"
"$3" join --cloud "$4" --token "$5"
"$6" --check-config
stat -c '%a %n' /etc/edgemesh/agent.yaml /var/lib/edgemesh /var/lib/edgemesh/node.key
test ! -e /var/lib/edgemesh/join.key
"$6" &
agent=$!
for i in $(seq 100); do
  "$3" status -o json >"$1/status" 2>/dev/null && grep -q '"connected": *true' "$1/status" && break
  kill -0 $agent
  sleep 0.1
done
grep -q '"connected": *true' "$1/status"
kill $agent
wait $agent
"""


@case(quick=True)
def joins_with_defaults():
    """`edgemesh join --cloud --token` and an agent without flags: /etc/edgemesh, /var/lib/edgemesh, the host's name."""
    with Mesh("none", relay=False, join=False) as mesh:
        node = mesh.agent("a").node
        argv = ["unshare", "--mount", "--uts", "sh", "-e", "-c", _DEFAULTS, "sh", mesh.path(), "Camera-7.example",
                program("edgemesh"), f"{CLOUD_IP}:{BOOTSTRAP_PORT}", mesh.cloud.token, program("edgemesh-agent")]
        try:
            done = node.run(argv, timeout=40, env=clean_env())
        except (LabError, subprocess.SubprocessError) as error:
            raise LabError(f"joining with defaults: {error}") from error
        for line in ("644 /etc/edgemesh/agent.yaml", "700 /var/lib/edgemesh", "600 /var/lib/edgemesh/node.key"):
            assert line in done.stdout, f"want '{line}' in {done.stdout}"
        nodes = mesh.cloud.kubectl("get", "nodes", "-o", "name").stdout
        assert "node/camera-7" in nodes, nodes
        return "node camera-7"


@case(quick=True)
def a_name_is_given_once():
    """A token does not give out the name of a node that joined; a deleted one's, or with a token for that, it does."""
    with Mesh("none", "none") as mesh:
        agent = mesh.agent("b")

        def join(name, token, folder):
            return agent.cli("join", "--cloud", f"{CLOUD_IP}:{BOOTSTRAP_PORT}", "--token", token, "--node", name,
                             "--state-dir", mesh.path(folder), "--config", mesh.path(folder, "agent.yaml"), check=False)

        refused = join("node-a", mesh.cloud.token, "x")
        assert refused.returncode == 1 and "kubectl delete node node-a" in refused.stderr, refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1, refused.stderr
        create = [program("edgemesh-cloud"), "token", "create", "--state-dir", mesh.cloud.state, "--node", "node-a"]
        assert join("node-a", run(create).stdout.strip(), "x").returncode == 1, "without --replace"
        replace = run([*create, "--replace"]).stdout.strip()
        assert join("node-c", replace, "x").returncode == 1, "the token is of another node"
        taken = join("node-a", replace, "x")
        assert taken.returncode == 0, taken.stderr
        mesh.agent("a").process.stop()
        wait_for(lambda: "node-a" not in mesh.cloud.lab.cloud_ns.run(
            ["curl", "-sS", "--noproxy", "*", "http://127.0.0.1:15100/nodes"]).stdout, 10, "node-a is gone")
        mesh.cloud.kubectl("delete", "node", "node-a")
        again = join("node-a", mesh.cloud.token, "y")
        assert again.returncode == 0, again.stderr
        return refused.stderr.strip()[:90]
