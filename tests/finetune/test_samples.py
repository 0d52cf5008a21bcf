"""What training reads of a video: a clip that starts anywhere, the same whether its video is kept or not."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from labelrank.data.dataset import ClipSampling
from labelrank.errors import MediaError
from labelrank.finetune.augment import generator
from labelrank.finetune.samples import MAX_KEPT_CLIPS, Budget, Reader, TrainingSamples
from tests.finetune.small import PREPROCESSING, RECIPE, SAMPLING, dataset

JITTERED = replace(RECIPE, temporal_jitter=True)
ROOM = 1 << 30


class Videos:
    """One video of `length` frames, each as bright as its number; counts what is read of it."""

    def __init__(self, length, sampling=SAMPLING, *, largest=10_000, damaged=()):
        self.length, self.largest, self.damaged = length, largest, set(damaged)
        self.taken = []
        found = replace(dataset("train", 1, clip=True), load_clips=self.load_clips)
        self.pictures = TrainingSamples(found, PREPROCESSING, sampling)

    def load_clips(self, sample, sampling):
        numbers = sampling.indices(self.length)
        if numbers.size > self.largest or self.damaged & set(numbers.ravel().tolist()):
            raise MediaError("too large or damaged")
        self.taken.append(numbers)
        return np.broadcast_to(numbers.astype(np.uint8)[..., None, None, None], (*numbers.shape, 8, 8, 3)).copy()

    def clips(self, room, draws=200, recipe=JITTERED):
        """Return the frame numbers of each clip, int (draws, frames); -1 where it could not be read."""
        with ThreadPoolExecutor(1) as pool:
            reader = Reader(self.pictures, Budget(room), pool, recipe)
            rows = []
            for epoch in range(draws):
                images, readable = reader.images([0], [generator(0, 3, epoch, 0)])
                values = np.rint((images[0, 0, :, 0, 0, 0] * 0.5 + 0.5) * 255).astype(int)
                rows.append(values if readable[0] else np.full(len(values), -1))
        return np.array(rows)


@pytest.mark.parametrize("length", [1, 3, 4, 5, 12, 32])
def test_clips_start_at_every_frame_that_they_fit_from(length):
    clips = Videos(length).clips(ROOM)
    assert set(clips[:, 0]) == set(range(max(1, length - 3)))
    assert (clips == np.minimum(clips[:, :1] + np.arange(4), length - 1)).all()


def test_each_start_is_as_likely():
    starts = Videos(13).clips(ROOM, draws=2000)[:, 0]
    assert np.bincount(starts) == pytest.approx(200, rel=0.25)


def test_clips_are_the_same_whether_a_video_is_kept_or_read_again():
    sampling = ClipSampling(frames=4, stride=3)
    kept, read_again = Videos(30, sampling), Videos(30, sampling)
    assert (kept.clips(ROOM) == read_again.clips(0)).all()
    assert len(kept.taken) == 1
    assert len(read_again.taken) == 200


def test_a_short_video_is_kept_as_its_frames_each_once():
    videos = Videos(MAX_KEPT_CLIPS * 4)
    videos.clips(ROOM)
    (numbers,) = videos.taken
    assert sorted(numbers.ravel()) == list(range(32))
    # As many bytes as its frames have are enough to keep it.
    videos = Videos(32)
    videos.clips(32 * 8 * 8 * 3)
    assert len(videos.taken) == 1


@pytest.mark.parametrize(("length", "room"), [(MAX_KEPT_CLIPS * 4 + 1, ROOM), (200, ROOM)])
def test_of_a_long_video_nothing_but_the_clip_is_read(length, room):
    videos = Videos(length)
    clips = videos.clips(room, draws=20)
    assert [numbers.shape for numbers in videos.taken] == [(1, 4)] * 20
    assert (np.concatenate(videos.taken) == clips).all()


def test_once_the_memory_is_full_nothing_but_the_clip_is_read():
    videos = Videos(20)
    videos.clips(0, draws=5)
    assert [numbers.size for numbers in videos.taken] == [20, 4, 4, 4, 4]


def test_a_video_that_is_too_large_as_a_whole_is_read_clip_by_clip():
    videos = Videos(20, largest=10)
    assert (videos.clips(ROOM, draws=50) == Videos(20).clips(ROOM, draws=50)).all()


@pytest.mark.parametrize("room", [0, ROOM])
def test_a_damaged_end_leaves_out_the_clips_that_need_it_and_no_others(room):
    whole, damaged = Videos(12).clips(ROOM), Videos(12, damaged=[11]).clips(room)
    lost = (whole == 11).any(axis=1)
    assert 0 < lost.sum() < len(lost)
    assert (damaged[lost] == -1).all()
    assert (damaged[~lost] == whole[~lost]).all()


def test_without_jitter_a_clip_starts_with_its_video():
    videos = Videos(20)
    assert (videos.clips(ROOM, recipe=RECIPE) == np.arange(4)).all()
    assert len(videos.taken) == 1
