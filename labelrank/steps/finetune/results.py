"""Write and read the results of a comparison as plain files that any machine can open.

A folder holds `README.txt`, which describes the other files, `report.json`, `runs.csv`, `curves.csv`,
`predictions.parquet` and `label_map.json`. With an exported model, it also holds `model/` in Hugging Face's format and
`model.keras`.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from labelrank.errors import FinetuneError, first_line
from labelrank.exports import neutral_cell
from labelrank.features.store import FeatureSet
from labelrank.files import link, replacing, replacing_folder
from labelrank.finetune.metrics import METRICS, TARGET_METRICS
from labelrank.finetune.runs import Run
from labelrank.finetune.target_verdict import Pair
from labelrank.label_map import LabelMap
from labelrank.steps.finetune.report import FORMAT_VERSION, Order, Report
from labelrank.steps.finetune.request import SMOOTHING

REPORT, RUNS, CURVES, PREDICTIONS = "report.json", "runs.csv", "curves.csv", "predictions.parquet"
LABEL_MAP, MODEL, KERAS_MODEL = "label_map.json", "model", "model.keras"
GUIDE = "README.txt"

TARGETS, COSTS = "targets.csv", "decision_cost.csv"
_CARD = "README.md"

RUN_COLUMNS = ("arm", "kind", "seed", *METRICS, "epochs", "seconds", "problem")
TARGET_RUN_COLUMNS = ("arm", "kind", "seed", *TARGET_METRICS, "epochs", "seconds", "problem")
CURVE_COLUMNS = ("arm", "seed", "epoch", "train_loss", "val_loss", "val_accuracy")
_GUIDE = """\
Results of `labelrank finetune`.

report.json          Everything that was found: verdict, scores of each order by seed, statistics, settings, versions.
runs.csv             A row for each run (an order with a seed):
    arm, kind            the order: ranked, original, reversed, random-1, .., or control (see report.json, "control")
    seed                 of first weights, batches and dropout, which all orders share
    accuracy, uar, top5  on the test rows, fractions: accuracy, mean recall of the classes, right among the first five
    loss                 mean negative log probability of the true class, in nats
    rank_distance        of a mistake, on average: positions between true and predicted class in the ranked order
    centroid_distance    the same between the classes' centroids on the ranking's axis, in standard deviations
    epochs, seconds      how long it trained
    problem              why it came to nothing; empty where it is whole
curves.csv           A row for each epoch of each run: arm, seed, epoch (from 1), train_loss, val_loss, val_accuracy.
predictions.parquet  A row for each test row: key, label (the true class), and for each run a column "arm/seed" with the
                     class that it predicted. Classes here are ORIGINAL labels 0, 1, .., as in the dataset; the
                     outputs of a model are POSITIONS of its order. order[position] = label, in report.json under
                     "design", "arms", and for the ranked order in label_map.json.
label_map.json       The ranked order, with the names of the classes and how it was found.
"""
_TARGET_GUIDE = """\
Results of `labelrank finetune --target {target}`.

report.json          Everything that was found: verdict, scores by seed, how soft the targets are ("targets"), settings,
                     versions, statistics (there "ranked" is the target {target}, and "random" are its permutations).
runs.csv             A row for each run (an arm with a seed):
    arm, kind            the targets: onehot, geometry, permuted-1, .., smoothing, tuned-smoothing or groups
    seed                 of first weights and batches, which all arms share
    accuracy, uar, top5  on the test rows, fractions: accuracy, mean recall of the classes, right among the first five
    loss                 mean negative log probability of the true class, in nats
    calibration          expected calibration error over 15 equally full bins
    class_distance       of a mistake, on average: cosine distance between true and predicted class (training rows)
    within_group         share of mistakes within the true class's group; empty without groups
    epochs, seconds      how long it trained
    problem              why it came to nothing; empty where it is whole
curves.csv           A row for each epoch of each run: arm, seed, epoch (from 1), train_loss, val_loss, val_accuracy.
predictions.parquet  A row for each test row: key, label (the true class), and for each run a column "arm/seed" with the
                     class that it predicted.
label_map.json       The ranked order, which has no part in this comparison.
"""
_GUIDE_TO_TARGETS = """\
targets.csv          The targets of the geometry: names of the classes, then a row for each class, in the order of the
                     labels: how much of its target each class gets. For training elsewhere:

    targets = numpy.loadtxt("targets.csv", delimiter=",", skiprows=1, dtype="float32")
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(targets)[labels])       # PyTorch
    loss = keras.losses.categorical_crossentropy(targets[labels], logits, from_logits=True)   # Keras

"""
_GUIDE_TO_MODEL = """\
model/               The best run {arm} as a model. Output i stands for the class at position i: see
                     id2label in model/config.json. model/README.md says how to load it.
model.keras          The same model for Keras; where labelrank is installed:

    import keras, labelrank.finetune.classifier
    model = keras.saving.load_model("model.keras")
"""
_GUIDE_TO_COSTS = """\
decision_cost.csv    What each mistake costs, in the order of the labels: names of the classes, then a row for each true
                     class: what predicting each class costs. predictions.parquet has a column "arm by cost/seed" with
                     the classes of least expected cost, and report.json ("decisions") how they do beside the likeliest.
"""
_CARD_OF_TARGETS = """
## Targets

It was trained with targets by class geometry, `targets.csv`, in the order of the outputs: names of the classes, then a
row for each class: how much of its target each class gets, which falls with exp(-{sharpness:g} x distance) for the
cosine distance between the classes. They are as soft as label smoothing of {smoothing:.3f}, so probabilities are too
even: where they count, divide the logits by a temperature chosen on validation samples.
"""
_CARD_OF_SMOOTHING = """
## Targets

It was trained with label smoothing of {smoothing:.3g}, so probabilities are too even: where they count, divide the
logits by a temperature chosen on validation samples.
"""
_CARD_OF_COSTS = """
## Deciding by cost

`decision_cost.csv` says what each mistake costs, in the order of the outputs: names of the classes, then a row for each
true class: what predicting each class costs. The model does not depend on it, and no library reads it unasked. The
class of least expected cost, instead of the likeliest one:

```python
import numpy

costs = numpy.loadtxt("decision_cost.csv", delimiter=",", skiprows=1, dtype="float32")
decided = (probabilities @ costs).argmin(axis=-1)  # (samples, classes), from the softmax of logits / temperature
```
"""
KEPT = "finetunes"
"""Folder of the workspace with the results of comparisons, `<digest>/<n>-seeds/`."""
_WAY_OUT = "Give a folder, or the report.json in one, that `labelrank finetune` wrote; or run it again."


def write_results(
    folder: Path,
    report: Report,
    runs: Sequence[Run],
    test: FeatureSet,
    label_map: LabelMap,
    model: Path | None = None,
    *,
    targets: np.ndarray | None = None,
    costs: np.ndarray | None = None,
    decided: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write a folder of results, completely or not at all; it replaces an existing folder of results.

    Args:
        folder: Its parent is created if missing.
        report: As `labelrank.steps.finetune.reporting.report_of` returns it.
        runs: The runs of the report, in any order.
        test: The rows that were predicted; their features are not written.
        model: A folder with `model/` and `model.keras`, which are added to the results.
        targets: Those of the geometry (K, K), where it was compared.
        costs: Of predicting label j where y is true (K, K), where decisions by cost were asked for.
        decided: Those decisions, int (n_test,), by `<arm>/<seed>`.

    Raises:
        FinetuneError: The folder holds something else, cannot be written, or the disk is full.
    """
    check_replaceable(folder)
    with _new_folder(folder) as partial:
        write_report(partial / REPORT, report)
        columns = TARGET_RUN_COLUMNS if report.targets else RUN_COLUMNS
        _write_csv(partial / RUNS, columns, _run_rows(report, runs, columns[3:-3]))
        _write_csv(partial / CURVES, CURVE_COLUMNS, _curve_rows(runs))
        _write_predictions(partial / PREDICTIONS, runs, test, decided or {})
        label_map.save(partial / LABEL_MAP)
        if targets is not None:
            write_class_table(partial / TARGETS, report.data.class_names, targets)
        if costs is not None:
            write_class_table(partial / COSTS, report.data.class_names, costs)
        guide = _TARGET_GUIDE.format(target=report.compared.design.target) if report.targets else _GUIDE
        guide += "" if targets is None else _GUIDE_TO_TARGETS
        guide += "" if costs is None else _GUIDE_TO_COSTS
        guide += _GUIDE_TO_MODEL.format(arm=_in_words(report)) if model else ""
        (partial / GUIDE).write_text(guide, encoding="utf-8")
        if model:
            shutil.copytree(model / MODEL, partial / MODEL, copy_function=link)
            link(model / KERAS_MODEL, partial / KERAS_MODEL)
            _write_beside(partial / MODEL, report, targets, costs)


def _exported(report: Report) -> Order:
    """Return whose model is written; see `labelrank.steps.finetune.best_model.Exporter`."""
    by_name = {arm.name: arm for arm in report.compared.arms}
    return by_name.get(report.compared.design.subject, report.compared.arms[0])


def _in_words(report: Report) -> str:
    name = _exported(report).name
    return f"with targets {name}" if report.targets else f"of the {name} order"


def _write_beside(folder: Path, report: Report, targets: np.ndarray | None, costs: np.ndarray | None) -> None:
    """Write tables of all classes beside a model, in the order of its outputs, and say in its card what they are.

    Other libraries read neither, so they load the model as they would without them.
    """
    exported = _exported(report)
    order = list(exported.order)
    names = [report.data.class_names[label] for label in order]
    card = folder / _CARD
    said = card.read_text(encoding="utf-8") if card.exists() else ""
    chosen = report.targets.chosen if report.targets else None
    if targets is not None and chosen:
        write_class_table(folder / TARGETS, names, targets[np.ix_(order, order)])
        said += _CARD_OF_TARGETS.format(sharpness=chosen.sharpness, smoothing=chosen.smoothing)
    elif chosen and exported.name == SMOOTHING:
        said += _CARD_OF_SMOOTHING.format(smoothing=chosen.smoothing)
    if costs is not None:
        write_class_table(folder / COSTS, names, costs[np.ix_(order, order)])
        said += _CARD_OF_COSTS
    card.unlink(missing_ok=True)  # it may be a link to the card that other results share
    card.write_text(said, encoding="utf-8")


def write_class_table(path: Path, class_names: Sequence[str], table: np.ndarray) -> None:
    """Write a table (K, K) as csv: names of the classes, then a line for each of them, in their order."""
    rows = ([f"{value:.9g}" for value in row] for row in table.tolist())
    _write_csv(path, [neutral_cell(name) for name in class_names], rows)


def copy_targets(folder: Path, target: Path) -> None:
    """Copy the targets of a folder of results.

    Raises:
        FinetuneError: The file cannot be written.
    """
    try:
        with replacing(target) as partial:
            shutil.copyfile(folder / TARGETS, partial)
    except OSError as error:
        raise unwritable(target, error) from error


def copy_results(folder: Path, target: Path) -> None:
    """Copy a folder of results, completely or not at all; works as `write_results`.

    Raises:
        FinetuneError: `target` holds something else, or cannot be written.
    """
    check_replaceable(target)
    with _new_folder(target) as partial:
        shutil.copytree(folder, partial, dirs_exist_ok=True)


def check_replaceable(folder: Path) -> None:
    """Raise FinetuneError if `folder` exists and is not a folder of results, so that it must not be replaced."""
    if folder.exists() and not is_results(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise FinetuneError(f"{folder} exists and is not a folder of results; choose a new folder.")


def delete_kept(folder: Path, own: Path) -> None:
    """Remove a folder of results from the folder of its owner; do nothing if it is elsewhere or does not exist.

    Raises:
        FinetuneError: The folder cannot be removed.
    """
    kept = (own / KEPT).resolve()
    folder = folder.resolve()
    if kept not in folder.parents or not is_results(folder):
        return
    try:
        shutil.rmtree(folder)
        if folder.parent != kept:
            folder.parent.rmdir()  # the folder of this comparison, if it is empty now
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
            raise FinetuneError(
                f"{folder} cannot be removed ({error.strerror or error}). Remove it with your file manager."
            ) from error


def is_results(folder: Path) -> bool:
    """Return whether a folder holds results, so that it may be replaced."""
    return (folder / REPORT).is_file() and (folder / RUNS).is_file()


def write_report(path: Path, report: Report) -> None:
    """Write report.json, completely or not at all.

    Raises:
        FinetuneError: The file cannot be written.
    """
    try:
        with replacing(path) as partial:
            text = json.dumps(report.to_json(), ensure_ascii=False, indent=1, allow_nan=False)
            partial.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> FinetuneError:
    """Return the error for a file of results that cannot be written."""
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    advice = "free some space there, or choose another folder" if is_full else "choose a writable folder"
    return FinetuneError(f"{path} cannot be written ({error.strerror or error}); {advice}.")


def read_report(path: Path) -> Report:
    """Return report.json; `path` is the file or its folder.

    Raises:
        FinetuneError: The file is missing, not a report, or of another version.
    """
    path = path / REPORT if path.is_dir() else path
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise FinetuneError(f"{path} cannot be read ({error.strerror}). {_WAY_OUT}") from None
    except (ValueError, RecursionError) as error:
        raise FinetuneError(f"{path} is not JSON ({error}). {_WAY_OUT}") from None
    if not isinstance(values, dict) or not {"version", "arms", "design", "statistics"} <= values.keys():
        raise FinetuneError(f"{path} is not a report of a fine-tune. {_WAY_OUT}")
    if values["version"] != FORMAT_VERSION:
        raise FinetuneError(
            f"{path} is a report of version {values['version']!r}; this labelrank reads version {FORMAT_VERSION}. Run "
            "the fine-tune again, or use the labelrank that wrote it."
        )
    try:
        return Report.from_json(values)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise FinetuneError(f"{path} is not a report of a fine-tune: it is damaged ({error!r}). {_WAY_OUT}") from error


class Predictions:
    """The predictions of each run for the test rows."""

    def __init__(self, keys: tuple[str, ...], y: np.ndarray, columns: Mapping[str, np.ndarray]) -> None:
        self.keys = keys
        self.y = y
        """Labels, int32 (n_test,)."""
        self.columns = dict(columns)
        """'<arm>/<seed>' -> predicted labels, int32 (n_test,); failed runs are left out."""

    def of(self, arm: str) -> list[np.ndarray]:
        """Return the predictions of an arm, by seed."""
        return [values for name, values in self.columns.items() if name.rpartition("/")[0] == arm]


def read_predictions(path: Path) -> Predictions:
    """Return predictions.parquet; `path` is the file or its folder.

    Raises:
        FinetuneError: The file is missing, or is not a file of predictions.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = path / PREDICTIONS if path.is_dir() else path
    try:
        table = pq.read_table(path, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise FinetuneError(f"{path} cannot be read ({first_line(error)}). {_WAY_OUT}") from None
    if table.column_names[:2] != ["key", "label"]:
        raise FinetuneError(
            f"{path} has the columns {', '.join(table.column_names[:5])}, not key and label. {_WAY_OUT}"
        )
    return Predictions(
        tuple(table["key"].to_pylist()),
        table["label"].to_numpy(),
        {name: table[name].to_numpy() for name in table.column_names[2:]},
    )


def confusion_of(folder: Path, arm: str) -> np.ndarray:
    """Return the confusion matrix of an arm over its seeds, int64 (K, K) [true label, predicted label].

    Raises:
        FinetuneError: The results cannot be read, or do not have this arm.
    """
    from labelrank.finetune.metrics import confusion

    report, predictions = read_report(folder), read_predictions(folder)
    names = [one.name for one in report.arms]
    if arm not in names:
        raise FinetuneError(f"These results have no order {arm!r}; choose one of {', '.join(names)}.")
    n_classes = len(report.data.class_names)
    counts = np.zeros((n_classes, n_classes), np.int64)
    for predicted in predictions.of(arm):
        counts += confusion(predicted, predictions.y, n_classes)
    return counts


def leads_over(folder: Path, base: str) -> tuple[Pair, ...]:
    """Return the accuracy of each arm less that of `base`, with its interval; permutations are left out.

    Args:
        folder: Results of a comparison of targets.

    Raises:
        FinetuneError: The results cannot be read.
    """
    from labelrank.finetune.statistics import paired_over_rows

    report, predictions = read_report(folder), read_predictions(folder)

    def right(arm: str, seed: int) -> np.ndarray | None:
        guesses = predictions.columns.get(f"{arm}/{seed}")
        return None if guesses is None else (guesses == predictions.y).astype(np.float64)

    found = []
    for arm in report.arms:
        both = ((right(arm.name, seed), right(base, seed)) for seed in report.compared.seeds)
        leads = [one - other for one, other in both if one is not None and other is not None]
        if arm.name != base and arm.kind != "permuted" and leads:
            found.append(Pair(arm.name, *paired_over_rows(np.array(leads))))
    return tuple(found)


def _run_rows(report: Report, runs: Sequence[Run], scores: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    by_run = {(run.arm, run.seed): run for run in runs}
    for arm in report.arms:
        for place, seed in enumerate(report.compared.seeds):
            run = by_run[arm.name, seed]
            values = (_cell(arm.metrics[name][place] if name in arm.metrics else None) for name in scores)
            yield arm.name, arm.kind, seed, *values, len(run.epochs), f"{run.seconds:.3f}", run.problem or ""


def _curve_rows(runs: Sequence[Run]) -> Iterator[tuple[Any, ...]]:
    for run in runs:
        for e in run.epochs:
            yield run.arm, run.seed, e.epoch, _cell(e.train_loss), _cell(e.val_loss), _cell(e.val_accuracy)


def _cell(value: float | None) -> str:
    """Return a value with nine digits, enough for float32; an empty text if it is not known."""
    return "" if value is None or not math.isfinite(value) else f"{value:.9g}"


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _write_predictions(path: Path, runs: Sequence[Run], test: FeatureSet, decided: Mapping[str, np.ndarray]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"key": pa.array(test.keys, pa.string()), "label": pa.array(test.y, pa.int32())}
    for run in runs:
        if run.problem is None:
            columns[f"{run.arm}/{run.seed}"] = pa.array(run.predicted[:, 0], pa.int32())
    for name, labels in decided.items():
        arm, _, seed = name.rpartition("/")
        columns[f"{arm} by cost/{seed}"] = pa.array(labels, pa.int32())
    pq.write_table(pa.table(columns), path, compression="zstd")


@contextlib.contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    try:
        with replacing_folder(folder) as partial:
            yield partial
    except OSError as error:
        raise unwritable(folder, error) from error
