"""edgemesh-cloud with --kubeconfig: objects in an API of others, with no more rights than configs/kubernetes/rbac.yaml gives."""

import collections
import json
import os

from lab.binaries import ROOT
from lab.cases import case
from lab.mesh import Mesh
from lab.proc import wait_for
from lab.programs import BOOTSTRAP_PORT, HUB_PORT, Cloud
from test_edged import EdgeNode, deployment, pods, wait_shown
from test_local_api import LocalApi

ACCOUNT = "system:serviceaccount:kube-system:edgemesh-cloud"


class ApiAlone(Cloud):
    """An API with an audit log; its hub is for nobody."""

    def __init__(self, lab):
        super().__init__(lab)
        self.state = lab.path("apiserver")
        self.audit = lab.path("audit.log")
        config = lab.path("apiserver.yaml")
        with open(config, "w", encoding="ascii") as f:
            f.write(f"audit: {{file: {self.audit}}}\n")
        self.extra = ["--config", config, "--listen-hub", "127.0.0.1:20000", "--listen-bootstrap", "127.0.0.1:20002",
                      "--listen-admin", "127.0.0.1:20100"]

    def _ready(self):
        return os.path.exists(self.kubeconfig) and self.kubectl("get", "--raw", "/readyz", check=False).stdout == "ok"

    def events(self):
        with open(self.audit, encoding="utf-8") as f:
            return [json.loads(line) for line in f if line.endswith("\n")]


class Restricted(Cloud):
    """A cloud on that API, as the account of the manifest."""

    def __init__(self, lab, api):
        super().__init__(lab)
        self.api = api
        path = lab.path("edgemesh.kubeconfig")
        with open(api.kubeconfig, encoding="utf-8") as f:
            config = json.load(f)
        token = api.kubectl("-n", "kube-system", "create", "token", "edgemesh-cloud").stdout.strip()
        config["users"] = [{"name": "admin", "user": {"token": token}}]
        with open(path, "w", encoding="ascii") as f:
            json.dump(config, f)
        self.extra = ["--kubeconfig", path]

    @property
    def kubeconfig(self):
        return self.api.kubeconfig

    def _ready(self):
        listening = self.lab.cloud_ns.run(["ss", "-Htln"]).stdout
        return os.path.exists(self._token_file) and all(f":{port} " in listening for port in (HUB_PORT, BOOTSTRAP_PORT))


@case()
def the_manifest_has_the_rights_that_the_cloud_needs():
    """A node joins, runs and loses a pod, and uses its local API, through a cloud whose rights are those of the manifest;
    the API's audit log has no refusal."""
    with Mesh("prc", relay=False, start=False, join=False) as mesh:
        api = ApiAlone(mesh).start()
        for path in ("crds/reliablesyncs.yaml", "kubernetes/rbac.yaml"):
            api.kubectl("apply", "-f", os.path.join(ROOT, "configs", path))
        mesh.cloud = mesh.agent("a").cloud = Restricted(mesh, api).start()
        node = EdgeNode(mesh, "a")
        try:
            node.start()
            with open(node.agent.config, encoding="ascii") as f:
                text = f.read().replace("edged: {enable: true}", "edged: {enable: true}, metaServer: {enable: true}", 1)
            with open(node.agent.config, "w", encoding="ascii") as f:
                f.write(text)
            node.agent.process.kill()
            node.agent.start()
            wait_for(node.agent.connected, 10, "the agent is connected again")
            api.apply(deployment())
            wait_shown(node, "1/1", "Running")
            LocalApi(node.agent).kubectl("annotate", "node", node.agent.name, "probe=1")
            api.kubectl("delete", "deployment", "web", "--wait=false")
            wait_for(lambda: not pods(api), 30, lambda: f"the pod is gone: {pods(api)}")

            mine = [e for e in api.events() if e["user"].get("username") == ACCOUNT]
            assert any(e.get("impersonatedUser", {}).get("username") == f"system:node:{node.agent.name}" for e in mine)
            refused = [(e["verb"], e["requestURI"], e["responseStatus"].get("message")) for e in mine
                       if e["responseStatus"]["code"] in (401, 403)]
            assert not refused, refused
            used = collections.Counter((e["verb"], e["objectRef"]["resource"]) for e in mine if "objectRef" in e)
            return f"{len(mine)} requests of {len(used)} kinds, none refused"
        finally:
            node.close()
