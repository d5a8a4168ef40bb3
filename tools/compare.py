#!/usr/bin/env python3
"""Times nnlite beside PyTorch, JAX, ONNX Runtime, OpenVINO, ncnn and MNN, interleaved in one run, and prints a table of ratios.

    python3 tools/compare.py [--nnlite build/release/nnlite] [--threads 1,2] [--rounds 5] [--json FILE] [--svg FILE]

The peers come from the interpreter that runs this, or else from a private virtual environment (.venv) made with pip.
Networks are those of `nnlite bench --arch`. All have the same weights, which nnlite writes; before anything is timed, every peer
must give the outputs that nnlite gave (in training: the losses of three steps that PyTorch has). A ratio is the time of the best
peer divided by nnlite's, medians of the rounds; above 1 nnlite is faster. A training step is forward, loss, backward and the
update of SGD with momentum 0.9. Each peer is a process of its own, stopped while others are timed.
"""
import argparse
import json
import math
import os
import pathlib
import signal
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
MORE_THREADS = {"train": 1.3, "infer": 1}  # with two threads and more
GEOMETRIC_MEAN, GAIN = 1.25, 1.7           # of inference with one thread; of a second thread where a step takes over 5 ms
PEERS = {"PyTorch": ("torch", "torch"), "JAX": ("jax", "jax"), "ONNX Runtime": ("onnxruntime", "onnxruntime"),
         "OpenVINO": ("openvino", "openvino"), "ncnn": ("ncnn", "ncnn"), "MNN": ("MNN", "MNN")}  # module, package
ALWAYS = {"numpy": "numpy", "torch": "torch", "onnx": "onnx", "onnxscript": "onnxscript", "pnnx": "pnnx", "MNN": "MNN"}
SECONDS = 0.4    # one measurement
TOLERANCE = 1e-4  # of the largest output, of the loss


class Row:
    def __init__(self, network, batch, mode, threads, required):
        self.network, self.batch, self.mode, self.threads, self.required = network, batch, mode, threads, required
        self.name = f"{network} B{batch} {mode}"
        self.nnlite, self.isa, self.times, self.versions, self.errors = [], "", {}, {}, {}

    def peers(self, wanted):
        known = {"train": ("PyTorch", "JAX"), "infer": ("PyTorch", "ONNX Runtime", "OpenVINO", "ncnn", "MNN")}[self.mode]
        return [p for p in wanted if p in known and (self.batch == 1 or p not in ("ncnn", "MNN"))]

    def best_way(self, peer):
        """Milliseconds and name of the fastest way of a peer."""
        return min(((statistics.median(t), way) for (p, way), t in self.times.items() if p == peer), default=(None, None))

    def result(self):
        ours = statistics.median(self.nnlite)
        peers = {}
        for peer in dict.fromkeys(p for p, _ in self.times):
            ms, way = self.best_way(peer)
            peers[peer] = {"ms": ms, "way": way, "version": self.versions[peer],
                           "ways": {w: statistics.median(t) for (p, w), t in self.times.items() if p == peer}}
        best = min(peers, key=lambda p: peers[p]["ms"], default=None)
        ratio = peers[best]["ms"] / ours if best else None
        return {"row": self.name, "mode": self.mode, "threads": self.threads, "isa": self.isa, "nnlite_ms": ours, "peers": peers,
                "best": best, "ratio": ratio, "required": self.required, "met": ratio is not None and ratio >= self.required,
                "errors": self.errors}


def say(text):
    print(text, file=sys.stderr, flush=True)


def run_nnlite(program, *words):
    out = subprocess.run([program, *map(str, words)], capture_output=True, text=True)
    if out.returncode != 0:
        sys.exit(f"nnlite: {' '.join(map(str, words))}: {out.stderr.strip()}")
    return out.stdout


def peer_environment(threads):
    counts = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC")  # the last one is XLA's
    return {**os.environ, **{name: str(threads) for name in counts}, "JAX_PLATFORMS": "cpu"}


def peer_command(peer, row, folder):
    script = str(pathlib.Path(__file__).with_name("compare_peers.py"))
    return [sys.executable, script, peer, str(folder), row.network, str(row.batch), row.mode, str(row.threads)]


def prepare(program, row, folder):
    """Weights that are not those of the start, so that outputs depend on the input, and what nnlite answers to it."""
    import numpy as np

    import nnl_file

    digits = row.network in ("mlp", "lenet", "cnn99")
    data = ["--data", "synthetic-digits:200", "--preprocess", "plain", "--steps", "100", "--batch", "16", "--lr", "0.001"]
    noise = ["--data", "synthetic", "--steps", "30", "--batch", "4", "--lr", "0.01"]
    run_nnlite(program, "train", "--arch", row.network, *(data if digits else noise), "--schedule", "constant", "--epochs", 99,
               "--val", 0, "--out", folder / "net.nnl")
    for name, values in zip("xy", nnl_file.NnlFile(folder / "net.nnl").golden()):
        np.save(folder / name, np.ascontiguousarray(np.moveaxis(values, -1, 1) if values.ndim == 4 else values))
    if row.mode == "infer":
        with open(folder / "prepare.log", "w") as log:
            code = subprocess.run(peer_command("prepare", row, folder), cwd=folder, env=peer_environment(row.threads),
                                  stdout=log, stderr=log).returncode
        if code != 0:
            sys.exit(f"{row.name}: the network could not be written for the peers: {tail(folder / 'prepare.log')}")


def tail(path):
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


class Peer:
    """A process that computes and times; it is stopped unless asked, so that its idle threads disturb nobody."""

    def __init__(self, name, row, folder):
        self.name, self.log = name, folder / f"{name}.log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(peer_command(name, row, folder), cwd=folder, env=peer_environment(row.threads),
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        self.first = self._answer()

    def _answer(self):
        line = self.process.stdout.readline()
        if line:
            self.process.send_signal(signal.SIGSTOP)
        return json.loads(line) if line else None

    def time(self, way):
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write(json.dumps({"way": way, "seconds": SECONDS}) + "\n")
        self.process.stdin.flush()
        answer = self._answer()
        if answer is None:
            sys.exit(f"{self.name}, {way}: stopped while it was timed: {tail(self.log)}")
        return answer["ms"]

    def end(self):
        self.process.kill()
        self.process.wait()


def difference(computed, expected):
    """Relative to the largest expected value; not a number counts as a difference."""
    import numpy as np

    computed, expected = np.ravel(computed), np.ravel(expected)
    if computed.shape != expected.shape:
        return math.inf
    d = float(np.abs(computed - expected).max() / np.abs(expected).max())
    return d if d == d else math.inf


def start_peers(row, folder, wanted):
    """The peers that compute the same; notes errors of the others."""
    import numpy as np

    peers, expected = [], None
    if row.mode == "infer":
        y = np.load(folder / "y.npy")
        expected = np.resize(y, (row.batch, *y.shape[1:]))
    for name in row.peers(wanted):
        peer = Peer(name, row, folder)
        if peer.first is None:
            row.errors[name] = f"did not start: {tail(peer.log)}"
            peer.end()
            continue
        row.versions[name] = peer.first["version"]
        for way, message in peer.first["failed"].items():
            row.errors[f"{name} {way}"] = message
        for way, values in peer.first["computed"].items():
            expected = values if expected is None else expected
            error = difference(values, expected)
            if error <= TOLERANCE:
                row.times[name, way] = []
            else:
                row.errors[f"{name} {way}"] = f"computes something else: differs by {error:.2g} of the largest value"
        peers.append(peer)
    return peers


def time_row(program, row, folder, wanted, rounds):
    prepare(program, row, folder)
    info = json.loads(run_nnlite(program, "info", "--arch", row.network, "--json"))
    peers = start_peers(row, folder, wanted)
    del info
    for k in range(rounds):
        for peer in peers:
            fastest = min((min(t) for t in row.times.values() if t), default=math.inf)
            for (name, way), times in row.times.items():
                if name == peer.name and (not times or min(times) < 3 * fastest):  # the hopeless are timed once
                    times.append(peer.time(way))
        out = json.loads(run_nnlite(program, "bench", "--arch", row.network, "--batch", row.batch, "--threads", row.threads,
                                    "--seconds", SECONDS, "--json", *(["--train"] if row.mode == "train" else [])))
        row.nnlite.append(out["ms"]["median"])
        row.isa = out["isa"]
    for peer in peers:
        peer.end()


def cell(ms):
    return "-" if ms is None else f"{ms:.3g}" if ms < 100 else f"{ms:.0f}"


def print_head(mode, threads, columns):
    print(f"\n{'training step' if mode == 'train' else 'inference'}, {threads} thread(s), ms")
    print(f"{'row':20}" + "".join(f"{c:>14}" for c in columns) + f"{'nnlite':>10}{'ratio':>8}{'needed':>8}  best peer")


def print_row(r, columns):
    times = "".join(f"{cell(r['peers'].get(c, {}).get('ms')):>14}" for c in columns)
    if r["ratio"] is None:
        print(f"{r['row']:20}{times}{cell(r['nnlite_ms']):>10}", flush=True)
        return
    way = r["peers"][r["best"]]["way"]
    best = f"PyTorch, {way}" if r["best"] == "PyTorch" else r["best"]
    print(f"{r['row']:20}{times}{cell(r['nnlite_ms']):>10}{r['ratio']:8.2f}{r['required']:8.4g}  {best}"
          f"{'' if r['met'] else '   SHORT'}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nnlite", default=str(ROOT / "build" / "release" / "nnlite"))
    parser.add_argument("--threads", default="1,2", help="1, 2 or 1,2 (default)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="rows whose text contains this, e.g. 'lenet', 'B1 ' or 'train'")
    parser.add_argument("--peers", default=",".join(PEERS), help="those to compare with (default: %(default)s)")
    parser.add_argument("--json", help="write the rows to this file")
    parser.add_argument("--svg", help="draw the ratios, an .svg file")
    o = parser.parse_args()
    o.nnlite = os.path.abspath(o.nnlite)
    wanted = [p.strip() for p in o.peers.split(",")]
    unknown = [p for p in wanted if p not in PEERS]
    if unknown:
        parser.error(f"--peers: {unknown[0]} is none of {', '.join(PEERS)}")
    if not os.path.exists(o.nnlite):
        sys.exit(f"nnlite: {o.nnlite}: not there: build it first (cmake --preset release; cmake --build --preset release)")
    own_python.need({**ALWAYS, **dict(PEERS[p] for p in wanted)})
    results = []
    for threads in map(int, o.threads.split(",")):
        for mode, list_of_rows in (("train", TRAINING), ("infer", INFERENCE)):
            rows = [Row(n, b, mode, threads, need if threads == 1 else MORE_THREADS[mode]) for n, b, need in list_of_rows]
            rows = [r for r in rows if o.only in r.name]
            columns = list(dict.fromkeys(p for r in rows for p in r.peers(wanted)))
            if rows:
                print_head(mode, threads, columns)
            for row in rows:
                say(f"{row.name}, {threads} thread(s)")
                with tempfile.TemporaryDirectory() as folder:
                    time_row(o.nnlite, row, pathlib.Path(folder), wanted, o.rounds)
                results.append(row.result())
                print_row(results[-1], columns)
                for who, message in row.errors.items():
                    print(f"  ERROR {who}: {message}", flush=True)
                if o.json:
                    pathlib.Path(o.json).write_text(json.dumps(results, indent=1))
            ratios = [r["ratio"] for r in results if (r["mode"], r["threads"]) == (mode, threads) and r["ratio"]]
            if mode == "infer" and ratios:
                print(f"geometric mean {math.exp(statistics.fmean(map(math.log, ratios))):.2f}")
    sys.exit(1 if any(r["errors"] for r in results) else 0)


if __name__ == "__main__":
    main()
