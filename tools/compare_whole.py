"""Two whole jobs for compare.py: an epoch of MNIST, and one digit from the start of the process."""
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import compare_rows
from own_python import ROOT

EPOCH_REQUIRED = {1: 1.7, 2: 2.2}
BATCH, RATE, MOMENTUM = 64, 0.01, 0.9
RUNS = 20
# What one would write in Python to read a digit: the network of models/lenet.nnl as ONNX.
SCRIPT = """
import sys
import numpy
import onnxruntime
from PIL import Image
image = Image.open(sys.argv[2]).convert("L").resize((28, 28))
x = 1 - numpy.asarray(image, numpy.float32)[None, None] / 255
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
print(session.run(None, {"image": x})[0].argmax())
"""


def find_mnist():
    folders = (os.environ.get("NNLITE_DATA", ""), ROOT.parent / "shared" / "data")
    found = [pathlib.Path(f) / "mnist" for f in folders if f and (pathlib.Path(f) / "mnist").exists()]
    if not found:
        sys.exit("nnlite: no MNIST in $NNLITE_DATA/mnist or ../shared/data/mnist: sh tools/get_data.sh fetches it")
    return found[0]


def nnlite_epoch(program, mnist, threads):
    """Seconds and training loss of the second epoch."""
    with tempfile.TemporaryDirectory() as folder:
        out = subprocess.run(
            [program, "train", "--arch", "mlp", "--data", str(mnist), "--epochs", "2", "--batch", str(BATCH), "--optimizer",
             f"sgd:momentum={MOMENTUM}", "--lr", str(RATE), "--schedule", "constant", "--val", "0", "--threads", str(threads),
             "--out", f"{folder}/m.nnl", "--json"], capture_output=True, text=True)
    if out.returncode != 0:
        sys.exit(f"nnlite: train: {out.stderr.strip()}")
    epoch = json.loads(out.stdout)["epochs"][-1]
    return epoch["seconds"], epoch["train_loss"]


def pytorch_epoch(mnist, threads, compiled):
    """The same in PyTorch, data as tensors in memory."""
    import gzip

    import numpy as np
    import torch

    import compare_networks

    def read(name, header):
        path = pathlib.Path(mnist) / name
        data = path.read_bytes() if path.exists() else gzip.decompress(path.with_name(name + ".gz").read_bytes())
        return np.frombuffer(data, np.uint8, offset=header)
    torch.set_num_threads(threads)
    x = torch.tensor(read("train-images-idx3-ubyte", 16).reshape(-1, 784)).float() / 255
    y = torch.tensor(read("train-labels-idx1-ubyte", 8)).long()
    net, loss = compare_networks.build("mlp"), torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE, momentum=MOMENTUM, fused=True)

    def forward(x, y):
        return loss(net(x), y)
    forward = torch.compile(forward, dynamic=False) if compiled else forward
    for _ in range(2):
        start, total = time.perf_counter(), 0.0
        order = torch.randperm(len(x))
        for first in range(0, len(x), BATCH):
            rows = order[first:first + BATCH]
            optimizer.zero_grad(set_to_none=True)
            value = forward(x.index_select(0, rows), y.index_select(0, rows))
            value.backward()
            optimizer.step()
            total += value.item() * len(rows)
        seconds = time.perf_counter() - start
    return seconds, total / len(x)


def compare_epochs(program, thread_counts, rounds, say):
    """An epoch with shuffling, gathering and the last, smaller batch; the second one, so that all is warm."""
    mnist, results = find_mnist(), []
    print(f"\nan epoch of MNIST, 784-200-200-10, batch {BATCH}, seconds")
    print(f"{'threads':>8}{'eager':>10}{'compiled':>10}{'nnlite':>10}{'ratio':>8}{'needed':>8}")
    for threads in thread_counts:
        runs = {"eager": [], "torch.compile": [], "nnlite": []}
        for k in range(rounds):
            say(f"epoch of MNIST, {threads} thread(s), round {k + 1} of {rounds}")
            for way, list_of_runs in runs.items():
                if way == "nnlite":
                    list_of_runs.append(nnlite_epoch(program, mnist, threads))
                    continue
                out = subprocess.run([sys.executable, __file__, str(mnist), str(threads), way], capture_output=True, text=True,
                                     env=compare_rows.peer_environment(threads))
                if out.returncode == 0:  # torch.compile needs a C++ compiler
                    list_of_runs.append(json.loads(out.stdout.splitlines()[-1]))
        seconds = {way: statistics.median(r[0] for r in list_of_runs) for way, list_of_runs in runs.items() if list_of_runs}
        losses = {way: statistics.median(r[1] for r in list_of_runs) for way, list_of_runs in runs.items() if list_of_runs}
        ours, best = seconds["nnlite"], min((s for way, s in seconds.items() if way != "nnlite"), default=None)
        if best is None:
            sys.exit(f"PyTorch trained no epoch: {out.stderr.strip().splitlines()[-1]}")
        required = EPOCH_REQUIRED.get(threads, EPOCH_REQUIRED[2])
        same = all(abs(loss / losses["nnlite"] - 1) < 0.1 for loss in losses.values())
        results.append({"threads": threads, "seconds": seconds, "train_loss": losses, "ratio": best / ours, "required": required,
                        "met": best / ours >= required, "same": same})
        eager, compiled = (f"{seconds[way]:.3f}" if way in seconds else "-" for way in ("eager", "torch.compile"))
        print(f"{threads:8}{eager:>10}{compiled:>10}{ours:10.3f}{best / ours:8.2f}{required:8.4g}"
              f"{'' if best / ours >= required else '   SHORT'}", flush=True)
        print("  training loss: " + ", ".join(f"{way} {loss:.4f}" for way, loss in losses.items()))
        if not same:
            print("  ERROR: the losses differ by more than 10 %: not the same training", flush=True)
    return results


def compare_cold_start(program):
    import nnl_file

    picture = ROOT / "tests" / "golden" / "digits" / "6" / "00196.png"
    with tempfile.TemporaryDirectory() as folder:
        onnx = pathlib.Path(folder) / "lenet.onnx"
        onnx.write_bytes(nnl_file.to_onnx(nnl_file.NnlFile(ROOT / "models" / "lenet.nnl")))
        commands = {"nnlite": [program, "predict", str(ROOT / "models" / "digits.nnl"), str(picture)],
                    "ONNX Runtime": [sys.executable, "-c", SCRIPT, str(onnx), str(picture)]}
        times, answers = {name: [] for name in commands}, {}
        for _ in range(RUNS + 1):  # the first one reads the files from the disk
            for name, command in commands.items():
                start = time.perf_counter()
                out = subprocess.run(command, capture_output=True, text=True)
                times[name].append((time.perf_counter() - start) * 1e3)
                if out.returncode != 0:
                    sys.exit(f"{name}: {out.stderr.strip()}")
                answers[name] = out.stdout.strip()
    ms = {name: statistics.median(t[1:]) for name, t in times.items()}
    print(f"\nfrom the start of the process to the digit on a PNG picture, median of {RUNS}")
    for name in commands:
        print(f"  {name:14}{ms[name]:8.1f} ms   {answers[name].replace(str(picture), picture.name)}")
    same = f": {answers['ONNX Runtime']} " in answers["nnlite"]
    if not same:
        print("  ERROR: they read different digits")
    return [{"ms": ms, "answers": answers, "ratio": ms["ONNX Runtime"] / ms["nnlite"], "same": same}]


if __name__ == "__main__":
    print(json.dumps(pytorch_epoch(sys.argv[1], int(sys.argv[2]), sys.argv[3] == "torch.compile")))
