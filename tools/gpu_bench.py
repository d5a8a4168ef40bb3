"""Training on the GPU beside PyTorch: eager, torch.compile and one CUDA graph, the same run.

  python3 tools/gpu_bench.py NNLITE [--short]

Prints the milliseconds of a step for every network, data on the GPU, in fp32 without TF32 and in TF32, for the
larger ones in bf16, which for PyTorch is autocast, and those of an epoch of MNIST where NNLITE_DATA has it. "x" is
PyTorch's time over nnlite's. Fails where it is below the least that is promised (LEAST). --short: fp32 without TF32 and
the epoch, no torch.compile.
"""
import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time

import torch
from torch import nn

from compare_networks import UNet, cnn99, lenet, mlp, resnet8


# Its time is that of large products.
def mlp4096():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(),
                         nn.Linear(4096, 10))


# name, network, shape of a picture, batch
ROWS = [("mlp", mlp, (1, 28, 28), 64), ("lenet", lenet, (1, 28, 28), 64), ("mlp4096", mlp4096, (1, 28, 28), 512),
        ("cnn99", cnn99, (1, 28, 28), 128), ("resnet8", resnet8, (3, 32, 32), 128), ("unet", UNet, (3, 128, 128), 128)]
# what has no name in nnlite
LISTS = {"mlp4096": "flatten, linear 4096, relu, linear 4096, relu, linear 10"}
# x eager, x graph, in fp32 and in TF32; of "epoch" too
LEAST = {"mlp": (5, 1.5), "epoch": (5, 1.5), "cnn99": (1, 0), "resnet8": (1, 0), "unet": (1, 0)}
EPOCH_MS = 40  # of MNIST at most
# what it is called, nnlite's options
PRECISIONS = {"fp32 without TF32": [], "TF32": ["--tf32"], "bf16": ["--bf16"]}


def median_ms(step, seconds):
    for _ in range(20):
        step()
    torch.cuda.synchronize()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        for _ in range(20):
            step()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - begin) / 20 * 1e3)
    return statistics.median(times)


# Whether the times are as promised; else a line says what is missing.
def holds(name, kind, eager, graph, mine):
    least_eager, least_graph = LEAST.get(name, (0, 0)) if kind != "bf16" else (0, 0)
    if eager / mine >= least_eager and graph / mine >= least_graph:
        return True
    print(f"{name}, {kind}: below {least_eager} x eager or {least_graph} x graph")
    return False


class Training:
    def __init__(self, make, shape, batch, compiled=False, bf16=False):
        torch.manual_seed(1)
        self.bf16 = bf16
        self.net = make().cuda().to(memory_format=torch.channels_last)
        self.x = torch.randn(batch, *shape, device="cuda").contiguous(memory_format=torch.channels_last)
        if make is UNet:
            self.loss = nn.functional.binary_cross_entropy_with_logits
            self.t = torch.rand(batch, 1, *shape[1:], device="cuda")
        else:
            self.loss, self.t = nn.functional.cross_entropy, torch.randint(10, (batch,), device="cuda")
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.01, momentum=0.9, fused=True)
        self.run = torch.compile(self.net) if compiled else self.net

    def step(self):
        self.optimizer.zero_grad(set_to_none=True)
        # no cache: a graph must not keep copies of the weights of an earlier step
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=False) if self.bf16 else contextlib.nullcontext():
            loss = self.loss(self.run(self.x), self.t)
        loss.backward()
        self.optimizer.step()

    def as_graph(self):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(5):
                self.step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step()
        return graph.replay


def nnlite(*arguments):
    run = subprocess.run(arguments, capture_output=True, text=True)
    if run.returncode != 0:
        raise RuntimeError(run.stderr.strip())
    return json.loads(run.stdout)


# A whole epoch of MNIST without its last 32 rows, drawn from tensors on the GPU: eager, and with a graph.
def epoch_ms():
    images, labels = torch.rand(60000, 1, 28, 28, device="cuda"), torch.randint(10, (60000,), device="cuda")
    medians = []
    for graph in (False, True):
        one = Training(mlp, (1, 28, 28), 64)
        step = one.as_graph() if graph else one.step
        times = []
        for _ in range(3):
            torch.cuda.synchronize()
            begin = time.perf_counter()
            order = torch.randperm(60000, device="cuda")
            for i in range(0, 60000 - 63, 64):
                rows = order[i:i + 64]
                torch.index_select(images, 0, rows, out=one.x)
                torch.index_select(labels, 0, rows, out=one.t)
                step()
            torch.cuda.synchronize()
            times.append((time.perf_counter() - begin) * 1e3)
        medians.append(statistics.median(times))
    return medians


def main():
    if len(sys.argv) not in (2, 3) or (len(sys.argv) == 3 and sys.argv[2] != "--short"):
        print("usage: gpu_bench.py NNLITE [--short]", file=sys.stderr)
        return 2
    program, short = sys.argv[1], len(sys.argv) == 3
    seconds = 0.3 if short else 0.7
    precisions = list(PRECISIONS.items())[:1 if short else None]
    torch.backends.cudnn.benchmark = True
    failed, ratios = False, {kind: [] for kind, _ in precisions}
    for kind, options in precisions:
        plain, bf16 = not options, kind == "bf16"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = not plain
        print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, training step, {kind}, ms")
        print(f"{'network':<14}{'eager':>9}{'compile':>9}{'graph':>9}{'nnlite':>9}{'x eager':>9}{'x graph':>9}", flush=True)
        for name, make, shape, batch in ROWS[2:] if bf16 else ROWS:
            eager = median_ms(Training(make, shape, batch, bf16=bf16).step, seconds)
            graph = median_ms(Training(make, shape, batch, bf16=bf16).as_graph(), seconds)
            compiled = math.nan
            if not short and plain and name not in ("mlp4096", "unet"):  # cuBLAS; minutes to compile
                try:
                    compiled = median_ms(Training(make, shape, batch, True).step, seconds)
                except Exception as problem:  # pylint: disable=broad-except
                    print(f"{name}: torch.compile: {type(problem).__name__}")
            try:
                mine = nnlite(program, "bench", "--arch", LISTS.get(name, name), "--batch", str(batch), "--train",
                              "--cuda", "--json", "--seconds", str(seconds), *options)["ms"]["median"]
            except RuntimeError as problem:
                print(f"{name}: {problem}")
                failed = True
                continue
            if name not in LISTS:  # cuBLAS on both sides says nothing of the others
                ratios[kind].append(graph / mine)
            failed = not holds(name, kind, eager, graph, mine) or failed
            print(f"{name + ' B' + str(batch):<14}{eager:>9.3f}{compiled:>9.3f}{graph:>9.3f}{mine:>9.4f}"
                  f"{eager / mine:>9.2f}{graph / mine:>9.2f}", flush=True)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    mnist = os.path.join(os.environ.get("NNLITE_DATA", ""), "mnist")
    if os.path.isdir(mnist) and all(ratios.values()):
        with tempfile.TemporaryDirectory() as folder:
            epochs = nnlite(program, "train", "--arch", "mlp", "--data", mnist, "--epochs", "5", "--cuda", "--json",
                            "--out", os.path.join(folder, "epoch.nnl"))["epochs"]
        mine = statistics.median(e["train_seconds"] for e in epochs[1:]) * 1e3
        eager, graph = epoch_ms()
        failed = not holds("epoch", "fp32", eager, graph, mine) or failed
        if mine > EPOCH_MS:
            print(f"epoch: below the goal of {EPOCH_MS} ms")
            failed = True
        print(f"epoch of MNIST, mlp B64, ms: eager {eager:.1f}, graph {graph:.1f}, nnlite {mine:.1f}: x eager "
              f"{eager / mine:.2f}, x graph {graph / mine:.2f}; accuracy {epochs[-1]['val_accuracy'] * 100:.2f} %")
    means = [f"{kind} {statistics.geometric_mean(some):.2f}" for kind, some in ratios.items() if some]
    print(f"geometric mean of x graph: {', '.join(means)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
