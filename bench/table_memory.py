"""Memory of the agent: idle, with many services, and for each idle proxied connection."""

import json
import time

import http_memory
import peers
from harness import pinned
from kube_load import create_services
from lab.binaries import tool
from lab.mesh import Mesh
from lab.proc import wait_for
from lab.programs import service, slice_of

SERVICES, PER_SERVICE = 10_000, 2
CONNECTIONS = 6_000  # descriptors: 20,000 on this kind of machine, of which the agent takes three a connection into account
PORT = 9000


def idle_connections(table, mesh, variant, address, pid):
    argv = [tool("l4_load"), "--to", address, "--work", "idle", "--connections", CONNECTIONS, "--pid", pid]
    out = json.loads(mesh.agent("a").node.run(pinned(1, argv), timeout=300).stdout)
    table.add("idle connection", variant, out["value"], "user bytes")


def child(mesh, process):
    found = mesh.agent("a").node.run(["pgrep", "-P", str(process.pid)], check=False).stdout.split()
    return int(found[0]) if found else process.pid


def connections(table, mesh):
    node = mesh.agent("a").node
    node.ns.sysctl(net__ipv4__ip_local_port_range="10000 60999", net__core__somaxconn=4096)
    backend = f"{node.ip}:{PORT}"
    node.start("load-server", pinned(1, [tool("l4_backend"), "--listen", backend]))
    mesh.cloud.apply(service("load", PORT, PORT), slice_of("load", [(node.ip, "node-a")], PORT))
    mesh.wait_services(["load"])
    vip = json.loads(mesh.cloud.kubectl("get", "service", "load", "-o", "json").stdout)["spec"]["clusterIP"]
    idle_connections(table, mesh, "edgemesh-agent", f"{vip}:{PORT}", mesh.agent("a").process.pid)
    for name, maker, port in (("haproxy", peers.haproxy, 7001), ("nginx stream", peers.nginx, 7003)):
        process = node.start(name.replace(" ", "-"), maker(mesh.dir, f"{node.ip}:{port}", backend, False))
        wait_for(lambda: str(port) in node.run(["ss", "-Htln"]).stdout, 10, f"{name} listens")
        idle_connections(table, mesh, name, f"{node.ip}:{port}", child(mesh, process))
        process.stop()


def run(table, runs):
    for _ in range(runs):
        http_memory.run(table)
        with Mesh("none") as mesh:
            agent = mesh.agent("a")
            table.add("agent, idle", "PSS", agent.process.memory_kib() / 1024, "MiB")
            table.add("agent, idle", "private", agent.process.private_kib() / 1024, "MiB")
            connections(table, mesh)
        with Mesh("none") as mesh:
            agent = mesh.agent("a")
            seconds = create_services(mesh, SERVICES, PER_SERVICE)
            last = f"bulk-{SERVICES - 1}"
            mesh.wait_services([last], 60)
            time.sleep(8)  # the agent gives memory back some seconds after a wave of changes
            label = f"agent, {SERVICES} services, {SERVICES * PER_SERVICE} endpoints"
            table.add(label, "PSS", agent.process.memory_kib() / 1024, "MiB")
            table.add(label, "private", agent.process.private_kib() / 1024, "MiB")
            table.add("API writes", "edgemesh-cloud", 2 * SERVICES / seconds, "objects/s")
    table.goal("agent, idle, MB", 15, table.value("agent, idle", "PSS"), False)
    table.goal(f"agent with {SERVICES} services, MB", 50,
               table.value(f"agent, {SERVICES} services, {SERVICES * PER_SERVICE} endpoints", "PSS"), False)
    table.goal("user bytes of an idle proxied connection", 1000, table.value("idle connection", "edgemesh-agent"), False)
    http_memory.goals(table)
