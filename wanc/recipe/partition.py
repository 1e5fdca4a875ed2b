"""The `partition` part of a recipe: the devices of the deployment, and how the model may be spread over them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from wanc.recipe.checks import fault
from wanc.recipe.model import SourcePath
from wanc.recipe.section import DEVICE_KIND, Section
from wanc.words import DeviceKind, LinkKind, NumberFormat, Target

KindName = Annotated[str, Field(pattern=DEVICE_KIND, max_length=32)]
Positive = Annotated[float, Field(gt=0, le=1e18)]
Share = Annotated[float, Field(gt=0, le=1)]
KNOWN: tuple[DeviceKind, ...] = get_args(DeviceKind)
MOST_DEVICES = 64


def _known_formats(values: Mapping[str, object]) -> Mapping[str, object]:
    formats = get_args(NumberFormat)
    for name in values:
        if name not in formats:
            raise fault(f"{name} is no number format", f"choose among {', '.join(formats)}", (name,))
    return values


class DeviceKindSection(Section):
    """A kind of device that wanc does not know, or what is known better of one that it does."""

    like: DeviceKind | None = None
    """The known kind that everything else is taken from; a kind of a new name needs it."""
    capability: Target | None = None
    """What engines are compiled for that it executes, such as sm89."""
    memory: Positive | None = None
    """Bytes that one process can allocate."""
    bandwidth: Positive | None = None
    """Of its memory, in bytes per second."""
    host_link: Positive | None = None
    """Of copies from and to the host's memory, in bytes per second."""
    nvlink: Positive | None = None
    """Between two of the kind, in bytes per second and direction."""
    pcie: Literal["pcie-gen4", "pcie-gen5"] | None = None
    """Its bus."""
    peaks: Annotated[dict[str, Positive | None], AfterValidator(_known_formats)] | None = None
    """Operations per second by number format, such as {bf16: 312e12}; a null says that it has none."""
    efficiencies: Annotated[dict[str, Share], AfterValidator(_known_formats)] | None = None
    """The share of a peak that kernels reach, by number format, 0 to 1."""


class DeviceSection(Section):
    """Devices of one kind."""

    kind: KindName
    """The kind of device: cpu, a100-80g, h100, h200, b200, l40s, rtx4090, rtx5090, or one of `kinds`."""
    count: Annotated[int, Field(ge=1, le=MOST_DEVICES)] = 1
    """How many of them."""
    link: LinkKind = "pcie"
    """What connects them with each other."""


Auto = Literal["auto"]


def _not_split(value: object) -> object:
    if value != 1 or type(value) is not int:
        raise fault(
            "tensor parallelism is refused: Wan normalises queries and keys over all heads, so that every norm would "
            "need an all-reduce of its own",
            "remove it; `ulysses` splits tokens instead, and exchanges queries, keys and values alone",
        )
    return value


class PartitionSection(Section):
    """The devices that the model is spread over, and how; auto leaves it to the planner."""

    devices: Annotated[tuple[DeviceSection, ...], Field(min_length=1, max_length=8)] = (DeviceSection(kind="cpu"),)
    """What the machine of the deployment has."""
    kinds: dict[KindName, DeviceKindSection] | None = None
    """Kinds of devices that wanc does not know, by name, or what is known better of one."""
    profiles: tuple[SourcePath, ...] = ()
    """Files that `wanc bench` wrote on such devices: how fast they were measured to be."""
    between: LinkKind = "pcie"
    """What connects devices that stand in different entries of `devices`."""
    objective: Literal["latency", "throughput"] = "latency"
    """What is made as good as it can be: the time of one video, or videos per second."""
    requests: Annotated[int, Field(ge=1, le=256)] = 4
    """How many videos are made at once where throughput counts; memory is planned for them."""
    branches: Auto | Literal["serial", "parallel"] = "auto"
    """Whether the two branches of guidance follow each other, or are on devices of their own."""
    experts: Auto | Literal["resident", "swap", "apart", "stream"] = "auto"
    """Both experts in memory, one after the other, on devices of their own, or passing through from the host."""
    replicas: Auto | Annotated[int, Field(ge=1, le=MOST_DEVICES)] = "auto"
    """Independent copies of the whole model, each on devices of its own."""
    stages: Auto | Annotated[int, Field(ge=1, le=MOST_DEVICES)] = "auto"
    """Into how many segments a model's blocks are cut, each on devices of its own: a pipeline."""
    ulysses: Auto | Annotated[int, Field(ge=1, le=MOST_DEVICES)] = "auto"
    """Among how many devices the tokens of one segment are split."""
    tensor_parallel: Annotated[int, BeforeValidator(_not_split)] = 1
    """Not there, and why: it is named to be refused with its reason."""
    allow_idle: bool = False
    """Whether a device may be left without work."""
    cut: Literal["none", "blocks"] | Annotated[int, Field(ge=2, le=MOST_DEVICES)] = "none"
    """On a CPU, into how many segments components are cut, or at all blocks: for tests, as it brings no speed."""

    @model_validator(mode="after")
    def _kinds_are_known(self) -> Self:
        added = self.kinds or {}
        for index, device in enumerate(self.devices):
            if device.kind not in KNOWN and device.kind not in added:
                names = ", ".join((*KNOWN, *added))
                raise fault(f"{device.kind} is no kind of device", f"choose among {names}", ("devices", index, "kind"))
        for name, kind in added.items():
            if name not in KNOWN and kind.like is None:
                hint = f"name the known kind that it is closest to: like: {KNOWN[1]}"
                raise fault(f"{name} is not known, and is like none", hint, ("kinds", name), without=("like",))
        return self

    @model_validator(mode="after")
    def _devices_stand_once(self) -> Self:
        first: dict[tuple[str, str], int] = {}
        for index, device in enumerate(self.devices):
            if (earlier := first.setdefault((device.kind, device.link), index)) != index:
                hint = f"give the number of all of them as devices.{earlier}.count"
                raise fault(f"devices.{earlier} are the same devices", hint, ("devices", index, "kind"))
        return self
