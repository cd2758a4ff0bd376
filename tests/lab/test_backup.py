"""The cloud from its backup: what was made after it goes, what it knows runs on."""

import json
import os
import shutil

from lab.binaries import program
from lab.cases import case
from lab.mesh import Mesh
from lab.proc import run, wait_for
from lab.programs import clean_env
from test_edged import EdgeNode, deployment, pods, wait_shown


def command(mesh, *words, check=True):
    return run([program("edgemesh-cloud"), *words, "--state-dir", mesh.cloud.state], env=clean_env(), check=check)


@case(quick=True)
def a_cloud_comes_back_from_its_backup():
    """The cloud is backed up while it runs, then killed and its disk lost; restored elsewhere it takes its node back:
    the pod of the backup is never stopped, one that was made later goes, and kubectl works."""
    with Mesh("prc", join=False) as mesh:
        node = EdgeNode(mesh, "a")
        try:
            node.start()
            cloud = mesh.cloud
            cloud.apply(deployment())
            wait_shown(node, "1/1", "Running")
            kept = node.running()
            file = mesh.path("backup")
            said = command(mesh, "backup", "--to", file).stdout
            assert os.stat(file).st_mode & 0o777 == 0o600, said
            version = json.loads(cloud.kubectl("get", "--raw", "/api/v1/pods").stdout)["metadata"]["resourceVersion"]

            # The node sees newer versions of what is in the backup, and a pod that is not.
            cloud.kubectl("annotate", "pod", "-l", "app=web", "later=1")
            cloud.apply(deployment("late"))
            wait_shown(node, "1/1", "Running", label="app=late")
            wait_for(lambda: len(node.running()) == 2, 10, "both pods run")

            busy = command(mesh, "restore", "--from", file, "--replace", check=False)
            assert busy.returncode != 0 and "stop it first" in busy.stderr, busy.stderr
            cloud.process.kill()
            shutil.rmtree(cloud.state)
            command(mesh, "restore", "--from", file)
            cloud.start()
            wait_for(node.agent.connected, 30, "the node is back")
            wait_for(lambda: node.running() == kept, 30, lambda: f"the pod of the backup runs on, the later one is gone: "
                     f"{kept}, {node.running()}\n{node.agent.process.log_tail(40)}")
            assert not pods(cloud, "app=late")
            wait_shown(node, "1/1", "Running")
            found = pods(cloud)[0]
            assert "later" not in found["metadata"].get("annotations", {}), found["metadata"]
            assert int(found["metadata"]["resourceVersion"]) > int(version)
            assert found["status"]["containerStatuses"][0]["restartCount"] == 0, found["status"]

            cloud.apply(deployment("late"))
            wait_shown(node, "1/1", "Running", label="app=late")
            return said.strip()
        finally:
            node.close()
