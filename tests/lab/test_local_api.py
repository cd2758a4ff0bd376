"""The Kubernetes API of a node: what it holds, with and without the cloud."""

import json

from lab.cases import case
from lab.mesh import Mesh
from lab.proc import wait_for
from lab.programs import clean_env, service, slice_of
from test_pods import MANIFEST, SETTINGS, takes_pods

ADDRESS = "127.0.0.1:10550"


class LocalApi:
    """kubectl on the node, without credentials."""

    def __init__(self, agent):
        self.agent = agent

    def kubectl(self, *args, check=True, stdin=None):
        env = clean_env(HOME=self.agent.state, KUBECONFIG="/dev/null")
        argv = ["kubectl", "--server", f"http://{ADDRESS}", *args]
        return self.agent.node.run(argv, check=check, stdin=stdin, env=env)

    def get(self, *args):
        return json.loads(self.kubectl("get", *args, "-o", "json").stdout)


def started(mesh, letter):
    agent = mesh.agent(letter).join()
    with open(agent.config, "a", encoding="ascii") as f:
        f.write("modules: {metaServer: {enable: true}}\n")
    agent.start()
    wait_for(agent.connected, 10, f"{agent.name} is connected")
    return agent, LocalApi(agent)


@case(quick=True)
def kubectl_works_on_a_node_without_the_cloud():
    """kubectl on the node's loopback: reads while the cloud is killed, also after the agent was killed; writes go to
    the cloud with the node's rights, and are refused without it."""
    with Mesh("prc", relay=False, join=False) as mesh:
        cloud = mesh.cloud
        agent, local = started(mesh, "a")
        takes_pods(cloud, agent.name)
        cloud.apply(SETTINGS, {**MANIFEST, "spec": {**MANIFEST["spec"], "replicas": 1}}, service("web"),
                    slice_of("web", [("10.1.1.1", agent.name)]))
        wait_for(lambda: len(local.get("pods")["items"]) == 1, 10, "the node's API has the pod")
        wait_for(lambda: local.get("services")["items"], 5, "the node's API has the service")

        # As the node: its own Node it may change, others' objects not.
        labelled = local.kubectl("annotate", "node", agent.name, "probe=1", check=False)
        assert labelled.returncode == 0, labelled.stderr
        annotations = json.loads(cloud.kubectl("get", "node", agent.name, "-o", "json").stdout)["metadata"]["annotations"]
        assert annotations.get("probe") == "1", annotations
        denied = local.kubectl("delete", "service", "web", check=False)
        assert denied.returncode != 0 and "orbidden" in denied.stderr, denied.stderr

        cloud.process.kill()
        wait_for(lambda: not agent.connected(), 15, "the node knows that the cloud is gone")
        pods = local.kubectl("get", "pods", "-o", "wide").stdout
        assert "web-" in pods and "READY" in pods and agent.name in pods, pods
        assert local.get("configmaps", "settings")["data"] == {"colour": "blue"}
        assert local.get("endpointslices", "-l", "kubernetes.io/service-name=web")["items"]
        assert local.get("pods", "--field-selector", f"spec.nodeName={agent.name}")["items"]
        refused = local.kubectl("annotate", "node", agent.name, "probe=2", "--overwrite", check=False)
        assert refused.returncode != 0 and "no connection to the cloud" in refused.stderr, refused.stderr

        agent.process.kill()
        agent.start()
        again = local.kubectl("get", "pods").stdout
        assert "web-" in again, again
        return pods.splitlines()[1]
