"""Whole fine-tunes of a tiny encoder: what they learn, share, survive and say."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file

from labelrank.data.dataset import Sample
from labelrank.errors import Cancelled, FinetuneError, SettingsError
from labelrank.finetune.export import write_model
from labelrank.finetune.recipe import recipes
from tests.finetune.small import (
    CLIPS,
    EVERYTHING,
    IMAGES,
    PREPROCESSING,
    RECIPE,
    SAMPLING,
    SOFT,
    arm,
    dataset,
    encoder,
    in_full,
    pictures,
    tune,
)

LOSSES = ("train_loss", "val_loss", "val_accuracy")


def curve(tuned, name="train_loss"):
    return [getattr(epoch, name) for epoch in tuned.run.epochs]


def updates(recipe, n=26):
    return -(-n // recipe.batch_size) * recipe.epochs


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The run that others are compared with."""
    return tune(tmp_path_factory.mktemp("plain"))


@pytest.mark.slow
def test_fine_tune_learns_and_tests_once(plain):
    assert [e.epoch for e in plain.run.epochs] == [1, 2, 3]
    assert curve(plain)[-1] < 0.8 * curve(plain)[0]
    assert plain.run.predicted.shape == (15, 3)
    assert plain.run.predicted.dtype == np.int32
    assert (np.sort(plain.run.predicted, axis=1) == [0, 1, 2]).all()
    assert (plain.run.predicted[:, 0] == plain.y).mean() > 0.8
    assert plain.run.nll.shape == (15,)
    assert plain.keys == tuple(f"test/{i}" for i in range(15))
    assert plain.epoch == plain.run.epochs[-1]
    assert plain.notices == ()
    own = plain.run.log_probabilities[np.arange(15), plain.y]
    np.testing.assert_array_equal(-own, plain.run.nll)
    np.testing.assert_array_equal(plain.run.log_probabilities.argmax(axis=1), plain.run.predicted[:, 0])
    assert 0.05 <= plain.run.temperature <= 20


def test_exported_model_predicts_what_the_run_predicted(plain, tmp_path):
    test = pictures("test", 15)
    images = np.stack([test.preprocessing(test.dataset.load(s)) for s in test.dataset.samples])
    scores = np.asarray(plain.model.predict_on_batch(images))
    log_probabilities = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    assert -log_probabilities[np.arange(15), plain.y] == pytest.approx(plain.run.nll, abs=1e-5)
    # Without the final norm: it is behind the pooling now, trained on.
    assert not plain.model.encoder_config.final_norm
    assert set(plain.run.head) == {"norm_gamma", "norm_beta", "norm_epsilon", "kernel", "bias"}
    names = test.dataset.class_names
    written = write_model(
        tmp_path / "model", plain.model, order=(0, 1, 2), class_names=names, preprocessing=test.preprocessing
    )
    assert written == "BeitForImageClassification"


@pytest.mark.slow
def test_same_seed_gives_the_same_run_and_another_seed_another(plain, tmp_path):
    again = tune(tmp_path / "again")
    assert curve(again) == curve(plain)
    assert (again.run.nll == plain.run.nll).all()
    other = tune(tmp_path / "other", seed=1)
    assert curve(other) != curve(plain)


@pytest.mark.slow
def test_control_arm_that_permutes_the_head_with_its_classes_gives_the_same_run(plain, tmp_path):
    order = (2, 0, 1)
    control = tune(tmp_path / "control", which=arm(order, order, "control"))
    for name in LOSSES:
        assert curve(control, name) == pytest.approx(curve(plain, name), abs=1e-4)
    assert control.run.nll == pytest.approx(plain.run.nll, abs=1e-4)
    assert (control.run.predicted[:, 0] == plain.run.predicted[:, 0]).all()
    # An order whose head is not permuted starts its classes elsewhere.
    ranked = tune(tmp_path / "ranked", which=arm(order))
    assert curve(ranked) != pytest.approx(curve(plain), abs=1e-5)


def test_control_arm_is_refused_where_positions_have_a_meaning(tmp_path):
    with pytest.raises(SettingsError, match="a valid control only if"):
        tune(tmp_path, which=arm((2, 0, 1), (2, 0, 1)), meaning="tree")


@pytest.mark.slow
def test_accumulated_steps_give_the_run_of_whole_updates(tmp_path):
    recipe = replace(RECIPE, mixup=0.8, cutmix=1.0, drop_path=0.3, dropout=0.2)
    whole = tune(tmp_path / "whole", recipe)
    # 7 samples in 3 steps: the last is not full.
    parts = tune(tmp_path / "parts", replace(recipe, accumulation=3))
    for name in LOSSES:
        assert curve(parts, name) == pytest.approx(curve(whole, name), rel=2e-4)
    assert parts.run.nll == pytest.approx(whole.run.nll, rel=2e-3, abs=2e-4)


def test_every_sample_is_shown_once_an_epoch_in_equal_updates(tmp_path, monkeypatch):
    from labelrank.finetune.samples import Reader

    shown = []
    original = Reader.images

    def images(self, places, generators=None):
        if generators is not None:
            shown.append(sorted(int(p) for p in places))
        return original(self, places, generators)

    monkeypatch.setattr(Reader, "images", images)
    tune(tmp_path, replace(RECIPE, epochs=2))
    assert [len(places) for places in shown] == [7, 7, 6, 6] * 2
    for epoch in (shown[:4], shown[4:]):
        assert sorted(p for places in epoch for p in places) == list(range(26))
    assert shown[:4] != shown[4:]


def test_a_sorted_stream_shows_the_classes_by_their_positions(tmp_path, monkeypatch):
    from labelrank.finetune.samples import Reader

    shown = []
    original = Reader.images

    def images(self, places, generators=None):
        if generators is not None:
            shown.extend(self.dataset.samples[place].label for place in places)
        return original(self, places, generators)

    monkeypatch.setattr(Reader, "images", images)
    tune(tmp_path, replace(RECIPE, epochs=1, batches="sorted"), which=arm((2, 0, 1)))
    assert shown == [2] * 8 + [0] * 9 + [1] * 9
    with pytest.raises(SettingsError, match="they are sorted"):
        tune(tmp_path, replace(RECIPE, batches="sorted"), which=arm((2, 0, 1), (2, 0, 1)))


def test_onehot_targets_are_those_of_the_plain_softmax_to_the_last_bit(plain, tmp_path):
    tuned = tune(tmp_path, targets=np.eye(3, dtype=np.float32))
    assert curve(tuned) == curve(plain)
    assert (tuned.run.nll == plain.run.nll).all()
    assert plain.run.confidence is None
    short = tune(tmp_path, targets=np.eye(3, dtype=np.float32), in_full=False)
    assert (short.run.nll == tuned.run.nll).all()
    assert (short.run.log_probabilities, short.run.temperature) == (None, None)
    likeliest = tuned.run.predicted[:, 0] == tuned.y
    assert tuned.run.confidence[likeliest] == pytest.approx(np.exp(-tuned.run.nll[likeliest]), rel=1e-5)


def test_each_sample_has_the_targets_of_its_class_whatever_the_order_and_mixed_ones_their_mixture(
    tmp_path, monkeypatch
):
    from labelrank.finetune.tuner import Tuner

    shown = []
    update = Tuner.update

    def watched(self, inputs, targets, *rest):
        shown.append(targets)
        return update(self, inputs, targets, *rest)

    monkeypatch.setattr(Tuner, "update", watched)
    order = (2, 0, 1)
    runs = [
        tune(tmp_path / name, replace(RECIPE, epochs=1, mixup=0.8), which=which, targets=SOFT)
        for name, which in (("plain", arm()), ("control", arm(order, order)))
    ]
    by_label, by_position = shown[:4], shown[4:]
    for one, other in zip(by_label, by_position, strict=True):
        np.testing.assert_allclose(one[:, order], other, rtol=1e-6)
        shares = one @ np.linalg.inv(SOFT)  # of the classes that were mixed
        assert (shares > -1e-5).all() and ((shares > 1e-5).sum(axis=1) <= 2).all()
        np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
    assert runs[1].run.nll == pytest.approx(runs[0].run.nll, abs=1e-4)
    np.testing.assert_allclose(runs[1].run.log_probabilities, runs[0].run.log_probabilities, atol=1e-3)  # by label
    assert runs[1].run.temperature == pytest.approx(runs[0].run.temperature, rel=1e-2)


@pytest.mark.parametrize(
    ("changed", "options", "said"),
    [
        ({}, {"targets": np.ones((3, 3), np.float32)}, "no targets of 3 classes"),
        ({"label_smoothing": 0.1}, {"targets": SOFT}, "not with softmax and 0.1"),
        ({}, {"targets": SOFT, "meaning": "tree"}, "not with tree and 0"),
    ],
)
def test_targets_that_cannot_be_learned_are_refused(tmp_path, changed, options, said):
    with pytest.raises(SettingsError, match=said):
        tune(tmp_path, replace(RECIPE, **changed), **options)


# --- Kill and resume


def child(folder, kill_in=0):
    done = subprocess.run(
        [sys.executable, "-m", "tests.finetune.small", str(folder), str(kill_in)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    return done.returncode, done.stdout.splitlines(), done.stderr


@pytest.mark.slow
def test_run_killed_in_an_epoch_goes_on_to_the_same_losses_and_predictions(tmp_path):
    whole = []
    tuned = tune(tmp_path / "whole", EVERYTHING, targets=SOFT, on_epoch=lambda epoch: whole.append(in_full(epoch)))
    assert len(whole) == 3
    code, first, errors = child(tmp_path / "killed", kill_in=3)
    assert code == -9, errors
    assert first == whole[:2]
    code, rest, errors = child(tmp_path / "killed")
    assert code == 0, errors
    assert rest == [*whole, tuned.run.nll.tobytes().hex()]


@pytest.mark.slow
def test_cancelled_run_keeps_finished_epochs_and_goes_on_to_the_same_end(plain, tmp_path):
    asked = []

    def stop():
        asked.append(1)
        return len(asked) > 6  # in the second epoch of 4 updates

    with pytest.raises(Cancelled):
        tune(tmp_path, should_stop=stop)
    trained = []
    again = tune(tmp_path, on_progress=lambda done, total, stage: trained.append((done, total)))
    assert trained[0] == (5, 12)
    assert trained[-1] == (12, 12)
    assert curve(again) == curve(plain)
    assert (again.run.nll == plain.run.nll).all()


@pytest.mark.slow
def test_snapshot_of_other_settings_is_not_taken_up(tmp_path):
    tune(tmp_path, replace(RECIPE, epochs=1))
    for recipe, targets in ((replace(RECIPE, epochs=1, learning_rate=1e-3), None), (replace(RECIPE, epochs=1), SOFT)):
        trained = []
        tune(tmp_path, recipe, targets=targets, on_progress=lambda done, *_, trained=trained: trained.append(done))
        assert trained[0] == 1


def test_finished_run_is_not_trained_again(tmp_path):
    first = tune(tmp_path, replace(RECIPE, epochs=1))
    trained, epochs = [], []
    again = tune(tmp_path, replace(RECIPE, epochs=1), on_progress=lambda *a: trained.append(a), on_epoch=epochs.append)
    assert not trained
    assert epochs == list(first.run.epochs)
    assert (again.run.nll == first.run.nll).all()


# --- Early stopping, NaN, memory


def test_run_without_improvement_ends_early_with_its_best_weights(tmp_path):
    # Validation samples with wrong labels: what is learned makes them worse.
    val = pictures("val", 12)
    wrong = {s.key: Sample(s.key, (s.label + 1) % 3) for s in val.dataset.samples}
    right = {s.key: s for s in val.dataset.samples}
    mislabelled = replace(val.dataset, samples=tuple(wrong.values()), load=lambda s: val.dataset.load(right[s.key]))
    tuned = tune(tmp_path, replace(RECIPE, epochs=9, patience=2), val=replace(val, dataset=mislabelled))
    losses = curve(tuned, "val_loss")
    best = int(np.argmin(losses))
    assert len(losses) == best + 1 + 2 < 9
    assert losses[-1] > 1.05 * losses[best]
    assert tuned.epoch == tuned.run.epochs[best]
    images = np.stack([val.preprocessing(val.dataset.load(s)) for s in val.dataset.samples])
    scores = np.asarray(tuned.model.predict_on_batch(images))
    nll = np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(12), mislabelled.labels]
    assert nll.mean() == pytest.approx(losses[best], abs=1e-5)


def test_loss_that_is_no_number_ends_the_run_with_a_problem(tmp_path):
    tuned = tune(tmp_path, replace(RECIPE, learning_rate=1000.0, head_init_std=1.0, label_smoothing=0.1))
    assert "lower the learning rate (now 1000)" in tuned.run.problem
    assert tuned.model is None
    assert tuned.run.predicted.shape == (0, 3)


@pytest.mark.slow
def test_step_that_does_not_fit_is_halved_with_a_notice_and_the_same_run(plain, tmp_path, monkeypatch):
    from labelrank.finetune.tuner import Tuner

    original = Tuner.train_on_batch

    def train_on_batch(self, x, *args, **options):
        if len(x["images"]) > 2:
            raise MemoryError("OOM when allocating tensor")
        return original(self, x, *args, **options)

    monkeypatch.setattr(Tuner, "train_on_batch", train_on_batch)
    said = []
    tuned = tune(tmp_path, on_notice=said.append)
    assert [text.split(": now ")[1] for text in said] == [
        "4, 2 steps to an update, which stays as large as it was.",
        "2, 4 steps to an update, which stays as large as it was.",
    ]
    assert tuned.notices == tuple(said)
    assert curve(tuned) == pytest.approx(curve(plain), rel=1e-4)


@pytest.mark.slow
def test_memory_that_is_short_before_the_start_is_seen_there(plain, tmp_path, monkeypatch):
    from labelrank.finetune import end_to_end

    n_parameters = encoder().count_params()
    fixed, per_sample = end_to_end.step_bytes(IMAGES, learning_blocks=2, n_parameters=n_parameters, precision="float32")
    monkeypatch.setattr(end_to_end, "free_memory_bytes", lambda: int((fixed + 4.5 * per_sample) / 0.8))
    tuned = tune(tmp_path)
    assert len(tuned.notices) == 1
    assert "Too little memory for 7 samples at a time" in tuned.notices[0]
    assert curve(tuned) == pytest.approx(curve(plain), rel=1e-4)
    assert tuned.steps == 2
    # A run that starts with as many has nothing to say.
    assert tune(tmp_path / "next", replace(RECIPE, epochs=1), steps=tuned.steps).notices == ()


@pytest.mark.slow
def test_step_that_did_not_fit_is_halved_once_whatever_the_first_try_has_left_of_the_memory(tmp_path, monkeypatch):
    from labelrank.finetune import end_to_end
    from labelrank.finetune.tuner import Tuner

    original, tries = Tuner.train_on_batch, []

    def train_on_batch(self, *args, **options):
        tries.append(1)
        if len(tries) == 1:
            # What a framework took it does not give back: by the estimate nothing fits any more.
            monkeypatch.setattr(end_to_end, "free_memory_bytes", lambda: 0)
            raise MemoryError("OOM when allocating tensor")
        return original(self, *args, **options)

    monkeypatch.setattr(Tuner, "train_on_batch", train_on_batch)
    tuned = tune(tmp_path, replace(RECIPE, epochs=1))
    assert tuned.steps == 2
    assert len(tuned.notices) == 1


@pytest.mark.slow
def test_second_run_on_a_gpu_takes_the_same_steps_though_the_first_holds_its_memory(tmp_path, monkeypatch):
    from labelrank.finetune import memory, tuner

    free = iter([80 << 30, 0])
    monkeypatch.setattr(memory, "free_gpu_bytes", lambda: next(free))
    monkeypatch.setattr(tuner, "on_gpu", lambda: True)
    memory.gpu_bytes_at_start.cache_clear()
    try:
        runs = [tune(tmp_path / name, replace(RECIPE, epochs=1)) for name in ("first", "second")]
    finally:
        memory.gpu_bytes_at_start.cache_clear()
    assert [run.steps for run in runs] == [1, 1]
    assert [run.notices for run in runs] == [(), ()]


@pytest.mark.slow
def test_resume_takes_the_steps_that_memory_sufficed_for(tmp_path, monkeypatch):
    from labelrank.finetune.tuner import Tuner

    original, sizes = Tuner.train_on_batch, []

    def train_on_batch(self, x, *args, **options):
        sizes.append(len(x["images"]))
        if len(x["images"]) > 4:
            raise MemoryError("OOM when allocating tensor")
        return original(self, x, *args, **options)

    monkeypatch.setattr(Tuner, "train_on_batch", train_on_batch)
    whole = tune(tmp_path / "whole")
    asked = []
    with pytest.raises(Cancelled):
        tune(tmp_path / "stopped", should_stop=lambda: bool(asked.append(1) or len(asked) > 8))
    sizes.clear()
    resumed = tune(tmp_path / "stopped")
    assert set(sizes) == {4}
    assert resumed.steps == 2
    assert resumed.notices == whole.notices
    # The same steps round alike, to the last bit.
    assert curve(resumed) == curve(whole)
    assert (resumed.run.nll == whole.run.nll).all()


@pytest.mark.slow
def test_memory_for_not_one_sample_is_an_error(tmp_path, monkeypatch):
    from labelrank.finetune.tuner import Tuner

    def train_on_batch(self, *args, **options):
        raise MemoryError("no")

    monkeypatch.setattr(Tuner, "train_on_batch", train_on_batch)
    with pytest.raises(FinetuneError, match="one sample at a time does not fit into memory"):
        tune(tmp_path)


def test_other_errors_are_not_taken_for_too_little_memory(tmp_path, monkeypatch):
    from labelrank.finetune.tuner import Tuner

    def train_on_batch(self, *args, **options):
        raise ZeroDivisionError("mine")

    monkeypatch.setattr(Tuner, "train_on_batch", train_on_batch)
    with pytest.raises(ZeroDivisionError, match="mine"):
        tune(tmp_path)


# --- Data


def test_class_missing_in_validation_and_test_is_said_and_works(tmp_path):
    tuned = tune(tmp_path, val=pictures("val", 12, without=(1,)), test=pictures("test", 15, without=(0, 2)))
    assert tuned.notices == (
        "The validation samples have none of class 1.",
        "The test samples have none of class 0, class 2.",
    )
    assert len(tuned.run.nll) == 5
    assert all(np.isfinite(curve(tuned, "val_loss")))


def test_without_validation_samples_the_last_weights_count_and_that_is_said(tmp_path):
    empty = replace(pictures("val"), dataset=replace(dataset("val"), samples=()))
    tuned = tune(tmp_path, replace(RECIPE, patience=1), val=empty)
    assert len(tuned.run.epochs) == 3
    assert np.isnan(curve(tuned, "val_loss")).all()
    assert tuned.epoch == tuned.run.epochs[-1]
    assert any("no validation samples" in text for text in tuned.notices)


def test_samples_that_cannot_be_read_are_left_out_and_said(tmp_path):
    tuned = tune(tmp_path, train=pictures("train", 26, broken=(3, 4)), test=pictures("test", 15, broken=(0,)))
    assert tuned.keys == tuple(f"test/{i}" for i in range(1, 15))
    assert len(tuned.y) == len(tuned.run.nll) == 14
    assert tuned.notices == (
        "2 training images cannot be read and are left out; the first, train/3: train/3 cannot be decoded.",
        "1 test image cannot be read and is left out; test/0: test/0 cannot be decoded.",
    )


@pytest.mark.parametrize("split", ["train", "test"])
def test_split_without_a_readable_sample_is_an_error(tmp_path, split):
    with pytest.raises(FinetuneError, match=f"None of the {split}(ing)? samples can be read. The first, {split}/0"):
        tune(tmp_path, replace(RECIPE, epochs=1), **{split: pictures(split, 12, broken=range(12))})


@pytest.mark.slow
def test_sample_that_cannot_be_read_is_in_no_mixture(tmp_path, monkeypatch):
    from labelrank.finetune.tuner import Tuner

    original, black = Tuner.update, (0 - 0.5) / 0.5
    seen = []

    def update(self, inputs, targets, weights, rate, size):
        seen.append((inputs["images"], targets, weights))
        return original(self, inputs, targets, weights, rate, size)

    monkeypatch.setattr(Tuner, "update", update)
    # All that can be read is of class 0, and nowhere grey, which is what 0 would be.
    labels = dataset("train", 26).labels
    train = pictures("train", 26, broken=np.flatnonzero(labels != 0))
    colour = np.full((8, 8, 3), 255, np.uint8)
    original_load = train.dataset.load

    def load(sample):
        original_load(sample)  # fails where it is broken
        return colour

    train = replace(train, dataset=replace(train.dataset, load=load))
    for name, mixing in (("mixup", {"mixup": 5.0}), ("cutmix", {"cutmix": 5.0})):
        del seen[:]
        tune(tmp_path / name, replace(RECIPE, epochs=1, **mixing), train=train)
        assert sum(weights.sum() for *_, weights in seen) == (labels == 0).sum()
        for images, targets, weights in seen:
            assert black < images[weights == 1].min() == pytest.approx(1.0)
            assert targets[weights == 1][:, 0] == pytest.approx(1.0)


def test_fewer_samples_than_an_update_are_one_update(tmp_path):
    tuned = tune(tmp_path, replace(RECIPE, batch_size=64))
    assert "An update takes all 26 training samples, fewer than the 64 of the recipe." in tuned.notices


@pytest.mark.slow
def test_rate_for_256_samples_is_that_of_the_updates_that_are_made(tmp_path, monkeypatch):
    from labelrank.finetune.tuner import Tuner

    original, rates = Tuner.update, []

    def update(self, inputs, targets, weights, rate, size):
        rates.append(rate)
        return original(self, inputs, targets, weights, rate, size)

    monkeypatch.setattr(Tuner, "update", update)
    recipe = replace(RECIPE, epochs=1, warmup_epochs=0.0, per_256=True, learning_rate=0.01)
    tune(tmp_path / "a", replace(recipe, batch_size=16))
    assert rates[0] == pytest.approx(0.01 * 13 / 256)  # two updates of 13 samples
    del rates[:]
    tuned = tune(tmp_path / "b", replace(recipe, batch_size=64))
    assert rates[0] == pytest.approx(0.01 * 26 / 256)
    assert tuned.notices == (
        "An update takes all 26 training samples, fewer than the 64 of the recipe; the learning rate is "
        "0.01 x 26/256 = 0.00101563.",
    )


@pytest.mark.slow
def test_pictures_are_decoded_once_where_they_fit_and_each_time_where_not(tmp_path, monkeypatch):
    from labelrank.finetune import end_to_end
    from labelrank.finetune.samples import Budget

    def counted(tmp, room):
        loads = []
        train = pictures("train", 26)
        original = train.dataset.load

        def load(sample):
            loads.append(sample.key)
            return original(sample)

        monkeypatch.setattr(end_to_end, "budget", lambda: Budget(room))
        tuned = tune(tmp, train=replace(train, dataset=replace(train.dataset, load=load)))
        return tuned, len(loads)

    in_memory, once = counted(tmp_path / "a", 1 << 20)
    streamed, each_time = counted(tmp_path / "b", 10 * 8 * 8 * 3)
    assert once == 26
    assert each_time == 10 + 16 * 3
    assert curve(in_memory) == curve(streamed)


# --- Depth, heads, pooling, meanings, media


@pytest.mark.parametrize(("unfreeze", "blocks"), [(0, ()), (1, (1,)), (None, (0, 1))])
def test_only_what_is_unfrozen_learns(tmp_path, unfreeze, blocks):
    tuned = tune(tmp_path, replace(RECIPE, epochs=1, unfreeze=unfreeze))
    before, after = encoder(), tuned.model.encoder

    def changed(old, new):
        return any((np.asarray(a) != np.asarray(b)).any() for a, b in zip(old.variables, new.variables, strict=True))

    assert [changed(before.blocks[i], after.blocks[i]) for i in (0, 1)] == [i in blocks for i in (0, 1)]
    assert changed(before.patch_embedding, after.patch_embedding) == (unfreeze is None)
    assert (np.asarray(before.cls_token) != np.asarray(after.cls_token)).any() == (unfreeze is None)
    assert (tuned.run.head["norm_gamma"] != np.asarray(before.norm.gamma)).any()


def test_the_published_start_has_a_position_table_that_learns_and_a_fresh_norm(tmp_path):
    from labelrank.finetune.meanings import meaning_of
    from labelrank.finetune.tuner import Tuner
    from labelrank.models.vit import sincos_position_embedding

    def tuner(**changes):
        recipe = replace(RECIPE, **changes)
        return Tuner(encoder(), meaning_of("softmax", 3), recipe, pooling="mean", fc_norm=None, n_steps=1)

    def learns(one):
        return any(variable is one.encoder.position_embedding for variable in one.trainable_variables)

    given = np.asarray(encoder().norm.gamma)
    usual, published = tuner(), tuner(learns_positions=True, fresh_norm=True)
    assert (learns(usual), learns(published)) == (False, True)
    np.testing.assert_array_equal(np.asarray(usual.fc_norm.gamma), given)
    np.testing.assert_array_equal(np.asarray(published.fc_norm.gamma), np.ones(16))
    np.testing.assert_array_equal(np.asarray(published.fc_norm.beta), np.zeros(16))
    # It learns with the patch embedding, so not where only blocks do.
    assert not learns(tuner(learns_positions=True, unfreeze=1))

    tuned = tune(tmp_path / "run", replace(RECIPE, epochs=1, learns_positions=True, fresh_norm=True))
    table = np.asarray(tuned.model.encoder.position_embedding)
    assert 1e-4 < np.abs(table - sincos_position_embedding(16, (2, 2))).max() < 1
    names = pictures("test", 15).dataset.class_names
    write_model(tmp_path / "model", tuned.model, order=(0, 1, 2), class_names=names, preprocessing=PREPROCESSING)
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    written = next(value for name, value in tensors.items() if "position_embeddings" in name)
    np.testing.assert_array_equal(written.reshape(table.shape), table)


def test_more_blocks_than_there_are_cannot_be_unfrozen(tmp_path):
    with pytest.raises(SettingsError, match="unfreeze is 3, but the encoder has 2 blocks"):
        tune(tmp_path, replace(RECIPE, unfreeze=3))


def test_lower_layers_learn_more_slowly(tmp_path):
    from labelrank.finetune.meanings import meaning_of
    from labelrank.finetune.tuner import Tuner

    tuner = Tuner(
        encoder(),
        meaning_of("softmax", 3),
        replace(RECIPE, layer_decay=0.5, weight_decay=0.1),
        pooling="mean",
        fc_norm=None,
        n_steps=1,
    )
    pairs = zip(tuner.adamw.factors, tuner.adamw.decays, strict=True)
    rates = {v.path: pair for v, pair in zip(tuner.trainable_variables, pairs, strict=True)}
    assert rates["tuner/kernel"] == (1.0, 0.1)
    assert rates["tuner/bias"] == (1.0, 0.0)
    found = {path.split("encoder/")[1]: pair for path, pair in rates.items() if "encoder/" in path}
    assert found["block_1/mlp_in/kernel"] == (0.5, 0.1)
    assert found["block_0/mlp_in/bias"] == (0.25, 0.0)
    assert found["block_0/norm_before/gamma"] == (0.25, 0.0)
    assert found["patch_embedding/kernel"] == (0.125, 0.1)
    assert found["cls_token"] == (0.125, 0.0)


def test_layerwise_adamw_takes_the_steps_of_adamw(tmp_path):
    import keras
    from keras import ops

    from labelrank.finetune.tuner import LayerwiseAdamW

    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(3, 2)).astype(np.float32), rng.normal(size=(5, 3, 2)).astype(np.float32)

    def trained(optimizer):
        variable = keras.Variable(start)
        optimizer.build([variable])
        for gradient in gradients:
            optimizer.apply([ops.convert_to_tensor(gradient)])
        return np.asarray(variable)

    expected = trained(keras.optimizers.AdamW(learning_rate=0.005, weight_decay=0.3, beta_2=0.95))
    found = trained(LayerwiseAdamW([0.5], [0.3], learning_rate=0.01, beta_2=0.95))
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.slow
def test_mixed_precision_learns_and_its_state_comes_back(precision):
    from labelrank.finetune.meanings import meaning_of
    from labelrank.finetune.tuner import Tuner

    def tuner(n_steps):
        encoder_ = encoder(f"mixed_{precision}")
        options = {"pooling": "mean", "fc_norm": None, "n_steps": n_steps}
        made = Tuner(encoder_, meaning_of("softmax", 3), RECIPE, **options)
        made.set_head(None, np.random.default_rng(0).normal(0, 0.02, (16, 3)))
        return made

    train = pictures("train", 8)
    images = np.stack([train.preprocessing(train.dataset.load(s)) for s in train.dataset.samples])
    targets, weights = np.eye(3, dtype=np.float32)[train.dataset.labels], np.ones(8, np.float32)
    one = tuner(1)
    inputs = {"images": images, "branch_scale": np.ones((8, 2, 2), np.float32), "dropout": np.ones((8, 16), np.float32)}
    losses = [one.update(inputs, targets, weights, 1e-2, 8) for _ in range(6)]
    assert losses[-1] < 0.8 * losses[0]
    assert all(v.dtype == "float32" for v in one.trainable_variables)
    # Taken up by one of another number of steps, which goes on alike.
    two = tuner(2)
    two.set_state(one.state())
    assert int(two.adamw.iterations) == int(one.adamw.iterations) == 6
    goes_on = [t.update(inputs, targets, weights, 1e-2, 8) for t in (one, two) for _ in range(2)]
    assert goes_on[2:] == pytest.approx(goes_on[:2], rel=0.02)


@pytest.mark.parametrize("meaning", ["gaussian", "ordinal", "cumulative"])
@pytest.mark.slow
def test_every_meaning_learns_and_its_model_says_the_same(tmp_path, meaning):
    recipe = replace(RECIPE, epochs=6, mixup=0.2, head="reference" if meaning == "ordinal" else "linear", hidden_dim=8)
    tuned = tune(tmp_path, recipe, meaning=meaning, bandwidth=0.5)
    assert curve(tuned)[-1] < curve(tuned)[0]
    test = pictures("test", 15)
    images = np.stack([test.preprocessing(test.dataset.load(s)) for s in test.dataset.samples])
    scores = np.asarray(tuned.model.predict_on_batch(images))
    log_probabilities = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    assert -log_probabilities[np.arange(15), tuned.y] == pytest.approx(tuned.run.nll, abs=1e-4)


def test_reference_head_with_dropout_folds_into_one_affine_map(tmp_path):
    tuned = tune(tmp_path, replace(RECIPE, head="reference", hidden_dim=12, dropout=0.3, head_init_std=None))
    assert tuned.run.head["kernel"].shape == (16, 3)
    test = pictures("test", 15)
    images = np.stack([test.preprocessing(test.dataset.load(s)) for s in test.dataset.samples])
    scores = np.asarray(tuned.model.predict_on_batch(images))
    nll = np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(15), tuned.y]
    assert nll == pytest.approx(tuned.run.nll, abs=1e-5)


def test_cls_pooling_keeps_the_final_norm(tmp_path):
    tuned = tune(tmp_path, replace(RECIPE, epochs=1), pooling="cls")
    assert tuned.model.encoder_config.final_norm
    assert tuned.model.pooling == "cls"
    assert set(tuned.run.head) == {"kernel", "bias"}


def test_pooling_that_an_encoder_does_not_have_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="Pooling is 'cls'; this encoder has mean"):
        tune(tmp_path, config=CLIPS, pooling="cls")
    with pytest.raises(SettingsError, match="Pooling is 'fc_norm', but"):
        tune(tmp_path, config=CLIPS, pooling="fc_norm")


def test_norm_of_a_fine_tuned_checkpoint_is_where_training_starts(tmp_path):
    norm = {"fc_norm.weight": np.full(16, 2.0, np.float32), "fc_norm.bias": np.full(16, 0.5, np.float32)}
    config = replace(CLIPS, final_norm=False, fc_norm=True)
    recipe = replace(RECIPE, epochs=1, learning_rate=1e-12)
    tuned = tune(tmp_path, recipe, config=config, pooling="fc_norm", fc_norm=norm)
    assert tuned.run.head["norm_gamma"] == pytest.approx(2.0)
    assert tuned.run.head["norm_beta"] == pytest.approx(0.5)
    assert float(tuned.run.head["norm_epsilon"]) == 1e-5


def test_clips_start_anywhere_with_jitter_and_predictions_average_over_clips(tmp_path):
    recipe = replace(RECIPE, temporal_jitter=True, flip=True, min_crop_scale=0.5, random_erasing=0.5)
    several = replace(SAMPLING, clips=2)
    tuned = tune(tmp_path, recipe, config=CLIPS, test=pictures("test", 15, clip=True, sampling=several))
    assert curve(tuned)[-1] < curve(tuned)[0]
    test = pictures("test", 15, clip=True, sampling=several)
    clips = np.stack([test.preprocessing(test.dataset.load_clips(s, several)) for s in test.dataset.samples])
    scores = np.asarray(tuned.model.predict_on_batch(clips.reshape(-1, *clips.shape[2:])))
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    shares = shares.reshape(15, 2, 3).mean(axis=1)
    assert -np.log(shares[np.arange(15), tuned.y]) == pytest.approx(tuned.run.nll, abs=1e-5)
    names = test.dataset.class_names
    written = write_model(
        tmp_path / "model", tuned.model, order=(0, 1, 2), class_names=names, preprocessing=test.preprocessing
    )
    assert written == "VideoMAEForVideoClassification"


def brightest(count):
    """Return a choice of the brightest patches, 4 px a side, of 2 frames where there are several."""

    def choose(keys, inputs):
        seen.append(list(keys))
        shape = (len(inputs), -1, 2 if inputs.ndim == 5 else 1, 2, 4, 2, 4, 3)
        brightness = inputs.reshape(shape).mean(axis=(2, 4, 6, 7)).reshape(len(inputs), -1)
        return np.sort(np.argsort(-brightness, axis=1)[:, :count], axis=1).astype(np.int32)

    seen = []
    choose.seen = seen
    return choose


@pytest.mark.parametrize("config", [IMAGES, CLIPS], ids=["images", "clips"])
def test_an_encoder_learns_from_the_patches_chosen_of_what_it_sees(tmp_path, config):
    from labelrank.finetune.classifier import pool

    choose, kept = brightest(3), {"count": 3, "by": "brightness"}
    recipe = replace(RECIPE, flip=True, mixup=0.8, accumulation=2)
    tuned = tune(tmp_path / "run", recipe, config=config, choose=choose, kept=kept)
    assert curve(tuned)[-1] < curve(tuned)[0]
    assert {key.split("/")[0] for keys in choose.seen for key in keys} == {"train", "val", "test"}
    # Tested on the same choice, of pictures as they are.
    test = pictures("test", 15, clip=config.media == "clip")
    load = (lambda s: test.dataset.load_clips(s, SAMPLING)[0]) if config.media == "clip" else test.dataset.load
    inputs = np.stack([test.preprocessing(load(sample)) for sample in test.dataset.samples])
    model, visible = tuned.model, brightest(3)(tuned.keys, inputs)
    pooled = pool(model.encoder(inputs, visible), model.pooling, config.num_prefix)
    scores = np.asarray(model.head(model.norm(pooled)))
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    assert -np.log(shares[np.arange(15), tuned.y]) == pytest.approx(tuned.run.nll, abs=1e-5)
    # The choice is a part of what a snapshot is of, and so is its absence.
    for other in ({"choose": choose, "kept": {**kept, "by": "another"}}, {}):
        done = []
        tune(tmp_path / "run", recipe, config=config, on_progress=lambda *a, done=done: done.append(a), **other)
        assert len(done) == updates(recipe)


def test_estimate_grows_with_the_work():
    from labelrank.finetune.end_to_end import estimated_seconds

    quick = recipes()["quick"]

    def seconds(recipe=quick, n_runs=1, n_train=1000, **patches):
        return estimated_seconds(IMAGES, n_train, 100, 100, recipe, n_runs=n_runs, flops_per_s=1e7, **patches)

    assert seconds(n_runs=5) == pytest.approx(5 * seconds())
    assert seconds(replace(quick, unfreeze=0)) < seconds(replace(quick, unfreeze=1)) < seconds()
    assert seconds(n_train=2000) > 1.8 * seconds()
    assert seconds(keep=4) == seconds()
    assert seconds(keep=1) < 0.5 * seconds() < seconds(keep=1, choosing_flops=1e6)
