"""HTTP through capture: requests are balanced one by one, on one node and through the tunnel."""

import os

from lab.cases import case
from lab.mesh import APPS, Mesh
from lab.proc import wait_for
from lab.programs import PYTHON


def http_objects(name, endpoints, port=8081):
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
         "spec": {"ports": [{"name": "web", "appProtocol": "http", "port": 80, "targetPort": port}]}},
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
         "metadata": {"name": f"{name}-lab", "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
         "addressType": "IPv4", "ports": [{"name": "web", "port": port, "protocol": "TCP"}],
         "endpoints": [{"addresses": [a], "nodeName": n, "conditions": {"ready": True}} for a, n in endpoints]}]


class HttpMesh(Mesh):
    """A mesh whose agents take HTTP apart, with an HTTP server on each node: service web-<letter>, and
    `both` with those of node-b and node-c."""

    def __init__(self, *kinds):
        super().__init__(*kinds, join=False)
        try:
            objects, ends = [], []
            for name, agent in self.agents.items():
                agent.join()
                with open(agent.config, "a", encoding="utf-8") as f:
                    f.write("proxy: {http: true}\n")
                agent.start(wait=False)
                app = agent.node.start("web", [PYTHON, os.path.join(APPS, "http_server.py"), name, "8081"])
                wait_for(lambda a=app: "ready" in a.log(), 10, lambda a=app: f"http_server: {a.log()}")
                ends.append((agent.node.ip, name))
                objects += http_objects(f"web-{name[-1]}", [ends[-1]])
            for agent in self.agents.values():
                agent.wait_ready()
            if len(ends) > 2:
                objects += http_objects("both", ends[1:])
            self.cloud.apply(*objects)
            self.wait_services([o["metadata"]["name"] for o in objects if o["kind"] == "Service"])
        except BaseException:
            self.keep_logs = True
            self.close()
            raise

    def curl(self, letter, *args, check=True):
        argv = ["curl", "-sS", "--max-time", "20", "--noproxy", "*", *args]
        return self.agent(letter).node.run(argv, check=check).stdout


@case(quick=True)
def http_requests_are_balanced_one_by_one():
    """One client connection, requests to two nodes behind NAT; connections to them are kept."""
    with HttpMesh("prc", "prc", "prc") as mesh:
        agent = mesh.agent("a")
        host = "http://both.default.svc.cluster.local"
        answers = mesh.curl("a", *[f"{host}/{i}" for i in range(12)]).split("\n")[:-1]
        names = [line.split()[0] for line in answers]
        assert len(answers) == 12 and names.count("node-b") == 6 and names.count("node-c") == 6, answers
        ports = {tuple(line.split()) for line in answers}
        assert len(ports) == 2, f"connections to the endpoints were not kept: {ports}"
        listener = "outbound|80||both.default"
        assert agent.metric("edgemesh_listener_connections_total", listener=listener) == 1
        assert agent.metric("edgemesh_http_requests_total", listener=listener) == 12
        # The scrape shows a request when its end was told.
        wait_for(lambda: agent.metric("istio_requests_total", destination_service_name="both",
                                      response_code="200", reporter="source") == 12, 5,
                 lambda: agent.http("/metrics"))
        local = mesh.curl("a", "http://web-a.default.svc.cluster.local/")
        assert local.startswith("node-a "), local
        return f"12 requests, {len(ports)} connections"


@case(quick=True)
def http_bodies_through_the_tunnel():
    """Bodies both ways, statuses, an endpoint that is away, through the tunnel."""
    with HttpMesh("prc", "sym") as mesh:
        base = "http://web-b.default.svc.cluster.local"
        assert len(mesh.curl("a", f"{base}/bytes/3000000")) == 3_000_000
        path = mesh.path("body")
        with open(path, "wb") as f:
            f.write(os.urandom(3_000_000))
        for extra in ([], ["-H", "Expect: 100-continue"]):
            assert mesh.curl("a", "--data-binary", f"@{path}", *extra, base + "/").strip() == "3000000"
        for status in (204, 404, 503):
            got = mesh.curl("a", "-o", "/dev/null", "-w", "%{http_code}", f"{base}/status/{status}")
            assert got == str(status), f"{got} for {status}"
        fields = mesh.curl("a", f"{base}/headers")
        assert "x-request-id:" in fields.lower() and "web-b.default" in fields, fields
        web = next(p for p in mesh.processes if p.name.endswith("web") and p.running() and "node-b" in str(p.argv))
        web.stop()
        got = mesh.curl("a", "-o", "/dev/null", "-w", "%{http_code}", base + "/")
        assert got == "503", got
