#!/usr/bin/env python3
"""Makes two small .nnl files byte by byte from models/FORMAT.md, without the engine.

usage: make_tiny.py FOLDER      writes tiny_linear.nnl and tiny_conv.nnl
       make_tiny.py --check FOLDER      compares them with what lies there; exit 1 if they differ
"""
import hashlib
import struct
import sys

NONE, N = 0xFFFFFFFF, 0xFFFFFFFF
META, STRS, TENS, NODE, IDXS, ATTR, GRPH, STOR, POST, LABL, TEST, DATA = (
    0x01, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x21, 0x22, 0x23, 0xFFFF)
CRITICAL = {STRS, TENS, NODE, IDXS, ATTR, GRPH, STOR, DATA}
WEIGHT, BIAS, ACTIVATION, INPUT = 1, 2, 5, 6
DENSE, VECTOR, LINEAR, CONV = 0, 1, 2, 3


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def pad64(data):
    return data + bytes(-len(data) % 64)


def pad8(data):
    return data + bytes(-len(data) % 8)


def floats(values):
    return struct.pack("<%df" % len(values), *values)


def vector(values):
    return floats(values + [0.0] * (-len(values) % 16))


def linear_panels(w):  # w[o][i] -> [O/16][I][16]
    out = []
    for first in range(0, len(w), 16):
        for i in range(len(w[0])):
            out += [w[o][i] if o < len(w) else 0.0 for o in range(first, first + 16)]
    return floats(out)


def conv_panels(w):  # w[o][i][kh][kw], one group -> [1][O/16][kH][kW][I][16]
    out = []
    for first in range(0, len(w), 16):
        for kh in range(len(w[0][0])):
            for kw in range(len(w[0][0][0])):
                for i in range(len(w[0])):
                    out += [w[o][i][kh][kw] if o < len(w) else 0.0 for o in range(first, first + 16)]
    return floats(out)


def attribute_int(field, value):
    return struct.pack("<BBi", field, 1, value)


def attribute_bool(field, value):
    return struct.pack("<BBB", field, 3, value)


def attribute_pair(field, h, w):
    return struct.pack("<BBii", field, 4, h, w)


class File:
    """Sections are appended by hand; `finish` adds what FORMAT.md says of header and table."""

    def __init__(self):
        self.strings, self.section = b"", {}

    def string(self, text):
        raw = text.encode()
        at = len(self.strings) if raw else 0
        self.strings += raw
        return at, len(raw)

    def tensor(self, name, layout, role, dims, producer=NONE, storage=NONE, size=0, trainable=0):
        at, length = self.string(name)
        dims8 = list(dims) + [0] * (8 - len(dims))
        record = struct.pack("<IBBBBBBHIIIQQIIII8IQ", at, length, 1, len(dims), layout, role, trainable, 0, 1, producer, storage, 0,
                             size, NONE, NONE, 0, 0, *dims8, 0)
        assert len(record) == 96
        self.section[TENS] = self.section.get(TENS, b"") + record

    def node(self, name, op, inputs, parameters, output, attributes=b""):  # op "": an input
        at, length = self.string(name)
        op_at, op_length = self.string(op)
        ids, attr = self.section.get(IDXS, b""), self.section.get(ATTR, b"")
        record = struct.pack("<IBBHIBBBBIIIIQ", at, length, op_length, 1 if op else 0, op_at, len(inputs), len(parameters), 1, 0,
                             len(ids) // 4, len(attr), len(attributes), NONE, 0)
        assert len(record) == 40
        self.section[NODE] = self.section.get(NODE, b"") + record
        self.section[IDXS] = ids + struct.pack("<%dI" % (len(inputs + parameters) + 1), *inputs, *parameters, output)
        self.section[ATTR] = attr + attributes

    def graph(self, inputs, outputs, seed):
        self.section[GRPH] = struct.pack("<IIQII", len(inputs), len(outputs), seed, 0, 0)
        for node, name in inputs + outputs:
            self.section[GRPH] += struct.pack("<IIB7x", node, *self.string(name))

    def storages(self, blobs):
        self.section[STOR] = b"".join(struct.pack("<QII", len(b), crc32c(b), 0) for b in blobs)
        self.section[DATA] = b"".join(pad64(b) for b in blobs[:-1]) + blobs[-1]

    def finish(self):
        self.section[STRS] = self.strings
        types = sorted(self.section)
        at = -(-(128 + 48 * len(types)) // 64) * 64
        table, body = b"", b""
        for t in types:
            payload = self.section[t]
            table += struct.pack("<IHHQQI20x", t, 1, t in CRITICAL, at + len(body), len(payload), crc32c(pad64(payload)))
            body += pad64(payload)
        table += bytes(at - 128 - len(table))
        header = b"\x89NNL\r\n\x1a\n" + struct.pack("<HHHHIIQQQIIQ", 1, 0, 0, 128, 0x0A0B0C0D, 1, at + len(body), 0, 0, len(types),
                                                    48, 128)
        header += hashlib.sha256(body).digest() + struct.pack("<Q16xI", 0, crc32c(table))
        header += struct.pack("<I", crc32c(header))
        assert len(header) == 128
        return header + table + body


def labels(names, output=0):
    raw = [n.encode() + b"\0" for n in names]
    offsets = [sum(map(len, raw[:i])) for i in range(len(raw))]
    return struct.pack("<II%dI" % len(raw), output, len(raw), *offsets) + b"".join(raw)


def meta(entries):
    return b"".join(struct.pack("<BBH", len(k), 1, len(v)) + k.encode() + b"\0" + v.encode() + b"\0"
                    for k, v in sorted(entries.items()))


def summary(values):
    return floats([sum(values) / len(values), max(map(abs, values))])


# image [N, 3] -> fc: Linear 3 -> 2 -> relu -> y
def tiny_linear():
    weight, bias = [[1.0, 2.0, -3.0], [0.5, -0.25, 4.0]], [0.125, -1.0]
    f = File()
    blobs = [linear_panels(weight), vector(bias)]
    f.tensor("fc.bias", VECTOR, BIAS, [2], storage=1, size=len(blobs[1]), trainable=1)
    f.tensor("fc.weight", LINEAR, WEIGHT, [2, 3], storage=0, size=len(blobs[0]), trainable=1)
    f.tensor("", DENSE, INPUT, [N, 3], producer=0)
    f.tensor("", DENSE, ACTIVATION, [N, 2], producer=1)
    f.tensor("", DENSE, ACTIVATION, [N, 2], producer=2)
    f.node("image", "", [], [], 2)
    f.node("fc", "Linear", [2], [1, 0], 3, attribute_int(1, 3) + attribute_int(2, 2))
    f.node("", "ReLU", [3], [], 4)
    f.graph([(0, "")], [(2, "y")], 1)
    f.storages(blobs)
    f.section[META] = meta({"name": "tiny", "licence": "MIT"})
    f.section[POST] = struct.pack("<IB3xfI", 0, 3, 0.0, 0)
    f.section[LABL] = labels(["no", "yes"])
    x = [1.0, 2.0, 1.0]
    y = [sum(w * v for w, v in zip(row, x)) + b for row, b in zip(weight, bias)]
    z = [max(0.0, v) for v in y]
    f.section[TEST] = struct.pack("<IIIf", 1, 0, 1, 1e-6) + pad8(floats(x)) + pad8(floats(z)) + bytes(8) + summary(y) + summary(z)
    return f.finish()


# image [N, 4, 4, 1] -> conv 3x3 pad 1, 1 -> 2 -> relu -> flatten -> linear 32 -> 2, no bias
def tiny_conv():
    f = File()
    w = [[[[(o + 1) * 0.1 * (kh - kw) for kw in range(3)] for kh in range(3)]] for o in range(2)]
    v = [[((i * 7 + o * 3) % 11 - 5) * 0.125 for i in range(32)] for o in range(2)]
    blobs = [conv_panels(w), vector([0.5, -0.5]), linear_panels(v)]
    f.tensor("conv.bias", VECTOR, BIAS, [2], storage=1, size=len(blobs[1]), trainable=1)
    f.tensor("conv.weight", CONV, WEIGHT, [2, 1, 3, 3], storage=0, size=len(blobs[0]), trainable=1)
    f.tensor("head.weight", LINEAR, WEIGHT, [2, 32], storage=2, size=len(blobs[2]), trainable=1)
    f.tensor("", DENSE, INPUT, [N, 4, 4, 1], producer=0)
    f.tensor("", DENSE, ACTIVATION, [N, 4, 4, 2], producer=1)
    f.tensor("", DENSE, ACTIVATION, [N, 4, 4, 2], producer=2)
    f.tensor("", DENSE, ACTIVATION, [N, 32], producer=3)
    f.tensor("", DENSE, ACTIVATION, [N, 2], producer=4)
    f.node("image", "", [], [], 3)
    f.node("conv", "Conv2d", [3], [1, 0], 4,
           attribute_int(1, 1) + attribute_int(2, 2) + attribute_pair(3, 3, 3) + attribute_pair(5, 1, 1))
    f.node("act", "ReLU", [4], [], 5)
    f.node("flat", "Flatten", [5], [], 6)
    f.node("head", "Linear", [6], [2], 7, attribute_int(1, 32) + attribute_int(2, 2) + attribute_bool(3, 0))
    f.graph([(0, "")], [(4, "logits")], 7)
    f.storages(blobs)
    return f.finish()


def main():
    check, folder = sys.argv[1:-1] == ["--check"], sys.argv[-1]
    differ = False
    for name, data in (("tiny_linear.nnl", tiny_linear()), ("tiny_conv.nnl", tiny_conv())):
        if check:
            with open(folder + "/" + name, "rb") as file:
                same = file.read() == data
            print(name, "same" if same else "DIFFERS", len(data))
            differ |= not same
        else:
            with open(folder + "/" + name, "wb") as file:
                file.write(data)
            print(name, len(data))
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
