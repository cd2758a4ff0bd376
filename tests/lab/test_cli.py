"""What a person types on a node: netcheck, path, status, reset, and what bad input answers."""

import json

from lab.binaries import program
from lab.cases import case
from lab.mesh import Mesh
from lab.proc import wait_for
from lab.programs import clean_env


@case(quick=True)
def netcheck_tells_the_nat():
    """netcheck names the kind of NAT and what the relay can be reached by."""
    with Mesh("prc", "sym", "block") as mesh:
        wanted = {"a": ("endpoint independent", True, True), "b": ("symmetric", True, True),
                  "c": ("udp blocked", False, True)}
        told = []
        for name, (_, udp, tcp) in wanted.items():
            agent = mesh.agent(name)
            wait_for(agent.connected, 10, f"node-{name} is connected")
            result = json.loads(agent.cli("netcheck", "-o", "json").stdout)
            assert result["relayUdp"] is udp and result["relayTcp"] is tcp, f"node-{name}: {result}"
            assert result["localAddresses"] and "NAT" in agent.cli("netcheck").stdout, result
            told.append(f"{mesh.agent(name).node.box.kind}: {result['nat']}")
        return ", ".join(told)


@case(quick=True)
def path_is_opened_on_demand():
    """edgemesh path opens a path to a node that was never contacted; an unknown node is an error."""
    with Mesh("prc", "prc") as mesh:
        agent = mesh.agent("a")
        wait_for(agent.connected, 10, "node-a is connected")
        path = json.loads(agent.cli("path", "node-b", "-o", "json").stdout)
        assert path["node"] == "node-b" and path["path"] in ("punched", "direct", "relayed"), path
        unknown = agent.cli("path", "node-nobody", check=False)
        assert unknown.returncode == 1 and "node-nobody" in unknown.stderr, unknown.stderr
        assert "node-b" in agent.cli("status").stdout
        return f"{path['path']}; unknown: {unknown.stderr.strip()[:90]}"


@case(quick=True)
def reset_removes_all():
    """After kill -9 `edgemesh reset` takes out what is left; errors are one line and exit codes not 0."""
    with Mesh("none", "none") as mesh:
        agent = mesh.agent("a")
        agent.process.kill()
        assert "EDGEMESH" in agent.node.run(["iptables-save"]).stdout, "a killed agent left no rules: nothing to reset"
        agent.cli("reset", "--config", agent.config, "--state-dir", agent.state)
        left = agent.node.run(["iptables-save"]).stdout + agent.node.run(["ip", "rule"]).stdout
        assert "edgemesh" not in left.lower() and "19782" not in left, f"left behind:\n{left}"
        down = agent.cli("status", check=False)
        assert down.returncode == 1 and "no agent answers" in down.stderr, down.stderr
        again = agent.cli("join", "--cloud", "203.0.113.10", "--token", "nonsense", "--state-dir", agent.state, check=False)
        assert again.returncode == 1 and len(again.stderr.strip().splitlines()) == 1, again.stderr
        typo = agent.cli("stauts", check=False)
        assert typo.returncode == 2 and "'stauts'" in typo.stderr and len(typo.stderr.splitlines()) == 1, typo.stderr
        bad = agent.node.run([program("edgemesh-agent"), "--config", "/nonexistent.yaml"], check=False, env=clean_env())
        assert bad.returncode == 2 and "nonexistent" in bad.stderr, bad.stderr
        return "rules, routes and addresses are gone"
