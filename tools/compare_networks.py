"""The reference networks (those of `nnlite bench --arch`) in PyTorch, with the weights of a .nnl file, and the same in JAX."""
import torch
from torch import nn


def cbr(i, o, kernel=3, stride=1, groups=1):
    padding = (kernel - 1) // 2
    return [nn.Conv2d(i, o, kernel, stride, padding, groups=groups, bias=False), nn.BatchNorm2d(o), nn.ReLU()]


def head(channels, classes):
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]


class ResNetBlock(nn.Module):
    def __init__(self, i, o, stride):
        super().__init__()
        self.body = nn.Sequential(*cbr(i, o, 3, stride), *cbr(o, o)[:2])
        self.skip = nn.Conv2d(i, o, 1, stride) if stride != 1 else nn.Identity()
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(self.body(x) + self.skip(x))


class InvertedResidual(nn.Module):
    def __init__(self, i, o, stride, expand):
        super().__init__()
        wide = i * expand
        self.body = nn.Sequential(*(cbr(i, wide, 1) if expand > 1 else []), *cbr(wide, wide, 3, stride, wide),
                                  *cbr(wide, o, 1)[:2])
        self.adds = stride == 1 and i == o

    def forward(self, x):
        return x + self.body(x) if self.adds else self.body(x)


class Up(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.up = nn.ConvTranspose2d(i, o, 2, 2)
        self.merge = nn.Sequential(*cbr(2 * o, o), *cbr(o, o))

    def forward(self, skip, x):
        return self.merge(torch.cat([skip, self.up(x)], 1))


class UNet(nn.Module):
    def __init__(self, base=16, depth=5):
        super().__init__()
        c = [3] + [base << k for k in range(depth)]
        self.down = nn.ModuleList(nn.Sequential(*cbr(i, o), *cbr(o, o)) for i, o in zip(c, c[1:]))
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ModuleList(Up(i, o) for i, o in zip(c[:1:-1], c[-2::-1]))
        self.last = nn.Conv2d(base, 1, 1)

    def forward(self, x):
        skips = [x := self.down[0](x)] + [x := down(self.pool(x)) for down in self.down[1:]]
        for skip, up in zip(skips[-2::-1], self.up):
            x = up(skip, x)
        return self.last(x)


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 10))


def lenet():
    return nn.Sequential(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(),
                         nn.MaxPool2d(2), nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(),
                         nn.Linear(84, 10))


def cnn99():
    def pair(i, o):
        return [nn.Conv2d(i, o, 3, padding=1), nn.ReLU(), nn.Conv2d(o, o, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*pair(1, 32), *pair(32, 64), nn.Flatten(), nn.Linear(3136, 128), nn.ReLU(), nn.Linear(128, 10))


def resnet8():
    return nn.Sequential(*cbr(3, 16), ResNetBlock(16, 16, 1), ResNetBlock(16, 32, 2), ResNetBlock(32, 64, 2), *head(64, 10))


def dscnn():
    blocks = [layer for _ in range(4) for layer in cbr(64, 64, 3, 1, 64) + cbr(64, 64, 1)]
    return nn.Sequential(nn.Conv2d(1, 64, (10, 4), 2, (5, 1), bias=False), nn.BatchNorm2d(64), nn.ReLU(), *blocks,
                         *head(64, 12))


def mbv1():
    layers, i = cbr(3, 8, 3, 2), 8
    for channels, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)):
        layers += cbr(i, i, 3, stride, i) + cbr(i, channels // 4, 1)
        i = channels // 4
    return nn.Sequential(*layers, *head(256, 2))


def mbv2():
    layers, i = cbr(3, 32, 3, 2), 32
    for expand, channels, count, stride in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
                                            (6, 160, 3, 2), (6, 320, 1, 1)):
        for k in range(count):
            layers.append(InvertedResidual(i, channels, stride if k == 0 else 1, expand))
            i = channels
    return nn.Sequential(*layers, *cbr(320, 1280, 1), *head(1280, 1000))


def build(name):
    return {"cnn99": cnn99, "dscnn": dscnn, "lenet": lenet, "mbv1": mbv1, "mbv2": mbv2, "mlp": mlp, "resnet8": resnet8,
            "unet": UNet}[name]()


def with_weights(name, model):
    """The network with the parameters of an NnlFile, whose nodes stand in the order of the modules."""
    net = build(name)
    modules = [m for m in net.modules() if next(m.parameters(recurse=False), None) is not None]
    nodes = [n for n in model.nodes if n.parameters]
    if [type(m).__name__ for m in modules] != [n.op for n in nodes]:
        raise ValueError(f"{name}: the layers with parameters are not the same in nnlite")
    shapes = {node.output: model.dims[node.inputs[0]][1:] for node in model.nodes if node.op == "Flatten"}
    for module, node in zip(modules, nodes):
        for key, value in node.parameters.items():
            if key == "weight" and node.inputs[0] in shapes:  # features from H, W, C to C, H, W
                H, W, C = shapes[node.inputs[0]]
                value = value.reshape(-1, H, W, C).transpose(0, 3, 1, 2).reshape(value.shape)
            to = getattr(module, key).data
            if to.shape != value.shape:
                raise ValueError(f"{name}: {node.op} has a {key} of {value.shape} in nnlite, {tuple(to.shape)} here")
            to.copy_(torch.tensor(value))
    return net


class Jax:
    """A PyTorch network as functions of JAX. Images N H W C, weights of convolutions H W I O."""

    def __init__(self, net):
        import jax.numpy as jnp

        self.trace = torch.fx.symbolic_trace(net)
        self.modules = dict(self.trace.named_modules())
        self.parameters, self.statistics = {}, {}
        for name, m in self.modules.items():
            if next(m.parameters(recurse=False), None) is None:
                continue
            p = {k: v.detach().numpy() for k, v in m.named_parameters(recurse=False)}
            if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)):
                p["weight"] = p["weight"].transpose(2, 3, 1, 0)
            if isinstance(m, nn.Linear):
                p["weight"] = p["weight"].T
            self.parameters[name] = {k: jnp.array(v) for k, v in p.items()}
            if isinstance(m, nn.BatchNorm2d):
                self.statistics[name] = tuple(jnp.array(v.numpy()) for v in (m.running_mean, m.running_var))

    def forward(self, parameters, statistics, x):
        """In training: the outputs and the statistics after the step."""
        import jax.numpy as jnp

        values, updated = {}, {}

        def read(a):
            return [read(b) for b in a] if isinstance(a, (list, tuple)) else values[a]
        for node in self.trace.graph.nodes:
            if node.op == "placeholder":
                values[node] = x
            elif node.op == "call_module":
                m, target = self.modules[node.target], node.target
                values[node] = self._layer(m, parameters.get(target), statistics.get(target), updated, target,
                                           read(node.args[0]))
            elif node.op == "output":
                return read(node.args[0]), updated
            elif node.target is torch.cat:
                values[node] = jnp.concatenate(read(node.args[0]), 3)
            else:  # an addition
                values[node] = read(node.args[0]) + read(node.args[1])

    def _layer(self, m, p, statistics, updated, name, x):
        import jax
        import jax.numpy as jnp
        from jax import lax

        def bias(y):
            return y + p["bias"] if "bias" in p else y
        if isinstance(m, nn.Conv2d):
            return bias(lax.conv_general_dilated(x, p["weight"], m.stride, [(q, q) for q in m.padding],
                                                 dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=m.groups))
        if isinstance(m, nn.ConvTranspose2d):
            return bias(lax.conv_transpose(x, p["weight"], m.stride, "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"),
                                           transpose_kernel=True))
        if isinstance(m, nn.Linear):
            return bias(x @ p["weight"])
        if isinstance(m, nn.BatchNorm2d):
            mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
            n = x.size // x.shape[3]
            updated[name] = tuple(old + m.momentum * (new - old)
                                  for old, new in zip(statistics, (mean, var * n / (n - 1))))
            return (x - mean) * lax.rsqrt(var + m.eps) * p["weight"] + p["bias"]
        if isinstance(m, nn.ReLU):
            return jax.nn.relu(x)
        if isinstance(m, nn.MaxPool2d):
            return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        if isinstance(m, nn.AdaptiveAvgPool2d):
            return x.mean((1, 2), keepdims=True)
        if isinstance(m, nn.Flatten):
            return x.transpose(0, 3, 1, 2).reshape(len(x), -1)
        return x  # nn.Identity
