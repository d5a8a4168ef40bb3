"""One row of compare.py: a network and a batch, prepared for every peer, checked, and timed in rounds."""
import json
import math
import os
import pathlib
import signal
import statistics
import subprocess
import sys

import numpy as np

import nnl_file

SECONDS = 0.4     # one measurement
TOLERANCE = 1e-3  # of the largest output (Winograd convolutions of a deep network differ by 3e-4), of the loss
PEERS = {"train": ("PyTorch", "JAX"), "infer": ("PyTorch", "ONNX Runtime", "OpenVINO", "ncnn", "MNN")}
ONE_AT_A_TIME = ("ncnn", "MNN")


class Row:
    def __init__(self, network, batch, mode, threads, required):
        self.network, self.batch, self.mode, self.threads, self.required = network, batch, mode, threads, required
        self.name = f"{network} B{batch} {mode}"
        self.nnlite, self.one_thread, self.isa = [], [], ""
        self.times = {}  # of every peer and way that computes the same
        self.versions, self.errors, self.notes = {}, {}, {}

    def peers(self, wanted):
        return [p for p in wanted if p in PEERS[self.mode] and (self.batch == 1 or p not in ONE_AT_A_TIME)]

    def result(self):
        ours, peers = statistics.median(self.nnlite), {}
        for (peer, way), times in self.times.items():
            entry = peers.setdefault(peer, {"version": self.versions[peer], "ways": {}})
            entry["ways"][way] = statistics.median(times)
        for entry in peers.values():
            entry["way"] = min(entry["ways"], key=entry["ways"].get)
            entry["ms"] = entry["ways"][entry["way"]]
        best = min(peers, key=lambda p: peers[p]["ms"], default=None)
        ratio = peers[best]["ms"] / ours if best else None
        return {"row": self.name, "mode": self.mode, "threads": self.threads, "isa": self.isa, "nnlite_ms": ours,
                "gain": statistics.median(self.one_thread) / ours if self.one_thread else None, "peers": peers, "best": best,
                "ratio": ratio, "required": self.required, "met": ratio is not None and ratio >= self.required,
                "errors": self.errors, "notes": self.notes}


def run_nnlite(program, *words):
    out = subprocess.run([program, *map(str, words)], capture_output=True, text=True)
    if out.returncode != 0:
        sys.exit(f"nnlite: {' '.join(map(str, words))}: {out.stderr.strip()}")
    return out.stdout


def last_line(path):
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def peer_environment(threads):
    counts = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC")  # the last one is XLA's
    return {**os.environ, **{name: str(threads) for name in counts}, "JAX_PLATFORMS": "cpu"}


def peer_command(peer, row, folder):
    script = str(pathlib.Path(__file__).with_name("compare_peers.py"))
    return [sys.executable, script, peer, str(folder), row.network, str(row.batch), row.mode, str(row.threads)]


def write_network(program, row, folder):
    """Weights that have learned something, so that outputs depend on the input, and what nnlite answers to it."""
    digits = ["--data", "synthetic-digits:200", "--preprocess", "plain", "--steps", 100, "--batch", 16, "--lr", 0.001]
    noise = ["--data", "synthetic", "--steps", 30, "--batch", 4, "--lr", 0.01]
    run_nnlite(program, "train", "--arch", row.network, *(digits if row.network in ("mlp", "lenet", "cnn99") else noise),
               "--schedule", "constant", "--epochs", 99, "--val", 0, "--out", folder / "net.nnl")
    model = nnl_file.NnlFile(folder / "net.nnl")
    for name, values in zip("xy", model.golden()):
        np.save(folder / name, np.ascontiguousarray(np.moveaxis(values, -1, 1) if values.ndim == 4 else values))
    ours = json.loads(run_nnlite(program, "info", "--arch", row.network, "--json"))["parameters"]
    theirs = sum(p.size for n in model.nodes for k, p in n.parameters.items() if not k.startswith("running"))
    if ours != theirs:
        sys.exit(f"{row.network}: {theirs} parameters are compared, nnlite bench has {ours}: not the same network")


def prepare(program, row, folder):
    folder.mkdir(exist_ok=True)
    if not (folder / "net.nnl").exists():
        write_network(program, row, folder)
    if row.mode == "train" or (folder / "net.onnx").exists():
        return
    log = folder / "prepare.log"
    with open(log, "w") as to:
        out = subprocess.run(peer_command("prepare", row, folder), cwd=folder, env=peer_environment(row.threads), stdout=to,
                             stderr=to)
    if out.returncode != 0:
        sys.exit(f"{row.name}: the network could not be written for the peers: {last_line(log)}")


class Peer:
    """A process that computes and times. It is stopped unless asked, so that its idle threads disturb nobody."""

    def __init__(self, name, row, folder):
        self.name, self.log = name, folder / f"{name}.log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(peer_command(name, row, folder), cwd=folder, env=peer_environment(row.threads),
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)

    def answer(self):
        line = self.process.stdout.readline()
        self.process.send_signal(signal.SIGSTOP)
        return json.loads(line) if line else None

    def time(self, way):
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write(json.dumps({"way": way, "seconds": SECONDS}) + "\n")
        self.process.stdin.flush()
        answer = self.answer()
        if answer is None:
            sys.exit(f"{self.name}, {way}: ended while it was timed: {last_line(self.log)}")
        return answer["ms"]

    def end(self):
        self.process.kill()
        self.process.wait()


def difference(computed, expected):
    """Relative to the largest expected value; infinite where shapes differ or a value is not a number."""
    computed, expected = np.ravel(computed), np.ravel(expected)
    if computed.shape != expected.shape or not np.isfinite(computed).all():
        return math.inf
    return float(np.abs(computed - expected).max() / np.abs(expected).max())


def check(row, peer, expected):
    """Takes the ways that compute what is expected, notes what is wrong with the others. None: the first one is right."""
    first = peer.answer()
    if first is None:
        row.errors[peer.name] = f"did not start: {last_line(peer.log)}"
        return expected
    row.versions[peer.name] = first["version"]
    failures = row.notes if first["computed"] else row.errors  # torch.compile needs a compiler: there are other ways
    failures.update({f"{peer.name} {way}": message for way, message in first["failed"].items()})
    for way, values in first["computed"].items():
        expected = values if expected is None else expected
        error = difference(values, expected)
        if error <= TOLERANCE:
            row.times[peer.name, way] = []
        else:
            row.errors[f"{peer.name} {way}"] = f"computes something else: differs by {error:.2g} of the largest value"
    return expected


def time_nnlite(program, row, threads):
    return json.loads(run_nnlite(program, "bench", "--arch", row.network, "--batch", row.batch, "--threads", threads, "--seconds",
                                 SECONDS, "--json", *(["--train"] if row.mode == "train" else [])))


def time_round(program, row, peers):
    for peer in peers:
        fastest = min((min(t) for t in row.times.values() if t), default=math.inf)
        for (name, way), times in row.times.items():
            if name == peer.name and (not times or min(times) < 3 * fastest):  # who is far behind is timed once
                times.append(peer.time(way))
    out = time_nnlite(program, row, row.threads)
    row.nnlite.append(out["ms"]["median"])
    row.isa = out["isa"]
    if row.threads > 1:
        row.one_thread.append(time_nnlite(program, row, 1)["ms"]["median"])


def time_row(program, row, folder, wanted, rounds, say):
    say(f"{row.name}, {row.threads} thread(s): the network")
    prepare(program, row, folder)
    expected, peers = None, []
    if row.mode == "infer":
        y = np.load(folder / "y.npy")
        expected = np.resize(y, (row.batch, *y.shape[1:]))
    try:
        for name in row.peers(wanted):
            say(f"{row.name}, {row.threads} thread(s): start of {name}")
            peers.append(Peer(name, row, folder))
            expected = check(row, peers[-1], expected)
        for k in range(rounds):
            say(f"{row.name}, {row.threads} thread(s): round {k + 1} of {rounds}")
            time_round(program, row, peers)
    finally:
        for peer in peers:
            peer.end()
