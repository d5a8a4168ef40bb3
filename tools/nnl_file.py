"""Reads a model of models/FORMAT.md, and gives a chain of layers on as ONNX. Weights in logical order, as PyTorch has them."""
import struct

import numpy as np

NONE, STRS, TENS, NODE, IDXS, ATTR, STOR, PREP, POST, LABL, TEST, DATA = (
    0xFFFFFFFF, 0x10, 0x11, 0x12, 0x13, 0x14, 0x16, 0x20, 0x21, 0x22, 0x23, 0xFFFF)
ATTRIBUTES = {1: ("<i", 4), 2: ("<f", 4), 3: ("<?", 1), 4: ("<ii", 8), 5: ("<ff", 8)}


def align64(n):
    return n + -n % 64


def logical(values, dims, layout, groups):
    if layout == 1:
        return values[:int(np.prod(dims))].reshape(dims)
    if layout == 2:
        return values.reshape(-1, dims[1], 16).transpose(0, 2, 1).reshape(-1, dims[1])[:dims[0]]
    kH, kW = dims[2:]
    if layout == 5:
        return values.reshape(kH, kW, 1, -1).transpose(3, 2, 0, 1)[:dims[0]]
    O, I = (dims[0] // groups, dims[1]) if layout == 3 else (dims[1], dims[0] // groups)
    panels = values.reshape(groups, -1, kH, kW, I, 16).transpose(0, 1, 5, 4, 2, 3)
    w = panels.reshape(groups, -1, I, kH, kW)[:, :O]
    return (w if layout == 3 else w.swapaxes(1, 2)).reshape(dims)


class Node:
    """op, attributes by field id, parameters by name ("weight", ...), ids of the tensors that go in and come out."""


class NnlFile:
    def __init__(self, path):
        with open(path, "rb") as file:
            data = file.read()
        if data[:8] != b"\x89NNL\r\n\x1a\n":
            raise ValueError(f"{path}: not a .nnl file")
        self.sections = {}
        for k in range(struct.unpack_from("<I", data, 48)[0]):
            kind, _, _, offset, size = struct.unpack_from("<IHHQQ", data, 128 + 48 * k)
            self.sections[kind] = data[offset:offset + size]
        self._tensors()
        self._nodes()
        text = self.sections.get(LABL, bytes(8))
        count = struct.unpack_from("<I", text, 4)[0]
        self.labels = text[8 + 4 * count:].rstrip(b"\0").decode().split("\0")
        self.threshold = struct.unpack_from("<f", self.sections.get(POST, bytes(16)), 8)[0]
        self.preprocessing = self.sections.get(PREP, b"")

    def golden(self):
        """Input and output of the first golden vector of a model with one of each, in logical order, images N H W C."""
        test, dims = self.sections[TEST], (self.dims[self.nodes[0].output], self.dims[self.nodes[-1].output])
        rows, at, arrays = struct.unpack_from("<I", test, 8)[0], 16, []
        for shape in ((rows, *d[1:]) for d in dims):
            arrays.append(np.frombuffer(test, "<f4", int(np.prod(shape)), at).reshape(shape))
            at += arrays[-1].nbytes + -arrays[-1].nbytes % 8
        return arrays

    def _string(self, offset, length):
        return self.sections[STRS][offset:offset + length].decode()

    def _tensors(self):
        storages, at = [], 0
        for size, _, _ in struct.iter_unpack("<QII", self.sections[STOR]):
            storages.append((at, size))
            at = align64(at + size)
        self.dims, self.values = [], []
        table = self.sections[TENS]
        for r in range(0, len(table), 96):
            rank, layout = table[r + 6], table[r + 7]
            groups, _, storage = struct.unpack_from("<III", table, r + 12)
            dims = struct.unpack_from(f"<{rank}I", table, r + 56)
            self.dims.append(dims)
            if storage == NONE:
                self.values.append(None)
                continue
            at, size = storages[storage]
            self.values.append(logical(np.frombuffer(self.sections[DATA], "<f4", size // 4, at), dims, layout, groups))

    def _nodes(self):
        self.nodes, table, ids = [], self.sections[NODE], np.frombuffer(self.sections[IDXS], "<u4")
        for r in range(0, len(table), 40):
            op_length, op_at = table[r + 5], struct.unpack_from("<I", table, r + 8)[0]
            n_in, n_parameters = table[r + 12], table[r + 13]
            first, at, size = struct.unpack_from("<III", table, r + 16)
            node = Node()
            node.op = self._string(op_at, op_length)
            node.inputs = list(ids[first:first + n_in])
            parameters = ids[first + n_in:first + n_in + n_parameters]
            node.output = int(ids[first + n_in + n_parameters])
            node.parameters = {self._name(i).rsplit(".", 1)[1]: self.values[i] for i in parameters}
            node.attributes, end = {}, at + size
            while at < end:
                field, kind = self.sections[ATTR][at:at + 2]
                form, length = ATTRIBUTES[kind]
                value = struct.unpack_from(form, self.sections[ATTR], at + 2)
                node.attributes[field] = value if len(value) > 1 else value[0]
                at += 2 + length
            self.nodes.append(node)

    def _name(self, tensor):
        offset, length = struct.unpack_from("<IB", self.sections[TENS], 96 * int(tensor))
        return self._string(offset, length)


def to_onnx(model):
    """A chain of Conv2d, BatchNorm2d, ReLU, MaxPool2d, Flatten, Dropout and Linear as bytes of an ONNX model, N C H W."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, weights, x, flat = [], [], "image", None

    def add(op, parameters, **attributes):
        nonlocal x
        names = []
        for p in parameters:
            names.append(f"w{len(weights)}")
            weights.append(numpy_helper.from_array(np.ascontiguousarray(p), names[-1]))
        y = f"y{len(nodes)}"
        nodes.append(helper.make_node(op, [x] + names, [y], **attributes))
        x = y

    for node in model.nodes[1:]:
        a, p = node.attributes, node.parameters
        if node.op == "Conv2d":
            add("Conv", p.values(), kernel_shape=a[3], strides=a.get(4, (1, 1)), pads=a.get(5, (0, 0)) * 2,
                dilations=a.get(6, (1, 1)))
        elif node.op == "BatchNorm2d":
            add("BatchNormalization", [p[k] for k in ("weight", "bias", "running_mean", "running_var")],
                epsilon=a.get(2, 1e-5))
        elif node.op == "ReLU":
            add("Relu", [])
        elif node.op == "MaxPool2d":
            stride = a.get(2, (0, 0))
            add("MaxPool", [], kernel_shape=a[1], strides=stride if any(stride) else a[1], pads=a.get(3, (0, 0)) * 2)
        elif node.op == "Flatten":
            flat = model.dims[node.inputs[0]][1:]
            add("Flatten", [])
        elif node.op == "Linear":
            w = p["weight"]
            if flat:  # from H, W, C to C, H, W
                w = w.reshape(-1, *flat).transpose(0, 3, 1, 2).reshape(len(w), -1)
            flat = None
            add("Gemm", [w, p["bias"]], transB=1)
        elif node.op != "Dropout":
            raise ValueError(f"{node.op} is not known here")
    H, W, C = model.dims[model.nodes[0].output][1:]
    graph = helper.make_graph(nodes, "digits", [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", C, H, W])],
                              [helper.make_tensor_value_info(x, TensorProto.FLOAT, ["N", len(model.labels)])], weights)
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()
