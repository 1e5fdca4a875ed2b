"""The machine is read from Linux's own files; what they do not say is left out, never guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from wanc.doctor.machine import Gpu, read_machine

X86 = """\
processor\t: 0
model name\t: Some Processor
flags\t\t: fpu avx avx2 avx512f avx512_vnni amx_bf16 amx_int8

processor\t: 1
model name\t: Another Processor
flags\t\t: fpu
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm bf16\n"
MEMORY = "MemTotal:       1000 kB\nMemAvailable:    600 kB\nSwapTotal:       200 kB\n"
SMI = "NVIDIA H100 80GB HBM3, 81559, 9.0, 580.65.06\nOdd, [N/A], , \n"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture(autouse=True)
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for programs: no others are found."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def install_smi(tools: Path, script: str) -> None:
    (tools / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (tools / "nvidia-smi").chmod(0o755)


def test_an_x86_machine(tmp_path: Path) -> None:
    machine = read_machine(write(tmp_path, {"proc/cpuinfo": X86, "proc/meminfo": MEMORY}))
    assert machine.processor == "Some Processor"
    assert machine.fast == {
        "float32": ("avx2", "avx512f"),
        "bfloat16": ("amx_bf16",),
        "int8": ("avx512_vnni", "amx_int8"),
    }
    assert (machine.memory_bytes, machine.available_bytes, machine.swap_bytes) == (1000 * 1024, 600 * 1024, 200 * 1024)
    assert machine.gpus == ()
    assert machine.cores >= 1


def test_an_arm_machine(tmp_path: Path) -> None:
    machine = read_machine(write(tmp_path, {"proc/cpuinfo": ARM}))
    assert machine.fast == {"float32": ("asimd",), "bfloat16": ("bf16",), "int8": ("asimddp", "i8mm")}


@pytest.mark.parametrize(
    ("name", "text", "memory"),
    [
        ("sys/fs/cgroup/memory.max", "512000\n", 512_000),
        ("sys/fs/cgroup/memory.max", "max\n", 1_024_000),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "409600\n", 409_600),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n", 1_024_000),
    ],
)
def test_a_container_has_what_it_may_use(tmp_path: Path, name: str, text: str, memory: int) -> None:
    machine = read_machine(write(tmp_path, {"proc/meminfo": MEMORY, name: text}))
    assert machine.memory_bytes == memory
    assert machine.available_bytes == min(memory, 600 * 1024)


def test_files_that_are_missing_or_odd_say_nothing(tmp_path: Path) -> None:
    write(tmp_path, {"proc/cpuinfo": "\0:\n:::", "proc/meminfo": "MemTotal: many kB\nSwapTotal: -1 kB\n"})
    for root in (tmp_path, tmp_path / "absent"):
        machine = read_machine(root)
        assert (machine.processor, machine.fast, machine.swap_bytes, machine.gpus) == ("", {}, 0, ())
        assert machine.memory_bytes > 2**20, "as the operating system says otherwise"


def test_gpus_as_nvidia_smi_lists_them(tmp_path: Path, tools: Path) -> None:
    install_smi(tools, f"printf '%s' '{SMI}'")
    assert read_machine(tmp_path).gpus == (
        Gpu("NVIDIA H100 80GB HBM3", 81559 * 2**20, "9.0", "580.65.06"),
        Gpu("Odd", None, None, None),
    )


@pytest.mark.parametrize("script", ["echo 'NVIDIA-SMI has failed'; exit 9", "echo unexpected", "exit 0"])
def test_gpus_without_nvidia_smi(tmp_path: Path, tools: Path, script: str) -> None:
    install_smi(tools, script)
    devices = {"dev/nvidia0": "", "dev/nvidia1": "", "dev/nvidiactl": "", "dev/nvidia-uvm": ""}
    write(tmp_path, devices)
    assert read_machine(tmp_path).gpus == (Gpu("NVIDIA GPU"), Gpu("NVIDIA GPU"))
    driver = "proc/driver/nvidia/gpus"
    write(tmp_path, {f"{driver}/0/information": "Model: \t NVIDIA L4\n", f"{driver}/1/information": "odd"})
    assert read_machine(tmp_path).gpus == (Gpu("NVIDIA L4"), Gpu("NVIDIA GPU"))


def test_a_driver_without_devices_is_no_gpu(tmp_path: Path) -> None:
    write(tmp_path, {"proc/driver/nvidia/gpus/0/information": "Model: NVIDIA L4\n"})
    assert read_machine(tmp_path).gpus == ()
