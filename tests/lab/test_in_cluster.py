"""Programs in pods that use the Kubernetes API: client-go's in-cluster configuration, with a token of their own."""

import glob
import json
import os
import shutil

from lab.cases import case
from lab.mesh import Mesh
from lab.proc import wait_for
from lab.runtime import busybox_image
from test_edged import EdgeNode, pod, wait_shown
from test_streams import KUBECTLS

IMAGE = "docker.io/library/lab-kubectl:1"
READER = [
    {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader", "namespace": "default"}},
    {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
     "metadata": {"name": "reader", "namespace": "default"},
     "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
     "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": "default"}]}]


def load_kubectl(node):
    path = os.path.join(node.containerd.dir, "kubectl.tar")
    newest = sorted(glob.glob(f"{KUBECTLS}/kubectl.1.*"), key=lambda p: int(p.rsplit(".", 1)[1]))
    busybox_image(path, IMAGE, {"kubectl": newest[-1] if newest else shutil.which("kubectl")})
    node.containerd.load(path)


@case()
def a_client_in_a_pod_uses_the_api():
    """kubectl in a pod behind a NAT, with nothing set up, reads what its service account may read, and watches; a pod
    without a token is nobody."""
    with Mesh("prc", join=False) as mesh:
        node = EdgeNode(mesh, "a")
        try:
            node.start()
            load_kubectl(node)
            cloud = mesh.cloud
            service = json.loads(cloud.kubectl("get", "service", "kubernetes", "-o", "json").stdout)
            main = {"name": "main", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sleep", "3600"]}
            cloud.apply(*READER, pod("client", [main], serviceAccountName="reader"),
                        pod("nobody", [main], automountServiceAccountToken=False))
            for name in ("client", "nobody"):
                wait_shown(node, "1/1", "Running", f"app={name}")

            def inside(name, *argv, check=True):
                return cloud.kubectl("exec", name, "--", "env", "HOME=/tmp", *argv, check=check)

            environment = inside("client", "env").stdout
            assert f"KUBERNETES_SERVICE_HOST={service['spec']['clusterIP']}\n" in environment, environment
            listed = wait_for(lambda: inside("client", "kubectl", "get", "pods", "-o", "name", check=False).stdout, 20,
                              lambda: inside("client", "kubectl", "-v=6", "get", "pods", check=False).stderr)
            assert set(listed.split()) == {"pod/client", "pod/nobody"}, listed
            refused = inside("client", "kubectl", "get", "secrets", check=False)
            assert refused.returncode != 0 and "system:serviceaccount:default:reader" in refused.stderr, refused.stderr
            ready = inside("client", "kubectl", "wait", "--for=condition=Ready", "pod/nobody", "--timeout=10s").stdout
            assert "condition met" in ready, ready
            nobody = inside("nobody", "kubectl", "get", "pods", check=False)
            assert nobody.returncode != 0, nobody.stdout
            return f"KUBERNETES_SERVICE_HOST {service['spec']['clusterIP']}, {listed.split()}"
        finally:
            node.close()
