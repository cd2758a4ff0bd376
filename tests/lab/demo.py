"""What scripts/demo shows, after it has installed and built. Needs root."""

import os
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lab.binaries import program  # noqa: E402
from lab.proc import LabError, wait_for  # noqa: E402
from lab.programs import PYTHON, Agent, Cloud, clean_env  # noqa: E402
from lab.relay import Coturn  # noqa: E402
from lab.topology import CLOUD_IP, Lab, remove_left_over, setup_signals  # noqa: E402

HELLO = """apiVersion: v1
kind: Service
metadata: {name: hello, namespace: default}
spec:
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: hello-1
  namespace: default
  labels: {kubernetes.io/service-name: hello}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints:
- addresses: ["%s"]
  nodeName: node-b
  conditions: {ready: true}
"""
URL = "http://hello.default.svc.cluster.local"


def say(text):
    print(text, flush=True)


def quote(text):
    for line in text.rstrip().splitlines():
        say(f"      | {line}")


def lay_out(lab):
    say("[3/6] Laying out an internet with a cloud, and two private networks, each behind a NAT that lets nothing in")
    a = lab.node("node-a", lab.box("prc"))
    b = lab.node("node-b", lab.box("prc"))
    say(f"      node-a {a.ip} behind {a.box.wan_ip}     cloud {CLOUD_IP}     node-b {b.ip} behind {b.box.wan_ip}")
    return a, b


def start(lab, a, b):
    say("[4/6] Starting coturn and edgemesh-cloud; both nodes join with one command")
    relay = Coturn(lab).start()
    cloud = Cloud(lab, relay).start()
    say(f"      edgemesh join --cloud {CLOUD_IP}:10002 --token {cloud.token[:12]}...")
    agents = [Agent(cloud, node).join().start(wait=False) for node in (a, b)]
    for agent in agents:
        agent.wait_ready()
    return cloud, agents


def serve_hello(lab, cloud, agents, b):
    say("[5/6] A plain web server on node-b, made a service with kubectl")
    os.makedirs(lab.path("www"))
    with open(lab.path("www", "index.html"), "w", encoding="ascii") as f:
        f.write("hello from node-b\n")
    b.start("web-server", [PYTHON, "-m", "http.server", "8080", "--directory", lab.path("www")])
    wait_for(lambda: b.run(["curl", "-s", "--noproxy", "*", "http://127.0.0.1:8080/"], check=False).returncode == 0,
             10, "the web server answers on its own node")
    quote(cloud.kubectl("apply", "-f", "-", stdin=HELLO % b.ip).stdout)
    quote(cloud.kubectl("get", "nodes,services,endpointslices").stdout)
    wait_for(lambda: all(agent.knows("default", "hello") for agent in agents), 10, "both nodes know the service")


def show(a, agent):
    say(f"[6/6] On node-a: curl {URL}")
    begin = time.monotonic()
    done = a.run(["curl", "-sS", "--fail", "--max-time", "20", URL], check=False, env=clean_env())
    took = (time.monotonic() - begin) * 1e3
    if done.returncode != 0 or "hello from node-b" not in done.stdout:
        raise LabError(f"curl failed ({done.returncode}): {done.stderr.strip()}{done.stdout.strip()}")
    quote(done.stdout)
    say(f"      answered in {took:.0f} ms, the first contact of the two nodes included")
    agent.wait_path("node-b", ("punched",), 10)
    done = a.run(["curl", "-sS", "--fail", "--max-time", "20", "-o", "/dev/null", "-w", "%{time_total}", URL],
                 env=clean_env())
    say(f"      again, through the punched tunnel: {float(done.stdout) * 1e3:.1f} ms")
    say("      edgemesh status on node-a:")
    quote(agent.cli("status").stdout)


def keep(lab, a, b):
    say("\nIt stays up until Ctrl-C. In another terminal, as root:")
    say(f"  ip netns exec {a.ns.id} curl {URL}")
    say(f"  ip netns exec {a.ns.id} {program('edgemesh')} status")
    say(f"  ip netns exec {b.ns.id} bash         (a shell on node-b)")
    say(f"  ip netns exec {lab.cloud_ns.id} kubectl --kubeconfig {lab.path('cloud', 'admin.kubeconfig')} get all -A")
    say(f"  logs: {lab.dir}")
    signal.pause()


def main():
    setup_signals()
    remove_left_over()
    lab = None
    try:
        lab = Lab()
        a, b = lay_out(lab)
        cloud, agents = start(lab, a, b)
        serve_hello(lab, cloud, agents, b)
        show(a, agents[0])
        say("Done: an unmodified curl reached a plain HTTP server in another private network, end to end encrypted.")
        if "--keep" in sys.argv[1:]:
            keep(lab, a, b)
        return 0
    except LabError as error:
        say(f"\nThe demo failed: {error}\n")
        if lab:
            lab.keep_logs = True
            say(lab.logs(20))
            say(f"All logs are in {lab.dir}")
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        if lab:
            lab.close()


if __name__ == "__main__":
    sys.exit(main())
