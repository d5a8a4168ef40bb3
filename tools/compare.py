#!/usr/bin/env python3
"""Times nnlite beside PyTorch eager, interleaved in one run, and prints a table of ratios.

    python3 tools/compare.py [--nnlite build/release/nnlite] [--threads 1] [--rounds 5] [--json FILE]

PyTorch comes from the interpreter that runs this, or else from a private virtual environment (.venv) made with pip.
A ratio is PyTorch's time divided by nnlite's, medians of the rounds; above 1 nnlite is faster. A training step is forward,
loss, backward and the update of SGD with momentum 0.9 (the networks are those of `nnlite bench --arch`).
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import own_python
from own_python import ROOT

ROWS = [("mlp", 64, True), ("mlp", 1, True), ("lenet", 64, True), ("lenet", 1, True), ("cnn99", 64, True),
        ("resnet8", 32, True), ("resnet8", 1, True),
        ("mlp", 1, False), ("mlp", 64, False), ("lenet", 1, False), ("lenet", 64, False), ("cnn99", 1, False),
        ("resnet8", 1, False)]


def build(name):
    from torch import nn

    def cbr(i, o, stride=1):
        return nn.Sequential(nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())

    class Block(nn.Module):
        def __init__(self, i, o, stride):
            super().__init__()
            self.body = nn.Sequential(cbr(i, o, stride), nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o))
            self.skip = nn.Conv2d(i, o, 1, stride) if stride != 1 else nn.Identity()
            self.relu = nn.ReLU()

        def forward(self, x):
            return self.relu(self.body(x) + self.skip(x))

    if name == "mlp":
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(),
                             nn.Linear(200, 10)), (1, 28, 28)
    if name == "lenet":
        return nn.Sequential(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(),
                             nn.MaxPool2d(2), nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(),
                             nn.Linear(84, 10)), (1, 28, 28)
    if name == "cnn99":
        return nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
                             nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1),
                             nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3136, 128), nn.ReLU(),
                             nn.Linear(128, 10)), (1, 28, 28)
    return nn.Sequential(cbr(3, 16), Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(64, 10)), (3, 32, 32)


def torch_work(name, batch, train):
    """A function that does one step, and the parameter count to check that both mean the same network."""
    import torch

    torch.manual_seed(1)
    net, shape = build(name)
    x, y = torch.randn(batch, *shape), torch.randint(0, 10, (batch,))
    count = sum(p.numel() for p in net.parameters())
    if not train:
        net.eval()

        def infer():
            with torch.inference_mode():
                net(x)
        return infer, count
    optimizer, loss = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9), torch.nn.CrossEntropyLoss()

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss(net(x), y).backward()
        optimizer.step()
    return step, count


def time_torch(step, seconds):
    """Median milliseconds of single steps over about so many seconds."""
    step()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        start = time.perf_counter()
        step()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def run_nnlite(program, words):
    out = subprocess.run([program] + words, capture_output=True, text=True)
    if out.returncode != 0:
        sys.exit(f"nnlite: {' '.join(words)}: {out.stderr.strip()}")
    return json.loads(out.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nnlite", default=str(ROOT / "build" / "release" / "nnlite"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="write the rows to this file")
    parser.add_argument("--only", help="rows whose text contains this, e.g. 'lenet' or 'train'")
    options = parser.parse_args()
    if not os.path.exists(options.nnlite):
        sys.exit(f"nnlite: {options.nnlite}: not there: build it first (cmake --preset release; cmake --build --preset release)")
    own_python.need({"torch": "torch", "numpy": "numpy"})
    import torch

    torch.set_num_threads(options.threads)
    rows, first = [], True
    for name, batch, train in ROWS:
        label = f"{name} B{batch} {'train' if train else 'infer'}"
        if options.only and options.only not in label:
            continue
        step, count = torch_work(name, batch, train)
        info = run_nnlite(options.nnlite, ["info", "--arch", name, "--json"])
        if info["parameters"] != count:
            sys.exit(f"nnlite: {name}: {info['parameters']} parameters here, {count} in PyTorch: not the same network")
        words = ["bench", "--arch", name, "--batch", str(batch), "--threads", str(options.threads), "--json"]
        ours, theirs, isa = [], [], ""
        for _ in range(options.rounds):
            theirs.append(time_torch(step, 0.5))
            result = run_nnlite(options.nnlite, words + (["--train"] if train else []))
            ours.append(result["ms"]["median"])
            isa = result["isa"]
        if first:
            print(f"PyTorch {torch.__version__} eager, {options.threads} thread(s), {isa}, medians of {options.rounds} rounds, ms")
            print(f"{'row':24}{'PyTorch':>10}{'nnlite':>10}{'ratio':>8}")
            first = False
        a, b = statistics.median(theirs), statistics.median(ours)
        rows.append({"row": label, "torch_ms": a, "nnlite_ms": b, "ratio": a / b})
        print(f"{label:24}{a:10.4f}{b:10.4f}{a / b:8.2f}", flush=True)
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"threads": options.threads, "torch": torch.__version__, "rows": rows}, file, indent=1)
    slower = [row["row"] for row in rows if row["ratio"] < 1]
    print("every row is at least as fast as PyTorch" if not slower else "slower than PyTorch: " + ", ".join(slower))


if __name__ == "__main__":
    main()
