"""The digit front end of nnlite.hpp (room >>digit) in NumPy, SciPy and Pillow: what one would write without nnlite.

Whole numbers in the same order, so that both see the same 28 x 28 pixels, but for the reduction, which is Pillow's.
"""
import struct

import numpy as np
from PIL import Image
from scipy import ndimage

CELLS, PARTS = 16, 2048
BOX, SPECK, CONTRAST, CLARITY, SIDE = 20, 10, 16, 82, 256  # the defaults of Preprocessing
PARAMETERS = struct.pack("<BBBBH", BOX, SPECK, CONTRAST, CLARITY, SIDE)  # as they stand in a model's file


def toward_zero(a, b):
    """Integer division as C does it."""
    return np.sign(a) * (np.abs(a) // b)


def two_classes(counts):
    """Otsu: the highest low value, how far apart the means are, how many percent of the variance that explains."""
    counts = counts.astype(np.int64)
    v = np.arange(256)
    all_, total, squares = int(counts.sum()), int((counts * v).sum()), int((counts * v * v).sum())
    below, below_sum = np.cumsum(counts)[:255], np.cumsum(counts * v)[:255]
    valid = np.flatnonzero((below > 0) & (below < all_))
    if len(valid) == 0:
        return 0, 0, 0
    below, below_sum = below[valid], below_sum[valid]
    apart = (total - below_sum) * 256 // (all_ - below) - below_sum * 256 // below
    between = below * (all_ - below) * (apart * apart >> 4)
    best = int(between.max())
    at = np.flatnonzero(between == best)
    variance = squares - total * total // all_
    clarity = 0 if variance == 0 else (best >> 12) // all_ * 100 // variance
    if best == 0:
        return int(valid[at[-1]]) // 2, 0, clarity
    return (int(valid[at[0]]) + int(valid[at[-1]])) // 2, int(apart[at[0]]) >> 8, clarity


class Background:
    """The colour of the paper: cells x cells values, bilinear between their middles."""

    def __init__(self, planes):
        H, W = planes.shape[:2]
        self.H, self.W = H, W
        longest = max(H, W)
        cell = self.cell = 4 if longest < 64 else longest // CELLS + 1
        self.nx, self.ny = max(1, W // cell), max(1, H // cell)
        self.skip = 2 if longest > 128 else 1
        self.weights = [self._along(n, size) for n, size in ((self.ny, H), (self.nx, W))]
        self.cell_of = [np.minimum(np.arange(size) // cell, n - 1) for n, size in ((self.ny, H), (self.nx, W))]
        self._surround(planes)

    def _along(self, n, size):
        """For every pixel: the cell before it, the cell after it, how far between them it is (in half pixels)."""
        twice = 2 * np.arange(size) + 1
        first = np.clip((twice - self.cell) // (2 * self.cell), 0, max(n - 2, 0))
        ends = [(self.cell * (2 * i + 3) + 1) // 2 for i in range(n - 2)]
        column = np.searchsorted(ends, np.arange(size), side="right")
        return first, column, min(1, n - 1), twice

    def _stretches(self, strip, n):
        """Medians over n stretches of a strip that runs along its axis 0."""
        ends = [i * self.cell for i in range(n)] + [len(strip)]
        out = []
        for a, b in zip(ends, ends[1:]):
            part = strip[a:b].reshape(-1, 3)
            k = (len(part) - 1) // 2
            out.append(np.partition(part, k, axis=0)[k])
        return np.array(out, dtype=np.int64)

    def _surround(self, planes):
        deep, nx, ny = self.cell // 8 + 1, self.nx, self.ny
        top = self._stretches(planes[:deep].swapaxes(0, 1), nx)
        bottom = self._stretches(planes[-deep:].swapaxes(0, 1), nx)
        left, right = self._stretches(planes[:, :deep], ny), self._stretches(planes[:, -deep:], ny)
        corner = top[0] + left[0], top[-1] + right[0], bottom[0] + left[-1], bottom[-1] + right[-1]
        u, v = (2 * np.arange(nx) + 1)[None, :, None], (2 * np.arange(ny) + 1)[:, None, None]
        u1, v1 = 2 * nx - u, 2 * ny - v
        sides = nx * (v1 * top[None] + v * bottom[None]) + ny * (u1 * left[:, None] + u * right[:, None])
        corners = v1 * (u1 * corner[0] + u * corner[1]) + v * (u1 * corner[2] + u * corner[3])
        self.cells = toward_zero(16 * sides - 4 * corners, 2 * nx * ny)

    def at(self, step):
        """The background of every step-th pixel, in units of 1 / 16."""
        cell = self.cell
        first, _, below, twice = (w if isinstance(w, int) else w[::step] for w in self.weights[0])
        share = toward_zero((twice - cell - 2 * cell * first) * 64, cell)[:, None, None]
        rows = self.cells[first] * (128 - share) + self.cells[first + below] * share
        _, column, after, twice = (w if isinstance(w, int) else w[::step] for w in self.weights[1])
        right = rows[:, after:]
        slope = toward_zero((right - rows[:, :right.shape[1]]) * 32, cell).astype(np.int32)
        rows = (rows * 64 + 4096).astype(np.int32)
        v = slope[:, column] * (twice - cell * (2 * column + 1)).astype(np.int32)[:, None] + rows[:, column]
        return np.clip(v >> 13, 0, 255 * 16)

    def difference(self, planes):
        """Ink of every skip-th pixel, the threshold, and the mean difference of what lies above it."""
        s = self.skip
        d = planes[::s, ::s] * 16 - self.at(s)
        ink = (np.abs(d).max(axis=2) + 8) >> 4
        level = two_classes(np.bincount(ink.ravel(), minlength=256))[0]
        high = d[ink > level]
        mean = np.zeros(3, np.int64) if len(high) == 0 else toward_zero(high.sum(axis=0, dtype=np.int64), len(high))
        return ink, level, mean

    def refine(self, planes, ink, level):
        """In every cell the mean of what is neither ink nor beside it."""
        s = self.skip
        reach = 2 // s
        is_ink = np.pad(ink > level, reach)
        clear = ink * 2 <= level
        H, W = ink.shape
        for dy, dx in ((0, reach), (2 * reach, reach), (reach, 0), (reach, 2 * reach)):
            clear &= ~is_ink[dy:dy + H, dx:dx + W]
        where = (self.cell_of[0][::s, None] * self.nx + self.cell_of[1][None, ::s])[clear]
        paper = planes[::s, ::s][clear]
        size = self.nx * self.ny
        counts = np.bincount(where, minlength=size).reshape(self.ny, self.nx)
        sums = np.stack([np.bincount(where, paper[:, c], size) for c in range(3)], axis=1)
        sums = sums.astype(np.int64).reshape(self.ny, self.nx, 3)
        known = counts >= self.cell * self.cell // (4 * s * s)
        if not known.any():
            return
        self.cells[known] = ((sums * 16 + counts[..., None] // 2)[known]) // counts[known][:, None]
        while not known.all():  # cells of ink take the mean of the cells around that know
            kernel = np.ones((3, 3), np.int64)
            n = ndimage.correlate(known.astype(np.int64), kernel, mode="constant")
            new = ~known & (n > 0)
            for c in range(3):
                around = ndimage.correlate(np.where(known, self.cells[..., c], 0), kernel, mode="constant")
                self.cells[new, c] = toward_zero(around[new], n[new])
            known |= new

    def project(self, planes, mean):
        """The difference from the background as far as it points the way of the ink, and the noise."""
        square, most = int((mean * mean).sum()), int(np.abs(mean).max())
        weight = np.array([0 if square == 0 else int(toward_zero(m * most * 65536, square)) for m in mean], np.int32)
        p = ((planes * 16 - self.at(1)) @ weight + (1 << 15)) >> 16
        paper, below = 1 + np.count_nonzero(p * 2 <= most), -int(p[p < 0].sum())
        return np.clip((p + 8) >> 4, 0, 255), below * 5 // (paper * 16)


def taps(size, to):
    """Weights of a resize along one axis: by area when shrinking, bilinear when growing. Rows sum to the total."""
    w = np.zeros((to, size))
    if size >= to:
        for i in range(to):
            for j in range(i * size // to, -(-(i + 1) * size // to)):
                w[i, j] = min((j + 1) * to, (i + 1) * size) - max(j * to, i * size)
        return w, size
    for i in range(to):
        position = min(max((2 * i + 1) * size - to, 0), (size - 1) * 2 * to)
        first, second = divmod(position, 2 * to)
        w[i, first] += 2 * to - second
        if second:
            w[i, first + 1] += second
    return w, 2 * to


def cut(ink, keep, noise, side):
    """The kept ink: longest side 20, stretched, centre of mass in the middle."""
    near = ndimage.binary_dilation(keep, np.ones((3, 3), bool)) & (ink > noise)
    ink = np.where(near, ink - noise, 0)
    counts = np.bincount(ink[keep & near], minlength=256)
    top, above, total = 255, counts[255], counts.sum()
    while top > 1 and above * 5 < total:
        top -= 1
        above += counts[top]
    ys, xs = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    part = ink[ys[0]:ys[-1] + 1, xs[0]:xs[-1] + 1]
    h, w = part.shape
    longest = max(h, w)
    box_h, box_w = (max(1, (2 * n * BOX + longest) // (2 * longest)) for n in (h, w))
    (down, high), (across, wide) = taps(h, box_h), taps(w, box_w)
    part = np.where(part < top, part * 255 // top, 255).astype(float)
    picture = (down @ part @ across.T).astype(np.int64)
    picture = (picture + high * wide // 2) // (high * wide)
    most, mass = max(1, int(picture.max())), int(picture.sum()) or 1

    def shift(axis, box):
        moment = int((picture.sum(axis=1 - axis) * (2 * np.arange(box) + 1)).sum())
        return min(max(int(toward_zero(side * mass - moment + 2 * mass - 1, 2 * mass)), 0), side - box)

    up, left = shift(0, box_h), shift(1, box_w)
    out = np.zeros((side, side), np.float32)
    out[up:up + box_h, left:left + box_w] = (picture * 255 + most // 2) // most
    return out


def parts_of(mask):
    """Labels of the connected ink, corners included, which of them are no specks, and what is seen."""
    labels, count = ndimage.label(mask, np.ones((3, 3), int))
    if count == 0 or count >= PARTS:
        return None, "noise"
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    areas[0] = 0
    kept = areas * SPECK >= areas.max()
    kept[0] = False
    if np.count_nonzero(kept) > 12:
        return kept[labels], "noise"
    boxes = [b for k, b in enumerate(ndimage.find_objects(labels), 1) if kept[k]]
    highest = max(b[0].stop - b[0].start for b in boxes)
    large = [b for b in boxes if 2 * (b[0].stop - b[0].start) >= highest]
    for i, (py, px) in enumerate(large):
        for qy, qx in large[:i]:
            beside = max(px.start - qx.stop, qx.start - px.stop) + 1
            above = max(py.start - qy.stop, qy.start - py.stop) + 1
            if beside * 10 > highest or above * 4 > highest:
                return kept[labels], "several digits"
    return kept[labels], None


def prepare(image, side=28):
    """A Pillow image to side x side values 0 .. 255; and why it is no digit, or None."""
    if image.mode not in ("L", "RGB"):
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")
    k = -(-max(image.size) // SIDE)
    pixels = np.asarray(image.reduce(k) if k > 1 else image)
    planes = (np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels).astype(np.int32)
    back = Background(planes)
    ink, level, mean = back.difference(planes)
    for _ in range(2):
        back.refine(planes, ink, level)
        ink, level, mean = back.difference(planes)
    ink, noise = back.project(planes, mean)
    blurred = ink
    if max(ink.shape) > 64:
        p = np.pad(ink, 1, mode="edge")
        p = p[:-2] + 2 * p[1:-1] + p[2:]
        blurred = (p[:, :-2] + 2 * p[:, 1:-1] + p[:, 2:] + 8) >> 4
    otsu, contrast, clarity = two_classes(np.bincount(blurred.ravel(), minlength=256))
    nothing = np.zeros((side, side), np.float32)
    if contrast < CONTRAST:
        return nothing, "blank"
    keep, seen = parts_of(blurred > max(otsu * 3 // 4, noise))
    if keep is None:
        return nothing, seen
    return cut(ink, keep, noise, side), "noise" if clarity < CLARITY else seen
