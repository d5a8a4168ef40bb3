#!/usr/bin/env python3
"""Makes tests/golden/*.bin, one file per op: what PyTorch computes in double for every row of cases.hpp.

usage: nnlite_dump_cases | make_golden.py FOLDER          needs torch, any recent version

A file is a sequence of cases: u32 length and text of the case's JSON line (the engine's tests compare it, so
a case that was changed is noticed), u32 number of arrays, then for each array char[4] name, u32 count,
f32[count]. Little-endian.
  x0, x1 ..   inputs and target, NHWC        dy          gradient of the output (not for losses)
  p0, p1 ..   parameters, logical order      y           output
  dx0, dp0 .. gradients                      c0, c1 ..   parameters after the statistics were committed
An optimizer has p0, g (all gradients), one and end (weights after the first and the last update); a
schedule has lr.
"""
import json
import math
import os
import struct
import sys
import zlib

import torch
import torch.nn.functional as F

SEED, STEP, NODE, DROPOUT = 0x0123456789ABCDEF, 5, 3, 3          # as tests/harness.hpp runs its ops
STEPS_IN_EPOCH, EPOCHS, RATE = 3, 10, 0.1
LOSSES = {"BCELoss", "BCEWithLogitsLoss", "CrossEntropyLoss", "HuberLoss", "L1Loss", "MSELoss", "NLLLoss"}


def f32(t):
    """Rounds to float, computes on in double."""
    return t.to(torch.float32).to(torch.float64)


def images(function):
    """A function of N, C, H, W applied to N, H, W, C."""
    return lambda x, *rest: function(x.permute(0, 3, 1, 2), *rest).permute(0, 2, 3, 1)


def philox(block):
    low = 0xFFFFFFFF
    counter, key = [block, STEP & low, STEP >> 32, DROPOUT << 24 | NODE], [SEED & low, SEED >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [b >> 32 ^ counter[1] ^ key[0], b & low, a >> 32 ^ counter[3] ^ key[1], a & low]
        key = [(key[0] + 0x9E3779B9) & low, (key[1] + 0xBB67AE85) & low]
    return counter


def dropout(x, p, training):
    if not training:
        return x * 1.0
    drawn = [(philox(i // 4)[i % 4] >> 8) / 2.0**24 for i in range(x.numel())]
    mask = torch.tensor([0.0 if d < p else 1 / (1 - p) for d in drawn], dtype=torch.float64)
    return x * mask.reshape(x.shape)


def conv_parameters(case, normal):
    a, k = case["attributes"], case["attributes"]["kernel_size"]
    groups, out = a["groups"], a["out_channels"]
    into = a["in_channels"] or case["in"][0][-1]
    shape = [into, out // groups] if case["op"] == "ConvTranspose2d" else [out, into // groups]
    return [normal(shape + k, 0.5)] + ([normal([out], 0.5)] if a["bias"] else [])


def make_parameters(case, normal):
    a, op = case["attributes"], case["op"]
    if op.startswith("Conv") and op != "Concat":
        return conv_parameters(case, normal)
    if op == "Linear":
        weight = normal([a["out_features"], case["in"][0][-1]], 0.5)
        return [weight] + ([normal([a["out_features"]], 0.5)] if a["bias"] else [])
    if op.startswith("BatchNorm"):
        c = case["in"][0][-1]
        affine = [f32(1 + normal([c], 0.3)), normal([c], 0.3)] if a["affine"] else []
        tracked = [normal([c], 1), f32(0.5 + normal([c], 1).abs())] if a["track_running_stats"] else []
        return affine + tracked
    return []


def batch_norm(a, x, p, training):
    rest = p[2:] if a["affine"] else p
    weight, bias = p[:2] if a["affine"] else (None, None)
    mean, var = rest if a["track_running_stats"] else (None, None)
    by_batch = training or mean is None
    y = F.batch_norm(x.movedim(-1, 1), mean, var, weight, bias, by_batch, a["momentum"], a["eps"])
    return y.movedim(1, -1)


def pool(function, a, **more):
    stride = a["stride"] if a["stride"] != [0, 0] else None
    return images(lambda x: function(x, a["kernel_size"], stride, a["padding"], **more))


def run(case, x, p):
    a, op = case["attributes"], case["op"]
    bias = p[1] if len(p) > 1 else None
    table = {
        "AdaptiveAvgPool2d": lambda: images(lambda t: F.adaptive_avg_pool2d(t, a["output_size"]))(x[0]),
        "Add": lambda: sum(x[1:], x[0]),
        "AvgPool2d": lambda: pool(
            F.avg_pool2d, a, ceil_mode=a["ceil_mode"], count_include_pad=a["count_include_pad"])(x[0]),
        "BatchNorm1d": lambda: batch_norm(a, x[0], p, case["training"]),
        "BatchNorm2d": lambda: batch_norm(a, x[0], p, case["training"]),
        "BCELoss": lambda: F.binary_cross_entropy(x[0], x[1]),
        "BCEWithLogitsLoss": lambda: F.binary_cross_entropy_with_logits(x[0], x[1]),
        "Concat": lambda: torch.cat(x, a["dim"]),
        "Conv2d": lambda: images(lambda t: F.conv2d(
            t, p[0], bias, a["stride"], a["padding"], a["dilation"], a["groups"]))(x[0]),
        "ConvTranspose2d": lambda: images(lambda t: F.conv_transpose2d(
            t, p[0], bias, a["stride"], a["padding"], a["output_padding"], a["groups"], a["dilation"]))(x[0]),
        "CrossEntropyLoss": lambda: F.cross_entropy(
            x[0].movedim(-1, 1).contiguous(), x[1].movedim(-1, 1) if a["probabilities"] else x[1].long(),
            label_smoothing=a["label_smoothing"]),
        "Dropout": lambda: dropout(x[0], a["p"], case["training"]),
        "ELU": lambda: F.elu(x[0], a["alpha"]),
        "Flatten": lambda: torch.flatten(x[0], a["start_dim"], a["end_dim"]),
        "HuberLoss": lambda: F.huber_loss(x[0], x[1], delta=a["delta"]),
        "L1Loss": lambda: F.l1_loss(x[0], x[1]),
        "LeakyReLU": lambda: F.leaky_relu(x[0], a["negative_slope"]),
        "Linear": lambda: F.linear(x[0], p[0], bias),
        "LogSoftmax": lambda: F.log_softmax(x[0], a["dim"]),
        "MaxPool2d": lambda: pool(F.max_pool2d, a, dilation=a["dilation"], ceil_mode=a["ceil_mode"])(x[0]),
        "MSELoss": lambda: F.mse_loss(x[0], x[1]),
        "Mul": lambda: math.prod(x[1:], start=x[0]),
        "NLLLoss": lambda: F.nll_loss(x[0].movedim(-1, 1).contiguous(), x[1].long()),
        "ReLU": lambda: F.relu(x[0]),
        "Sigmoid": lambda: torch.sigmoid(x[0]),
        "Softmax": lambda: F.softmax(x[0], a["dim"]),
        "Tanh": lambda: torch.tanh(x[0]),
        "Upsample": lambda: images(lambda t: F.interpolate(
            t, scale_factor=tuple(map(float, a["scale_factor"]))))(x[0]),
    }
    return table[op]()


def make_inputs(case, normal, generator):
    op, rows, scale = case["op"], case["rows"], case["scale"]
    shapes = [[rows] + shape for shape in case["in"]]
    uniform = lambda shape: f32(torch.rand(shape, generator=generator, dtype=torch.float64))
    x = [normal(s, scale) for s in shapes]
    if case["ties"]:
        x = [(t * 2).round() / 2 for t in x]
    if op == "BCELoss":
        x = [f32(0.02 + 0.96 * uniform(shapes[0]))]
    if op == "NLLLoss":
        x = [f32(F.log_softmax(x[0], -1))]
    if op in ("CrossEntropyLoss", "NLLLoss") and not case["attributes"].get("probabilities"):
        target = torch.randint(0, shapes[0][-1], shapes[0][:-1], generator=generator).to(torch.float64)
        target.view(-1)[0] = shapes[0][-1] - 1
    elif op == "CrossEntropyLoss":
        target = f32(F.softmax(normal(shapes[0], 1), -1))
    elif op in ("BCELoss", "BCEWithLogitsLoss"):
        target = uniform(shapes[0])
        target.view(-1)[0] = 1
    else:
        target = normal(shapes[0], scale)
        if case["ties"]:
            target = (target * 2).round() / 2
    return x + [target] if op in LOSSES else x


def golden_op(case, normal, generator):
    x, p = make_inputs(case, normal, generator), make_parameters(case, normal)
    arrays = [("x%d" % i, t) for i, t in enumerate(x)] + [("p%d" % i, t.clone()) for i, t in enumerate(p)]
    statistics = 2 if case["op"].startswith("BatchNorm") and case["attributes"]["track_running_stats"] else 0
    wanted = p[:len(p) - statistics]
    index_target = case["op"] == "NLLLoss" or case["attributes"].get("probabilities") is False
    leaves = (x[:-1] if index_target else x) + wanted
    for leaf in leaves:
        leaf.requires_grad_()
    y = run(case, x, p)
    dy = None
    if case["op"] in LOSSES:
        y.backward()
    else:
        dy = normal(list(y.shape), 1)
        arrays.append(("dy", dy))
        y.backward(dy)
    arrays.append(("y", y))
    arrays += [("dx%d" % i, t.grad) for i, t in enumerate(x) if t.requires_grad]
    arrays += [("dp%d" % i, t.grad) for i, t in enumerate(wanted)]
    if statistics and case["training"]:
        arrays += [("c%d" % i, p[i]) for i in range(len(p) - 2, len(p))]
    return arrays


def golden_optimizer(case, normal):
    count, updates, a = case["in"][0][0], case["rows"], case["attributes"]
    weight, gradients = normal([count], 1), normal([updates, count], case["scale"])
    arrays = [("p0", weight.clone()), ("g", gradients)]
    weight.requires_grad_()
    if "betas" in a:
        a = dict(a, betas=tuple(map(float, a["betas"])))
    optimizer = getattr(torch.optim, case["op"])([weight], **a)
    for t in range(updates):
        weight.grad = gradients[t].clone()
        optimizer.step()
        if t == 0:
            arrays.append(("one", weight.detach().clone()))
    return arrays + [("end", weight)]


def golden_schedule(case):
    a, schedules = dict(case["attributes"]), torch.optim.lr_scheduler
    rate = struct.unpack("<f", struct.pack("<f", RATE))[0]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)
    by_step = case["op"] == "OneCycleLR"
    if by_step:
        a["max_lr"], a["total_steps"] = a["max_lr"] or rate, a["total_steps"] or EPOCHS * STEPS_IN_EPOCH
        a["cycle_momentum"] = False
    if case["op"] == "CosineAnnealingLR":
        a["T_max"] = a["T_max"] or EPOCHS
    constant = case["op"] in ("ConstantLR", "ReduceLROnPlateau")        # nothing is reported here
    make = None if constant else getattr(schedules, case["op"])
    schedule = schedules.LambdaLR(optimizer, lambda _: 1) if constant else make(optimizer, **a)
    rates = []
    for step in range(case["rows"]):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step + 1 < case["rows"] and (by_step or (step + 1) % STEPS_IN_EPOCH == 0):
            schedule.step()
    return [("lr", torch.tensor(rates))]


def golden(case):
    generator = torch.Generator().manual_seed(zlib.crc32(case["name"].encode()))
    normal = lambda shape, scale: f32(torch.randn(shape, generator=generator, dtype=torch.float64) * scale)
    if case["op"].endswith("LR") or case["op"] == "ReduceLROnPlateau":
        return golden_schedule(case)
    if hasattr(torch.optim, case["op"]):
        return golden_optimizer(case, normal)
    return golden_op(case, normal, generator)


def main():
    files = {}
    for line in sys.stdin.read().splitlines():
        case = json.loads(line)
        arrays = golden(case)
        text = line.encode()
        record = struct.pack("<I", len(text)) + text + struct.pack("<I", len(arrays))
        for name, values in arrays:
            flat = values.detach().to(torch.float32).reshape(-1)
            record += struct.pack("<4sI", name.encode(), flat.numel())
            record += flat.contiguous().numpy().astype("<f4").tobytes()
        files[case["op"]] = files.get(case["op"], b"") + record
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    for op, data in sorted(files.items()):
        with open(os.path.join(folder, op + ".bin"), "wb") as f:
            f.write(data)
    print("%d files, %d bytes" % (len(files), sum(map(len, files.values()))), file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main()
