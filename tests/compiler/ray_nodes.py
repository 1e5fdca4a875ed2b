"""A Ray cluster of two nodes, on this machine, with so many processors each: started as a program, which takes orders.

It says its address, and on each line that it reads ends the second node, as a machine ends that loses its power.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory


def main(processors: int) -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": processors, "include_dashboard": False})
    second = cluster.add_node(num_cpus=processors)
    print(cluster.address, flush=True)
    for _ in sys.stdin:
        cluster.remove_node(second, allow_graceful=False)
        print("gone", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    import os

    with TemporaryDirectory(prefix="nodes-", ignore_cleanup_errors=True) as place:  # its sockets' paths must be short
        (Path(place) / "ray").mkdir()
        os.environ["RAY_TMPDIR"] = place
        main(int(sys.argv[1]))
