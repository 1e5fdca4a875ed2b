"""Whether what a manifest says of running the bundle can be true: digests that fit prove only that nobody changed it.

What each task needs is compared with what is declared, sizes with limits, and the files that go with it by their
headers. All of it costs milliseconds, whatever the manifest claims.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from .check_golden import check_golden
from .engine_file import Key
from .errors import BundleError
from .folder import VerifiedFolder
from .interface import COMPONENT, GRAPH, Interface
from .interface import TASK as ONE_GRAPH
from .manifest import MANIFEST, is_component
from .options import VIDEO
from .strict_json import Fields

MOST_COMPONENTS = 16


def check_bundle(
    graphs: Mapping[Key, Interface], runtime: Fields, topology: Fields, files: Collection[str], folder: VerifiedFolder
) -> None:
    """Raises BundleError, naming what was expected, unless the bundle's task can be done with these graphs.

    `graphs` are those that have engines, by (component, graph); `runtime` and `topology` are the manifest's, `files`
    the paths of the bundle in `folder`, all verified.
    """
    _check_components(graphs, topology)
    task = runtime.text("task")
    if task == ONE_GRAPH:
        if set(graphs) != {(COMPONENT, GRAPH)}:
            message = f"the task {task!r} has the graph {COMPONENT}/{GRAPH} and no other"
            raise BundleError(message, where=folder.shown(MANIFEST))
    elif task == VIDEO:
        # Imported late: a bundle of one graph has nothing to do with videos.
        from .check_video import check_video
        from .golden_prompts import FILE as PROMPTS
        from .golden_prompts import read_prompts
        from .video_facts import VideoFacts

        facts = VideoFacts.read(runtime)
        check_video(graphs, facts, files, folder)
        if PROMPTS in files:
            read_prompts(folder, facts.model.text_length)
    else:
        runtime.refuse("task", f"is {ascii(task)[:80]}, not one of {VIDEO}, {ONE_GRAPH}")
    check_golden(graphs, files, folder)


def _check_components(graphs: Mapping[Key, Interface], topology: Fields) -> None:
    """What is declared has engines: a graph without would be left out of the self-test, which then passes."""
    components = topology.object("components")
    if len(components.values) > MOST_COMPONENTS:
        count = len(components.values)
        topology.refuse("components", f"has {count} entries, more than the {MOST_COMPONENTS} allowed")
    for component in components.values:
        for graph in components.object(component).values:
            if not (is_component(component) and is_component(graph)):
                topology.refuse(
                    "components", f"names {ascii(f'{component}/{graph}')[:80]}, which is no name of a graph"
                )
            if (component, graph) not in graphs:
                topology.refuse("engines", f"has no engine for {component}/{graph}")
