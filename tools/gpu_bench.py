"""Training steps and inference on the GPU beside PyTorch: eager, torch.compile and one CUDA graph, the same run.

  python3 tools/gpu_bench.py NNLITE [--short]

Prints a row for every network: milliseconds a step, and PyTorch's best over nnlite's. Both in fp32; PyTorch's TF32 is off.
"""
import json
import math
import statistics
import subprocess
import sys
import time

import torch
from torch import nn

from compare_networks import UNet, cnn99, lenet, mlp, resnet8


# name, network, shape of a picture, batch
ROWS = [("mlp", mlp, (1, 28, 28), 64), ("lenet", lenet, (1, 28, 28), 64), ("cnn99", cnn99, (1, 28, 28), 128),
        ("resnet8", resnet8, (3, 32, 32), 128), ("unet", UNet, (3, 128, 128), 128)]


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


def trainer(make, shape, batch, compiled):
    torch.manual_seed(1)
    net = make().cuda().to(memory_format=torch.channels_last)
    x = torch.randn(batch, *shape, device="cuda").contiguous(memory_format=torch.channels_last)
    if make is UNet:
        loss, t = nn.functional.binary_cross_entropy_with_logits, torch.rand(batch, 1, *shape[1:], device="cuda")
    else:
        loss, t = nn.functional.cross_entropy, torch.randint(10, (batch,), device="cuda")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, fused=True)
    run = torch.compile(net) if compiled else net

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss(run(x), t).backward()
        optimizer.step()
    return step


def as_graph(step):
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(5):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def ours(program, name, batch):
    run = subprocess.run([program, "bench", "--arch", name, "--batch", str(batch), "--train", "--cuda", "--json"],
                         capture_output=True, text=True)
    if run.returncode != 0:
        print(f"{name}: {run.stderr.strip()}")
        return None
    return json.loads(run.stdout)["ms"]["median"]


def main():
    if len(sys.argv) not in (2, 3) or (len(sys.argv) == 3 and sys.argv[2] != "--short"):
        print("usage: gpu_bench.py NNLITE [--short]", file=sys.stderr)
        return 2
    short = len(sys.argv) == 3
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, training step, fp32 without TF32, ms")
    print(f"{'network':<14}{'eager':>9}{'compile':>9}{'graph':>9}{'nnlite':>9}{'x eager':>9}{'x graph':>9}")
    ratios, failed = [], False
    for name, make, shape, batch in ROWS[:2] if short else ROWS:
        eager = median_ms(trainer(make, shape, batch, False), 0.5 if short else 1.5)
        graph = median_ms(as_graph(trainer(make, shape, batch, False)), 0.5 if short else 1.5)
        compiled = math.nan
        if not short:
            try:
                compiled = median_ms(trainer(make, shape, batch, True), 1.5)
            except Exception as problem:  # pylint: disable=broad-except
                print(f"{name}: torch.compile: {type(problem).__name__}")
        mine = ours(sys.argv[1], name, batch)
        failed |= mine is None
        if mine is None:
            continue
        ratios.append(graph / mine)
        print(f"{name + ' B' + str(batch):<14}{eager:>9.3f}{compiled:>9.3f}{graph:>9.3f}{mine:>9.3f}{eager / mine:>9.2f}"
              f"{graph / mine:>9.2f}")
    if ratios:
        print(f"geometric mean of x graph {math.exp(sum(map(math.log, ratios)) / len(ratios)):.2f}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
