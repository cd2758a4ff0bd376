"""Capture where the machine lacks something."""

import json
import os

from lab.cases import case
from lab.mesh import APPS, Mesh
from lab.programs import PYTHON

# What a kernel without xt_TPROXY makes of it.
NO_TPROXY = """#!/bin/sh
if [ "{name}" != "{program}" ]; then
  input=$(cat)
  case "$input" in *TPROXY*) echo "{name}: line 4: RULE_APPEND failed (No such file or directory)" >&2; exit 4 ;; esac
  printf '%s\\n' "$input" | {path} "$@"
  exit
fi
case "$*" in *TPROXY*) echo "{name}: No chain/target/match by that name." >&2; exit 1 ;; esac
exec {path} "$@"
"""


def without_tproxy(mesh):
    """A PATH on which iptables refuses TPROXY."""
    directory = mesh.path("no-tproxy")
    os.makedirs(directory)
    for program in ("iptables", "ip6tables"):
        for name in (program, f"{program}-restore"):
            path = os.path.join(directory, name)
            with open(path, "w", encoding="ascii") as f:
                f.write(NO_TPROXY.format(name=name, program=program, path=f"/usr/sbin/{name}"))
            os.chmod(path, 0o755)
    return f"{directory}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def hello(run, host):
    done = run([PYTHON, os.path.join(APPS, "tcp_client.py"), "hello", host, "80", "20"], check=False)
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout else {"ok": False, "error": done.stderr}


@case(quick=True)
def redirect_where_tproxy_is_refused():
    """Without TPROXY, connections of the node and of a pod are captured by REDIRECT and served."""
    with Mesh("prc", "prc", join=False) as mesh:
        a = mesh.agent("a")
        a.env = {"PATH": without_tproxy(mesh)}
        mesh.join_all()
        assert a.status()["capture"] == "redirect", f"capture is by {a.status()['capture']}"
        assert "capturing by redirect" in a.process.log(), a.process.log_tail(20)
        rules = a.node.run(["iptables-save"]).stdout
        assert "REDIRECT" in rules and "TPROXY" not in rules, rules
        pod = mesh.pod("a")
        for target in ("a", "b"):
            service = json.loads(mesh.cloud.kubectl("get", "service", f"app-{target}", "-o", "json").stdout)
            for where, run in (("the node", a.node.run), ("a pod", pod.run)):
                result = hello(run, service["spec"]["clusterIP"])
                assert result["ok"] and f"node-{target}" in result["answer"], f"{where} to app-{target}: {result}"
        assert "src=10.244.1.5:" in a.process.log(), "the pod's connections did not go through the proxy"
        mesh.client("a", "download", "b", 5_000_000, 3)
        a.process.stop(15)
        left = a.node.run(["iptables-save"]).stdout
        assert "EDGEMESH" not in left and "REDIRECT" not in left, f"rules were left: {left}"
        return "node and pod, to a local and a far service; no rule left"
