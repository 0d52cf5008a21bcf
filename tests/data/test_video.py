"""Clips are the frames that a full decode would give, whatever the codec, the container and the order of packets."""

import gc
import io
import re
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from labelrank.data import video as video_module
from labelrank.data.dataset import ClipSampling
from labelrank.data.reading import one_sample
from labelrank.data.video import EXTENSIONS, read_clips, read_first_frame
from labelrank.data.video_end import is_cut
from labelrank.errors import MediaError
from labelrank.settings import Settings
from tests.helpers.datasets import SETTINGS, encode, number_of, numbered_frames, picture, video

SAMPLINGS = [
    ClipSampling(),
    ClipSampling(frames=1, stride=1),
    ClipSampling(frames=4, stride=2, clips=3),
    ClipSampling(frames=2, stride=3, clips=5),
    ClipSampling(frames=3, stride=40, clips=2),
    ClipSampling(frames=1, stride=1, clips=40),
]


class Later(ClipSampling):
    """One clip that starts late: where that is, the length of the video decides."""

    stop = None

    def indices(self, num_frames):
        return num_frames * 4 // 5 + super().indices(num_frames - num_frames * 4 // 5)


SAMPLINGS.append(Later(frames=4, stride=3))
OPEN_GOP = {"g": "24", "bf": "3", "x264-params": "open-gop=1:scenecut=0"}
CODECS = {
    "H.264 in MP4": ("mp4", "libx264", {"g": "24", "bf": "3"}),
    "H.264 in MP4, open groups": ("mp4", "libx264", OPEN_GOP),
    "H.264 in Matroska, open groups": ("matroska", "libx264", OPEN_GOP),
    "H.264 in Matroska, refreshed bit by bit": (
        *("matroska", "libx264", {"g": "24", "bf": "0", "x264-params": "intra-refresh=1:scenecut=0"}),
    ),
    "H.264 in MPEG-TS": ("mpegts", "libx264", OPEN_GOP),
    "H.264 in AVI": ("avi", "libx264", {"g": "24", "bf": "2"}),
    "H.264 in AVI, in order": ("avi", "libx264", {"g": "24", "bf": "0"}),
    "H.264 in FLV": ("flv", "libx264", {"g": "24", "bf": "2"}),
    "HEVC in MP4, open groups": ("mp4", "libx265", {"x265-params": "keyint=24:open-gop=1:bframes=4:log-level=none"}),
    "MPEG-4 in AVI": ("avi", "mpeg4", {"g": "12"}),
    "MPEG-4 in AVI, out of order": ("avi", "mpeg4", {"g": "12", "bf": "2"}),
    "MPEG-4 in MOV, out of order": ("mov", "mpeg4", {"g": "12", "bf": "2"}),
    "MPEG-1": ("mpeg", "mpeg1video", {"g": "12", "bf": "2"}),
    "MPEG-2 in VOB": ("vob", "mpeg2video", {"g": "12", "bf": "2"}),
    "MPEG-2 without container": ("mpeg2video", "mpeg2video", {"g": "12", "bf": "2"}),
    "VP8": ("webm", "libvpx", {"g": "24", "lag-in-frames": "16", "auto-alt-ref": "1"}),
    "VP9": ("webm", "libvpx-vp9", {"g": "24", "lag-in-frames": "16", "auto-alt-ref": "1"}),
    "Sorenson in FLV": ("flv", "flv", {}),
    "Windows Media": ("asf", "wmv2", {}),
    "ProRes": ("mov", "prores_ks", {}),
}
NUM_FRAMES = 100


@pytest.fixture(scope="session")
def frames():
    return numbered_frames(NUM_FRAMES)


@pytest.fixture
def decoded(monkeypatch):
    """Count the frames that come out of decoders."""
    count = []

    class Counting:
        def __init__(self, decoder):
            object.__setattr__(self, "_decoder", decoder)

        def decode(self, packet):
            found = self._decoder.decode(packet)
            count.extend(found)
            return found

        def __getattr__(self, name):
            return getattr(self._decoder, name)

        def __setattr__(self, name, value):
            setattr(self._decoder, name, value)

    monkeypatch.setattr(video_module._Video, "_decoder", property(lambda self: Counting(self.stream.codec_context)))
    return count


def full_decode(data):
    """Return every frame in the order of the decoder, upright, and the frames' times."""
    with av.open(io.BytesIO(data)) as container:
        found = [(frame.pts, frame.rotation, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    return [np.rot90(pixels, turn // 90) for _, turn, pixels in found], [time for time, _, _ in found]


def assert_equals_full_decode(data, name, samplings=SAMPLINGS):
    reference, times = full_decode(data)
    if not name.endswith((".avi", ".mpg")) and times != sorted(times):
        reference = [reference[i] for i in np.argsort(times, kind="stable")]
    for sampling in samplings:
        clips = read_clips(data, sampling, name=name, settings=SETTINGS)
        numbers = sampling.indices(len(reference))
        assert clips.shape == (*numbers.shape, *reference[0].shape)
        for clip, wanted in zip(clips, numbers, strict=True):
            for frame, number in zip(clip, wanted, strict=True):
                assert np.array_equal(frame, reference[number]), (name, sampling, number)


@pytest.mark.parametrize("case", CODECS)
def test_frames_are_those_that_were_encoded_and_of_a_full_decode(case, frames):
    container, codec, options = CODECS[case]
    data = video(frames, container, codec, options=options)
    reference, _ = full_decode(data)
    # What a frame shows tells that the order of the decoder is the right one to compare with.
    assert [number_of(frame) for frame in reference] == list(range(NUM_FRAMES))
    for sampling in SAMPLINGS:
        clips = read_clips(data, sampling, name="a", settings=SETTINGS)
        assert np.array_equal(clips, np.stack(reference)[sampling.indices(NUM_FRAMES)]), sampling


@pytest.mark.parametrize(
    ("case", "sampling", "most"),
    [
        # 16 frames of stride 4 need no more than the first 61, of these the B-frames only where they are wanted.
        ("H.264 in MP4", ClipSampling(), 45),
        ("MPEG-4 in AVI", ClipSampling(), 62),
        # Of a container that does not say how long it is, the last frames from a key frame on show whether it is whole.
        ("MPEG-1", ClipSampling(), 62 + 13),
        # The first frame of the last clip is 12 frames or fewer after a key frame.
        ("MPEG-4 in AVI", ClipSampling(frames=2, stride=1, clips=2), 16),
        ("H.264 in MP4", ClipSampling(frames=2, stride=1, clips=2), 16),
        ("VP9", ClipSampling(frames=1, stride=1), 1),
        # Frames 80 and 81 of 100, the key frame before them 8 frames or fewer away.
        ("MPEG-4 in AVI", Later(frames=2, stride=1), 11),
        # Among them frames that lie behind a key frame but are shown before it, and need the one before.
        ("H.264 in MP4, open groups", ClipSampling(frames=1, stride=1, clips=40), 100),
    ],
)
def test_no_more_is_decoded_than_the_frames_need(case, sampling, most, frames, decoded):
    container, codec, options = CODECS[case]
    read_clips(video(frames, container, codec, options=options), sampling, name="a", settings=SETTINGS)
    assert 0 < len(decoded) <= most


def test_a_large_file_is_read_again_rather_than_kept(frames, monkeypatch, decoded):
    container, codec, options = CODECS["H.264 in MP4, open groups"]
    data = video(frames, container, codec, options=options)
    sampling = ClipSampling(frames=2, stride=1, clips=3)
    kept = read_clips(data, sampling, name="a", settings=SETTINGS)
    num_decoded = len(decoded)
    monkeypatch.setattr(video_module, "_HELD_BYTES", 2000)
    assert len(data) > 4000
    assert np.array_equal(read_clips(data, sampling, name="a", settings=SETTINGS), kept)
    assert len(decoded) == 2 * num_decoded


def test_uneven_times_change_neither_numbers_nor_pixels(frames):
    times = np.cumsum(np.random.default_rng(0).integers(1, 40, NUM_FRAMES)).tolist()
    for container in ("mp4", "matroska"):
        data = video(frames, container, times=times, options={"g": "24", "bf": "2"})
        for sampling in SAMPLINGS:
            clips = read_clips(data, sampling, name="a", settings=SETTINGS)
            shown = [[number_of(frame) for frame in clip] for clip in clips]
            assert shown == sampling.indices(NUM_FRAMES).tolist()


def remuxed(data, container, change):
    """Return a video whose packets were changed: `change` takes them and returns those to keep."""
    buffer = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(buffer, "w", format=container) as output:
        stream = source.streams.video[0]
        copy = output.add_stream_from_template(stream)
        for packet in change([packet for packet in source.demux(stream) if packet.size]):
            packet.stream = copy
            output.mux(packet)
    return buffer.getvalue()


def with_times(data, container, times, **options):
    """Return a video whose packets, in the order they lie in, have these (pts, dts) in 1/30 s."""
    buffer = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(buffer, "w", format=container, options=options) as output:
        stream = source.streams.video[0]
        copy = output.add_stream_from_template(stream)
        packets = [packet for packet in source.demux(stream) if packet.size]
        for packet, (pts, dts) in zip(packets, times(packets), strict=True):
            packet.pts, packet.dts, packet.stream = pts, dts, copy
            output.mux(packet)
    return buffer.getvalue()


@pytest.mark.parametrize("case", ["MPEG-4 in MOV, out of order", "H.264 in MP4", "HEVC in MP4, open groups"])
def test_a_packet_that_is_no_key_frame_is_not_started_from(case, frames):
    def all_marked(packets):
        for packet in packets:
            packet.is_keyframe = True
        return packets

    _, codec, options = CODECS[case]
    data = video(frames, "matroska", codec, options=options)
    assert_equals_full_decode(remuxed(data, "matroska", all_marked), "a.mkv")


def test_a_video_that_begins_with_frames_that_cannot_be_decoded(frames):
    def from_the_second_key_frame(packets):
        second = [i for i, packet in enumerate(packets) if packet.is_keyframe][1]
        assert packets[second + 1].pts < packets[second].pts
        return packets[second:]

    data = remuxed(video(frames, "matroska", options=OPEN_GOP), "matroska", from_the_second_key_frame)
    assert_equals_full_decode(data, "a.mkv")


@pytest.mark.parametrize("padding", [b"", bytes(20)])
def test_packets_without_a_frame_do_not_count(padding, frames):
    # A video object plane of MPEG-4 part 2 that says that it is not coded. Padded, it is found when it is decoded.
    not_coded = bytes.fromhex("000001b6504f") + padding

    def with_empty_packets(packets):
        kept = []
        for packet in packets:
            if len(kept) in (10, 30):
                empty = av.Packet(not_coded)
                empty.time_base = packet.time_base
                empty.pts = empty.dts = len(kept)
                kept.append(empty)
            packet.pts = packet.dts = len(kept)
            kept.append(packet)
        return kept

    data = remuxed(video(frames, "avi", "mpeg4", options={"g": "12"}), "avi", with_empty_packets)
    assert len(full_decode(data)[0]) == NUM_FRAMES
    assert_equals_full_decode(data, "a.avi", SAMPLINGS[:2] if padding else SAMPLINGS)


def test_frames_that_an_edit_list_cuts_away_do_not_count(frames):
    def ten_frames_earlier(packets):
        step = int(1 / 30 / packets[0].time_base)
        return [(packet.pts - 10 * step, packet.dts - 10 * step) for packet in packets]

    data = video(frames[:60], "mp4", options={"g": "24", "bf": "2"})
    data = with_times(data, "mp4", ten_frames_earlier, avoid_negative_ts="disabled", use_editlist="1")
    assert len(full_decode(data)[0]) == 50
    for sampling in SAMPLINGS:
        clips = read_clips(data, sampling, name="a", settings=SETTINGS)
        shown = np.array([[number_of(frame) for frame in clip] for clip in clips])
        assert np.array_equal(shown - 10, sampling.indices(50))


@pytest.mark.parametrize(
    ("shown_at", "order"),
    [
        ([2, 4, 3, 6, 5, 7], [0, 2, 1, 4, 3, 5]),
        ([3, 2, 5, 4, 7, 6], [1, 0, 3, 2, 5, 4]),  # the first packet is not the first frame
        ([3, 2, 4, 5, 5, 6], [0, 1, 2, 3, 4, 5]),  # two at once: times do not tell, the decoder does
    ],
)
@pytest.mark.parametrize("clips", [1, 2])
def test_times_that_a_container_stores_go_before_the_order_of_packets(shown_at, order, clips, frames):
    def times(packets):
        return [(33 * pts, 33 * dts) for dts, pts in enumerate(shown_at)]

    data = with_times(video(frames[:6], "matroska", "prores_ks"), "matroska", times)
    whole = read_clips(data, ClipSampling(frames=6, stride=1, clips=clips), name="a", settings=SETTINGS)
    assert [[number_of(frame) for frame in clip] for clip in whole] == [order] * clips
    some = read_clips(data, ClipSampling(frames=2, stride=2, clips=clips), name="a", settings=SETTINGS)
    assert [number_of(frame) for frame in some[0]] == [order[0], order[2]]


def test_memory_does_not_wait_for_the_garbage_collector(frames):
    data = video(frames[:4])
    gc.collect()
    gc.disable()
    try:
        read_clips(data, ClipSampling(clips=2), name="a", settings=SETTINGS)
        assert not [o for o in gc.get_objects() if isinstance(o, video_module._Video)]
    finally:
        gc.enable()


def test_a_short_video_repeats_its_last_frame(frames):
    clips = read_clips(video(frames[:3]), ClipSampling(frames=6, stride=1), name="a", settings=SETTINGS)
    assert [number_of(frame) for frame in clips[0]] == [0, 1, 2, 2, 2, 2]
    assert np.array_equal(clips[0, 2], clips[0, 5])


@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
def test_rotation_is_applied(rotation, frames):
    data = video(frames[:4], "mov", rotation=rotation)
    clips = read_clips(data, ClipSampling(frames=2, stride=1), name="a", settings=SETTINGS)
    upright = np.rot90(clips[0, 1], -rotation // 90)
    assert upright.shape == (64, 96, 3)
    assert number_of(upright) == 1


def test_sound_and_cover_pictures_are_passed_over(frames):
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        cover, stream = output.add_stream("png", rate=1), output.add_stream("libx264", rate=30)
        cover.pix_fmt, cover.disposition = "rgb24", Disposition.attached_pic
        for each in (cover, stream):
            each.height, each.width = 64, 96
        output.mux(cover.encode(av.VideoFrame.from_ndarray(frames[7], "rgb24")))
        for n in range(5):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frames[n], "rgb24")))
        output.mux(stream.encode(None))
    data = buffer.getvalue()
    track, cover_box = (data.index(box, data.index(b"moov")) - 4 for box in (b"trak", b"udta"))
    (size,) = struct.unpack_from(">I", data, cover_box)
    assert cover_box + size == len(data)
    data = data[:track] + data[cover_box:] + data[track:cover_box]
    with av.open(io.BytesIO(data)) as container:
        assert container.streams.video[0].disposition == Disposition.attached_pic
    assert number_of(read_first_frame(data, name="a", settings=SETTINGS)) == 0

    data = video(frames[:30], "mp4", sound=True)
    with av.open(io.BytesIO(data)) as container:
        assert [s.type for s in container.streams] == ["video", "audio"]
    clips = read_clips(data, ClipSampling(frames=3, stride=10), name="a", settings=SETTINGS)
    assert [number_of(frame) for frame in clips[0]] == [0, 10, 20]


def test_sound_that_begins_late_is_passed_over_too():
    def tags(data):
        at = 13
        while at < len(data):
            size = 11 + int.from_bytes(data[at + 1 : at + 4]) + 4
            yield data[at : at + size]
            at += size

    frames = numbered_frames(200)
    pictures = list(tags(video(frames, "flv", "flv", options={"g": "12"})))
    sound = next(tag for tag in tags(video(frames[:9], "flv", "flv", sound=True)) if tag[0] == 8)
    late = sound[:4] + pictures[190][4:8] + sound[8:]  # at the time of that frame
    data = b"FLV\1\1\0\0\0\x09\0\0\0\0" + b"".join([*pictures[:190], late, *pictures[190:]])
    with av.open(io.BytesIO(data)) as container:
        assert [stream.type for stream in container.streams] == ["video"]
    clips, notices = read_with_notices(data, ClipSampling(frames=2, stride=1, clips=2))
    assert [number_of(frame) for frame in clips[1]] == [198, 199]
    assert notices == []


def test_clips_that_would_fill_the_memory_are_refused(frames):
    data, few = video(frames[:1]), limits(max_clip_bytes=16 * 64 * 96 * 3)
    assert read_clips(data, ClipSampling(16), name="a", settings=few).shape[:2] == (1, 16)
    with pytest.raises(MediaError, match=r"'a' is 96 x 64 pixels: its 32 frames would take 589,824 bytes, more than"):
        read_clips(data, ClipSampling(16, clips=2), name="a", settings=few)


def test_path_bytes_and_open_file_give_the_same(frames, tmp_path):
    data = video(frames[:20])
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    sampling = ClipSampling(frames=4, stride=2, clips=2)
    expected = read_clips(data, sampling, name="a", settings=SETTINGS)
    assert np.array_equal(read_clips(path, sampling, name="a", settings=SETTINGS), expected)
    with path.open("rb") as file:
        file.read(7)
        assert np.array_equal(read_clips(file, sampling, name="a", settings=SETTINGS), expected)
        assert not file.closed  # it stays the caller's


def limits(**values):
    return Settings(workspace=Path("/nonexistent"), **values)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (limits(max_pixels=64 * 96 - 1), r"'a' is 96 x 64 pixels; at most 6,143 pixels .*LABELRANK_MAX_PIXELS"),
        (limits(max_video_frames=NUM_FRAMES - 1), r"more than 99 frames, .*LABELRANK_MAX_VIDEO_FRAMES\). Cut it"),
        (limits(max_video_bytes=1000), r"'a' has [\d,]+ bytes; at most 1,000 .*LABELRANK_MAX_VIDEO_BYTES"),
    ],
)
@pytest.mark.parametrize("sampling", [ClipSampling(clips=2), ClipSampling(stride=100)])
@pytest.mark.parametrize("case", ["H.264 in MP4", "MPEG-4 in AVI, out of order", "VP8"])
def test_limits_are_kept(settings, message, case, sampling, frames):
    container, codec, options = CODECS[case]
    data = video(frames, container, codec, options=options)
    with pytest.raises(MediaError, match=message):
        read_clips(data, sampling, name="a", settings=settings)


def test_frames_of_exactly_the_limits_are_read(frames):
    exact = limits(max_pixels=64 * 96, max_video_frames=NUM_FRAMES)
    assert read_clips(video(frames), ClipSampling(clips=2), name="a", settings=exact).shape == (2, 16, 64, 96, 3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"'a' is empty \(0 bytes\); expected a video in AVI, MP4, MOV"),
        (b"hello, world", r"'a' starts with 68656c6c; expected a video in .*Save it in one of these or leave it out"),
        (b"version https://git-lfs.github.com/spec/v1\noid", r"'a' is a Git LFS pointer, .* Run `git lfs pull`"),
        (b"<!DOCTYPE html>", r"'a' starts with 3c21444f: a web page; expected a video"),
        (encode(picture()), r"'a' starts with 89504e47: a PNG image; expected a video"),
        (b"RIFF\0\0\0\0AVI " + bytes(100), r"looks like a video but is damaged or cut short \(Invalid data"),
        (b"\0\0\0\x18ftypisom" + bytes(100), r"looks like a video but is damaged or cut short"),
        (b"\x1a\x45\xdf\xa3" + bytes(100), r"looks like a video but is damaged|holds no video stream"),
    ],
)
def test_what_is_no_video_says_what_it_is(data, message):
    with pytest.raises(MediaError, match=message):
        read_clips(data, ClipSampling(), name="a", settings=SETTINGS)


def test_a_missing_file_is_a_media_error(tmp_path):
    with pytest.raises(MediaError, match=r"'a' cannot be read \(No such file or directory\)"):
        read_clips(tmp_path / "a.mp4", ClipSampling(), name="a", settings=SETTINGS)


def test_sound_alone_is_no_video():
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        stream = output.add_stream("aac", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.rate = 8000
        output.mux(stream.encode(silence))
        output.mux(stream.encode(None))
    with pytest.raises(MediaError, match="'a' holds no video stream"):
        read_clips(buffer.getvalue(), ClipSampling(), name="a", settings=SETTINGS)


def test_the_frame_that_cannot_be_decoded_is_named_and_those_before_it_are_read(frames):
    data = bytearray(video(frames, "mp4", options={"g": "100", "bf": "0"}))
    with av.open(io.BytesIO(bytes(data))) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    position, size = packets[50]
    data[position : position + size] = b"\xff" * size
    message = r"'a' is damaged: frame 50 cannot be decoded \(Invalid data found when processing input\), and it or"
    with pytest.raises(MediaError, match=message):
        read_clips(bytes(data), ClipSampling(clips=2), name="a", settings=SETTINGS)
    whole = read_clips(bytes(data), ClipSampling(frames=10, stride=5), name="a", settings=SETTINGS)
    assert [number_of(frame) for frame in whole[0]] == list(range(0, 50, 5))


def test_a_video_without_a_frame_that_can_be_decoded_is_an_error(frames):
    data = bytearray(video(frames[:1], "avi", "mpeg4"))
    with av.open(io.BytesIO(bytes(data))) as container:
        packet = next(p for p in container.demux(video=0) if p.size)
        position, size = packet.pos, packet.size
    data[position : position + 8 + size] = data[position : position + 8] + bytes(size)
    with pytest.raises(MediaError, match="'a' (holds no frame that can be shown|is damaged|looks like a video)"):
        read_clips(bytes(data), ClipSampling(), name="a", settings=SETTINGS)


def test_a_video_cut_short_is_read_as_far_as_it_goes_or_refused(frames):
    data = video(frames, "matroska", options={"g": "24", "bf": "0"})
    clips = read_clips(data[: len(data) * 2 // 3], ClipSampling(frames=4, stride=8), name="a", settings=SETTINGS)
    assert [number_of(frame) for frame in clips[0]] == [0, 8, 16, 24]
    mp4 = video(frames, "mp4")  # whose directory lies at the end
    with pytest.raises(MediaError, match="damaged or cut short"):
        read_clips(mp4[: len(mp4) * 2 // 3], ClipSampling(), name="a", settings=SETTINGS)


PLAYLISTS = {
    "m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{path}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{path}'\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "dash": '<?xml version="1.0"?><MPD><Period><BaseURL>{path}</BaseURL></Period></MPD>',
}


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_playlists_lead_nowhere(kind, frames, tmp_path):
    target = tmp_path / "secret.mp4"
    target.write_bytes(video(frames[:3]))
    source = tmp_path / "a.mp4"
    source.write_text(PLAYLISTS[kind].format(path=target))
    with pytest.raises(MediaError, match="expected a video in AVI"):
        read_clips(source, ClipSampling(), name="a", settings=SETTINGS)


DEMUXERS = {"avi", "mov", "matroska", "flv", "asf", "ogg", "mpeg", "mpegvideo", "mpegts"}
"""What FFmpeg may read a file with; it knows three hundred more, of which some open other files and addresses."""


def test_no_other_demuxer_can_be_reached_and_none_opens_a_file(frames, monkeypatch, tmp_path):
    opened = []

    def watched(file, mode, *, format, io_open, **options):
        assert not isinstance(file, (str, Path)), "FFmpeg gets no path"
        with pytest.raises(MediaError, match=r"refers to another file, 'http://192\.0\.2\.1/x'"):
            io_open("http://192.0.2.1/x", 1, {})
        opened.append(format)
        return real(file, mode, format=format, io_open=io_open, **options)

    real = av.open
    made = [video(frames[:3], container, codec, options=options) for container, codec, options in CODECS.values()]
    monkeypatch.setattr(av, "open", watched)
    assert {kind.format for kind in video_module._KINDS} == DEMUXERS <= av.formats_available
    for data in made:
        (tmp_path / "a").write_bytes(data)
        read_clips(tmp_path / "a", ClipSampling(2, 1), name="a", settings=SETTINGS)
    assert set(opened) <= DEMUXERS
    assert len(set(opened)) >= 7


def test_a_movie_that_refers_to_another_file_does_not_get_it(frames, tmp_path):
    """An MP4 whose data reference names a file: the samples are to come from there."""
    target = tmp_path / "secret.mp4"
    target.write_bytes(video(frames[:3]))
    data = target.read_bytes()
    own = struct.pack(">I4sI", 12, b"url ", 1)
    assert own in data
    reference = str(target).encode() + b"\0"
    other = struct.pack(">I4sI", 12 + len(reference), b"url ", 0) + reference
    data = data.replace(own, other)
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):  # which grow by as much
        at = data.index(box) - 4
        (size,) = struct.unpack_from(">I", data, at)
        data = data[:at] + struct.pack(">I", size + len(other) - len(own)) + data[at + 4 :]
    start = data.index(b"mdat") + 4
    size = struct.unpack_from(">I", data, start - 8)[0] - 8
    data = data[:start] + bytes(size) + data[start + size :]  # without pixels of its own
    with pytest.raises(MediaError):
        read_clips(data, ClipSampling(), name="a", settings=SETTINGS)


@pytest.mark.parametrize("case", ["H.264 in MP4", "MPEG-4 in AVI", "VP9", "MPEG-1"])
def test_damaged_bytes_end_in_frames_or_a_media_error(case, frames):
    container, codec, options = CODECS[case]
    sound = video(frames[:30], container, codec, options=options)
    random = np.random.default_rng(0)
    outcomes = set()
    for _ in range(40):
        data = bytearray(sound[: random.integers(12, len(sound))] if random.random() < 0.3 else sound)
        for _ in range(random.integers(1, 60)):
            data[random.integers(len(data))] = random.integers(256)
        try:
            clips = read_clips(bytes(data), ClipSampling(2, 3, 3), name="a", settings=limits(max_pixels=10**6))
            assert clips.shape[:2] == (3, 2)
            outcomes.add("read")
        except MediaError as error:
            assert "\n" not in str(error)
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_pyav_is_imported_when_a_video_is_read_only():
    code = "import sys, labelrank.data.video; print('av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data, the real videos")


def entries(name):
    if not (SHARED / name).is_file():
        return []
    with zipfile.ZipFile(SHARED / name) as archive:
        return sorted(i.filename for i in archive.infolist() if Path(i.filename).suffix in EXTENSIONS)


@needs_shared
@pytest.mark.parametrize("entry", entries("video-samples.zip"))
def test_real_videos_equal_their_full_decode(entry):
    with zipfile.ZipFile(SHARED / "video-samples.zip") as archive:
        data = archive.read(entry)
    if "corrupted" in entry:
        with pytest.raises(MediaError, match=r"is damaged: frame 28 cannot be decoded"):
            read_clips(data, ClipSampling(), name=entry, settings=SETTINGS)
        assert read_first_frame(data, name=entry, settings=SETTINGS).shape == (720, 1280, 3)
    else:
        assert_equals_full_decode(data, entry)


@needs_shared
def test_the_actions_of_jhmdb_equal_their_full_decode():
    with zipfile.ZipFile(SHARED / "jhmdb12-mini.zip") as archive:
        names = entries("jhmdb12-mini.zip")
        assert len(names) == 216
        for name in names[::9]:
            assert_equals_full_decode(archive.read(name), name, [ClipSampling(), ClipSampling(8, 2, 3)])


def read_with_notices(data, sampling=SAMPLINGS[0]):
    with one_sample() as notices:
        clips = read_clips(data, sampling, name="a", settings=SETTINGS)
    assert {notice.kind for notice in notices} <= {"cut_short"}
    return clips, [notice.text for notice in notices]


def with_directory_first(data):
    """Return an MP4 with its directory before its frames, as it is sent over a network."""
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        with av.open(io.BytesIO(data)) as source, av.open(file.name, "w", options={"movflags": "faststart"}) as output:
            stream = source.streams.video[0]
            copy = output.add_stream_from_template(stream)
            for packet in source.demux(stream):
                if packet.size:
                    packet.stream = copy
                    output.mux(packet)
        return Path(file.name).read_bytes()


@pytest.fixture(scope="module")
def cuttable():
    """Videos of 60 frames of about equal size, in containers that can be read without their end."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 64, 96, 3), dtype=np.uint8)
    every = {"g": "1", "bf": "0", "x264-params": "scenecut=0"}
    made = {
        "AVI": video(noise, "avi", "mpeg4", options={"g": "1"}),
        "Matroska": video(noise, "matroska", options=every),
        "WebM": video(noise, "webm", "libvpx", options={"g": "1"}),
        "FLV": video(noise, "flv", "flv", options={"g": "1"}),
        "Windows Media": video(noise, "asf", "wmv2", options={"g": "1"}),
        "MPEG-TS": video(noise, "mpegts", "mpeg2video", options={"g": "1"}),
        "MPEG-PS": video(noise, "mpeg", "mpeg1video", options={"g": "1"}),
        "MPEG-2": video(noise, "mpeg2video", "mpeg2video", options={"g": "1"}),
    }
    return {**made, "MP4": with_directory_first(video(noise, options=every))}


def cut(data, share):
    """Return the first bytes of a video, and the number of whole frames in them."""
    size = int(len(data) * share)
    with av.open(io.BytesIO(data)) as container:
        ends = [p.pos and p.pos + p.size for p in container.demux(video=0) if p.size]
    # Several frames may share a position.
    return data[:size], max(number for number, end in enumerate(ends, start=1) if end and end <= size)


@pytest.mark.parametrize("container", ["AVI", "Matroska", "WebM", "FLV", "Windows Media", "MP4"])
def test_a_video_cut_short_says_how_much_is_there_and_is_left_out_below_half(container, cuttable):
    data = cuttable[container]
    assert read_with_notices(data)[1] == []
    for share in (0.9, 0.75, 0.3):
        part, whole = cut(data, share)
        if share == 0.3:
            message = r"'a' is cut short or damaged: (\d+) of about (\d+) frames found; at least 50\s% are needed"
            with pytest.raises(MediaError, match=message) as error:
                read_with_notices(part)
            text = str(error.value)
        else:
            clips, (text,) = read_with_notices(part)
            assert clips.shape == (1, 16, 64, 96, 3)
        found, promised = map(int, re.search(r"(\d+) of about (\d+) frames found", text).groups())
        assert abs(promised - 60) <= 4
        assert whole - 3 <= found <= whole


def test_a_video_cut_within_its_directory_is_no_file_without_video():
    data = video(np.zeros((30, 64, 96, 3), np.uint8), "mov", "mpeg4")
    for last in (b"stbl", b"trak"):
        with pytest.raises(MediaError, match="'a' is cut short, before it says what it holds"):
            read_with_notices(data[: data.index(last) + 4])


@pytest.mark.parametrize("container", ["MPEG-TS", "MPEG-PS", "MPEG-2"])
@pytest.mark.parametrize("share", [0.9, 0.62, 0.3])
def test_a_cut_container_that_promises_nothing_says_that_its_end_is_missing(container, share, cuttable):
    data = cuttable[container]
    assert read_with_notices(data)[1] == []
    part, whole = cut(data, share)
    if container == "MPEG-TS":  # whole packets: nothing in their number shows that some are missing
        part = part[: len(part) // 188 * 188]
    clips, (text,) = read_with_notices(part)
    found = int(re.fullmatch(r"(\d+) frames found; the file ends too early, and does not say how many .*", text)[1])
    assert abs(found - whole) <= 3
    assert clips.shape == (1, 16, 64, 96, 3)


def test_a_frame_that_is_missing_before_the_last_shows_that_a_stream_was_cut(frames):
    def without_the_last_frames(packets):
        later = [i for i, p in enumerate(packets) if packets[i - 1].pts > p.pts]
        return packets[: later[-3]]

    data = remuxed(video(frames[:40], "mpegts", options={"g": "40", "bf": "2", "b_strategy": "0"}), "mpegts", list)
    assert read_with_notices(data)[1] == []
    cut = remuxed(data, "mpegts", without_the_last_frames)
    assert read_with_notices(cut)[1][0].endswith("the file ends too early, and does not say how many it had")


@pytest.mark.parametrize("case", CODECS)
def test_sound_videos_give_no_notice(case, frames):
    container, codec, options = CODECS[case]
    uneven = np.cumsum(np.random.default_rng(0).integers(1, 4, 30)).tolist()
    with_clock = container not in ("mpeg2video",)
    for times in (None, uneven) if with_clock else (None,):
        data = video(frames[:30], container, codec, options=options, times=times)
        for sampling in (ClipSampling(), ClipSampling(frames=4, stride=2, clips=3)):
            assert read_with_notices(data, sampling)[1] == []


def test_a_header_that_promises_too_much_is_not_believed_alone(frames):
    data = bytearray(video(frames[:30], "avi", "mpeg4"))
    length = data.index(b"strh") + 8 + 32
    assert struct.unpack_from("<L", data, length) == (30,)
    for promised in (31, 38, 60):  # as the clips of HMDB and JHMDB do
        struct.pack_into("<L", data, length, promised)
        assert read_with_notices(bytes(data))[1] == []
    data += bytes(-len(data) % 2)
    struct.pack_into("<L", data, 4, len(data))  # 8 bytes too many, as some programs write
    assert read_with_notices(bytes(data))[1] == []
    assert read_with_notices(video(frames[:30], "mp4", sound=True) + bytes(100))[1] == []


def test_the_packets_of_blu_ray_discs_are_4_bytes_longer(frames):
    data = video(frames[:30], "mpegts", "mpeg2video")
    disc = b"".join(b"\x47\0\0\0" + data[at : at + 188] for at in range(0, len(data), 188))
    assert len(disc) % 188
    assert not is_cut(io.BytesIO(disc), "mpegts")
    assert is_cut(io.BytesIO(disc[:-4]), "mpegts")


def test_damaged_frames_count_as_missing(frames):
    noise = np.random.default_rng(0).integers(0, 256, (16, 64, 96, 3), dtype=np.uint8)
    data = video(noise, "avi", options={"g": "1", "bf": "0"})
    with av.open(io.BytesIO(data)) as container:
        packets = [(p.pos + 8, p.size) for p in container.demux(video=0) if p.size]

    def damaged(count):
        changed = bytearray(data)
        for position, size in packets[3 : 3 + count]:
            changed[position + size // 2 : position + size // 2 + 40] = b"\x55" * 40
        return bytes(changed)

    sampling = ClipSampling(frames=16, stride=1)
    assert read_with_notices(damaged(1), sampling)[1] == ["1 of the 16 frames taken is damaged"]
    assert read_with_notices(damaged(8), sampling)[1] == ["8 of the 16 frames taken are damaged"]
    with pytest.raises(MediaError, match=r"9 of the 16 frames taken are damaged; at least 50\s% are needed"):
        read_clips(damaged(9), sampling, name="a", settings=SETTINGS)


@needs_shared
def test_real_sound_videos_give_no_notice():
    for name, step in (("video-samples.zip", 1), ("jhmdb12-mini.zip", 4)):
        with zipfile.ZipFile(SHARED / name) as archive:
            for entry in entries(name)[::step]:
                if "corrupted" not in entry:
                    assert read_with_notices(archive.read(entry))[1] == [], entry
