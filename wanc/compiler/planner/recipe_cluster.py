"""The devices of a recipe: known kinds, what it says of its own, and what was measured of them."""

from __future__ import annotations

from wanc.compiler.planner.cluster import Cluster, Pool
from wanc.compiler.planner.links import LINKS, link_of
from wanc.compiler.planner.overrides import with_overrides
from wanc.compiler.planner.profile import SUFFIX, Profile
from wanc.errors import RecipeError
from wanc.recipe.load import LoadedRecipe
from wanc.recipe.paths import path_hint


def cluster_of(loaded: LoadedRecipe) -> Cluster:
    """A recipe's devices. Raises RecipeError at the line of what cannot be."""
    profiles = _profiles(loaded)
    try:
        return _cluster(loaded, profiles)
    except RecipeError as error:
        error.where = error.where or loaded.marks.where("partition")
        raise


def _cluster(loaded: LoadedRecipe, profiles: list[Profile]) -> Cluster:
    partition = loaded.recipe.partition
    changes = {
        name: {key: value for key, value in kind.model_dump(exclude_unset=True).items() if value is not None}
        for name, kind in (partition.kinds or {}).items()
    }
    devices = with_overrides(changes)
    for profile in profiles:
        devices = {name: profile.applied(device) for name, device in devices.items()}
    pools: list[Pool] = []
    for entry in partition.devices:
        device = devices[entry.kind]
        pools.append(Pool(device, entry.count, link_of(entry.link, device)))
    between = (
        link_of(partition.between, pools[0].device) if partition.between == "pcie" else LINKS.get(partition.between)
    )
    return Cluster.of(pools, between if len(pools) > 1 else None, devices["cpu"])


def _profiles(loaded: LoadedRecipe) -> list[Profile]:
    found: list[Profile] = []
    for index, path in enumerate(loaded.recipe.partition.profiles):
        try:
            found.append(Profile.read(path))
        except RecipeError as error:
            key = f"partition.profiles.{index}"
            error.where = loaded.marks.where(key)
            error.hint = path_hint(path, loaded.marks.folder(key), SUFFIX) or error.hint
            raise
    return found
