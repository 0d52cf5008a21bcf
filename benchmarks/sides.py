"""What the extraction benchmarks share: sides that take turns, a random checkpoint, the matmul roof, the tables.

Each side is a process of its own, in its own environment, that stays alive between runs. So a busy machine slows all
sides alike, no side pays another's memory, and start-up is measured apart. One JSON object a line goes each way.

A script builds its sides as `Worker`s in `serve` and compares them in `compare`. This file needs no more than NumPy,
because the peers' environments import it too.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from common import print_header, status_mib

Mark = Callable[[int], None]
"""Called with the number of samples done, after each batch."""
PAUSE_S = 0.5
"""Between two sides: thread pools that spin for a while after their work fall asleep."""
ROOF_SIZE, ROOF_DEPTH = 2048, 8


class Worker(Protocol):
    """One side, in its own process."""

    def extract(self, source: Path, mark: Mark) -> tuple[Sequence[str], np.ndarray]:
        """Return the keys and the pooled features (n, D) of the files of a source."""
        ...

    def model(self, batches: int) -> int:
        """Run the encoder alone on that many batches that are ready in memory; return the number of inputs."""
        ...

    def about(self) -> dict[str, str]:
        """Return `precision` and `versions`."""
        ...


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))


# --- In the process of a side ----------------------------------------------------------------------------------------


def serve(build: Callable[[], Worker]) -> None:
    """Answer requests on standard input until it ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not get among the answers
    worker = build()
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "extract":
            answer = _timed_extract(worker, Path(request["source"]), Path(request["features"]))
        elif request["do"] == "model":
            worker.model(1)
            start = time.perf_counter()
            count = worker.model(request["batches"])
            answer = {"rate": count / (time.perf_counter() - start)}
        else:
            answer = {**worker.about(), "peak_mib": status_mib("VmHWM")}
        print(json.dumps(answer), file=answers, flush=True)


def _timed_extract(worker: Worker, source: Path, features: Path) -> dict[str, float]:
    """Extract, save keys and features, and return when the first batch was done, and what those after it took."""
    marks: list[tuple[float, float, int]] = []
    keys, X = worker.extract(source, lambda done: marks.append((time.perf_counter(), time.process_time(), done)))
    end, end_processor = time.perf_counter(), time.process_time()
    first, first_processor, done = marks[0]
    np.savez(features, keys=np.array(keys), X=X)
    # The first batch waits for the encoder to be loaded, in some sides; what is finished after the last one counts.
    count = len(keys) - done
    return {
        "rate": count / (end - first),
        "processor_s": (end_processor - first_processor) / count,
        "first_at": time.time() - (time.perf_counter() - first),
    }


class Roof:
    """Matrix products of the fastest library at hand, as the most that an encoder can reach on this machine.

    OpenVINO (oneDNN): a chain of products with constant weights, so that its conversions at the ends do not count;
    in float32 NumPy's product too, and the faster of both. As a side, an "input" of it is 1 GFLOP.
    """

    def __init__(self, precision: str) -> None:
        import openvino
        from openvino import opset13

        self.precision = precision
        random = np.random.default_rng(0)
        x = node = opset13.parameter([ROOF_SIZE, ROOF_SIZE], np.float32)
        for _ in range(ROOF_DEPTH):
            weights = random.standard_normal((ROOF_SIZE, ROOF_SIZE), dtype=np.float32) / ROOF_SIZE**0.5
            node = opset13.matmul(node, opset13.constant(weights), False, False)
        hint = {"float32": "f32", "bfloat16": "bf16"}[precision]
        options = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
        compiled = openvino.Core().compile_model(openvino.Model([node], [x]), "CPU", options)
        self.request = compiled.create_infer_request()
        self.matrix = random.standard_normal((ROOF_SIZE, ROOF_SIZE), dtype=np.float32)

    def gflops(self) -> float:
        """Return the rate in GFLOP/s, of about half a second's work."""
        work = {"openvino": (lambda: self.request.infer([self.matrix]), ROOF_DEPTH)}
        if self.precision == "float32":
            work["numpy"] = (lambda: self.matrix @ self.matrix, 1)
        return max(self._rate(run, products) for run, products in work.values())

    def _rate(self, run: Callable[[], Any], products: int) -> float:
        run()
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < 0.5:
            run()
            count += products
        return 2 * ROOF_SIZE**3 * count / (time.perf_counter() - start) / 1e9


def serve_roof(precision: str) -> None:
    """Answer each line on standard input with the roof, in GFLOP/s."""
    roof = Roof(precision)
    for _ in sys.stdin:
        print(json.dumps({"gflops": roof.gflops()}), flush=True)


# --- In the process that compares ------------------------------------------------------------------------------------


class Process:
    """A side's process, and the requests it answers."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        self.spawned_at = time.time()
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **env}
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self._process.args} ended with {self._process.wait()}; its error is above.")
        return json.loads(answer)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@dataclass(frozen=True)
class Side:
    """How to start one side."""

    name: str
    python: str
    arguments: tuple[str, ...]
    """After the script's name."""

    def start(self) -> Process:
        env = {
            "CUDA_VISIBLE_DEVICES": "",  # processors are compared; benchmarks/gpu.py is for the others
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "TRANSFORMERS_VERBOSITY": "error",
        }
        return Process([self.python, sys.argv[0], *self.arguments], env)


def compare(
    sides: Sequence[Side],
    inputs: Mapping[str, Sequence[Path]],
    warm_up: Path,
    *,
    unit: str,
    baselines: Sequence[Side],
    exact: Side,
    gflop: float,
    model_batches: int,
    folder: Path,
) -> None:
    """Run the sides in turns on the same files and print what came out.

    Args:
        inputs: Title -> one source for each run; no two alike, so that nothing can come from a cache.
        warm_up: A small source for what is not counted: a first run in each process.
        unit: What is counted, such as image.
        baselines: Sides that the others' speed is divided by, run by run.
        exact: The side that the others' features are compared with.
        gflop: Work of the encoder for one input.
        model_batches: Batches of one measurement of the encoder alone.
        folder: For features in passing.
    """
    features = {side.name: folder / f"features-{number}.npz" for number, side in enumerate(sides)}
    starts: dict[str, tuple[float, float]] = {}
    processes: dict[str, Process] = {}

    def start(side: Side, name: str) -> Process:
        process = side.start()
        first = process.ask(do="extract", source=str(warm_up), features=str(features[side.name]))
        starts[name] = first["first_at"] - process.spawned_at, process.ask(do="about")["peak_mib"]
        time.sleep(PAUSE_S)
        return process

    for side in sides:
        if side.name.startswith("labelrank"):
            start(side, f"{side.name}, never used before").close()
        processes[side.name] = start(side, side.name)
    about = {name: process.ask(do="about") for name, process in processes.items()}
    precisions = {name: about[name]["precision"] for name in processes}

    ratios = "".join(f" ratio to {side.name} |" for side in baselines)
    print_header(
        f"\n| files | side | precision | {unit}/s | slowest to fastest |{ratios}"
        f" processor s per {unit} | least cosine | centred error |"
    )
    for title, sources in inputs.items():
        rates: dict[str, list[float]] = {side.name: [] for side in sides}
        processor: dict[str, list[float]] = {side.name: [] for side in sides}
        worst = {side.name: (1.0, 0.0) for side in sides}
        for source in sources:
            for side in sides:
                answer = processes[side.name].ask(do="extract", source=str(source), features=str(features[side.name]))
                rates[side.name].append(answer["rate"])
                processor[side.name].append(answer["processor_s"])
                time.sleep(PAUSE_S)
            for side in sides:
                cosine, error = difference(features[side.name], features[exact.name])
                worst[side.name] = min(worst[side.name][0], cosine), max(worst[side.name][1], error)
        for side in sides:
            cosine, error = worst[side.name]
            cells = (
                *(title, side.name, precisions[side.name]),
                *_rate_cells(rates, side, baselines),
                f"{statistics.median(processor[side.name]):.3f}",
                *(("1", "0") if side is exact else (f"{cosine:.6f}", f"{error:.2%}")),
            )
            print(f"| {' | '.join(cells)} |", flush=True)

    roofs = {precision: Process([sys.executable, __file__, precision], {}) for precision in ("float32", "bfloat16")}
    most = len(next(iter(inputs.values())))
    measured: dict[str, list[float]] = {precision: [] for precision in roofs}
    rates = {side.name: [] for side in sides}
    shares: dict[str, list[float]] = {side.name: [] for side in sides}
    for _ in range(most):
        for precision, process in roofs.items():
            measured[precision].append(process.ask()["gflops"])
            time.sleep(PAUSE_S)
        for side in sides:
            rates[side.name].append(processes[side.name].ask(do="model", batches=model_batches)["rate"])
            shares[side.name].append(rates[side.name][-1] * gflop / measured[precisions[side.name]][-1])
            time.sleep(PAUSE_S)
    print_header(
        f"\n| encoder alone | precision | {unit}/s | slowest to fastest |{ratios} GFLOP/s | of the matmul roof |"
    )
    for side in sides:
        cells = (
            *(side.name, precisions[side.name]),
            *_rate_cells(rates, side, baselines),
            f"{statistics.median(rates[side.name]) * gflop:.0f}",
            f"{statistics.median(shares[side.name]):.0%}",
        )
        print(f"| {' | '.join(cells)} |")
    roof = ", ".join(f"{precision} {statistics.median(rate):.0f} GFLOP/s" for precision, rate in measured.items())
    print(f"\nMatmul roof: {roof}. One {unit}: {gflop:.1f} GFLOP.")

    print_header("\n| process | s from its start to the first features | peak MiB |")
    for name, (seconds, peak) in starts.items():
        print(f"| {name} | {seconds:.1f} | {peak:.0f} |")
    print(f"\n{machine()}.")
    for versions in dict.fromkeys(about[side.name]["versions"] for side in sides):
        names = [side.name for side in sides if about[side.name]["versions"] == versions]
        print(f"{'; '.join(names)}: {versions}.")
    for process in (*processes.values(), *roofs.values()):
        process.close()


def _rate_cells(rates: Mapping[str, Sequence[float]], side: Side, baselines: Sequence[Side]) -> list[str]:
    ours = rates[side.name]
    ratios = [[a / b for a, b in zip(ours, rates[other.name], strict=True)] for other in baselines]
    return [
        f"{statistics.median(ours):.3g}",
        f"{min(ours):.3g} to {max(ours):.3g}",
        *(f"{statistics.median(each):.2f}" for each in ratios),
    ]


def difference(ours: Path, theirs: Path) -> tuple[float, float]:
    """Return the least cosine of two sides' features of a sample, and how far they are apart once centred.

    The second is ||A - B|| / ||B|| (Frobenius), each less its mean over the samples: a constant part, which random
    encoders have much of, makes any cosine look good.
    """
    a, b = (_by_key(path) for path in (ours, theirs))
    cosines = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    return float(cosines.min()), float(np.linalg.norm(a - b) / np.linalg.norm(b))


def _by_key(path: Path) -> np.ndarray:
    with np.load(path) as saved:
        return saved["X"][np.argsort(saved["keys"])].astype(np.float64)


def write_checkpoint(folder: Path, config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> float:
    """Write an encoder with random weights in the Hugging Face format; return its GFLOP for one input."""
    from safetensors.numpy import save_file

    from labelrank.models.cost import encoder_flops
    from labelrank.models.families import read_config
    from labelrank.models.names import encoder_tensors

    random = np.random.default_rng(0)

    def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
        # As ViT is initialised, but that no bias is 0 and no norm's weight 1, so that each would be missed.
        noise = random.standard_normal(shape, dtype=np.float32) * 0.02
        return noise + 1 if "norm" in name and name.endswith("weight") else noise

    encoder = read_config(config)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    tensors = {tensor.name: draw(tensor.name, tensor.shape) for tensor in encoder_tensors(encoder)}
    save_file(tensors, folder / "model.safetensors")
    return encoder_flops(encoder) / 1e9


def versions(*packages: str) -> str:
    """Return Python's version and those of packages of this environment."""
    from importlib.metadata import version

    names = ", ".join(f"{package} {version(package)}" for package in packages)
    return f"Python {platform.python_version()}, {names}"


def encode_all(dataset: Any, encoder: Any, preprocess: Any, **options: Any) -> Any:
    """Return labelrank's features of a whole dataset, encoded as one part."""
    from labelrank.features.encode import encode_parts

    (encoded,) = encode_parts(dataset, [dataset.samples], encoder, preprocess, **options)
    return encoded


def machine() -> str:
    """Return the processor, how many cores may be used, and those of its flags that matter here."""
    found: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    known = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "avx512_vnni", "amx_bf16", "amx_int8")
    flags = [flag for flag in known if flag in found.get("flags", "").split()]
    family = f"family {found.get('cpu family', '?')}, model {found.get('model', '?')}"
    return f"CPU: {found.get('model name', platform.processor())} ({family}), {cores()} cores, {' '.join(flags)}"


if __name__ == "__main__":
    serve_roof(sys.argv[1])
