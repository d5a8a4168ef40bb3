#!/usr/bin/env python3
"""Times nnlite beside PyTorch, JAX, ONNX Runtime, OpenVINO, ncnn and MNN, interleaved in one run, and prints ratios.

    python3 tools/compare.py [--nnlite build/release/nnlite] [--threads 1,2] [--rounds 5] [--json FILE] [--svg FILE]
    python3 tools/compare.py --epoch | --cold-start           a whole epoch of MNIST; from the start of a process to a digit

The peers come from the interpreter that runs this, or else from a private virtual environment (.venv) made with pip: 8 GB.
Networks are those of `nnlite bench --arch`. All have the same weights, which nnlite writes; before anything is timed, every
peer must give the outputs that nnlite gave (in training: the losses that PyTorch has in three steps). A ratio is the time of
the best peer divided by nnlite's, medians of the rounds; above 1 nnlite is faster. A training step is forward, loss, backward
and the update of SGD with momentum 0.9. Each peer is a process of its own, stopped while others are timed. Exit code 1: a peer
could not be run, or computes something else.
"""
import argparse
import json
import math
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

import own_python
from own_python import ROOT

# network, batch, and by how much nnlite should be ahead of the best peer with one thread
TRAINING = [("mlp", 64, 1.7), ("mlp", 1, 1.8), ("lenet", 64, 3), ("lenet", 1, 10), ("cnn99", 64, 1.6), ("resnet8", 32, 1.6),
            ("resnet8", 1, 3.5), ("dscnn", 32, 2.2), ("unet", 4, 1.7), ("mbv2", 4, 2)]
INFERENCE = [("mlp", 1, 1), ("mlp", 64, 1.1), ("lenet", 1, 1.8), ("lenet", 64, 2), ("cnn99", 1, 1.05), ("resnet8", 1, 1.1),
             ("dscnn", 1, 1.4), ("mbv1", 1, 1.2), ("mbv2", 1, 1), ("unet", 1, 1.1)]
WITH_TWO = {"train": 1.3, "infer": 1}
MEAN = 1.25                 # geometric, of inference with one thread
GAIN, LONG_ENOUGH = 1.7, 5  # of a second thread, where a step takes more than so many ms with one
BUSY = 0.5  # load of the machine before the run
PEERS = {"PyTorch": ("torch", "torch"), "JAX": ("jax", "jax"), "ONNX Runtime": ("onnxruntime", "onnxruntime"),
         "OpenVINO": ("openvino", "openvino"), "ncnn": ("ncnn", "ncnn"), "MNN": ("MNN", "MNN")}  # module, package
TO_WRITE_NETWORKS = {name: name for name in ("MNN", "numpy", "onnx", "onnxscript", "pnnx", "torch")}


def say(text):
    print(text, file=sys.stderr, flush=True)


def cell(ms):
    return "-" if ms is None else f"{ms:#.3g}" if ms < 100 else f"{ms:.0f}"


def short(met):
    return "" if met else "   SHORT"


def print_row(r, columns):
    print(f"{r['row']:18}" + "".join(f"{cell(r['peers'].get(c, {}).get('ms')):>13}" for c in columns) +
          f"{cell(r['nnlite_ms']):>9}", end="")
    if r["best"]:
        way = r["peers"][r["best"]]["way"]
        print(f"{r['ratio']:8.2f}{r['required']:8.4g}  {r['best']}{', ' + way if r['best'] == 'PyTorch' else ''}"
              f"{short(r['met'])}", end="")
    print()
    for kind in ("errors", "notes"):
        for who, message in r[kind].items():
            print(f"  {'ERROR' if kind == 'errors' else 'not used:'} {who}: {message}")
    sys.stdout.flush()


def geometric_mean(results):
    ratios = [r["ratio"] for r in results if r["ratio"]]
    return math.exp(statistics.fmean(map(math.log, ratios))) if ratios else None


def print_mean(results, needed):
    mean = geometric_mean(results)
    if mean:
        print(f"geometric mean {mean:.2f}" + (f", needed {needed:.4g}{short(mean >= needed)}" if needed else ""))


def print_gains(results):
    """What the second thread brings nnlite itself."""
    results = [r for r in results if r["gain"]]
    if not results:
        return
    print("\nnnlite with 1 thread / with more, the same rounds")
    for r in results:
        needed = GAIN if r["nnlite_ms"] * r["gain"] > LONG_ENOUGH else None
        print(f"{r['row']:18}{r['gain']:8.2f}" + (f"{needed:8.4g}{short(r['gain'] >= needed)}" if needed else ""))


def time_table(o, mode, threads, folder, keep):
    """The rows of one kind with so many threads; keep takes each result."""
    import compare_rows

    wanted = o.peers
    table = TRAINING if mode == "train" else INFERENCE
    rows = [compare_rows.Row(n, b, mode, threads, need if threads == 1 else WITH_TWO[mode]) for n, b, need in table]
    rows = [r for r in rows if o.only in r.name and r.peers(wanted)]
    columns = list(dict.fromkeys(p for r in rows for p in r.peers(wanted)))
    if not rows:
        return
    print(f"\n{'training step' if mode == 'train' else 'inference'}, {threads} thread{'s' if threads > 1 else ''}, ms")
    print(f"{'row':18}" + "".join(f"{c:>13}" for c in columns) + f"{'nnlite':>9}{'ratio':>8}{'needed':>8}  best peer")
    results = []
    for row in rows:
        compare_rows.time_row(o.nnlite, row, folder / f"{row.network}{row.batch}", wanted, o.rounds, say)
        results.append(row.result())
        print_row(results[-1], columns)
        keep(results[-1])
    print_mean(results, MEAN if mode == "infer" and threads == 1 and len(rows) == len(table) else None)


def time_rows(o):
    results, load = [], os.getloadavg()[0]

    with tempfile.TemporaryDirectory() as folder:
        for threads in o.threads:
            for mode in ("train", "infer"):
                time_table(o, mode, threads, pathlib.Path(folder), results.append)
    if not results:
        sys.exit(f"no row is called '{o.only}' and has one of these peers")
    write(o.json, {"rounds": o.rounds, "load_before": load, "rows": results})
    print_gains(results)
    versions = {peer: entry["version"] for r in results for peer, entry in r["peers"].items()}
    note = f"{', '.join(f'{peer} {version}' for peer, version in versions.items())}; nnlite uses {results[-1]['isa']}"
    print(f"\n{note}")
    if load > BUSY:
        print(f"other programs were running (load {load:.1f}), which disturbs two threads most: do not trust this")
    if o.svg:
        import compare_chart

        compare_chart.draw(results, f"medians of {o.rounds} rounds; {note}", o.svg)
    return not any(r["errors"] for r in results)


def write(path, content):
    """All of it or what was there before."""
    if path:
        pathlib.Path(path + ".part").write_text(json.dumps(content, indent=1) + "\n")
        os.replace(path + ".part", path)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nnlite", default=str(ROOT / "build" / "release" / "nnlite"), metavar="PROGRAM")
    parser.add_argument("--threads", default="1,2", help="1, 2 or 1,2 (default)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each, the others between (default 5)")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose name contains this: lenet, 'B1 ', train")
    parser.add_argument("--peers", default=",".join(PEERS), metavar="LIST", 
                        help="with which to compare; PyTorch, the measure of training, always (default: %(default)s)")
    parser.add_argument("--epoch", action="store_true", help="a whole epoch of MNIST beside PyTorch, in place of the rows")
    parser.add_argument("--cold-start", action="store_true", help="one picture beside a Python script, in place of the rows")
    parser.add_argument("--json", metavar="FILE", help="write the figures to this file")
    parser.add_argument("--svg", metavar="FILE", help="draw the ratios of the rows")
    o = parser.parse_args()
    o.nnlite = os.path.abspath(o.nnlite)
    given = [p.strip() for p in o.peers.split(",")]
    for p in given:
        if p not in PEERS:
            parser.error(f"--peers: '{p}' is none of {', '.join(PEERS)}")
    o.peers = [p for p in PEERS if p == "PyTorch" or p in given]
    if o.threads not in ("1", "2", "1,2"):
        parser.error("--threads: give 1, 2 or 1,2")
    o.threads = [int(t) for t in o.threads.split(",")]
    if o.rounds < 1:
        parser.error("--rounds: at least 1")
    if (o.epoch or o.cold_start) and (o.svg or o.only):
        parser.error("--svg and --only are about the rows, not about --epoch and --cold-start")
    names = [f"{n} B{b} {mode}" for mode, table in (("train", TRAINING), ("infer", INFERENCE)) for n, b, _ in table]
    if not any(o.only in name for name in names):
        parser.error(f"--only: no row has '{o.only}' in its name: there are {', '.join(names)}")
    return o


def check_paths(o):
    """What would fail after the work fails before it."""
    for path in filter(None, (o.json, o.svg)):
        folder = os.path.dirname(os.path.abspath(path))
        if os.path.isdir(path) or not os.access(folder, os.W_OK) or (os.path.exists(path) and not os.access(path, os.W_OK)):
            sys.exit(f"compare.py: {path}: cannot be written: name a file in a folder that is there")
    try:
        version = subprocess.run([o.nnlite, "--version"], capture_output=True, text=True).stdout
        is_nnlite = re.fullmatch(r"[0-9.]+\n", version)
    except OSError:
        is_nnlite = False
    if not is_nnlite:
        sys.exit(f"compare.py: {o.nnlite}: not the program nnlite: build it first (cmake --preset release; "
                 "cmake --build --preset release)")


def main():
    o = parse()
    check_paths(o)
    if o.epoch or o.cold_start:
        needed = {"numpy": "numpy", "torch": "torch"} if o.epoch else {}
        if o.cold_start:
            needed.update({"numpy": "numpy", "onnx": "onnx", "onnxruntime": "onnxruntime", "PIL": "pillow"})
        own_python.need(needed)
        import compare_whole

        content = {}
        if o.epoch:
            content["epoch"] = compare_whole.compare_epochs(o.nnlite, o.threads, o.rounds, say)
        if o.cold_start:
            content["cold_start"] = compare_whole.compare_cold_start(o.nnlite)
        write(o.json, content)
        good = all(r["same"] for part in content.values() for r in part)
    else:
        own_python.need({**TO_WRITE_NETWORKS, **dict(PEERS[p] for p in o.peers)})
        good = time_rows(o)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
