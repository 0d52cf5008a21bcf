"""Write a label map in the file formats of other tools. Each format keeps the names exactly, or refuses.

A class name is data. If a format cannot hold a name, the error says so and names the formats that can. No format writes
a file that reads back as another map.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelrank.errors import LabelMapError
from labelrank.label_map import LabelMap, write_file

# str.splitlines breaks at all of these; reading a file line by line breaks only at the first two.
_ALL_BREAKS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
_FILE_BREAKS = "\n\r"

SampleColumns = Mapping[str, Sequence[Any]]
"""Columns of equal length, one row per sample: `key` text, `x` projection, `label` class name, `y` position."""


@dataclass(frozen=True)
class ExportFormat:
    """One file format: its name, its description, and how it is written."""

    title: str
    filename: str
    mime: str
    describe: str
    """One sentence for the user: what it is for."""
    write: Callable[[LabelMap, SampleColumns | None], bytes]
    name_problem: Callable[[str], str | None] = lambda name: None
    """Returns what the format cannot hold in a class name, or None."""
    caution: str = ""
    """When the file may be used and when it would give wrong names; empty where it cannot."""
    ending: str = ""
    """The ending that a file's name must have for the other tool to read it; empty where any will do."""


def export(label_map: LabelMap, format: str, *, samples: SampleColumns | None = None) -> bytes:
    """Return the label map in `format`, one of `FORMATS`; the text formats are UTF-8 with a newline at the end.

    Args:
        label_map: What to write.
        format: A key of `FORMATS`.
        samples: Only for `parquet`, which then has one row per sample instead of one per class.

    Raises:
        LabelMapError: The format is unknown or cannot hold a class name, or the samples do not fit the map.
    """
    if format not in FORMATS:
        raise LabelMapError(f"Export format is {format!r}; expected one of {', '.join(FORMATS)}. Choose one of these.")
    chosen = FORMATS[format]
    for position, name in enumerate(label_map.names):
        if problem := chosen.name_problem(name):
            able = [key for key, other in FORMATS.items() if not any(map(other.name_problem, label_map.names))]
            raise LabelMapError(
                f"Class name {name!r} (position {position}) {problem}, which {chosen.title} cannot carry. "
                f"Rename the class in the dataset, or use one of the formats that can: {', '.join(able)}."
            )
    return chosen.write(label_map, samples)


def write_export(label_map: LabelMap, format: str, path: Path | str, *, samples: SampleColumns | None = None) -> None:
    """Write the label map in `format` to `path`, under a temporary name first.

    Raises:
        LabelMapError: As `export`, or the other tool does not read files with such an ending, or the folder does not
            exist or cannot be written.
    """
    content = export(label_map, format, samples=samples)
    ending = FORMATS[format].ending
    if not Path(path).name.lower().endswith(ending):
        raise LabelMapError(
            f"{path} does not end in {ending}, and a {FORMATS[format].title} is not read without. Choose a name such "
            f"as {Path(path).with_suffix(ending)}."
        )
    write_file(path, content)


def _text_json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _lines(lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _position_by_name(label_map: LabelMap) -> dict[str, int]:
    return {name: position for position, name in enumerate(label_map.names)}


def _hugging_face(label_map: LabelMap, samples: SampleColumns | None) -> bytes:
    id2label = {str(position): name for position, name in enumerate(label_map.names)}
    # transformers keeps keys that it does not know, and makes nothing of them.
    caution = {"_labelrank": FORMATS["hf"].caution}
    return _text_json({**caution, "id2label": id2label, "label2id": _position_by_name(label_map)})


def _dataset_card(label_map: LabelMap, samples: SampleColumns | None) -> bytes:
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    def represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        # PyYAML writes a next-line character as it is between single quotes and reads it back as a space;
        # between double quotes it escapes every line break.
        style = '"' if any(char in _ALL_BREAKS for char in text) else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, represent)
    names = {str(position): name for position, name in enumerate(label_map.names)}
    feature = {"name": "label", "dtype": {"class_label": {"names": names}}}
    card = {"dataset_info": {"features": [feature]}}
    # No width limit: a name stays on one line, where people look for it.
    text = yaml.dump(card, Dumper=Dumper, allow_unicode=True, sort_keys=False, width=math.inf)
    return f"# {FORMATS['card'].caution}\n{text}".encode()


def _labels_txt(label_map: LabelMap, samples: SampleColumns | None) -> bytes:
    return _lines(label_map.names)


def _class_ind(label_map: LabelMap, samples: SampleColumns | None) -> bytes:
    return _lines([f"{position + 1} {name}" for position, name in enumerate(label_map.names)])


# OWASP's list of what starts a formula, without the control characters: = + - @ and the full-width signs.
_FORMULA = re.compile("'*[=+\\-@＝＋－＠]")
# Control characters, line and paragraph separators, and what turns the direction of the text around it.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_BEFORE_ESCAPE = re.compile(rf"\\+(?=x[0-9a-f]{{2}}|u[0-9a-f]{{4}}|{_CONTROL.pattern})")


def neutral_cell(text: str) -> str:
    """Return `text` so that a spreadsheet or terminal shows it, and runs nothing in it.

    Control characters become \\xHH or \\uHHHH; before these and before what looks like them, backslashes are doubled. A
    text that then starts with any number of apostrophes and a formula sign gets one more apostrophe. So different texts
    stay different, and both can be undone.

    Source: OWASP, CSV Injection.
    """
    text = _BEFORE_ESCAPE.sub(lambda run: 2 * run[0], text)
    text = _CONTROL.sub(lambda char: f"\\x{ord(char[0]):02x}" if char[0] < "\xff" else f"\\u{ord(char[0]):04x}", text)
    return f"'{text}" if _FORMULA.match(text) else text


def _csv(label_map: LabelMap, samples: SampleColumns | None) -> bytes:
    table = io.StringIO()
    # RFC 4180's line ends, which also make the writer quote a name with a carriage return in it.
    writer = csv.writer(table, lineterminator="\r\n")
    writer.writerow(["new_id", "old_id", "name", "centroid"])
    for ranked in label_map.classes:
        writer.writerow([ranked.position, ranked.label, neutral_cell(ranked.name), ranked.centroid])
    return table.getvalue().encode()


def _class_to_idx(label_map: LabelMap, samples: SampleColumns | None) -> bytes:
    return _text_json(_position_by_name(label_map))


def _keras(label_map: LabelMap, samples: SampleColumns | None) -> bytes:
    # JSON's escapes are Python's too, so an array of texts is also a list literal.
    return _text_json(list(label_map.names))


def _parquet(label_map: LabelMap, samples: SampleColumns | None) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if samples is None:
        columns = {
            "x": pa.array([ranked.centroid for ranked in label_map.classes], pa.float64()),
            "y": pa.array([ranked.position for ranked in label_map.classes], pa.int32()),
            "label": pa.array(label_map.names, pa.string()),
        }
    else:
        _check_samples(label_map, samples)
        types = {"key": pa.string(), "x": pa.float64(), "y": pa.int32(), "label": pa.string()}
        columns = {name: pa.array(list(samples[name]), of_type) for name, of_type in types.items()}
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def _check_samples(label_map: LabelMap, samples: SampleColumns) -> None:
    missing = [name for name in ("key", "x", "y", "label") if name not in samples]
    if missing:
        raise LabelMapError(f"Samples lack the column {', '.join(missing)}; expected key, x, y, label. Add it.")
    sizes = {name: len(samples[name]) for name in ("key", "x", "y", "label")}
    if len(set(sizes.values())) > 1:
        raise LabelMapError(f"Columns of the samples have different lengths, {sizes}; expected one row per sample.")
    position_of = _position_by_name(label_map)
    for key, y, label in zip(samples["key"], samples["y"], samples["label"], strict=True):
        if position_of.get(label) != y:
            raise LabelMapError(
                f"Sample {key!r} is at y {y}, but the label map has {label!r} at position {position_of.get(label)}. "
                "Take samples and label map from the same ranking."
            )


def _line_problem(separators: str) -> Callable[[str], str | None]:
    """Return the check of a format with one name per line, whose readers strip each line."""

    def problem(name: str) -> str | None:
        if any(char in separators for char in name):
            return "has a line break in it"
        if name != name.strip():
            return "starts or ends with white space"
        return None

    return problem


FORMATS: dict[str, ExportFormat] = {
    "hf": ExportFormat(
        "Hugging Face config",
        "id2label.json",
        "application/json",
        "The id2label and label2id of a model's config.json, to paste into it.",
        _hugging_face,
        caution="Paste it only where no weights lie yet, or beside a head that was trained in this order: with weights "
        "of another order every prediction would get a wrong name.",
    ),
    "card": ExportFormat(
        "Dataset card",
        "dataset_card.yaml",
        "application/yaml",
        "The class_label names for the YAML at the top of a Hugging Face dataset's README.md.",
        _dataset_card,
        caution="This is a fragment of a card. Use it only for a new column whose integers are these positions; never "
        "rename the class_label names of a dataset in place: its rows keep their integers, so that they would get "
        "wrong names.",
    ),
    "labels-txt": ExportFormat(
        "labels.txt",
        "labels.txt",
        "text/plain",
        "One class name per line; the first line is position 0.",
        _labels_txt,
        _line_problem(_ALL_BREAKS),
    ),
    "classind": ExportFormat(
        "UCF classInd.txt",
        "classInd.txt",
        "text/plain",
        "Number and class name per line as in UCF101, counted from 1; some of its readers need names without spaces.",
        _class_ind,
        _line_problem(_ALL_BREAKS),
    ),
    "csv": ExportFormat(
        "CSV",
        "label_map.csv",
        "text/csv",
        "A table for spreadsheets and pandas: new_id (position), old_id (label), name, centroid.",
        _csv,
    ),
    "torchvision": ExportFormat(
        "torchvision class_to_idx",
        "class_to_idx.json",
        "application/json",
        "The class_to_idx of torchvision's folder datasets: class name to position.",
        _class_to_idx,
    ),
    "timm": ExportFormat(
        "timm class map",
        "class_map.txt",
        "text/plain",
        "The file for timm's --class-map, one class name per line in the order of the positions; it must end in .txt.",
        _labels_txt,
        _line_problem(_FILE_BREAKS),
        ending=".txt",
    ),
    "keras": ExportFormat(
        "Keras class_names",
        "class_names.json",
        "application/json",
        "The class_names of keras.utils.image_dataset_from_directory, a list for Python and JSON alike.",
        _keras,
    ),
    "parquet": ExportFormat(
        "Parquet for embedding viewers",
        "projection.parquet",
        "application/vnd.apache.parquet",
        "Columns x (projection), y (position) and label (class name), one row per sample if there are samples.",
        _parquet,
    ),
}
