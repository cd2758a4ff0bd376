"""The node's file of metadata: damaged, it is made anew from the cloud."""

import glob
import os

from lab.cases import case
from lab.mesh import Mesh
from lab.proc import wait_for
from test_edged import EdgeNode, deployment, wait_shown
from test_pods import SETTINGS, stored


@case(quick=True)
def a_damaged_metastore_is_made_anew():
    """The agent is killed and its file overwritten with noise: it is set aside with a word in the log,
    the pod is not touched, and the cloud sends everything again."""
    with Mesh("prc", join=False) as mesh:
        node = EdgeNode(mesh, "a")
        try:
            node.start()
            agent = node.agent
            mesh.cloud.apply(SETTINGS, deployment(volumes=[{"name": "s", "configMap": {"name": "settings"}}]))
            wait_shown(node, "1/1", "Running")
            before, rows = node.running(), set(stored(agent))
            assert any(key.startswith("default/pod/web-") for key in rows), rows
            agent.process.kill()
            file = os.path.join(agent.state, "meta.db")
            for log in glob.glob(file + "-*"):
                os.remove(log)
            with open(file, "r+b") as f:
                f.write(os.urandom(8192))
            agent.start()
            wait_for(lambda: set(stored(agent)) == rows, 15, lambda: f"the objects are there again: {set(stored(agent))}\n"
                     f"{agent.process.log_tail(40)}")
            aside = [p for p in glob.glob(file + ".broken-*") if not p.endswith(("-wal", "-shm"))]
            assert len(aside) == 1, aside
            assert f"is damaged and set aside as {aside[0]}" in agent.process.log(), agent.process.log_tail(40)
            wait_shown(node, "1/1", "Running")
            assert node.running() == before, (node.running(), before)
            return os.path.basename(aside[0])
        finally:
            node.close()
