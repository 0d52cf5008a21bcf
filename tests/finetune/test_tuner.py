"""How the training backend is asked to repeat itself. TensorFlow's list of GPUs is a fake: no test machine has one."""

import os

import pytest


@pytest.fixture
def tf():
    # Not while tests are collected: Keras' backend is settled by then for the tests of every other file.
    import tensorflow

    return tensorflow


def test_on_a_gpu_what_xla_compiles_is_asked_to_be_deterministic_once(monkeypatch, tf):
    from labelrank.finetune.tuner import prepare_backend

    asked, grown = [], []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a GPU"])
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: asked.append("ops"))
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", lambda device, on: grown.append((device, on)))
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=there")
    prepare_backend()
    prepare_backend()
    assert os.environ["XLA_FLAGS"] == "--xla_dump_to=there --xla_gpu_deterministic_ops=true"
    # Keras would leave XLA out.
    assert asked == []
    assert grown == [("a GPU", True)] * 2


def test_on_a_cpu_tensorflows_ops_are_asked_to_be_deterministic(monkeypatch, tf):
    from labelrank.finetune.tuner import prepare_backend

    asked = []
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: asked.append("ops"))
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    prepare_backend()
    assert asked == ["ops"]
