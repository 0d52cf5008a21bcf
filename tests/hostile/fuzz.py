"""Random damage to a sound file of each format that is read, and a table of what came of it: `make fuzz`.

One case again: `python -m tests.hostile.fuzz --formats MP4 --first 123 --count 1 --keep FOLDER`.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.hostile.formats import FORMATS
from tests.hostile.watched import Outcome, mutations, run


def row(name: str, outcomes: list[Outcome]) -> list[str]:
    """Return the table's row of a format."""
    count = Counter("other errors" if one.fault and one.outcome == "refused" else one.outcome for one in outcomes)
    return [
        name,
        f"{len(outcomes):,}",
        *(f"{count[kind]:,}" for kind in ("read", "refused")),
        f"{count['error'] + count['other errors']:,}",
        f"{count['crash']:,}",
        f"{count['too long']:,}",
        f"{max(one.seconds for one in outcomes):.1f} s",
        f"{max(one.peak_bytes for one in outcomes) / 1e6:,.0f} MB",
    ]


def main() -> int:
    """Read the mutations, print the table and each fault, and return whether there was one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--formats", nargs="+", default=[*FORMATS], choices=[*FORMATS], metavar="FORMAT")
    parser.add_argument("--first", type=int, default=0, help="number of the first mutation")
    parser.add_argument("--count", type=int, default=1000, help="mutations of each format")
    parser.add_argument("--keep", type=Path, help="an empty folder in which the last file stays")
    options = parser.parse_args()
    began, faults = time.monotonic(), 0
    titles = ("Format", "Files", "Read", "Refused", "Other errors", "Crashes", "Too long", "Longest", "Most memory")
    print("|", " | ".join(titles), "|\n|---" + "|---:" * (len(titles) - 1) + "|", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        for name in options.formats:
            outcomes = [*run([mutations(name, options.first, options.count)], folder)]
            sound = next(one for one in outcomes if one.number < 0)
            found = [one for one in outcomes if one.fault or (one is sound and one.outcome != "read")]
            for one in found:
                print(f"{name}, {one.number}: {one.outcome} {one.fault or one.message}\n", file=sys.stderr)
            faults += len(found)
            print("|", " | ".join(row(name, [one for one in outcomes if one.number >= 0])), "|", flush=True)
    print(f"\n{len(options.formats)} formats, {time.monotonic() - began:,.0f} s, {faults} faults", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
