"""Counts, shares, durations, sizes and names in words."""

import re

PAPERS = (
    (
        "Xiang, Wu, Bai: Label Ranker: Self-aware Preference for Classification Label Position in Visual Masked "
        "Self-supervised Pre-trained Model. ICMR 2025",
        "https://doi.org/10.1145/3731715.3733369",
    ),
    (
        "He, Chen, Xie, Li, Dollár, Girshick: Masked Autoencoders Are Scalable Vision Learners. CVPR 2022",
        "https://arxiv.org/abs/2111.06377",
    ),
    (
        "Tong, Song, Wang, Wang: VideoMAE: Masked Autoencoders are Data-Efficient Learners for Self-Supervised Video "
        "Pre-Training. NeurIPS 2022",
        "https://arxiv.org/abs/2203.12602",
    ),
)
"""What to cite: text and address."""
CITATION = "\n".join(f"{text}, {address}" for text, address in PAPERS)
"""The same as one text."""
BIBTEX = """\
@inproceedings{xiang2025labelranker,
  author    = {Xiang, Peihao and Wu, Kaida and Bai, Ou},
  title     = {Label Ranker: Self-aware Preference for Classification Label Position in Visual Masked
               Self-supervised Pre-trained Model},
  booktitle = {Proceedings of the International Conference on Multimedia Retrieval (ICMR)},
  year      = {2025},
  doi       = {10.1145/3731715.3733369}
}

@inproceedings{he2022masked,
  author    = {He, Kaiming and Chen, Xinlei and Xie, Saining and Li, Yanghao and Doll{\\'a}r, Piotr and Girshick, Ross},
  title     = {Masked Autoencoders Are Scalable Vision Learners},
  booktitle = {Conference on Computer Vision and Pattern Recognition (CVPR)},
  year      = {2022},
  eprint    = {2111.06377},
  archiveprefix = {arXiv}
}

@inproceedings{tong2022videomae,
  author    = {Tong, Zhan and Song, Yibing and Wang, Jue and Wang, Limin},
  title     = {{VideoMAE}: Masked Autoencoders are Data-Efficient Learners for Self-Supervised Video Pre-Training},
  booktitle = {Advances in Neural Information Processing Systems (NeurIPS)},
  year      = {2022},
  eprint    = {2203.12602},
  archiveprefix = {arXiv}
}
"""
"""The same as entries of a bibliography."""


def rough_duration(seconds: float) -> str:
    """Return an estimated duration, no finer than it can be known."""
    if seconds < 8:
        return "a few seconds"
    if seconds < 55:
        return f"{5 * round(seconds / 5)} s"
    if seconds < 90:
        return "a minute"
    if seconds < 5400:
        return f"{round(seconds / 60)} minutes"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 10 else f"{hours:,.0f} h"


def about(seconds: float) -> str:
    """Return an estimated duration with the word that says that it is estimated."""
    text = rough_duration(seconds)
    return text if text.startswith("a few ") else f"about {text}"


def told(seconds: float, *, measured: bool) -> str:
    """Return an estimated duration with where it is from.

    Args:
        measured: Whether it is from earlier work on this machine; else from the speed of its processor.
    """
    return f"{about(seconds)}, {'from the last runs here' if measured else 'not yet measured on this machine'}"


def duration(seconds: float) -> str:
    """Return a duration in the largest units that tell it well."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 90:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def share_text(share: float) -> str:
    """Return a fraction in percent with sensible digits."""
    if 0 < share < 0.0005:
        return f"less than {percent(0.001)}"
    return percent(share, 1 if share < 0.1 else 0)


def percent(share: float, digits: int = 1) -> str:
    """Return a fraction in percent with so many digits after the point."""
    return f"{100 * share:.{digits}f}\u00a0%"


def rate_text(rate: float, nouns: str) -> str:
    """Return how many samples are done in a second."""
    return f"{rate:,.3g} {nouns}/s" if rate < 100 else f"{rate:,.0f} {nouns}/s"


def size_text(size_bytes: float) -> str:
    """Return a size in bytes with a unit that fits."""
    for unit in ("bytes", "kB", "MB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "bytes" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} GB"


def count_text(count: int) -> str:
    """Return a large count in millions where that tells it well."""
    return f"{count / 1e6:,.0f} million" if count >= 10_000_000 else f"{count:,}"


def with_article(name: str) -> str:
    """Return a name with a or an."""
    return f"{'an' if name[:1] in 'AEIOaeio' else 'a'} {name}"


def ordinal(number: int) -> str:
    """Return a number as a place: 2nd, 4th."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"


def escape(text: str) -> str:
    """Return markdown that shows `text` as it is, whatever is in it."""
    escaped = re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", text)
    # Shortcodes, addresses and arrows are replaced after markdown has been read, so a backslash does not stop them;
    # a word joiner, which has no width, does.
    escaped = re.sub(r"(\\[:@](?=\S)|(?i:www)(?=\\\.))", "\\1\u2060", escaped)
    return re.sub(r"(\\[-<>~])(?=\\[-<>=])", "\\1\u2060", escaped)


def code_points(name: str, other: str) -> str:
    """Return, in brackets, the code points of what tells a name from another that may look like it; else nothing."""
    start = _same_at_start(name, other)
    end = _same_at_start(name[start:][::-1], other[start:][::-1])
    part, of_other = (text[start : len(text) - end] for text in (name, other))
    if not part or (part + of_other).isascii():
        return ""
    return f" ({part!r} is {' '.join(f'U+{ord(letter):04X}' for letter in part[:8])})"


def _same_at_start(one: str, other: str) -> int:
    pairs = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def per_class_text(count: float) -> str:
    """Return a mean number of samples per class in sensible digits: 8, 8.5, 120, 1,300."""
    if count >= 1000:
        return f"{round(count, -2):,.0f}"
    return f"{count:.0f}" if count >= 20 or count == int(count) else f"{count:.1f}"


def plural(count: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


RUNTIMES = {"openvino": "OpenVINO", "tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch", "numpy": "NumPy"}
