"""What memory is free, read from files as the system writes them; what a step takes."""

import subprocess

import pytest

from labelrank.finetune import memory
from labelrank.finetune.memory import free_gpu_bytes, step_bytes
from labelrank.memory import free_memory_bytes, total_memory_bytes
from labelrank.models.config import EncoderConfig, TransformerConfig

MEMINFO = "MemTotal:       16000 kB\nMemFree:         1000 kB\nMemAvailable:    8000 kB\n"
BASE = EncoderConfig(
    model_type="vit", transformer=TransformerConfig(768, 3072, 12, 12), image_size=(224, 224), patch_size=(16, 16)
)


def system(tmp_path, **files):
    (tmp_path / "meminfo").write_text(MEMINFO)
    for name, text in files.items():
        path = tmp_path / name.replace("__", "/").replace("_at_", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return free_memory_bytes(tmp_path, tmp_path / "meminfo")


def test_free_memory_is_what_the_system_calls_available(tmp_path):
    assert system(tmp_path) == 8000 * 1024
    assert system(tmp_path, memory_at_max="max\n", memory_at_current="5\n") == 8000 * 1024
    assert free_memory_bytes(tmp_path / "none", tmp_path / "nothing") is None


def test_limit_of_a_container_counts_and_file_cache_does_not(tmp_path):
    stat = "anon 100\ninactive_file 2000\nactive_file 5\n"
    files = {"memory_at_max": "6000000", "memory_at_current": "1000000", "memory_at_stat": stat}
    assert system(tmp_path, **files) == 5_002_000


def test_all_memory_is_that_of_the_machine_or_of_its_container(tmp_path):
    (tmp_path / "meminfo").write_text(MEMINFO)
    assert total_memory_bytes(tmp_path, tmp_path / "meminfo") == 16_000 * 1024
    (group := tmp_path / "group").mkdir()
    (group / "memory.max").write_text("6000000")
    assert total_memory_bytes(group, tmp_path / "meminfo") == 6_000_000
    assert total_memory_bytes(tmp_path / "none", tmp_path / "nothing") is None


def test_limit_of_an_older_container_counts(tmp_path):
    stat = "inactive_file 7\ntotal_inactive_file 300\n"
    for name, text in (("limit_in_bytes", "4000000"), ("usage_in_bytes", "3000000"), ("stat", stat)):
        (tmp_path / "memory").mkdir(exist_ok=True)
        (tmp_path / "memory" / f"memory.{name}").write_text(text)
    assert system(tmp_path) == 1_000_300


def test_container_over_its_limit_has_nothing_free(tmp_path):
    assert system(tmp_path, memory_at_max="10", memory_at_current="20") == 0


def test_gpu_is_asked_of_the_driver_and_its_silence_is_unknown(monkeypatch):
    asked = []

    def run(command, **options):
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, stdout="1000\n500\n")

    monkeypatch.setattr(memory.subprocess, "run", run)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert free_gpu_bytes() == 1000 << 20
    assert asked[0][-2:] == ("-i", "3")

    def missing(command, **options):
        raise FileNotFoundError("nvidia-smi")

    monkeypatch.setattr(memory.subprocess, "run", missing)
    assert free_gpu_bytes() is None


def test_step_takes_more_the_more_learns():
    def size(blocks, precision="float32"):
        return step_bytes(BASE, learning_blocks=blocks, n_parameters=86_000_000, precision=precision)

    assert size(12)[0] == 16 * 86_000_000
    assert size(0)[1] < size(2)[1] < size(12)[1]
    assert size(12, "bfloat16")[1] < 0.52 * size(12)[1] + 1e6
    # ViT-B in float32 keeps about 0.25 GB for each image.
    assert size(12)[1] == pytest.approx(0.25e9, rel=0.5)
