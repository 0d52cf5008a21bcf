"""Store the finished runs of a comparison, so that a stop loses only the runs that are not finished."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from labelrank.errors import FinetuneError
from labelrank.files import replacing
from labelrank.finetune.runs import MAX_PROBABILITIES, Epoch, Run

_HEAD, _ALL = "head.", "log_probabilities"
_CURVES = ("epoch", "train_loss", "val_loss", "val_accuracy")


class KeptRuns:
    """A folder with one safetensors file for each finished run.

    Args:
        path: Created when the first run is written. Its name is a digest of everything that determines the runs.
        n_test: Number of rows that each run predicts.
    """

    def __init__(self, path: Path, n_test: int) -> None:
        self.path = path
        self._n_test = n_test

    def read(self, arm: str, seed: int) -> Run | None:
        """Return a finished run; None if it is missing or damaged. A damaged file is reported and removed."""
        path = self._of(arm, seed)
        if not path.is_file():
            return None
        try:
            run = _read(path)
            if (run.arm, run.seed) != (arm, seed) or (run.problem is None and run.predicted.shape[0] != self._n_test):
                raise FinetuneError(f"{path} holds another run than its name says.")
        except (OSError, ValueError, KeyError, TypeError) as error:
            print(f"A run is made again: {path}: {error}", file=sys.stderr, flush=True)
            path.unlink(missing_ok=True)
            return None
        return run

    def has(self, arm: str, seed: int) -> bool:
        """Return whether there is a file of this run; only `read` checks that it is not damaged."""
        return self._of(arm, seed).is_file()

    def log_probabilities(self, arm: str, seed: int) -> np.ndarray | None:
        """Return those of all labels for the test rows, float32 (n_test, K); None if they were not kept."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self._of(arm, seed), framework="np") as file:
                found: np.ndarray | None = file.get_tensor(_ALL) if _ALL in file.keys() else None  # noqa: SIM118
        except (OSError, SafetensorError):
            return None
        return found

    def write(self, runs: Iterable[Run], *, in_full: Collection[str] = ()) -> None:
        """Store finished runs; the snapshots of each go then.

        Args:
            in_full: Arms whose trained heads are stored as well, and the probabilities of all labels.

        Raises:
            FinetuneError: A run cannot be written; those before it stay.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for run in runs:
                with replacing(self._of(run.arm, run.seed)) as partial:
                    _write(run if run.arm in in_full else without_extras(run), partial)
                shutil.rmtree(self.snapshots(run.arm, run.seed), ignore_errors=True)
        except OSError as error:
            raise FinetuneError(
                f"{self.path} cannot be written ({error.strerror or error}). Finished runs are kept: free some space, "
                "and start the same fine-tune again."
            ) from error

    def clear(self) -> None:
        """Remove all runs, and the snapshots of unfinished ones."""
        shutil.rmtree(self.path, ignore_errors=True)

    def snapshots(self, arm: str, seed: int) -> Path:
        """Return the folder for the snapshots from which an unfinished run resumes."""
        return self._of(arm, seed).with_suffix("")

    def _of(self, arm: str, seed: int) -> Path:
        return self.path / f"{seed:04d}-{arm}.safetensors"


def without_extras(run: Run) -> Run:
    """Return a run without its head and the probabilities of all labels, which take memory."""
    return replace(run, head={}, log_probabilities=None)


def _write(run: Run, path: Path) -> None:
    from safetensors.numpy import save_file

    curves = np.array([[getattr(e, name) for name in _CURVES] for e in run.epochs], np.float64).reshape(
        -1, len(_CURVES)
    )
    tensors: dict[str, np.ndarray] = {
        "predicted": run.predicted,
        "nll": run.nll,
        "curves": curves,
        **{f"{_HEAD}{name}": np.asarray(values) for name, values in run.head.items()},
    }
    if run.log_probabilities is not None and run.log_probabilities.size <= MAX_PROBABILITIES:
        tensors[_ALL] = run.log_probabilities
    if run.confidence is not None:
        tensors["confidence"] = run.confidence
    facts = {"arm": run.arm, "seed": run.seed, "problem": run.problem, "seconds": run.seconds}
    if run.temperature is not None:
        facts["temperature"] = run.temperature
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, path, metadata={"run": json.dumps(facts)})


def _read(path: Path) -> Run:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            facts = json.loads((file.metadata() or {})["run"])
            # Of all labels, probabilities would fill the memory.
            tensors: Mapping[str, np.ndarray] = {name: file.get_tensor(name) for name in file.keys() if name != _ALL}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(error) from None
    return Run(
        arm=facts["arm"],
        seed=facts["seed"],
        predicted=tensors["predicted"],
        nll=tensors["nll"],
        epochs=tuple(Epoch(int(row[0]), *map(float, row[1:])) for row in tensors["curves"]),
        head={name.removeprefix(_HEAD): values for name, values in tensors.items() if name.startswith(_HEAD)},
        problem=facts["problem"],
        seconds=facts["seconds"],
        confidence=tensors.get("confidence"),
        temperature=facts.get("temperature"),
    )
