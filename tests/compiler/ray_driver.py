"""A build's part that runs stages, as a program: RayRunner with stages of `stages`, given as JSON; prints how it went.

The arguments are the store, the address of a cluster, and a list of [class, fields].
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

from tests.compiler import stages
from wanc.artifacts.store import Store
from wanc.compiler.stages.ray_runner import RayRunner
from wanc.errors import UserError, render
from wanc.runtime.ending import clean_up_on_sigterm


def main(root: str, address: str, asked: str) -> None:
    # A shell that starts the tests in the background has interrupts ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    clean_up_on_sigterm()
    made = [getattr(stages, name)(*fields) for name, fields in json.loads(asked)]
    try:
        with RayRunner(Store.open(Path(root)), progress=True, address=address or None) as runner:
            trees = runner.run_all([(stage, {}) for stage in made])
    except UserError as error:
        print(json.dumps({"error": render(error), "kind": type(error).__name__, "code": error.exit_code}))
        return
    tasks = [[task.node, task.began, task.ended] for task in runner.tasks]
    keys = [run.key for run in runner.runs]
    print(json.dumps({"tasks": tasks, "keys": keys, "digests": [tree.digest for tree in trees]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
