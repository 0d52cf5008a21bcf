"""Backend and precision are chosen from the system; a compiled encoder is kept, and trusted only when whole."""

import ctypes
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import labelrank
from labelrank.errors import CheckpointError, SettingsError
from labelrank.models import backend as backends
from labelrank.models import cost, device, exported, runtime
from labelrank.models.checkpoint import open_checkpoint
from labelrank.models.config import EncoderConfig, TransformerConfig
from labelrank.models.device import Device, cpu
from labelrank.models.exported import Unwritable, load_kept
from labelrank.models.pooling import pool_tokens
from labelrank.models.pretrain_recipe import PretrainRecipe
from tests.conftest import GOLDEN
from tests.models.test_device import H200, OLD_DRIVER, T4

VIT_B = EncoderConfig("vit_mae", TransformerConfig(768, 3072, 12, 12), (224, 224), (16, 16))
WITH_BFLOAT16 = "model name : A\nflags : avx512f avx512_bf16\n"
WITHOUT_BFLOAT16 = "model name : B\nflags : avx2\n"
CUDA_12 = ("nvidia-cudnn-cu12", "nvidia-cublas-cu12")
TOLERANCE = 1e-4


needs_bfloat16 = pytest.mark.skipif(not cpu().bfloat16, reason="this processor does not multiply in bfloat16")


@pytest.fixture
def system(monkeypatch):
    """Pretend another computer: what /proc/cpuinfo and nvidia-smi say, and which packages are installed."""

    def pretend(*, cpuinfo=WITHOUT_BFLOAT16, gpus="", packages=("tensorflow", "openvino"), backend=None):
        name, bfloat16 = device._parse_cpu(cpuinfo)
        found = device._visible(device._parse_gpus(gpus), None)
        requires = {
            "tensorflow": [*(f'{name}<99; extra == "and-cuda"' for name in CUDA_12), "numpy>=2"],
            "torch": ["filelock", "nvidia-cudnn-cu13==9.19; platform_system == 'Linux'"],
        }
        versions = dict(package if isinstance(package, tuple) else (package, "1.0") for package in packages)

        def version(package):
            if package not in versions:
                raise runtime.metadata.PackageNotFoundError(package)
            return versions[package]

        monkeypatch.delitem(sys.modules, "keras", raising=False)
        monkeypatch.setattr(backends, "cpu", lambda: Device("CPU", name, 2, bfloat16))
        monkeypatch.setattr(backends, "gpus", lambda: found)
        monkeypatch.setattr(backends, "has_gpu", lambda: bool(found))
        monkeypatch.setattr(backends.metadata, "requires", lambda package: requires.get(package))
        monkeypatch.setattr(backends.metadata, "version", version)
        monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: name if name in versions else None)
        monkeypatch.setattr("labelrank.models.backend._system_has", lambda library: f"lib{library}" in versions)
        backends._has_gpu_build.cache_clear()
        if backend is None:
            monkeypatch.delenv("KERAS_BACKEND", raising=False)
        else:
            monkeypatch.setenv("KERAS_BACKEND", backend)

    yield pretend
    backends._has_gpu_build.cache_clear()


# --- Backend, device and precision


@pytest.mark.parametrize(
    ("packages", "inference", "training"),
    [
        (("tensorflow", "openvino"), "openvino", "tensorflow"),
        (("tensorflow", "openvino", *CUDA_12), "tensorflow", "tensorflow"),
        (("tensorflow", "openvino", CUDA_12[0]), "openvino", "tensorflow"),
        (("tensorflow", "openvino", "libcudnn"), "tensorflow", "tensorflow"),
        (("tensorflow", "openvino", "jax", "jax-cuda13-plugin"), "jax", "jax"),
        (("tensorflow", "openvino", "jax", "jax-cuda12-plugin", *CUDA_12), "tensorflow", "tensorflow"),
        (("tensorflow", "openvino", "jax"), "openvino", "tensorflow"),
        (("tensorflow", "openvino", ("torch", "2.11.0+cu130")), "torch", "torch"),
        (("tensorflow", "openvino", ("torch", "2.11.0+cpu")), "openvino", "tensorflow"),
        (("tensorflow", "openvino", ("torch", "2.11.0")), "torch", "torch"),
    ],
)
def test_on_a_gpu_the_backend_is_one_that_can_use_it(system, packages, inference, training):
    system(gpus=H200, packages=packages)
    assert backends.preferred_backend() == inference
    assert backends.preferred_backend(training=True) == training
    kind = "CPU" if inference == "openvino" else "GPU"
    assert [found.kind for found in backends.devices()] == [kind]


def test_without_a_gpu_inference_is_openvinos(system):
    system(packages=("tensorflow", "openvino", *CUDA_12))
    assert backends.preferred_backend() == "openvino"
    assert backends.preferred_backend(training=True) == "tensorflow"


def test_tensorflow_without_gpus_is_known_by_its_name_and_taken_for_no_build_with_gpus(system):
    system(gpus=H200, packages=(("tensorflow-cpu", "2.21.0"), "openvino", "libcudnn", *CUDA_12))
    assert backends.version_of("tensorflow") == "2.21.0"
    assert backends.version_of("jax") is None
    assert backends.preferred_backend() == "openvino"


def test_the_environment_decides_before_anything_else(system):
    system(gpus=f"{H200}\n{H200}", packages=("tensorflow", "openvino", *CUDA_12), backend="openvino")
    assert backends.preferred_backend() == "openvino"
    assert [found.kind for found in backends.devices()] == ["CPU"]
    with pytest.raises(SettingsError, match="KERAS_BACKEND is 'openvino'; training runs on"):
        backends.preferred_backend(training=True)
    system(backend="jax")
    with pytest.raises(SettingsError, match="KERAS_BACKEND is 'jax'"):
        backends.preferred_backend()


@pytest.mark.parametrize(
    ("computer", "expected"),
    [
        ({"cpuinfo": WITH_BFLOAT16}, "bfloat16"),
        ({"cpuinfo": WITHOUT_BFLOAT16}, "float32"),
        ({"cpuinfo": ""}, "float32"),
        ({"cpuinfo": WITH_BFLOAT16, "backend": "tensorflow"}, "float32"),
        ({"gpus": H200, "packages": ("tensorflow", *CUDA_12)}, "bfloat16"),
        ({"gpus": T4, "packages": ("tensorflow", *CUDA_12)}, "float16"),
        ({"gpus": OLD_DRIVER, "packages": ("tensorflow", *CUDA_12)}, "float32"),
        # A GPU that nothing installed can use.
        ({"gpus": T4, "cpuinfo": WITH_BFLOAT16}, "bfloat16"),
        ({"gpus": T4, "cpuinfo": WITH_BFLOAT16, "packages": ("openvino", *CUDA_12), "backend": "openvino"}, "bfloat16"),
    ],
)
def test_auto_is_what_the_device_multiplies_in(system, computer, expected):
    system(**computer)
    assert backends.resolve_precision("auto") == expected
    assert backends.resolve_precision("float32") == "float32"


def test_a_precision_that_the_device_does_not_multiply_in_is_refused(system):
    system(cpuinfo=WITHOUT_BFLOAT16)
    for precision in ("float16", "bfloat16"):
        with pytest.raises(SettingsError, match=rf"'{precision}', which this processor .* Choose auto or float32"):
            backends.resolve_precision(precision)
    system(cpuinfo=WITH_BFLOAT16)
    assert backends.resolve_precision("bfloat16") == "bfloat16"
    with pytest.raises(SettingsError, match="'float16', which this processor"):
        backends.resolve_precision("float16")
    system(gpus=T4, packages=("tensorflow", *CUDA_12))
    assert backends.resolve_precision("float16") == "float16"


def test_an_unknown_precision_is_refused():
    with pytest.raises(SettingsError, match="Precision is 'int4'; choose one of auto, float32, bfloat16, float16"):
        backends.resolve_precision("int4")


# --- Cost


def test_flops_are_those_of_the_published_sizes():
    assert cost.encoder_flops(VIT_B) == pytest.approx(35.1e9, rel=0.002)
    assert cost.encoder_flops(VIT_B, 196) == cost.encoder_flops(VIT_B)
    assert cost.encoder_flops(VIT_B, 49) == pytest.approx(0.247 * cost.encoder_flops(VIT_B), rel=0.02)
    clips = replace(VIT_B, model_type="videomae", num_frames=16, tubelet_size=2, use_cls_token=False)
    assert cost.encoder_flops(clips) == pytest.approx(361e9, rel=0.002)


def test_pretraining_flops_are_those_of_its_kernels(keras):
    from labelrank.models.mae import MaskedAutoencoder

    config = PretrainRecipe().encoder_config()
    model = MaskedAutoencoder(config)
    model.build()
    seen, every = 1 + config.num_visible, 1 + config.num_patches
    flops = 0
    for variable in model.trainable_variables:
        if variable.path.endswith("kernel"):
            is_of_visible = "/encoder/block" in variable.path or variable.path.endswith("decoder/embed/kernel")
            flops += 2 * (seen if is_of_visible else every) * np.prod(variable.shape)
    for size, tokens in ((config.transformer, seen), (config.decoder, every)):
        flops += 4 * tokens**2 * size.hidden_dim * size.num_layers
    assert cost.pretraining_flops(config) == pytest.approx(3 * flops, rel=0.02)


def test_the_estimated_rate_follows_the_measured_matmul(system, monkeypatch):
    monkeypatch.setattr(cost, "matmul_rate", lambda: 351e9)
    system(cpuinfo=WITH_BFLOAT16)
    flops = cost.encoder_flops(VIT_B)
    exact = cost.estimated_rate(flops, "float32")
    assert 7 < exact < 10
    assert cost.estimated_rate(flops, "auto") == pytest.approx(1.9 * exact)
    system(cpuinfo=WITHOUT_BFLOAT16)
    assert cost.estimated_rate(flops, "auto") == pytest.approx(exact)
    system(gpus=H200, packages=("tensorflow", *CUDA_12))
    assert cost.estimated_rate(flops, "auto") is None


# --- What is kept


IDENTITY = {"checkpoint": "a1", "image_size": [32, 32]}


def make(folder):
    (folder / "model").write_bytes(b"weights" * 1000)


def read(folder):
    return (folder / "model").read_bytes()


def visible(cache):
    return [path.name for path in cache.iterdir() if not path.name.startswith(".")]


def test_what_is_kept_is_made_once(tmp_path):
    calls = []
    for expected in (False, True, True):
        loaded, reused = load_kept(tmp_path, IDENTITY, lambda folder: (calls.append(1), make(folder)), read)
        assert (loaded, reused) == (b"weights" * 1000, expected)
    assert calls == [1]
    assert [*tmp_path.iterdir()] == [exported.entry_path(tmp_path, IDENTITY)]


def cut(entry):
    (entry / "model").write_bytes(b"weights" * 500)


def flip(entry):
    (entry / "model").write_bytes(b"weightt" * 1000)


def note(change):
    def damage(entry):
        content = json.loads((entry / exported._NOTE).read_text())
        change(content)
        (entry / exported._NOTE).write_text(json.dumps(content))

    return damage


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (cut, "model has changed"),
        (flip, "model has changed"),
        (lambda entry: (entry / "model").unlink(), "No such file or directory"),
        (lambda entry: (entry / exported._NOTE).unlink(), "No such file or directory"),
        (lambda entry: (entry / exported._NOTE).write_text('{"identity": {'), "entry.json cannot be read"),
        (lambda entry: (entry / exported._NOTE).write_text("[]"), "entry.json cannot be read"),
        (note(lambda content: content["identity"].update(checkpoint="b2")), "speaks of something else"),
        (note(lambda content: content["files"].update(model="0" * 64)), "model has changed"),
        (lambda entry: ([p.unlink() for p in entry.iterdir()], entry.rmdir(), entry.write_text("")), "Not a directory"),
    ],
)
def test_a_damaged_entry_is_reported_and_made_again(tmp_path, capsys, damage, told):
    load_kept(tmp_path, IDENTITY, make, read)
    entry = exported.entry_path(tmp_path, IDENTITY)
    damage(entry)
    assert load_kept(tmp_path, IDENTITY, make, read) == (b"weights" * 1000, False)
    error = capsys.readouterr().err
    assert str(entry) in error
    assert told in error
    assert error.count("\n") == 1
    assert load_kept(tmp_path, IDENTITY, make, read) == (b"weights" * 1000, True)
    assert [*tmp_path.iterdir()] == [entry]


def test_a_half_made_entry_is_never_seen(tmp_path):
    def fail(folder):
        make(folder)
        assert visible(tmp_path) == []
        raise CheckpointError("half way")

    with pytest.raises(CheckpointError, match="half way"):
        load_kept(tmp_path, IDENTITY, fail, read)
    assert [*tmp_path.iterdir()] == []

    def cannot_load(folder):
        assert visible(tmp_path) == []
        raise RuntimeError("not a model")

    with pytest.raises(RuntimeError, match="not a model"):
        load_kept(tmp_path, IDENTITY, make, cannot_load)
    assert [*tmp_path.iterdir()] == []


def test_a_killed_process_leaves_no_entry(tmp_path):
    program = (
        "import os, signal, sys; from pathlib import Path; from labelrank.models.exported import load_kept\n"
        "def make(folder):\n"
        "    (folder / 'model').write_bytes(b'weig')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"load_kept(Path(sys.argv[1]), {IDENTITY!r}, make, lambda folder: None)"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], check=False)
    assert done.returncode == -9
    assert visible(tmp_path) == []
    assert load_kept(tmp_path, IDENTITY, make, read) == (b"weights" * 1000, False)
    assert len(visible(tmp_path)) == 1


def test_two_that_make_the_same_entry_both_get_it(tmp_path):
    barrier, found = threading.Barrier(2, timeout=20), []

    def make_together(folder):
        barrier.wait()
        make(folder)

    threads = [
        threading.Thread(target=lambda: found.append(load_kept(tmp_path, IDENTITY, make_together, read)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [(b"weights" * 1000, False)] * 2
    assert [*tmp_path.iterdir()] == [exported.entry_path(tmp_path, IDENTITY)]


def test_an_entry_is_held_while_it_is_loaded(settings):
    from labelrank.cache import entries, evict

    cache, tight = settings.workspace / "encoders", replace(settings, max_cache_bytes=1)
    load_kept(cache, IDENTITY, make, read)

    def look(folder):
        assert [entry.in_use for entry in entries(settings)] == [True]
        assert evict(tight) == ()
        return read(folder)

    assert load_kept(cache, IDENTITY, make, look) == (b"weights" * 1000, True)
    assert evict(tight) == (exported.entry_path(cache, IDENTITY),)
    assert load_kept(cache, IDENTITY, make, read) == (b"weights" * 1000, False)


def test_a_cache_that_cannot_be_written_is_told_apart(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Unwritable, match="Not a directory"):
        load_kept(tmp_path / "file" / "cache", IDENTITY, make, read)


# --- Exported models


@pytest.fixture
def exports(monkeypatch):
    """Count exports, each of which writes a stand-in for a model."""
    made = []

    def export(checkpoint, config, folder, *, keep):
        made.append(config.image_size)
        make(folder)

    monkeypatch.setattr(runtime, "_export", export)
    return made


def stand_in(digest="a1", config=VIT_B):
    return SimpleNamespace(digest=digest, config=config, source="weights of a test")


def load_exported(cache, checkpoint=None, image_size=None):
    checkpoint = checkpoint or stand_in()
    return runtime._load_exported(checkpoint, runtime._sized(checkpoint, image_size), cache, read)


def test_each_part_of_the_key_has_its_own_entry(monkeypatch, tmp_path, exports):
    _, first, reused = load_exported(tmp_path)
    assert not reused
    assert load_exported(tmp_path)[1:] == (first, True)
    # The size that it has anyway.
    assert load_exported(tmp_path, image_size=(224, 224))[1:] == (first, True)
    seen = {first}

    def is_another(**options):
        _, entry, reused = load_exported(tmp_path, **options)
        assert not reused
        assert entry not in seen
        seen.add(entry)

    is_another(checkpoint=stand_in("b2"))
    is_another(image_size=(224, 240))
    versions = {name: runtime.metadata.version(name) for name in ("keras", "openvino")}
    monkeypatch.setattr(runtime.metadata, "version", versions.__getitem__)
    for name in versions:
        versions[name] += ".1"
        is_another()
    monkeypatch.setattr(labelrank, "__version__", "9.9.9")
    is_another()
    assert len(exports) == len(seen) == len(visible(tmp_path)) == 6


def test_without_a_cache_nothing_is_kept(tmp_path, exports):
    for _ in range(2):
        assert load_exported(None) == (b"weights" * 1000, None, False)
    assert len(exports) == 2


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path, exports, capsys):
    (tmp_path / "file").touch()
    assert load_exported(tmp_path / "file" / "cache") == (b"weights" * 1000, None, False)
    assert "cannot be kept in" in (error := capsys.readouterr().err)
    assert error.count("\n") == 1


def test_a_model_that_can_be_written_nowhere_is_an_error_that_says_so(tmp_path, monkeypatch):
    def full(checkpoint, config, folder, *, keep):
        raise Unwritable("iostream error; 0 MiB are free")

    monkeypatch.setattr(runtime, "_export", full)
    with pytest.raises(CheckpointError, match=r"weights of a test cannot be written to .*0 MiB.*Make room"):
        load_exported(tmp_path)
    assert [*tmp_path.iterdir()] == []


# --- Encoders that come with labelrank


@pytest.fixture
def shipped(monkeypatch, tmp_path):
    """The entry of a stand-in's encoder that came with labelrank."""
    monkeypatch.setattr(runtime, "shipped_encoders", lambda: tmp_path / "shipped")
    identity = runtime._identity(stand_in(), VIT_B)
    load_kept(tmp_path / "shipped", identity, lambda folder: (folder / "model").write_bytes(b"came with it"), read)
    return exported.entry_path(tmp_path / "shipped", identity)


def test_an_encoder_that_came_with_labelrank_is_kept_without_an_export(tmp_path, exports, shipped):
    assert load_exported(tmp_path / "cache") == (b"came with it", tmp_path / "cache" / shipped.name, False)
    assert load_exported(tmp_path / "cache") == (b"came with it", tmp_path / "cache" / shipped.name, True)
    assert load_exported(None) == (b"came with it", None, False)
    assert exports == []


def test_an_encoder_that_came_with_another_version_is_not_used(monkeypatch, tmp_path, exports, shipped):
    monkeypatch.setattr(labelrank, "__version__", "9.9.9")
    assert load_exported(tmp_path / "cache")[0] == b"weights" * 1000
    assert load_exported(tmp_path / "cache", stand_in("b2"))[0] == b"weights" * 1000
    assert len(exports) == 2


@pytest.mark.parametrize("damage", [cut, lambda entry: (entry / exported._NOTE).unlink()])
def test_a_damaged_encoder_that_came_with_labelrank_is_reported_and_exported(
    tmp_path, exports, shipped, damage, capsys
):
    damage(shipped)
    assert load_exported(tmp_path / "cache")[0] == b"weights" * 1000
    assert f"{shipped} came with labelrank and has changed since" in capsys.readouterr().err


@pytest.mark.slow
def test_the_encoders_that_come_with_labelrank_are_what_the_weights_give(tmp_path):
    # Other tests may have chosen a backend for this process.
    env = {name: value for name, value in os.environ.items() if not name.startswith("KERAS_")}
    subprocess.run([sys.executable, "-m", "tests.models.shipped_encoders", tmp_path], env=env, check=True)
    due = "run `make encoders`, and commit what it wrote"
    came, made = ({path.name: path for path in folder.iterdir()} for folder in (runtime.shipped_encoders(), tmp_path))
    assert came.keys() == made.keys(), due
    for name, entry in came.items():
        assert (entry / "encoder.xml").read_bytes() == (made[name] / "encoder.xml").read_bytes(), due
        # Numbers that the export computes may be rounded otherwise on another processor.
        weights = [np.fromfile(folder / "encoder.bin", np.uint8) for folder in (entry, made[name])]
        assert weights[0].shape == weights[1].shape, due
        values = [np.frombuffer(one[: one.size // 4 * 4], np.float32) for one in weights]
        np.testing.assert_allclose(*values, rtol=0, atol=1e-6, err_msg=due)


# --- The real thing


def images_for(checkpoint, count):
    return np.random.default_rng(0).normal(size=(count, *checkpoint.config.input_shape)).astype(np.float32)


class Child:
    """Encodes in fresh processes, which share a cache."""

    def __init__(self, folder):
        self.folder, self.cache = folder, folder / "encoders"

    def __call__(self, checkpoint, images, *, precision="float32", batch_size=4, backend=None):
        inputs, outputs = self.folder / "inputs.npy", self.folder / "tokens.npy"
        np.save(inputs, images)
        env = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
        env |= {"KERAS_BACKEND": backend} if backend else {}
        command = [sys.executable, Path(__file__).with_name("runtime_child.py")]
        command += [checkpoint, self.cache, precision, str(batch_size), inputs, outputs]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return np.load(outputs), json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def encode(tmp_path_factory):
    return Child(tmp_path_factory.mktemp("runtime"))


@pytest.mark.parametrize("name", [GOLDEN / "vit_mae", "videomae-tiny-moving-digits"])
@pytest.mark.slow
def test_a_kept_encoder_loads_no_keras_and_gives_the_same_bytes(encode, name):
    images = images_for(open_checkpoint(str(name)), 6)
    fresh, first = encode(name, images)
    again, second = encode(name, images)
    assert (first["reused"], second["reused"]) == (False, True)
    assert first["entry"] == second["entry"]
    assert first["loaded"] == ["keras"]  # not TensorFlow
    assert second["loaded"] == []
    assert fresh.tobytes() == again.tobytes()
    # Batch size and precision are settled when the model is loaded.
    _, third = encode(name, images, batch_size=3)
    assert (third["reused"], third["entry"]) == (True, first["entry"])


def test_the_encoder_of_the_demo_loads_no_keras_at_its_first_start(encode):
    _, first = encode("mae-tiny-digits", images_for(open_checkpoint("mae-tiny-digits"), 6))
    assert first["loaded"] == []


@needs_bfloat16
def test_a_kept_encoder_runs_in_bfloat16_too(encode):
    images = images_for(open_checkpoint("mae-tiny-digits"), 6)
    exact, first = encode("mae-tiny-digits", images)
    tokens, report = encode("mae-tiny-digits", images, precision="bfloat16")
    assert (report["reused"], report["entry"], report["precision"]) == (True, first["entry"], "bfloat16")
    assert 0 < np.linalg.norm(tokens - exact) <= 0.02 * np.linalg.norm(exact)


@pytest.mark.parametrize("name", ["vit_mae", "vit", "videomae", "videomae_finetuned"])
def test_a_kept_encoder_agrees_with_the_goldens(encode, name):
    golden = np.load(GOLDEN / name / "golden.npz")
    images = np.ascontiguousarray(np.moveaxis(golden["pixel_values"], -3, -1))
    encode(GOLDEN / name, images)
    tokens, report = encode(GOLDEN / name, images)
    assert report["reused"]
    assert np.abs(tokens - golden["tokens"]).max() <= TOLERANCE
    assert ("fc_norm" in golden) == (report["fc_norm"] is not None)
    if report["fc_norm"]:
        assert np.abs(np.array(report["fc_norm"]) - golden["fc_norm"]).max() <= TOLERANCE


@pytest.mark.slow
def test_tensorflow_on_a_processor_agrees_with_openvino(encode):
    images = images_for(open_checkpoint("mae-tiny-digits"), 6)
    expected, _ = encode("mae-tiny-digits", images)
    found, report = encode("mae-tiny-digits", images, backend="tensorflow")
    assert (report["runtime"], report["device"], report["entry"]) == ("tensorflow", "CPU", "None")
    assert np.abs(found - expected).max() <= TOLERANCE


def test_a_ragged_last_batch_compiles_nothing(keras, monkeypatch):
    from labelrank.models.vit import ViTEncoder

    calls, call = [], ViTEncoder.call
    monkeypatch.setattr(ViTEncoder, "call", lambda *a, **k: (calls.append(1), call(*a, **k))[1])
    checkpoint = open_checkpoint("mae-tiny-digits")
    encoder = runtime.compile_encoder(checkpoint, batch_size=4, precision="float32")
    images = images_for(checkpoint, 4)
    traced = len(calls)
    whole, ragged = encoder(images), encoder(images[:3])
    assert len(calls) == traced > 0
    assert ragged.shape[0] == 3
    np.testing.assert_array_equal(ragged, whole[:3])


@pytest.mark.parametrize("name", ["mae-tiny-digits", "videomae-tiny-moving-digits"])
def test_chosen_patches_are_all_that_is_encoded(keras, name):
    checkpoint = open_checkpoint(name)
    images, count = images_for(checkpoint, 3), checkpoint.config.num_patches

    def encoder(keep=None):
        return runtime.compile_encoder(checkpoint, batch_size=4, precision="float32", keep=keep)

    patches = np.stack([np.random.default_rng(n).permutation(count) for n in range(3)]).astype(np.int32)
    every, some = encoder(count), encoder(5)
    whole, cls = encoder()(images), every.num_prefix
    turned = every(images, patches)
    np.testing.assert_allclose(turned[:, :cls], whole[:, :cls], atol=1e-5)
    np.testing.assert_allclose(
        turned[:, cls:], np.take_along_axis(whole[:, cls:], patches[:, :, None], axis=1), atol=1e-5
    )
    few = some(images, patches[:, :5])
    assert (few.shape, few.dtype) == ((3, cls + 5, whole.shape[2]), np.float32)
    left_out = runtime.build_encoder(checkpoint)(images, patches[:, :5])
    np.testing.assert_allclose(few, keras.ops.convert_to_numpy(left_out), atol=1e-5)
    changed = images.copy()
    changed[0] = 0.0
    np.testing.assert_allclose(some(changed, patches[:, :5])[1:], few[1:], atol=TOLERANCE)
    assert np.abs(few[:, cls:] - turned[:, cls : cls + 5]).max() > 0.01, "the others are not there to be seen"


@pytest.mark.parametrize(
    ("name", "pooling"),
    [
        ("mae-tiny-digits", "mean"),
        ("mae-tiny-digits", "cls"),
        ("videomae-tiny-moving-digits", "mean"),
        (str(GOLDEN / "encoders" / "beit"), "fc_norm"),
    ],
)
def test_a_device_pools_as_is_done_here(keras, name, pooling):
    checkpoint = open_checkpoint(name)
    images = images_for(checkpoint, 3)
    tokens, pooled = (
        runtime.compile_encoder(checkpoint, batch_size=4, precision="float32", pooling=asked)
        for asked in (None, pooling)
    )
    how = {"num_prefix": tokens.num_prefix, "fc_norm": tokens.fc_norm, "fc_norm_pools": tokens.fc_norm_pools}
    leaves = pooled(images)
    assert (leaves.shape, leaves.dtype) == ((3, tokens.hidden_dim), np.float32)
    np.testing.assert_allclose(
        pool_tokens(leaves, pooling, **how), pool_tokens(tokens(images), pooling, **how), atol=1e-5
    )


def test_an_encoder_that_looks_up_places_keeps_all_patches():
    checkpoint = open_checkpoint(str(GOLDEN / "encoders" / "beit"))
    with pytest.raises(CheckpointError, match="A beit encoder looks up .* Leave out --keep, or choose an encoder"):
        runtime.compile_encoder(checkpoint, keep=3)


@needs_bfloat16
def test_bfloat16_of_keras_is_near_float32(keras):
    checkpoint = open_checkpoint("mae-tiny-digits")
    images = images_for(checkpoint, 2)
    exact, rounded = (
        runtime.compile_encoder(checkpoint, batch_size=2, precision=precision)(images)
        for precision in ("float32", "bfloat16")
    )
    assert exact.dtype == rounded.dtype == np.float32
    assert 0 < np.linalg.norm(rounded - exact) <= 0.02 * np.linalg.norm(exact)


def test_what_a_library_writes_at_its_start_is_held_and_shown_only_if_asked_for(run_python, tmp_path):
    program = f"""
import os, sys
from labelrank.models.backend import _holding_stderr
os.dup2(os.open({str(tmp_path / "err")!r}, os.O_CREAT | os.O_WRONLY), 2)
with _holding_stderr() as show:
    os.write(2, b"held back;")
try:
    with _holding_stderr() as show:
        os.write(2, b"shown;")
        show()
        raise ImportError
except ImportError:
    os.write(2, b"after")
os.close(2)
with _holding_stderr() as show:
    print("closed", end="")
"""
    assert run_python(program) == "closed"
    assert (tmp_path / "err").read_text() == "shown;after"


@pytest.mark.slow
def test_tensorflow_starts_in_silence_and_tells_why_when_it_cannot(tmp_path):
    code = "from labelrank.models.runtime import select_backend; print(select_backend(training=True))"
    command = [sys.executable, "-c", code]
    env = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("tensorflow\n", "")
    (tmp_path / "tensorflow.py").write_text("import os\nos.write(2, b'no libcuda\\n')\nraise ImportError('broken')\n")
    env["PYTHONPATH"] = str(tmp_path)
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("no libcuda\n")
    assert done.stderr.endswith("ImportError: broken\n")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library than glibc")
def test_a_process_that_trains_takes_the_memory_of_freed_arrays_again(run_python):
    program = """
import resource
import numpy as np
from labelrank.models.backend import select_backend

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(8 << 20, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
select_backend(training=True)
np.ones(8 << 20, np.uint8)
print(before > 10 * faults())
"""
    assert run_python(program) == "True"
