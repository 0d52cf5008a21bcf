"""The README of a repository: a new one with its YAML, and a section between markers in one that is there."""

from __future__ import annotations

import re
from typing import Any

from labelrank.errors import HubError
from labelrank.label_map import LabelMap
from labelrank.words import escape

LABEL_MAP, CARD = "label_map.json", "README.md"
BEGIN, END = "<!-- labelrank: begin -->", "<!-- labelrank: end -->"
"""The lines between which the section stands; what is outside them is not changed."""
CHART = ".labelrank/label_map.png"
"""The chart of the section. In a hidden folder: the Hub would take an image elsewhere in a dataset for a sample."""


def with_section(card: str | None, section: str, fresh: str, *, source: str) -> str:
    """Return a card with the section between its markers, which are added at the end where there are none.

    Args:
        card: As it is; None if there is none.
        section: In markdown, without the markers.
        fresh: What stands before the section in a card that is new.
        source: What the card is called in messages.

    Raises:
        HubError: The markers of the card do not enclose one section.
    """
    card = fresh if card is None else card
    end_of_line = "\r\n" if "\r\n" in card else "\n"
    whole = f"{BEGIN}\n{section.strip()}\n{END}".replace("\n", end_of_line)
    begins, ends = card.count(BEGIN), card.count(END)
    if not begins and not ends:
        between = "" if not card.strip() else end_of_line if card.endswith("\n") else 2 * end_of_line
        return f"{card}{between}{whole}{end_of_line}"
    start, stop = card.find(BEGIN), card.find(END)
    if (begins, ends) != (1, 1) or stop < start:
        raise HubError(
            f"{source} has {begins} times the line {BEGIN} and {ends} times {END}; expected each once, in this order. "
            "Repair or remove them."
        )
    return card[:start] + whole + card[stop + len(END) :]


def front(label_map: LabelMap, kind: str, repo_id: str) -> str:
    """Return the begin of a new card: its YAML, and a title."""
    import yaml

    checkpoint, dataset = (source_of(label_map, name) for name in ("checkpoint", "dataset"))
    metadata: dict[str, Any] = _licence(licence_of(label_map))
    metadata["tags"] = ["labelrank"]
    if kind == "model":  # of the Hub are those with a revision
        metadata |= {"datasets": [dataset["id"]]} if dataset.get("revision") else {}
        metadata |= {"base_model": checkpoint["id"]} if checkpoint.get("revision") else {}
    front = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n\n# {escape(repo_id.partition('/')[2])}\n"


def source_of(label_map: LabelMap, name: str) -> dict[str, Any]:
    """Return what the provenance says of the dataset or checkpoint; those of the Hub have a revision."""
    found = label_map.features.get(name)
    return found if isinstance(found, dict) else {}


def licence_of(label_map: LabelMap) -> str | None:
    """Return the licence of the checkpoint that the features are from; None if it is not known."""
    licence = source_of(label_map, "checkpoint_facts").get("licence")
    return licence if isinstance(licence, str) and licence else None


def _licence(licence: str | None) -> dict[str, Any]:
    """Return a licence as the Hub takes it: by an identifier that it knows, or as another one with its name."""
    if licence is None:
        return {}
    names = licence.split(", ")
    if all(name in _LICENCES for name in names):
        return {"license": names[0] if len(names) == 1 else names}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.-]+", "-", licence.lower()).strip("-.")}


# Source: https://huggingface.co/docs/hub/repositories-licenses
_LICENCES = (
    *("apache-2.0", "mit", "openrail", "openrail++", "creativeml-openrail-m", "bigscience-openrail-m", "afl-3.0"),
    *("artistic-2.0", "bsl-1.0", "bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "c-uda", "cc", "cc0-1.0"),
    *("cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0"),
    *("cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0"),
    *("cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cdla-sharing-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "wtfpl"),
    *("ecl-2.0", "epl-1.0", "epl-2.0", "etalab-2.0", "eupl-1.1", "agpl-3.0", "gfdl", "gpl", "gpl-2.0", "gpl-3.0"),
    *("lgpl", "lgpl-2.1", "lgpl-3.0", "isc", "ms-pl", "apple-ascl", "apple-amlr", "mpl-2.0", "odc-by", "odbl"),
    *("osl-3.0", "postgresql", "ofl-1.1", "ncsa", "unlicense", "zlib", "pddl", "gemma", "llama2", "llama3", "unknown"),
    "other",
)
