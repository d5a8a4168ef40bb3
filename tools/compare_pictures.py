#!/usr/bin/env python3
"""Times `nnlite predict` on a folder of photographs beside a Python script that does the same, interleaved.

    python3 tools/compare_pictures.py [--nnlite build/release/nnlite] [--count 1000] [--rounds 3] [--json FILE]

Python: Pillow decodes, NumPy and SciPy do the digit front end (digit_front_end.py), ONNX Runtime runs the network of the
same .nnl file. nnlite is one call of the program, its start included; the start of Python and of its workers is not counted.
With two threads Python prepares in two processes and ONNX Runtime has two threads. Medians of the rounds.
"""
import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time

import own_python
from own_python import ROOT

own_python.need({"numpy": "numpy", "PIL": "pillow", "scipy": "scipy", "onnxruntime": "onnxruntime", "onnx": "onnx"})

import multiprocessing  # noqa: E402

import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
from PIL import Image  # noqa: E402

import digit_front_end  # noqa: E402
import nnl_file  # noqa: E402

BATCH = 32


def draw(program, folder, count, side):
    """The pictures, drawn once."""
    done = folder / f"{count} of {side}"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([program, "digits", str(folder), str(count), "9", str(side)], check=True)
        done.touch()
    return sorted(str(p) for p in folder.glob("*/*.png"))


def run_nnlite(program, model, folder, threads):
    start = time.perf_counter()
    out = subprocess.run([program, "predict", model, str(folder), "--threads", str(threads), "--json"],
                         capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if out.returncode != 0:
        sys.exit(f"nnlite: predict: {out.stderr.strip()}")
    results = json.loads(out.stdout)["results"]
    return seconds, {r["path"]: (r["label"], r["rejected"]) for r in results}


def nnlite_cpu(program, model, folder, count):
    """Processor milliseconds a picture, which another program on the machine changes less than the time it takes."""
    def used():
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = used()
    run_nnlite(program, model, folder, 1)
    return (used() - before) / count * 1e3


def prepare(path):
    return digit_front_end.prepare(Image.open(path))


class Script:
    """What one would write in Python."""

    def __init__(self, model, threads):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.model = model
        self.session = onnxruntime.InferenceSession(nnl_file.to_onnx(model), options, providers=["CPUExecutionProvider"])
        self.pool = multiprocessing.get_context("fork").Pool(threads) if threads > 1 else None

    def run(self, paths):
        start, answers = time.perf_counter(), {}
        prepared = self.pool.imap(prepare, paths, chunksize=16) if self.pool else map(prepare, paths)
        for first in range(0, len(paths), BATCH):
            names = paths[first:first + BATCH]
            pictures, reasons = zip(*(next(prepared) for _ in names))
            x = np.stack(pictures)[:, None] / np.float32(255)
            y = self.session.run(None, {"image": x})[0]
            p = np.exp(y - y.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            for name, reason, row in zip(names, reasons, p):
                answers[name] = self.model.labels[row.argmax()], reason is not None or row.max() < self.model.threshold
        return time.perf_counter() - start, answers


def stages(script, paths):
    """Processor milliseconds a picture of decoding, front end and network in Python."""
    images, times = [], []
    start = time.process_time()
    for path in paths:
        images.append(Image.open(path))
        images[-1].load()
    times.append(time.process_time() - start)
    start = time.process_time()
    pictures = [digit_front_end.prepare(image)[0] for image in images]
    times.append(time.process_time() - start)
    start = time.process_time()
    for first in range(0, len(paths), BATCH):
        script.session.run(None, {"image": np.stack(pictures[first:first + BATCH])[:, None] / np.float32(255)})
    times.append(time.process_time() - start)
    return [t / len(paths) * 1e3 for t in times]


def main():
    build = ROOT / "build" / "release"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nnlite", default=str(build / "nnlite"))
    parser.add_argument("--model", default=str(ROOT / "models" / "digits.nnl"))
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--side", type=int, default=600, help="of the pictures, in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", help="write the rows to this file")
    o = parser.parse_args()
    samples = o.nnlite + "-samples"
    for program in (o.nnlite, samples):
        if not os.path.exists(program):
            sys.exit(f"nnlite: {program}: not there: build it first (cmake --preset release; cmake --build --preset release)")
    model = nnl_file.NnlFile(o.model)
    if model.preprocessing[56:62] != digit_front_end.PARAMETERS:
        sys.exit(f"nnlite: {o.model}: its digit front end has parameters that digit_front_end.py does not have")
    folder = ROOT / "build" / "compare_pictures"
    paths = draw(samples, folder, o.count, o.side)
    scripts = {threads: Script(model, threads) for threads in (1, 2)}
    ours, theirs = {1: [], 2: []}, {1: [], 2: []}
    for _ in range(o.rounds):
        for threads, script in scripts.items():
            seconds, answers = run_nnlite(o.nnlite, o.model, folder, threads)
            ours[threads].append(seconds)
            seconds, their_answers = script.run(paths)
            theirs[threads].append(seconds)
    print(f"{len(paths)} PNG pictures of {o.side} x {o.side}, ONNX Runtime {onnxruntime.__version__}, NumPy {np.__version__}, "
          f"medians of {o.rounds} rounds, pictures a second")
    print(f"{'threads':>8}{'Python':>10}{'nnlite':>10}{'ratio':>8}")
    rows = []
    for threads in scripts:
        a, b = (len(paths) / statistics.median(s[threads]) for s in (theirs, ours))
        rows.append({"threads": threads, "python": a, "nnlite": b, "ratio": b / a})
        print(f"{threads:8}{a:10.1f}{b:10.1f}{b / a:8.2f}")
    same = sum(answers[p] == their_answers[p] for p in paths) / len(paths)
    share = stages(scripts[1], paths[:200])
    cpu = nnlite_cpu(o.nnlite, o.model, folder, len(paths))
    print("processor time, one thread, ms a picture: nnlite {:.2f} in all; Python decoding {:.2f}, front end {:.2f}, "
          "network {:.2f}".format(cpu, *share))
    print(f"answers (label, rejected or not) that agree: {100 * same:.1f} %")
    if o.json:
        with open(o.json, "w") as file:
            json.dump({"count": len(paths), "side": o.side, "rows": rows, "agree": same, "python_cpu_ms": share,
                       "nnlite_cpu_ms": cpu}, file, indent=1)
    if same < 0.98:
        sys.exit("nnlite: the two do not do the same: at least 98 % of the answers must agree")


if __name__ == "__main__":
    main()
