"""Draws how far ahead of the best peer nnlite is: a bar for every row, a panel for every number of threads, logarithmic."""
import math

LEFT, PANEL, GAP, TOP, STEP, BAR = 128, 366, 20, 112, 21, 13  # pixels
TEXT, FAINT, TITLE, GRID, AXIS = "#374151", "#4b5563", "#111827", "#e5e7eb", "#9ca3af"
AHEAD, BEHIND = "#2563eb", "#ea580c"
TICKS = [0.2, 0.5, 1, 2, 5, 10, 20, 50]
HEADINGS = {"train": "Training step", "infer": "Inference"}


def text(x, y, anchor, size, colour, content, bold=False):
    weight = ' font-weight="600"' if bold else ""
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"{weight} fill="{colour}">'
            f"{content}</text>\n")


def line(x1, y1, x2, y2, colour):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>\n'


def places(results):
    """Where every row and heading stands, and where the last one ends."""
    y, rows, headings = TOP, {}, {}
    for r in results:
        if r["mode"] not in headings:
            y += 10 if headings else 0
            headings[r["mode"]] = y
            y += STEP
        if r["row"] not in rows:
            rows[r["row"]] = y
            y += STEP
    return rows, headings, y


def draw_panel(results, rows, headings, bottom, x0, low, high):
    """One number of threads, from x0 on."""
    def px(ratio):
        return x0 + (math.log(ratio) - math.log(low)) / (math.log(high) - math.log(low)) * (PANEL - 86)
    threads = results[0]["threads"]
    out = text(x0, TOP - 34, "start", 14, TITLE, f"{threads} thread{'s' if threads > 1 else ''}", True)
    for tick in (t for t in TICKS if low <= t <= high):
        out += line(px(tick), TOP - 8, px(tick), bottom, GRID)
        out += text(px(tick), TOP - 14, "middle", 11, FAINT, f"{tick:g}")
    for mode, y in headings.items():
        of_mode = [math.log(r["ratio"]) for r in results if r["mode"] == mode]
        if of_mode:
            mean = math.exp(sum(of_mode) / len(of_mode))
            out += text(x0 + PANEL, y + 11, "end", 11, FAINT, f"geometric mean {mean:.2f}")
    for r in results:
        y, ends = rows[r["row"]], sorted((px(1), px(r["ratio"])))
        out += (f'<rect x="{ends[0]:.1f}" y="{y}" width="{max(1, ends[1] - ends[0]):.1f}" height="{BAR}" '
                f'fill="{AHEAD if r["ratio"] >= 1 else BEHIND}"/>\n')
        out += text(ends[1] + 6, y + 11, "start", 11, TEXT, f'{r["ratio"]:.2f} <tspan fill="{AXIS}">{r["best"]}</tspan>')
    return out + line(px(1), TOP - 8, px(1), bottom, TEXT)


def draw(results, note, path):
    """note: one line below, how it was measured."""
    results = [r for r in results if r["ratio"]]
    counts = list(dict.fromkeys(r["threads"] for r in results))
    rows, headings, bottom = places(results)
    ratios = [r["ratio"] for r in results]
    low, high = min(0.8, *ratios), max(2.0, *ratios) * 1.05
    width, height = LEFT + len(counts) * (PANEL + GAP), bottom + 30
    out = (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
           "font-family=\"system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif\">\n"
           '<rect width="100%" height="100%" fill="#ffffff"/>\n')
    out += text(width / 2, 28, "middle", 17, TITLE, "How many times as fast as the best peer", True)
    out += text(width / 2, 48, "middle", 12, FAINT, "time of the fastest of up to six, divided by the time of nnlite")
    for mode, y in headings.items():
        out += text(14, y + 11, "start", 12, TITLE, HEADINGS[mode], True)
    for row, y in rows.items():
        out += text(LEFT - 12, y + 11, "end", 12, TEXT, row.rsplit(" ", 1)[0].replace(" B", ", batch "))
    for k, count in enumerate(counts):
        out += draw_panel([r for r in results if r["threads"] == count], rows, headings, bottom, LEFT + k * (PANEL + GAP), low,
                          high)
    out += text(width / 2, bottom + 18, "middle", 11, FAINT, note)
    with open(path, "w") as file:
        file.write(out + "</svg>\n")
