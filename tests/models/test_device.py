"""What the computer computes with, from the texts that systems give."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from labelrank import cores
from labelrank.models import device
from labelrank.models.device import Device

H200 = "GPU-11111111-aaaa-bbbb-cccc-000000000000, 9.0, NVIDIA H200"
T4 = "GPU-22222222-aaaa-bbbb-cccc-000000000000, 7.5, Tesla T4"
OLD_DRIVER = "GPU-33333333-aaaa-bbbb-cccc-000000000000, [N/A], Tesla V100-SXM2-16GB"


@pytest.fixture(autouse=True)
def forget():
    caches = (device._gpus, device.cpu)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


@pytest.mark.parametrize(
    ("text", "name", "bfloat16"),
    [
        ("processor : 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx512f avx512_bf16 sse\n", "AMD EPYC", True),
        ("model name\t: Intel(R) Xeon(R)\nflags\t\t: fpu amx_bf16 amx_tile\n", "Intel(R) Xeon(R)", True),
        ("model name\t: Old\nflags\t\t: fpu avx2 avx512f not_avx512_bf16_really\n", "Old", False),
        ("processor\t: 0\nFeatures\t: fp asimd bf16\n", "", False),
        ("", "", False),
    ],
)
def test_a_processor_is_known_by_its_flags(text, name, bfloat16):
    assert device._parse_cpu(text) == (name, bfloat16)


def test_this_processor_has_a_name_and_cores():
    found = device.cpu()
    assert found.kind == "CPU"
    assert found.name
    assert found.cores >= 1
    assert found.capability is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (H200, [Device("GPU", "NVIDIA H200", None, True, (9, 0))]),
        (T4, [Device("GPU", "Tesla T4", None, False, (7, 5))]),
        (OLD_DRIVER, [Device("GPU", "Tesla V100-SXM2-16GB", None, False, None)]),
        ("GPU-4, 8.0, A100, the second", [Device("GPU", "A100, the second", None, True, (8, 0))]),
        ("No devices were found\n", []),
    ],
)
def test_gpus_are_read_from_what_the_driver_lists(text, expected):
    assert [found for _, found in device._parse_gpus(text)] == expected


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, ["NVIDIA H200", "Tesla T4"]),
        ("0", ["NVIDIA H200"]),
        ("1, 0", ["Tesla T4", "NVIDIA H200"]),
        ("GPU-2222", ["Tesla T4"]),
        ("1,7,0", ["Tesla T4"]),
        ("MIG-55555555-aaaa-bbbb-cccc-000000000000", ["NVIDIA H200"]),
        ("NoDevFiles", []),
        ("", []),
        ("-1", []),
    ],
)
def test_cuda_visible_devices_chooses_and_orders_the_gpus(monkeypatch, visible, names):
    monkeypatch.setattr(device, "_ask_driver", lambda: f"{H200}\n{T4}\n")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [found.name for found in device.gpus()] == names
    assert device.has_gpu() == bool(names)


def test_without_the_drivers_program_device_files_are_counted(monkeypatch, tmp_path):
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    monkeypatch.setattr(device, "_ask_driver", lambda: "")
    monkeypatch.setattr(device, "Path", lambda _: tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert device.gpus() == (Device("GPU", "NVIDIA GPU", None, False),) * 2


@pytest.mark.parametrize("answer", ["exit 9", "echo GPU-1, 9.0, Broken; exit 1", "sleep 60"])
def test_a_failing_driver_program_is_no_gpu(monkeypatch, tmp_path, answer):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{answer}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(device, "_GPU_QUERY_TIMEOUT_S", 0.3)
    assert device._ask_driver() == ""


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_a_containers_quota_limits_the_cores(tmp_path, files, expected):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert cores._cgroup_cores(tmp_path) == expected


def test_the_matmul_rate_is_measured_once(monkeypatch):
    device.matmul_rate.cache_clear()
    rate = device.matmul_rate()
    assert 1e8 < rate < 1e14
    assert device.matmul_rate() == rate


@pytest.mark.parametrize(
    ("took_ms", "told_after_ms"),
    [
        (itertools.repeat(1.0), 21),
        (itertools.chain([3.0] * 10, itertools.repeat(1.0)), 51),  # another program ran first
        (itertools.cycle([1.0, 3.0]), 81),  # another one runs beside it
        (itertools.chain([1.0], itertools.repeat(3.0)), 202),  # hardly one is undisturbed
    ],
)
def test_the_matmul_rate_is_measured_until_products_take_equally_long(monkeypatch, took_ms, told_after_ms):
    clock = SimpleNamespace(now_s=0.0, perf_counter=lambda: clock.now_s)

    def product(*_, **__):
        clock.now_s += next(took_ms) / 1e3

    monkeypatch.setattr(device, "time", clock)
    monkeypatch.setattr(np, "matmul", product)
    monkeypatch.setattr(device, "cpu_cores", lambda: 1)
    device.matmul_rate.cache_clear()
    assert device.matmul_rate() == pytest.approx(2 * 384**3 / 1e-3)
    assert clock.now_s * 1e3 == pytest.approx(told_after_ms)
    device.matmul_rate.cache_clear()


def test_the_matmul_rate_is_measured_on_one_core_for_all_of_them(monkeypatch):
    used, matmul = set(), np.matmul

    def watched(*arguments, **options):
        used.update(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return matmul(*arguments, **options)

    monkeypatch.setattr(np, "matmul", watched)
    monkeypatch.setattr(device, "cpu_cores", lambda: 8)
    device.matmul_rate.cache_clear()
    assert device.matmul_rate() > 0
    assert used == {1}
    device.matmul_rate.cache_clear()
