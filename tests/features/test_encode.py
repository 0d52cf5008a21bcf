"""Extraction with a plain NumPy encoder: order, padding, failures, stopping."""

import itertools
import random
import threading
import time
from dataclasses import dataclass, replace

import numpy as np
import pytest

from labelrank.data.dataset import ClipSampling, Dataset, Sample
from labelrank.errors import Cancelled, FeaturesError, HubError, MediaError, SettingsError
from labelrank.features.encode import Select, encode_parts
from labelrank.models.pooling import pool_tokens
from labelrank.progress import Kind, Stage
from tests.helpers.features import encode_all


@dataclass
class MeanColour:
    """Tokens (B, 3, 3): CLS is the batch's first pixel, both patches the mean colour. Fails on a wrong batch size."""

    batch_size: int = 4
    calls: int = 0
    num_prefix: int = 1
    fc_norm: None = None
    fc_norm_pools: str = "mean"

    def __call__(self, images):
        assert 0 < len(images) <= self.batch_size
        self.calls += 1
        mean = images.mean(axis=(1, 2))
        return np.stack([images[:, 0, 0], mean, mean], axis=1)


def dataset_of(n, bad=()):
    def load(sample):
        i = int(sample.key)
        if i in bad:
            raise MediaError(f"{sample.key} is truncated.")
        return np.full((2, 2, 3), i, np.uint8)

    return Dataset("made", ("a", "b"), tuple(Sample(str(i), i % 2) for i in range(n)), load, digest="0")


@dataclass
class MeanFrame:
    """Tokens (B, 2, 1) of clips (B, T, H, W, 3): the mean frame number, twice, without CLS."""

    batch_size: int = 4
    sizes: tuple = ()
    num_prefix: int = 0
    fc_norm: None = None
    fc_norm_pools: str = "mean"

    def __call__(self, clips):
        self.sizes += (len(clips),)
        mean = clips.mean(axis=(1, 2, 3, 4))
        return np.stack([mean, mean], axis=1)[:, :, None]


def videos_of(n, frames=40, bad=()):
    """Videos whose every pixel is the number of its frame."""

    def load_clips(sample, sampling):
        if int(sample.key) in bad:
            raise MediaError(f"{sample.key} is cut short.")
        numbers = sampling.indices(frames).astype(np.uint8)
        return np.broadcast_to(numbers[:, :, None, None, None], (*numbers.shape, 2, 2, 3))

    samples = tuple(Sample(str(i), i % 2) for i in range(n))
    load = lambda sample: load_clips(sample, ClipSampling(1))[0, 0]  # noqa: E731
    return Dataset("made", ("a", "b"), samples, load, digest="0", load_clips=load_clips)


def as_floats(image, out=None):
    if out is None:
        return image.astype(np.float32)
    out[...] = image
    return out


@pytest.mark.parametrize("n", [1, 3, 4, 5, 9])
def test_features_come_in_dataset_order_whatever_the_batches(n):
    result = encode_all(dataset_of(n), MeanColour(), as_floats)
    assert result.X[:, 0].tolist() == list(range(n))
    assert result.y.tolist() == [i % 2 for i in range(n)]
    assert result.keys == tuple(str(i) for i in range(n))


def test_unreadable_pictures_are_listed_and_the_rest_kept():
    progress = []
    result = encode_all(
        dataset_of(10, bad={0, 4, 5, 6, 7}), MeanColour(), as_floats, on_progress=lambda *a: progress.append(a)
    )
    assert result.keys == ("1", "2", "3", "8", "9")
    assert [f.subject for f in result.failures] == ["0", "4", "5", "6", "7"]
    assert "truncated" in result.failures[0].reason
    assert [p[:2] for p in progress] == [(4, 10), (8, 10), (10, 10)]


def test_not_finite_features_are_listed():
    class Overflow(MeanColour):
        def __call__(self, images):
            tokens = super().__call__(images)
            return np.where(tokens == 2, np.nan, tokens)

    result = encode_all(dataset_of(4), Overflow(), as_floats)
    assert result.keys == ("0", "1", "3")
    assert "not finite" in result.failures[0].reason


@pytest.mark.parametrize("clips", [1, 3, 5])
def test_the_clips_of_a_video_are_averaged(clips):
    encoder, sampling = MeanFrame(), ClipSampling(frames=4, stride=2, clips=clips)
    result = encode_all(videos_of(5, bad={2}), encoder, as_floats, sampling=sampling)
    assert result.keys == ("0", "1", "3", "4")
    assert result.failures[0].reason == "2 is cut short."
    # Clips of 7 frames start evenly between 0 and 33; the mean frame of a clip is its start and 3.
    assert result.X[:, 0] == pytest.approx(3.0 if clips == 1 else 33 / 2 + 3, abs=0.5)
    assert max(encoder.sizes) <= encoder.batch_size
    assert sum(encoder.sizes) == 4 * clips


def test_frames_of_a_clip_follow_the_published_notebook():
    assert ClipSampling().indices(100).tolist() == [list(range(0, 61, 4))]
    assert ClipSampling().indices(30).tolist() == [[0, 4, 8, 12, 16, 20, 24, 28, *[29] * 8]]
    assert ClipSampling(frames=2, stride=3, clips=3).indices(14).tolist() == [[0, 3], [5, 8], [10, 13]]
    assert ClipSampling(frames=3, stride=1, clips=2).indices(1).tolist() == [[0, 0, 0]] * 2
    for wrong in ({"stride": 0}, {"clips": 50_000_000}):
        with pytest.raises(SettingsError, match=r"(stride is 0|clips is 50000000); expected a whole number from 1 to"):
            ClipSampling(**wrong)


@pytest.mark.parametrize("ahead", [True, False])
def test_a_selection_of_patches_is_all_that_the_encoder_sees(ahead):
    class Seeing(MeanColour):
        """Its tokens are the numbers of the patches it sees."""

        seen = ()

        def __call__(self, images, visible):
            self.seen += (visible.tolist(),)
            return np.repeat(visible[:, :, None], 2, axis=2).astype(np.float32)

    def choose(keys, images):
        assert images.shape == (len(images), 2, 2, 3)
        assert [float(key) for key in keys] == images[:, 0, 0, 0].tolist()
        first = images[:, 0, 0, 0].astype(np.int64)
        return np.stack([first, first + 2], axis=1)

    encoder = Seeing(num_prefix=0)
    result = encode_all(dataset_of(6, bad={2}), encoder, as_floats, select=Select(choose, ahead))
    assert encoder.seen == ([[n, n + 2] for n in (0, 1, 3)], [[4, 6], [5, 7]])
    assert result.X[:, 0].tolist() == [n + 1 for n in (0, 1, 3, 4, 5)]


@pytest.mark.parametrize("ahead", [True, False])
def test_patches_are_chosen_for_each_clip(ahead):
    class Seeing(MeanFrame):
        def __call__(self, clips, visible):
            self.sizes += (len(clips),)
            return visible[:, :, None].astype(np.float32)

    # The patch that is kept has the number of the clip's first frame.
    select = Select(lambda keys, clips: clips[:, 0, 0, 0, :1].astype(np.int32), ahead)
    encoder, sampling = Seeing(), ClipSampling(frames=4, stride=2, clips=5)
    result = encode_all(videos_of(3), encoder, as_floats, sampling=sampling, select=select)
    assert encoder.sizes == (4, 1) * 3
    assert result.X[:, 0].tolist() == pytest.approx([sampling.indices(40)[:, 0].mean()] * 3)


def test_stops_when_asked():
    encoder = MeanColour()
    with pytest.raises(Cancelled):
        encode_all(dataset_of(9), encoder, as_floats, should_stop=lambda: encoder.calls == 1)
    assert encoder.calls == 1


def test_pooling():
    tokens = np.arange(12, dtype=np.float32).reshape(1, 4, 3)
    assert pool_tokens(tokens, "cls").tolist() == [[0, 1, 2]]
    assert pool_tokens(tokens, "mean").tolist() == [[6, 7, 8]]
    assert pool_tokens(tokens, "mean", num_prefix=0).tolist() == [[4.5, 5.5, 6.5]]
    assert pool_tokens(tokens, "fc_norm", num_prefix=0, fc_norm=lambda x: -x).tolist() == [[-4.5, -5.5, -6.5]]
    with pytest.raises(FeaturesError, match="Pooling is 'max'; this encoder has mean, cls"):
        pool_tokens(tokens, "max")
    with pytest.raises(FeaturesError, match="Pooling is 'cls'; this encoder has mean"):
        pool_tokens(tokens, "cls", num_prefix=0)


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before  # threads of other tests may still come to their end meanwhile


def parts_of(dataset, *sizes):
    samples = iter(dataset.samples)
    return [tuple(itertools.islice(samples, size)) for size in sizes]


@dataclass
class Recording(MeanColour):
    """Keeps what it was given, batch by batch."""

    seen: tuple = ()

    def __call__(self, images):
        self.seen += (images[:, 0, 0, 0].tolist(),)
        return super().__call__(images)


def test_parts_come_in_order_and_no_batch_crosses_their_borders():
    dataset, encoder = dataset_of(16, bad={1, 14}), Recording()
    results = list(encode_parts(dataset, parts_of(dataset, 6, 1, 0, 9), encoder, as_floats))
    keys = [result.keys for result in results]
    assert keys == [("0", "2", "3", "4", "5"), ("6",), (), ("7", "8", "9", "10", "11", "12", "13", "15")]
    assert [result.X[:, 0].tolist() for result in results] == [list(map(float, part)) for part in keys]
    assert [result.y.tolist() for result in results] == [[int(key) % 2 for key in part] for part in keys]
    assert [[f.subject for f in result.failures] for result in results] == [["1"], [], [], ["14"]]
    # What failed leaves its batch short: the others stay in theirs.
    assert encoder.seen == ([0, 2, 3], [4, 5], [6], [7, 8, 9, 10], [11, 12, 13], [15])


def test_a_part_alone_is_encoded_as_among_others():
    dataset = dataset_of(23, bad={3, 9})
    parts = parts_of(dataset, 5, 7, 11)
    together = Recording()
    among = list(encode_parts(dataset, parts, together, as_floats))
    alone = Recording()
    for part, expected in zip(parts, among, strict=True):
        (result,) = encode_parts(dataset, [part], alone, as_floats)
        assert (result.keys, result.failures) == (expected.keys, expected.failures)
        assert result.X.tobytes() == expected.X.tobytes()
    assert alone.seen == together.seen


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("clips", [None, 3])
def test_samples_keep_their_places_however_long_each_takes_to_read(workers, clips):
    shuffled = random.Random(workers)
    delays = [shuffled.random() / 500 for _ in range(60)]

    def slow(load):
        def wait_and_load(sample, *sampling):
            time.sleep(delays[int(sample.key)])
            return load(sample, *sampling) * 0 + np.uint8(sample.key)

        return wait_and_load

    if clips is None:
        dataset, sampling, encoder = dataset_of(60, bad={7, 31}), None, MeanColour()
    else:
        dataset, encoder = videos_of(60, bad={7, 31}), MeanFrame()
        sampling = ClipSampling(4, 2, clips)
        dataset = replace(dataset, load_clips=slow(dataset.load_clips))
    dataset = replace(dataset, load=slow(dataset.load))
    result = encode_all(dataset, encoder, as_floats, sampling=sampling, workers=workers)
    expected = [i for i in range(60) if i not in (7, 31)]
    assert result.X[:, 0].tolist() == expected
    assert result.keys == tuple(map(str, expected))


def test_a_part_of_which_nothing_can_be_read_has_no_rows():
    dataset = dataset_of(9, bad={0, 1, 2, 6, 7, 8})
    first, second, third = encode_parts(dataset, parts_of(dataset, 3, 3, 3), MeanColour(), as_floats)
    assert (first.X.shape, second.X.shape, third.X.shape) == ((0, 0), (3, 3), (0, 3))
    assert (third.X.dtype, third.y.dtype, third.keys) == (np.float32, np.int32, ())
    assert [f.subject for f in third.failures] == ["6", "7", "8"]


def counted(dataset):
    """The dataset, and the keys of the samples that were read so far."""
    read = []

    def load(sample):
        read.append(sample.key)
        return dataset.load(sample)

    return replace(dataset, load=load), read


def settled(read, at_least):
    """How many samples are read when so many have been and nothing more happens."""
    ends = time.monotonic() + 30
    while len(read) < at_least and time.monotonic() < ends:
        time.sleep(0.01)
    time.sleep(0.1)
    return len(read)


def test_reading_goes_on_ahead_of_the_caller_but_not_far():
    dataset, read = counted(dataset_of(4000))
    results = encode_parts(dataset, parts_of(dataset, *[5] * 800), MeanColour(), as_floats, workers=2)
    next(results)
    # The 5 of the first part in two batches, those of the second too, and one batch for the threads.
    assert settled(read, 14) == 5 + 5 + 4
    next(results)
    assert settled(read, 19) == 5 + 5 + 5 + 4
    results.close()


def test_large_inputs_are_read_less_far_ahead(monkeypatch):
    dataset, read = counted(dataset_of(400))
    monkeypatch.setattr("labelrank.features.reader._MAX_BYTES_AHEAD", 1)
    results = encode_parts(dataset, parts_of(dataset, *[4] * 100), MeanColour(), as_floats, workers=2)
    for _ in range(10):
        next(results)
    assert settled(read, 44) == 44
    results.close()


def test_parts_may_be_endless_and_are_asked_for_in_the_callers_thread():
    dataset, threads, totals = dataset_of(3), set(), []

    def endless():
        while True:
            threads.add(threading.current_thread())
            yield dataset.samples

    results = encode_parts(
        dataset, endless(), MeanColour(), as_floats, on_progress=lambda done, total, stage: totals.append((done, total))
    )
    for result in itertools.islice(results, 50):
        assert result.keys == ("0", "1", "2")
    results.close()
    assert threads == {threading.current_thread()}
    assert totals[-1] == (150, None)


def test_progress_counts_over_all_parts():
    dataset, progress = dataset_of(7, bad={0}), []
    parts = parts_of(dataset, 5, 2)
    list(encode_parts(dataset, parts, MeanColour(), as_floats, on_progress=lambda *a: progress.append(a)))
    assert progress == [(n, 7, Stage(Kind.ENCODE, "Extracting features", "images")) for n in (4, 5, 7)]


def test_closing_ends_the_reading_at_once():
    dataset, read = counted(dataset_of(100))
    inner = dataset.load
    dataset = replace(dataset, load=lambda sample: time.sleep(0.02) or inner(sample))
    results = encode_parts(dataset, parts_of(dataset, 4, 96), MeanColour(batch_size=2), as_floats, workers=2)
    next(results)
    before = len(read)
    results.close()
    assert len(read) <= before + 2  # those that were being read


def test_samples_are_read_side_by_side():
    together = threading.Barrier(3, timeout=20)
    dataset = dataset_of(3)
    inner = dataset.load
    dataset = replace(dataset, load=lambda sample: together.wait() * 0 + inner(sample))
    assert encode_all(dataset, MeanColour(), as_floats, workers=3).keys == ("0", "1", "2")


def test_an_error_of_the_source_ends_it_after_what_came_before():
    dataset = dataset_of(20)

    def load(sample):
        if sample.key == "9":
            raise HubError("The network is gone.")
        return np.full((2, 2, 3), 1, np.uint8)

    dataset = replace(dataset, load=load)
    results = encode_parts(dataset, parts_of(dataset, 8, 12), MeanColour(), as_floats)
    assert len(next(results).keys) == 8
    with pytest.raises(HubError, match="The network is gone"):
        next(results)


def test_an_error_of_the_encoder_leaves_no_thread():
    class Broken(MeanColour):
        def __call__(self, images):
            raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        encode_all(dataset_of(50), Broken(), as_floats)


@pytest.mark.parametrize(("slow", "waits"), [("reading", True), ("encoding", False)])
def test_the_time_is_told_in_which_the_encoder_waits(slow, waits):
    class Slow(MeanColour):
        def __call__(self, images):
            time.sleep(0.02 if slow == "encoding" else 0)
            return super().__call__(images)

    dataset = dataset_of(40)
    inner = dataset.load
    if slow == "reading":
        dataset = replace(dataset, load=lambda sample: time.sleep(0.01) or inner(sample))
    result = encode_all(dataset, Slow(), as_floats, workers=2)
    share = result.waited_s / (result.waited_s + result.encoded_s)
    assert share > 0.8 if waits else share < 0.3
    assert result.waited_s + result.encoded_s > 0.15


def test_an_encoder_may_return_what_it_was_given():
    """The memory of inputs is used again; features must not lie in it."""

    class Identity(MeanColour):
        def __call__(self, images):
            return images.reshape(len(images), -1, 3)

    result = encode_all(dataset_of(40), Identity(), as_floats, pooling="cls")
    assert result.X[:, 0].tolist() == list(range(40))


def test_memory_does_not_grow_with_the_dataset():
    """Buffers are handed out again: as many as are ahead, whatever the number of batches."""
    buffers = {}

    class Keeping(MeanColour):
        def __call__(self, images):
            buffers[id(images.base)] = images.base
            return super().__call__(images)

    encode_all(dataset_of(250), Keeping(), as_floats, workers=2)
    assert len(buffers) <= 4
