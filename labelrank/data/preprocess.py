"""Images and frames to encoder input, as a checkpoint's `preprocessor_config.json` says."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from labelrank.errors import CheckpointError, MediaError

# The values of absent keys, by family. Source: transformers 5.23,
# ViTImageProcessorPil and VideoMAEImageProcessorPil. "square" says how to read a size that is one number.
_COMMON = {
    "do_resize": True,
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": 0.5,
    "image_std": 0.5,
}
_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_NO_CROP = {"do_center_crop": False, "crop_size": 224}
_BICUBIC = {**_COMMON, "square": True, "size": 224, "resample": 3, **_NO_CROP}
_CLIP = {
    **_BICUBIC,
    "square": False,
    "do_center_crop": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
_FAMILIES: dict[str, dict[str, Any]] = {
    "ViTImageProcessor": {**_COMMON, "square": True, "size": 224, "do_center_crop": False, "crop_size": None},
    "VideoMAEImageProcessor": {**_COMMON, "square": False, "size": 224, "do_center_crop": True, "crop_size": 224},
    "BitImageProcessor": _CLIP,
    "CLIPImageProcessor": _CLIP,
    "DeiTImageProcessor": {**_BICUBIC, "size": 256, "do_center_crop": True},
    "SiglipImageProcessor": {**_BICUBIC, "square": False, "size": {"height": 224, "width": 224}},
    "BeitImageProcessor": _BICUBIC,
    # These two resize with PyTorch there, which rounds later than Pillow does.
    "DINOv3ViTImageProcessor": {**_COMMON, **_IMAGENET, "square": True, "size": 224, **_NO_CROP},
    "VJEPA2ImageProcessor": {
        **_COMMON,
        **_IMAGENET,
        "square": False,
        "size": 292,
        "do_center_crop": True,
        "crop_size": 256,
    },
}
_DEFAULT_FAMILY = "ViTImageProcessor"
# Keys that name the processor, newest first; only the first that a file has is read.
_TYPE_KEYS = ("image_processor_type", "video_processor_type", "feature_extractor_type")
# `to_config` writes this key when the preprocessing is not that of a checkpoint.
_KIND = "labelrank_preprocessing"
# The same for `rounded_crop`.
_ROUNDED = "labelrank_rounded_crop"
# Not all of Image.Resampling: newer versions of Pillow have filters that no checkpoint was trained with.
_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
_MAX_EDGE = 8192
_MAX_RESIZED_PIXELS = 100_000_000


@dataclass(frozen=True)
class Preprocessing:
    """Resize, centre crop, rescale and normalise, in this order; a step that is None is left out.

    Create it with `from_config`, which checks the values, or with `reference`. Call it with RGB uint8 (..., H, W, 3),
    an image or frames of one size; the result is float32 (..., height, width, 3) of `output_size`.

    Source: the Pillow image processors of transformers. Values agree within float32 rounding; we fold rescaling
    and normalisation into one multiplication and one addition.
    """

    size: tuple[int, int] | None
    """Height and width after resizing, without keeping the aspect."""
    shortest_edge: int | None
    """Length of the shorter edge after resizing, keeping the aspect."""
    resample: int
    """Pillow's number of the filter: 0 nearest, 1 lanczos, 2 bilinear, 3 bicubic, 4 box, 5 hamming."""
    crop_size: tuple[int, int] | None
    """Height and width of the centre crop; a smaller image gets black borders."""
    rescale_factor: float | None
    image_mean: tuple[float, float, float] | None
    image_std: tuple[float, float, float] | None
    image_processor_type: str = _DEFAULT_FAMILY
    kind: str = "checkpoint"
    """Where the preprocessing comes from: checkpoint or reference."""
    required_size: tuple[int, int] | None = None
    """Height and width that an image must have after resizing, where no step gives it this shape; else None."""
    rounded_crop: bool = False
    """Whether a crop begins at the nearest whole pixel, at half of one the even, as torchvision does and so timm; else
    where the fraction is cut off, as transformers does."""

    @classmethod
    def reference(cls, image_size: tuple[int, int]) -> Preprocessing:
        """Return the preprocessing of the published notebook for this height and width, for every encoder.

        Source: Xiang, Wu, Bai 2025: resizing without keeping the aspect, ImageNet's means, one deviation for all
        channels.
        """
        mean, std = (0.485, 0.456, 0.406), (0.225, 0.225, 0.225)
        return cls(image_size, None, 2, None, 1 / 255, mean, std, kind="reference")

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        *,
        default_type: str | None = None,
        image_size: tuple[int, int] | None = None,
        where: str = "preprocessor_config.json",
    ) -> Preprocessing:
        """Return the preprocessing that a `preprocessor_config.json` describes.

        Keys that do not change pixels and `do_convert_rgb` (images are RGB already) are ignored. An old file without
        a type is read as that of its family, `default_type`, or as ViT's.

        Args:
            image_size: Height and width of the encoder's input, which images must have if the file neither resizes nor
                crops them. None: the size in the file.
            where: What to call the file in errors.

        Raises:
            CheckpointError: A key has an invalid value, or the type is not known.
        """
        try:
            return cls._read(config, default_type, image_size)
        except _WrongValue as error:
            raise CheckpointError(f"{where}: {error} Correct the file, or choose another checkpoint.") from None

    @classmethod
    def _read(
        cls, config: Mapping[str, Any], default_type: str | None, image_size: tuple[int, int] | None
    ) -> Preprocessing:
        if not isinstance(config, Mapping):
            raise _bad("the content", config, "a JSON object")
        family = _family_of(config, default_type)
        values = {key: config.get(key, default) for key, default in _FAMILIES[family].items()}
        if config.get("do_pad"):
            raise _bad("do_pad", config["do_pad"], "false (padding is not supported)")

        size = shortest_edge = crop_size = factor = mean = std = None
        if _flag(values, "do_resize"):
            size, shortest_edge = _read_size(values["size"], square=_FAMILIES[family]["square"])
        if _flag(values, "do_center_crop"):
            crop_size = _read_crop_size(values["crop_size"])
        if _flag(values, "do_rescale"):
            factor = values["rescale_factor"]
            if not _is_number(factor):
                raise _bad("rescale_factor", factor, "a finite number, such as 0.00392156862745098 (1/255)")
        if _flag(values, "do_normalize"):
            mean = _per_channel(values, "image_mean")
            std = _per_channel(values, "image_std")
            if min(std) <= 0:
                raise _bad("image_std", values["image_std"], "numbers above 0")
        required = None
        if size is None and crop_size is None:
            required = image_size if shortest_edge is None else (shortest_edge, shortest_edge)
            required = required or _read_size(values["size"], square=True)[0]
            if required is None:
                raise _bad("do_resize", False, "true, as neither a size nor a crop says how large images are")
        kind = "reference" if config.get(_KIND) == "reference" else "checkpoint"
        resample = _read_resample(values["resample"])
        rounded = config.get(_ROUNDED) is True
        return cls(size, shortest_edge, resample, crop_size, factor, mean, std, family, kind, required, rounded)

    def to_config(self) -> dict[str, Any]:
        """Return the content of a `preprocessor_config.json` that gives this preprocessing again."""
        config: dict[str, Any] = {
            "image_processor_type": self.image_processor_type,
            "do_resize": self.size is not None or self.shortest_edge is not None,
            "resample": self.resample,
            "do_center_crop": self.crop_size is not None,
            "do_rescale": self.rescale_factor is not None,
            "do_normalize": self.image_mean is not None,
        }
        if self.size:
            config["size"] = {"height": self.size[0], "width": self.size[1]}
        elif self.shortest_edge:
            config["size"] = {"shortest_edge": self.shortest_edge}
        elif self.required_size:
            config["size"] = {"height": self.required_size[0], "width": self.required_size[1]}
        if self.crop_size:
            config["crop_size"] = {"height": self.crop_size[0], "width": self.crop_size[1]}
        if self.rescale_factor is not None:
            config["rescale_factor"] = self.rescale_factor
        if self.image_mean is not None and self.image_std is not None:
            config |= {"image_mean": list(self.image_mean), "image_std": list(self.image_std)}
        if self.kind != "checkpoint":
            config[_KIND] = self.kind
        if self.rounded_crop:
            config[_ROUNDED] = True
        return config

    def resized(self, height: int, width: int) -> Preprocessing:
        """Return this preprocessing with another `output_size`; a resize before a crop is scaled as well.

        Without a crop, images are resized to that size, whatever their aspect.
        """
        if (height, width) == self.output_size:
            return self
        if self.crop_size is None:
            return replace(self, size=(height, width), shortest_edge=None, required_size=None)
        crop_height, crop_width = self.crop_size
        size, shortest_edge = self.size, self.shortest_edge
        if size is not None:
            size = round(size[0] * height / crop_height), round(size[1] * width / crop_width)
        if shortest_edge is not None:
            shortest_edge = round(shortest_edge * max(height / crop_height, width / crop_width))
        return replace(self, size=size, shortest_edge=shortest_edge, crop_size=(height, width))

    @property
    def output_size(self) -> tuple[int, int]:
        """Height and width of every result."""
        size = self.crop_size or self.size or self.required_size
        assert size is not None  # from_config sees to one of the three
        return size

    def __call__(self, image: np.ndarray, /, *, out: np.ndarray | None = None) -> np.ndarray:
        """Return encoder input, float32 (..., height, width, 3), for RGB uint8 (..., H, W, 3).

        Args:
            out: Contiguous array of the result's shape to write to; None allocates one.

        Raises:
            MediaError: The image is so long that keeping its aspect needs more than 100 million pixels; or nothing
                gives it the shape that the encoder takes.
        """
        if image.dtype != np.uint8 or image.ndim < 3 or image.shape[-1] != 3:
            raise MediaError(f"Image is {image.dtype} {image.shape}; expected RGB uint8 (height, width, 3).")
        height, width = self.output_size
        scale, offset = self._scale_and_offset
        shape = (*image.shape[:-3], height, width, 3)
        result = np.empty(shape, np.float32) if out is None else out
        if result.shape != shape or result.dtype != np.float32 or not result.flags.c_contiguous:
            raise ValueError(f"out is {result.dtype} {result.shape}; expected contiguous float32 {shape}.")
        frames = image.reshape(-1, *image.shape[-3:])
        # Rows of width * 3 are six times as fast as an inner loop over 3 channels. One frame at a time fits into the
        # processor's cache.
        for frame, values in zip(frames, result.reshape(-1, height, width * 3), strict=True):
            np.multiply(self._resize_and_crop(frame).reshape(height, width * 3), scale, out=values, dtype=np.float32)
            values += offset
        return result

    @functools.cached_property
    def _scale_and_offset(self) -> tuple[np.ndarray, np.ndarray]:
        """Return float32 (width * 3,) each, so that (pixel * factor - mean) / std is pixel * scale + offset."""
        width = self.output_size[1]
        factor = 1.0 if self.rescale_factor is None else self.rescale_factor
        mean = np.array(self.image_mean or (0.0, 0.0, 0.0))
        std = np.array(self.image_std or (1.0, 1.0, 1.0))
        return np.tile((factor / std).astype(np.float32), width), np.tile((-mean / std).astype(np.float32), width)

    def _resize_and_crop(self, image: np.ndarray) -> np.ndarray:
        if self.size:
            image = _resize(image, *self.size, self.resample)
        elif self.shortest_edge:
            image = _resize(image, *_keep_aspect(image, self.shortest_edge), self.resample)
        if self.crop_size:
            return _center_crop(image, *self.crop_size, rounded=self.rounded_crop)
        if self.required_size and image.shape[:2] != self.required_size:
            raise MediaError(self._misfit(image))
        return image

    def _misfit(self, image: np.ndarray) -> str:
        height, width = self.output_size
        steps = f"to a shortest edge of {self.shortest_edge} px without a crop" if self.shortest_edge else "not at all"
        return (
            f"Image is {image.shape[1]:,} x {image.shape[0]:,} px where the encoder takes {width:,} x {height:,}: the "
            f"checkpoint's preprocessing resizes images {steps}. Give images of this shape, or choose preprocessing "
            "reference, which resizes them to it."
        )


def _family_of(config: Mapping[str, Any], default_type: str | None) -> str:
    key = next((key for key in _TYPE_KEYS if config.get(key) is not None), None)
    if key is None:
        return default_type or _DEFAULT_FAMILY
    # Names of one family over the years: ViTFeatureExtractor, ViTImageProcessor, ...Fast, ...Pil, ...VideoProcessor.
    stem = str(config[key]).removesuffix("Fast").removesuffix("Pil")
    stem = stem.replace("FeatureExtractor", "ImageProcessor").replace("VideoProcessor", "ImageProcessor")
    if stem not in _FAMILIES:
        raise _bad(key, config[key], f"one of {', '.join(_FAMILIES)}")
    return stem


class _WrongValue(ValueError):
    """A value of the file cannot be used; `from_config` adds which file that is."""


def _bad(key: str, value: object, expected: str) -> _WrongValue:
    return _WrongValue(f"{key} is {value!r}; expected {expected}.")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)  # JSON's true is an int to Python


def _flag(values: Mapping[str, Any], key: str) -> bool:
    if values[key] is None:
        return False  # transformers 4.56 writes null for the steps that a model does not use
    if not isinstance(values[key], bool):
        raise _bad(key, values[key], "true or false")
    return bool(values[key])


def _is_number(value: object) -> bool:
    # The bound also refuses NaN, infinity and the huge integers that JSON allows.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e9


def _per_channel(values: Mapping[str, Any], key: str) -> tuple[float, float, float]:
    value = values[key]
    channels = value if isinstance(value, list | tuple) else [value] * 3
    if len(channels) != 3 or not all(_is_number(c) for c in channels):
        raise _bad(key, value, "a finite number, or a list of three, one per channel")
    red, green, blue = channels
    return float(red), float(green), float(blue)


def _edge(key: str, value: object, whole: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MAX_EDGE:
        raise _bad(key, whole, f"whole numbers from 1 to {_MAX_EDGE}")
    return value


def _read_size(value: object, *, square: bool) -> tuple[tuple[int, int] | None, int | None]:
    """Return either (height, width) and None, or None and the shortest edge."""
    if _is_int(value):
        edge = _edge("size", value, value)
        return ((edge, edge), None) if square else (None, edge)
    if isinstance(value, Mapping) and set(value) == {"shortest_edge"}:
        return None, _edge("size", value["shortest_edge"], dict(value))
    return _height_width("size", value, 'a whole number, {"height", "width"} or {"shortest_edge"}'), None


def _read_crop_size(value: object) -> tuple[int, int]:
    if _is_int(value):
        edge = _edge("crop_size", value, value)
        return edge, edge
    return _height_width("crop_size", value, 'a whole number or {"height", "width"}')


def _read_resample(value: object) -> int:
    """Return Pillow's number of a filter, given as that number, by name ("bicubic"), or not at all."""
    if value is None:
        return 2  # as transformers does
    if isinstance(value, str):
        name = value.rpartition(".")[2].lower()
        value = next((number for number, known in _RESAMPLE.items() if known == name), value)
    if isinstance(value, int) and not isinstance(value, bool) and value in _RESAMPLE:
        return value
    known = ", ".join(f"{number} ({name})" for number, name in _RESAMPLE.items())
    raise _bad("resample", value, f"one of {known}, by number or name")


def _height_width(key: str, value: object, expected: str) -> tuple[int, int]:
    if isinstance(value, Mapping) and set(value) == {"height", "width"}:
        pair = value["height"], value["width"]
    elif isinstance(value, list | tuple) and len(value) == 2:
        pair = value[0], value[1]
    else:
        raise _bad(key, value, expected)
    return _edge(key, pair[0], value), _edge(key, pair[1], value)


def _keep_aspect(image: np.ndarray, shortest_edge: int) -> tuple[int, int]:
    height, width = image.shape[:2]
    # The longer edge is cut off to a whole number, as transformers does; not rounded.
    longest_edge = int(shortest_edge * max(height, width) / min(height, width))
    if shortest_edge * longest_edge > _MAX_RESIZED_PIXELS:
        raise MediaError(
            f"Image is {width:,} x {height:,} pixels; resized to a shortest edge of {shortest_edge} its longest "
            f"edge would be {longest_edge:,}. Crop it to a less extreme shape or leave it out."
        )
    return (longest_edge, shortest_edge) if width <= height else (shortest_edge, longest_edge)


def _resize(image: np.ndarray, height: int, width: int, resample: int) -> np.ndarray:
    if image.shape[:2] == (height, width):
        return image  # Pillow's filters change nothing at the same size
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling(resample)))


def _center_crop(image: np.ndarray, height: int, width: int, *, rounded: bool) -> np.ndarray:
    rows, rows_to = _crop_slices(image.shape[0], height, rounded=rounded)
    columns, columns_to = _crop_slices(image.shape[1], width, rounded=rounded)
    part = image[rows, columns]
    if part.shape[:2] == (height, width):
        return np.ascontiguousarray(part)
    result = np.zeros((height, width, 3), image.dtype)
    result[rows_to, columns_to] = part
    return result


def _crop_slices(length: int, wanted: int, *, rounded: bool) -> tuple[slice, slice]:
    """Return the slice to read and the slice to write along one edge.

    If the remainder is odd, the extra pixel goes to the end for a crop and to the start for padding, as in
    transformers.
    """
    if length >= wanted:
        start = round((length - wanted) / 2) if rounded else (length - wanted) // 2
        return slice(start, start + wanted), slice(None)
    start = math.ceil((wanted - length) / 2)
    return slice(None), slice(start, start + length)
