"""What the card of a dataset says of its configurations, splits, features and rows.

People write cards by hand: entries that are malformed are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from labelrank.data.hub_source import HubSource
from labelrank.data.source import arrange, split_names

if TYPE_CHECKING:
    from labelrank.hub import Repo


_MAX_PATTERN_CHARS = 500


def card_infos(card: Mapping[str, Any]) -> dict[str | None, Mapping[str, Any]]:
    """Return configuration -> `dataset_info`; the only info of a card is also found under None and "default"."""
    given = card.get("dataset_info")
    infos = [i for i in (given if isinstance(given, list) else [given]) if isinstance(i, Mapping)]
    named: dict[str | None, Mapping[str, Any]] = {str(i["config_name"]): i for i in infos if i.get("config_name")}
    if len(infos) == 1:
        named[None] = infos[0]
        named.setdefault("default", infos[0])
    return named


def card_features(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return the features of a card in the form of the metadata in a Parquet file."""
    features: dict[str, Any] = {}
    entries = info.get("features")
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, Mapping):
            continue
        kind = entry.get("dtype")
        if kind in ("image", "video"):
            features[str(entry.get("name"))] = {"_type": kind.title()}
        elif isinstance(kind, Mapping) and isinstance(label := kind.get("class_label"), Mapping):
            names = label.get("names")
            if isinstance(names, Mapping):
                numbered = {int(number): name for number, name in names.items() if str(number).isdigit()}
                names = [numbered.get(n, "") for n in range(len(numbered))]
            features[str(entry.get("name"))] = {"_type": "ClassLabel", "names": names}
    return features


def card_configs(
    card: Mapping[str, Any], sources: Sequence[HubSource]
) -> tuple[dict[str | None, Mapping[str | None, tuple[HubSource, ...]]], str | None]:
    """Return the files of each configuration and split of a card, and the default configuration."""
    configs = card.get("configs")
    found: dict[str | None, Mapping[str | None, tuple[HubSource, ...]]] = {}
    default = None
    for entry in configs if isinstance(configs, list) else []:
        if not isinstance(entry, Mapping):
            continue
        name = str(entry.get("config_name", "default"))
        files = entry.get("data_files")
        if files is None and entry.get("data_dir"):
            if splits := splits_below(str(entry["data_dir"]), sources):
                found[name] = splits
                default = name if entry.get("default") is True else default
            continue
        chosen_for: dict[str, set[HubSource]] = {}
        for part in files if isinstance(files, list) else [files]:
            split, patterns = "train", part
            if isinstance(part, Mapping):
                split, patterns = str(part.get("split", "train")), part.get("path")
            wanted = [_glob(p) for p in (patterns if isinstance(patterns, list) else [patterns]) if isinstance(p, str)]
            if chosen := {s for s in sources if any(fits(s.path) for fits in wanted)}:
                chosen_for.setdefault(split, set()).update(chosen)
        if chosen_for:
            names = split_names([*chosen_for])
            found[name] = {names[s]: tuple(sorted(of, key=lambda f: f.path)) for s, of in chosen_for.items()}
            default = name if entry.get("default") is True else default
    return found, default


def splits_below(folder: str, sources: Sequence[HubSource]) -> dict[str | None, tuple[HubSource, ...]]:
    """Return split -> the files below a folder, by their paths; files whose paths name no split are train."""
    folder = f"{folder.removeprefix('./').strip('/')}/"
    below = [s for s in sources if s.path.startswith(folder) or folder in ("/", "./")]
    by_split: dict[str, list[HubSource]] = {}
    for of_config in arrange(below, source=folder).files.values():
        for split, files in of_config.items():
            by_split.setdefault(split or "train", []).extend(f for f in files if isinstance(f, HubSource))
    return {split: tuple(sorted(files, key=lambda f: f.path)) for split, files in by_split.items()}


def _glob(pattern: str) -> Callable[[str], bool]:
    """Return a function that tells whether a path matches a shell pattern: * stays within a folder, ** does not.

    All ways to match are followed at once, so the time depends only on the lengths. A regular expression with many
    wildcards could take years.
    """
    pattern = pattern.removeprefix("./")
    start = re.split(r"[*?]", pattern, maxsplit=1)[0]
    if start == pattern:
        return lambda path: path == pattern
    if len(pattern) > _MAX_PATTERN_CHARS:
        return lambda path: False
    # A folder of any depth is entered or not ("**/"), and left at a slash (".../").
    signs: list[str] = []
    for piece in re.findall(r"\*\*/|\*\*|\*|.", pattern[len(start) :], re.DOTALL):
        signs += ["**/", ".../"] if piece == "**/" else [piece]

    def reach(place: int, places: set[int]) -> None:
        while place not in places:
            places.add(place)
            sign = signs[place] if place < len(signs) else ""
            if sign == "**/":
                places.add(place + 1)
            place += {"**/": 2, "**": 1, "*": 1}.get(sign, 0)

    def fits(path: str) -> bool:
        if not path.startswith(start):
            return False
        places: set[int] = set()
        reach(0, places)
        for letter in path[len(start) :]:
            following: set[int] = set()
            for place in places:
                sign = signs[place] if place < len(signs) else ""
                if sign in ("**", ".../") or (sign == "*" and letter != "/"):
                    reach(place, following)
                if sign == letter or (sign == "?" and letter != "/") or (sign == ".../" and letter == "/"):
                    reach(place + 1, following)
            places = following
        return len(signs) in places

    return fits


def card_rows(repo: Repo, config: str | None, split: str | None) -> int | None:
    infos = card_infos(repo.card)
    splits = infos.get(config, infos.get(None, {})).get("splits")
    entries = [e for e in splits if isinstance(e, Mapping)] if isinstance(splits, list) else []
    names = split_names([str(entry.get("name")) for entry in entries])
    for entry in entries:
        if names[str(entry.get("name"))] == split:
            rows = entry.get("num_examples")
            return rows if isinstance(rows, int) else None
    return None
