"""Video files to RGB clips: reads the sampled frames and decodes little else."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, NoReturn

import numpy as np

from labelrank.data.dataset import ClipSampling
from labelrank.data.image import HEAD_BYTES, describe_head, refuse_pointer
from labelrank.data.reading import note, one_sample, take_memory
from labelrank.data.video_end import asf_duration_s, is_cut
from labelrank.errors import LabelRankError, MediaError
from labelrank.settings import Settings
from labelrank.words import percent, plural

if TYPE_CHECKING:
    # PyAV is imported in the functions that use it: the import takes 0.2 s, and a page of images does not need it.
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

EXTENSIONS = frozenset(
    {
        *(".3g2", ".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg"),
        *(".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
    }
)
"""File name endings, in lower case, that are read as videos."""

READABLE = "AVI, MP4, MOV, Matroska, WebM, MPEG, FLV, WMV or Ogg"


_WITHOUT_LENGTH = {"mpegts", "mpeg", "mpegvideo"}
"""Containers that do not say how long a video is."""
_WITHOUT_MARK = {*_WITHOUT_LENGTH, "asf"}
"""Containers in which FFmpeg does not mark that the last frame is cut."""
_WITH_DURATION = {"matroska", "flv", "asf"}
"""Containers that say in their header how long a video plays, and not how many frames it has."""
_MAX_TAIL = 300
"""Frames that may be decoded only to see whether the last one is whole."""
_MAX_REORDERED, _LEAST_STEPS = 16, 3
"""Frames that may be shown before one that lies before them; steps between frames that show how regular these are."""


class _Kind(NamedTuple):
    format: str
    """The only demuxer that may read the file: this excludes playlists, image sequences and devices."""
    offset: int
    magic: bytes
    has_times: bool = False
    """Whether the container stores the time of every frame. If not, PyAV guesses the missing times."""


_KINDS = (
    _Kind("avi", 8, b"AVI "),
    *(_Kind("mov", 4, box, True) for box in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")),
    _Kind("matroska", 0, b"\x1a\x45\xdf\xa3", True),
    _Kind("flv", 0, b"FLV\x01", True),
    _Kind("asf", 0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
    _Kind("ogg", 0, b"OggS"),
    _Kind("mpeg", 0, b"\0\0\x01\xba"),
    _Kind("mpegvideo", 0, b"\0\0\x01\xb3"),
    _Kind("mpegts", 188, b"\x47"),
    _Kind("mpegts", 196, b"\x47"),
)

# Codecs with exactly one frame per packet: frames can be numbered without decoding. VP8 has packets of hidden frames,
# Windows Media and H.263 skip frames.
_ONE_FRAME_PER_PACKET = {"h264", "hevc", "av1", "vp9", "mpeg1video", "mpeg2video", "mpeg4", "mjpeg", "png", "prores"}
_LEAST_CODED_BYTES = 16
"""A smaller packet of MPEG-4 part 2 may hold no new frame, or only release an earlier one."""
_HELD_BYTES = 64 * 2**20
"""Packets are kept in memory up to this total; those of larger videos are read again for decoding."""
_REORDERING = 64
"""More than the packets that may follow a frame's packet while their frames are shown before it; codecs allow 16."""
MIN_SHARE = 0.5
"""A video with fewer of its frames is left out: most frames of a clip would be copies of the last one."""
CUT_SHORT = "cut_short"
"""The kind of notice about a video of which frames are missing or damaged."""
_ADVICE = "Save or fetch it again, or leave it out."


def read_first_frame(source: Path | bytes | BinaryIO, *, name: str, settings: Settings) -> np.ndarray:
    """Return the first frame of a video, upright, RGB uint8 (H, W, 3).

    Raises:
        MediaError: As for `read_clips`.
    """
    result: np.ndarray = read_clips(source, ClipSampling(frames=1, stride=1), name=name, settings=settings)[0, 0]
    return result


def read_clips(source: Path | bytes | BinaryIO, sampling: ClipSampling, *, name: str, settings: Settings) -> np.ndarray:
    """Return the sampled frames of a video, upright, RGB uint8 (clips, frames, H, W, 3).

    Frames are numbered in the order in which they are shown: by their times, or in decoder order where the container
    does not store the time of every frame (AVI, MPEG). Frames that an edit list removes do not count. Pixels equal
    PyAV's `to_ndarray(format="rgb24")`; rotation by quarter turns is applied, the aspect ratio of pixels is not.
    Sound is ignored.

    Decoding starts at the last key frame before a sampled frame and skips frames that no sampled frame needs. If the
    packets do not give reliable frame numbers, all frames are decoded from the first.

    Args:
        source: A path, the content of the file, or an open seekable file. Other files that it refers to are never read.
        sampling: The frames of a clip; frame numbers past the end repeat the last frame.
        name: The video's key, for messages.
        settings: Gives `max_video_bytes`, `max_video_frames`, `max_clip_bytes` and, for one frame, `max_pixels`.

    If the end of a file is missing, or sampled frames are damaged, this is noted (`reading.note`).

    Raises:
        MediaError: The file is not a video in a supported format, a sampled frame cannot be decoded, less than
            `MIN_SHARE` of its frames is there, or a limit is exceeded.
    """
    with one_sample(), _open(source, name, settings) as video:
        video.check_end()
        frames = video.read_indexed(sampling) or video.read_in_order(sampling)
        frames.check_damage()
        return frames.take()


def too_large(name: str, size_bytes: int, settings: Settings) -> MediaError:
    """Return the error for a video file above `max_video_bytes`."""
    return MediaError(
        f"{name!r} has {size_bytes:,} bytes; at most {settings.max_video_bytes:,} are accepted for one video "
        "(LABELRANK_MAX_VIDEO_BYTES). Cut it or raise the limit."
    )


class _Packet(NamedTuple):
    """The index entry of a packet."""

    pts: int | None
    is_key: bool
    is_discard: bool
    """Whether the packet's frame is decoded only because others need it, and never shown."""
    size: int
    dts: int | None
    is_corrupt: bool


class _Frames:
    """Upright RGB pixels of the sampled frames, by frame number."""

    def __init__(self, wanted: np.ndarray, name: str, settings: Settings) -> None:
        from av.video.reformatter import VideoReformatter

        self.place_of = {int(number): place for place, number in enumerate(np.unique(wanted))}
        self._num_wanted = wanted.size
        self.wanted = wanted
        self.missing = set(self.place_of)
        self._damaged: set[int] = set()
        self._pixels: np.ndarray | None = None
        self._reformatter = VideoReformatter()  # shared by all frames: setting one up takes time
        self._name = name
        self._settings = settings

    def add(self, number: int, frame: VideoFrame) -> None:
        if number not in self.missing:
            return
        _check_size(frame.width, frame.height, self._name, self._settings)
        rgb = self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        upright = np.rot90(rgb, _quarter_turns(frame))
        if self._pixels is None:
            # A frame that is sampled twice counts twice: `take` copies it.
            if (size_bytes := self._num_wanted * upright.size) > self._settings.max_clip_bytes:
                raise MediaError(
                    f"{self._name!r} is {upright.shape[1]:,} x {upright.shape[0]:,} pixels: its {self._num_wanted:,} "
                    f"frames would take {size_bytes:,} bytes, more than the {self._settings.max_clip_bytes:,} that are "
                    "accepted (LABELRANK_MAX_CLIP_BYTES). Scale it down, take fewer clips, or raise the limit."
                )
            take_memory(len(self.place_of) * upright.nbytes)
            self._pixels = np.empty((len(self.place_of), *upright.shape), dtype=np.uint8)
        elif self._pixels.shape[1:] != upright.shape:
            before, now = (f"{shape[1]} x {shape[0]}" for shape in (self._pixels.shape[1:], upright.shape))
            raise MediaError(
                f"{self._name!r} changes from {before} to {now} pixels at frame {number:,}; expected frames of one "
                "size. Save it with one, or leave it out."
            )
        self._pixels[self.place_of[number]] = upright
        self.missing.discard(number)
        if frame.is_corrupt:
            self._damaged.add(number)

    def check_damage(self) -> None:
        """Note how many frames are damaged; raise MediaError if too few are sound."""
        used = set(self.wanted.ravel().tolist())
        if damaged := len(used & self._damaged):
            text = f"{damaged:,} of the {plural(len(used), 'frame')} taken {'is' if damaged == 1 else 'are'} damaged"
            _note_or_refuse(self._name, 1 - damaged / len(used), text)

    def take(self) -> np.ndarray:
        """Return the pixels of the wanted frames, uint8 (clips, frames, H, W, 3)."""
        assert self._pixels is not None
        numbers = self.wanted
        places = np.array([self.place_of[n] for n in numbers.ravel().tolist()])
        if np.array_equal(places, np.arange(len(self._pixels))):  # no frame twice: nothing to copy
            return self._pixels.reshape(*numbers.shape, *self._pixels.shape[1:])
        result: np.ndarray = self._pixels[places.reshape(numbers.shape)]
        return result


class _Video:
    """A video file. Demuxers are opened one after another, because they share the position in the file."""

    def __init__(self, file: BinaryIO, kind: _Kind, name: str, settings: Settings) -> None:
        self._is_cut = is_cut(file, kind.format)  # then the last packet is passed over where it is not whole
        self._size_bytes = file.seek(0, io.SEEK_END)
        self._file = file
        self._kind = kind
        self._name = name
        self._settings = settings
        self._container: InputContainer | None = None
        self._is_fresh = False
        self._held: list[Packet[Any]] | None = []
        self._restart()

    def close(self) -> None:
        if self._container is not None:
            self._container.close()

    def without_frames(self) -> MediaError:
        return MediaError(f"{self._name!r} holds no frame that can be shown; expected at least one. {_ADVICE}")

    def index(self, num_shown: int | None = None) -> list[_Packet]:
        """Return the packets from the first on, up to the one with shown frame number `num_shown`; None: all."""
        packets = self._demux()
        index: list[_Packet] = []
        self._held = []
        held_bytes = shown = 0
        for packet in packets:
            index.append(_entry(packet))
            held_bytes += packet.size
            if self._held is not None:
                self._held.append(packet)
                if held_bytes > _HELD_BYTES:
                    self._held = None
            shown += not packet.is_discard
            if shown == num_shown:
                break
            self._check_count(len(index))
        return index

    def frames_in_order(self) -> Iterator[VideoFrame]:
        """Yield the frames in decoder order.

        Raises:
            MediaError: A frame cannot be decoded; the message names its number.
        """
        import av

        count = 0
        try:
            packets = self._demux()
            for packet in itertools.chain(packets, [None]):
                for frame in self._decoder.decode(packet):
                    self._check_count(count + 1)
                    yield frame
                    count += 1
        except av.FFmpegError as error:
            raise MediaError(
                f"{self._name!r} is damaged: frame {count:,} cannot be decoded ({_reason(error)}), and it or a later "
                f"one is needed. {_ADVICE}"
            ) from error

    def check_end(self) -> None:
        """Note how many frames are missing at the end of the file; raise MediaError if too few are there.

        Only the containers of `video_end` say it. In a short file of the others the end itself is looked at.
        """
        if not self._is_cut and (self._kind.format not in _WITHOUT_LENGTH or not self._is_short):
            return
        index = self.index()
        if not self._is_cut and not _has_hole_at_end(index):
            if not self._ends_damaged(index):
                return
            self._is_cut = True
            index = self.index()
        if not index:
            raise self.without_frames()
        found, share = len(index), self._share(index)
        if share is None:
            note(
                CUT_SHORT, f"{plural(found, 'frame')} found; the file ends too early, and does not say how many it had"
            )
        elif (promised := round(found / share)) > found:
            _note_or_refuse(self._name, share, f"{found:,} of about {plural(promised, 'frame')} found")

    def _share(self, index: list[_Packet]) -> float | None:
        """Return how much of its length a video has by its packets, above 0 and up to 1; None if unknown.

        Times are compared, not counts, where frames may last for different times.
        """
        assert self._container is not None
        stream, start = self.stream, self.stream.start_time or 0
        if self._kind.format == "mov":
            # The number in a file of fragments is that of the first.
            return len(index) / stream.frames if stream.frames >= len(index) else None
        if self._kind.format == "avi":
            # Some positions may be empty: the frame before is shown again.
            last = index[-1].dts
            return min(1.0, (last + 1) / stream.frames) if last is not None and stream.frames else None
        times = [p.pts for p in index if p.pts is not None]
        if self._kind.format == "asf":
            duration_s = asf_duration_s(self._file)
        else:
            duration_s = self._container.duration and self._container.duration / 1e6
        rate = stream.average_rate or stream.guessed_rate
        if self._kind.format not in _WITH_DURATION or not (times and duration_s and rate and stream.time_base):
            return None
        covered_s = float((max(times) - min(times)) * stream.time_base + 1 / rate)
        # A stream that begins late ends no later for that.
        return min(1.0, covered_s / max(covered_s, duration_s - float(start * stream.time_base)))

    def _ends_damaged(self, index: list[_Packet]) -> bool:
        """Return whether the last frame of a held video is damaged: all from the key frame before is decoded."""
        import av

        if not index or self._held is None:
            return False
        if any(p.is_corrupt for p in index[-_MAX_REORDERED:]):
            return True
        start = max((place for place, p in enumerate(index[:-1]) if p.is_key), default=0)
        if len(index) - start > _MAX_TAIL:
            return False
        is_after_key = False
        self._decoder.flush_buffers()
        try:
            for packet in itertools.chain(self._held[start:], [None]):
                for frame in self._decoder.decode(packet):
                    # Frames that are shown before the key frame may need others.
                    if frame.is_corrupt and is_after_key:
                        return True
                    is_after_key = is_after_key or frame.key_frame
        except av.FFmpegError:
            return True
        return False

    def read_indexed(self, sampling: ClipSampling) -> _Frames | None:
        """Return the sampled frames, decoding as little as the index allows; None if the index is not reliable."""
        import av

        if not self._may_be_indexed():
            return None
        # A single clip starts at the first frame, so the end of the video is not needed.
        index = self.index(None if sampling.stop is None else sampling.stop + _REORDERING)
        shown = self._presentation_order(index)
        if not shown:
            return None
        numbers = sampling.indices(len(shown))
        frames = _Frames(numbers, self._name, self._settings)
        number_of = {index[shown[n]].pts: n for n in frames.place_of}
        try:
            for start, stop in _stretches(index, [shown[n] for n in frames.place_of]):
                if not self._decode_stretch(index, start, stop, number_of, frames):
                    return None
        except av.FFmpegError:
            return None  # a full decode may still succeed, or it reports the frame that fails
        return None if frames.missing else frames

    def read_in_order(self, sampling: ClipSampling) -> _Frames:
        """Return the sampled frames, decoding from the first frame to the last sampled one, or to the end if needed."""
        stop = sampling.stop
        # A guess of the number of frames lets one pass do. If it was wrong, a second pass follows.
        guess = stop or sum(p.size > 1 and not p.is_discard for p in self.index())
        frames = _Frames(sampling.indices(max(1, guess)), self._name, self._settings)
        times = self._decode_in_order(frames, stop)
        order: np.ndarray | None = None
        if self._kind.has_times and not _is_rising(times):
            times = self._decode_in_order(None, None)
            if None not in times and len(set(times)) == len(times):
                order = np.argsort(np.array(times), kind="stable")
        if not times:
            raise self.without_frames()
        wanted = sampling.indices(len(times))
        if order is not None:
            wanted = order[wanted]
        if frames.place_of.keys() - frames.missing >= set(wanted.ravel().tolist()):
            frames.wanted = wanted
        else:
            frames = _Frames(wanted, self._name, self._settings)
            self._decode_in_order(frames, int(wanted.max()) + 1)
        return frames

    @property
    def _is_short(self) -> bool:
        """Whether the whole file may be read to look at its end."""
        return self._size_bytes <= _HELD_BYTES

    @property
    def _decoder(self) -> VideoCodecContext:
        return self.stream.codec_context

    def _restart(self) -> None:
        """Open the file again at its start, unless nothing was read since the last time."""
        import av
        from av.codec.context import ThreadType
        from av.stream import Discard, Disposition

        if self._is_fresh:
            return
        self.close()
        self._file.seek(0)
        # A decoder's limit counts what it allocates, a little more than the visible frame; ours is checked later.
        limit = {"max_pixels": str(2 * self._settings.max_pixels + 2**20)}
        refuse = functools.partial(_refuse, self._name)  # not a method: a reference cycle would delay freeing memory
        container = av.open(
            self._file, "r", format=self._kind.format, options=limit, metadata_errors="replace", io_open=refuse
        )
        self._container = container
        videos = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if self._is_cut and (not videos or videos[0].codec_context is None):
            raise MediaError(f"{self._name!r} is cut short, before it says what it holds. {_ADVICE}")
        if not videos:
            raise MediaError(f"{self._name!r} holds no video stream; expected one. Leave it out.")
        self.stream: VideoStream = videos[0]
        if self.stream.codec_context is None:
            raise MediaError(
                f"{self._name!r} is coded in a way that cannot be decoded here; expected a common codec. "
                "Save it as H.264 in an MP4 file, or leave it out."
            )
        _check_size(self._decoder.width, self._decoder.height, self._name, self._settings)
        for other in container.streams:
            if other.index != self.stream.index:
                other.discard = Discard.all
        # For small frames one thread is as fast as several, and several videos are read at once.
        self.stream.thread_type = ThreadType.NONE
        self.stream.thread_count = 1
        self._decoder.options = limit
        self._is_fresh = True

    def _demux(self) -> Iterator[Packet[Any]]:
        """Return the packets from the first on, with a fresh decoder."""
        self._restart()
        self._is_fresh = False
        assert self._container is not None
        packets = _packets(self._container, self.stream)
        return _without_last(packets, self._kind.format in _WITHOUT_MARK) if self._is_cut else packets

    def _check_count(self, count: int) -> None:
        if count > self._settings.max_video_frames:
            raise MediaError(
                f"{self._name!r} has more than {self._settings.max_video_frames:,} frames, the most that are accepted "
                "(LABELRANK_MAX_VIDEO_FRAMES). Cut it or raise the limit."
            )

    def _may_be_indexed(self) -> bool:
        is_known = self._decoder.codec.canonical_name in _ONE_FRAME_PER_PACKET
        return is_known and (self._kind.has_times or not self._decoder.has_b_frames)

    def _presentation_order(self, index: list[_Packet]) -> list[int] | None:
        """Return the index places of the frames in the order shown; None if the packets do not give that order."""
        if not index or any(p.pts is None for p in index):
            return None
        times = [_time(p) for p in index]
        # The decoder may drop frames that are shown before the first key frame.
        if not index[0].is_key or times[0] != min(times) or not (self._kind.has_times or _is_rising(times)):
            return None
        if self._decoder.codec.canonical_name == "mpeg4" and min(p.size for p in index) < _LEAST_CODED_BYTES:
            return None
        shown = [place for place, p in enumerate(index) if not p.is_discard]
        if len({times[place] for place in shown}) < len(shown):
            return None
        return sorted(shown, key=lambda place: times[place])

    def _decode_stretch(
        self, index: list[_Packet], start: int, stop: int, number_of: dict[int | None, int], frames: _Frames
    ) -> bool:
        """Decode some packets and keep the sampled frames; return whether the frames matched the index."""
        from av.video.frame import PictureType

        if self._held is not None:
            packets = iter(self._held[start:stop])
        else:
            packets = itertools.islice(self._demux(), start, stop)
        self._decoder.flush_buffers()
        expected = iter(p.pts for p in index[start:stop])
        found_key = start == 0
        for packet in itertools.chain(packets, [None]):
            # A frame that no other refers to is decoded only if it is sampled. Without stored times every frame is
            # decoded, to check that each comes in its place.
            may_skip = packet is not None and packet.pts not in number_of and self._kind.has_times
            self._decoder.skip_frame = "NONREF" if may_skip else "DEFAULT"
            for frame in self._decoder.decode(packet):
                if not self._kind.has_times and frame.pts != next(expected, None):
                    return False
                if frame.pts == index[start].pts:
                    found_key = found_key or (frame.key_frame and frame.pict_type == PictureType.I)
                if frame.pts in number_of:
                    if not found_key or (frame.is_corrupt and start > 0):
                        return False
                    frames.add(number_of[frame.pts], frame)
        return True

    def _decode_in_order(self, frames: _Frames | None, stop: int | None) -> list[int | None]:
        """Decode from the first frame on, keep the sampled frames, and return the times of all decoded frames."""
        times: list[int | None] = []
        for frame in itertools.islice(self.frames_in_order(), stop):
            if frames is not None:
                frames.add(len(times), frame)
            times.append(frame.pts)
        return times


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet[Any]]:
    # At the end of a file in which another stream begins late, PyAV fails: it looks for that stream among those that it
    # found when it opened the file (av/container/input.py, "Flush!").
    with contextlib.suppress(IndexError):
        yield from (packet for packet in container.demux(stream) if packet.size)


def _entry(packet: Packet[Any]) -> _Packet:
    return _Packet(packet.pts, packet.is_keyframe, packet.is_discard, packet.size, packet.dts, packet.is_corrupt)


def _without_last(packets: Iterator[Packet[Any]], always: bool) -> Iterator[Packet[Any]]:
    """Yield packets but for the last one where that is cut; FFmpeg marks it, but not in every container."""
    for packet, after in itertools.pairwise(itertools.chain(packets, [None])):
        assert packet is not None
        if after is not None or not (always or packet.is_corrupt):
            yield packet


def _has_hole_at_end(index: list[_Packet]) -> bool:
    """Return whether frames that were to be shown among the last ones are missing, and none before.

    A file that ends with a frame that is shown after others that come behind it has such a hole.
    """
    times = sorted(p.pts for p in index if p.pts is not None)
    steps = [after - before for before, after in itertools.pairwise(times)]
    num_end = min(_MAX_REORDERED, len(steps) // 2)
    if num_end < _LEAST_STEPS or len(times) < len(index) or times == [p.pts for p in index]:
        return False
    regular, end = steps[:-num_end], steps[-num_end:]
    return max(regular) < 1.5 * min(regular) and max(end) > 1.5 * min(regular)


def _note_or_refuse(name: str, share: float, text: str) -> None:
    """Note how many frames of a video are there; raise MediaError if these are too few."""
    if share >= MIN_SHARE:
        note(CUT_SHORT, text)
        return
    raise MediaError(
        f"{name!r} is cut short or damaged: {text}; at least {percent(MIN_SHARE, 0)} are needed. {_ADVICE}"
    )


@contextlib.contextmanager
def _open(source: Path | bytes | BinaryIO, name: str, settings: Settings) -> Iterator[_Video]:
    import av

    with contextlib.ExitStack() as stack:
        try:
            if isinstance(source, Path):
                file: BinaryIO = stack.enter_context(source.open("rb"))
            else:
                file = io.BytesIO(source) if isinstance(source, bytes) else source
            size_bytes = file.seek(0, io.SEEK_END)
            if size_bytes > settings.max_video_bytes:
                raise too_large(name, size_bytes, settings)
            file.seek(0)
            head = file.read(HEAD_BYTES)
            kind = next((k for k in _KINDS if head[k.offset : k.offset + len(k.magic)] == k.magic), None)
            refuse_pointer(head, name)
            if kind is None:
                raise MediaError(
                    f"{name!r} {describe_head(head)}; expected a video in {READABLE}. "
                    "Save it in one of these or leave it out."
                )
            video = _Video(file, kind, name, settings)
            stack.callback(video.close)
            yield video
        except LabelRankError:
            raise
        except (av.FFmpegError, MemoryError) as error:
            raise MediaError(
                f"{name!r} looks like a video but is damaged or cut short ({_reason(error)}). {_ADVICE}"
            ) from error
        except OSError as error:
            raise MediaError(
                f"{name!r} cannot be read ({error.strerror or error}). Check that it exists and its rights."
            ) from error


def _refuse(name: str, url: str, flags: int, options: dict[str, str]) -> NoReturn:
    raise MediaError(f"{name!r} refers to another file, {url!r}; expected all in one file. Leave it out.")


def _stretches(index: list[_Packet], places: list[int]) -> list[tuple[int, int]]:
    """Return the index ranges to decode for these frames; each range starts at a key frame."""
    stretches: list[tuple[int, int]] = []
    for place in sorted(places):
        start = place
        while not (index[start].is_key and _time(index[start]) <= _time(index[place])):
            start -= 1
        if stretches and start < stretches[-1][1]:
            start = stretches.pop()[0]
        stretches.append((start, place + 1))
    return stretches


def _time(packet: _Packet) -> int:
    assert packet.pts is not None
    return packet.pts


def _is_rising(times: Sequence[int | None]) -> bool:
    return all(a is not None and b is not None and a < b for a, b in itertools.pairwise(times))


def _quarter_turns(frame: VideoFrame) -> int:
    """Return how many quarter turns counter-clockwise make the frame upright."""
    return round(frame.rotation / 90) % 4


def _check_size(width: int, height: int, name: str, settings: Settings) -> None:
    if width * height > settings.max_pixels:
        raise MediaError(
            f"{name!r} is {width:,} x {height:,} pixels; at most {settings.max_pixels:,} pixels are accepted for one "
            "frame (LABELRANK_MAX_PIXELS). Make it smaller or raise the limit."
        )


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
