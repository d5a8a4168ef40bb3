"""Compilers keep the sums of the hot loops in registers.

    python3 code_generation.py ENGINE.o

Disassembles the engine. In every innermost loop with products of vectors a store of a vector register to the stack is a
spill: each turn pays for it, and for the load behind it. Loops that call a function are left out, for no vector register
survives a call. Prints what it has looked at; fails on a spill that is not in KNOWN, and where an instruction set has
hardly any such loops.
"""
import re
import shutil
import subprocess
import sys
from collections import Counter

SKIP = 77
# Instruction set and function: why its spills may stay.
KNOWN = {}

FUNCTION = re.compile(r"^[0-9a-f]+ <(.*)>:$")
LINE = re.compile(r"^\s*([0-9a-f]+):\t(?:[a-z]+ (?=j))?(\S+)\s*(.*)$")
PRODUCT = re.compile(r"v?f?n?m(add|sub)(132|213|231)?ps$|vfn?m(add|sub)(132|213|231)ps$|mulps$")
STORE = re.compile(r"^%[xyz]mm\d+(,|\{).*\((%rsp|%rbp)")


def functions(path):
    """Name and instructions (address, mnemonic, operands) of each function."""
    text = subprocess.run(["objdump", "-d", "-C", "--no-show-raw-insn", path], check=True, capture_output=True,
                          text=True).stdout
    name, body = None, []
    for line in text.splitlines():
        start = FUNCTION.match(line)
        if start:
            yield name, body
            name, body = start.group(1), []
        instruction = LINE.match(line)
        if instruction:
            body.append((int(instruction.group(1), 16), instruction.group(2), instruction.group(3)))
    yield name, body


def blocks_of(body):
    """Basic blocks (lists of instructions), and the numbers of those that may follow each."""
    targets = {i: int(re.match(r"[0-9a-f]+", ops).group(), 16) for i, (_, name, ops) in enumerate(body)
               if name.startswith("j") and re.match(r"[0-9a-f]+\b", ops)}
    starts = {0} | {i + 1 for i, (_, name, _) in enumerate(body) if name.startswith(("j", "ret"))}
    index = {address: i for i, (address, _, _) in enumerate(body)}
    starts = sorted((starts | {index[t] for t in targets.values() if t in index}) - {len(body)})
    blocks = [body[a:b] for a, b in zip(starts, starts[1:] + [len(body)])]
    number = {block[0][0]: k for k, block in enumerate(blocks)}
    follow = []
    for k, (start, block) in enumerate(zip(starts, blocks)):
        last, name = start + len(block) - 1, block[-1][1]
        after = [number[targets[last]]] if targets.get(last) in number else []
        padding = all(i[1].startswith(("nop", "cs", "data16", "xchg")) for i in block)
        if not padding and not name.startswith(("jmp", "ret", "ud2")) and k + 1 < len(blocks):
            after.append(k + 1)
        follow.append(after)
    return blocks, follow


def innermost_loops(body):
    """The instructions of each loop with products that has no other such loop inside. A loop is what reaches a jump
    back to the block in front of all ways there (Aho, Lam, Sethi, Ullman 2006: 9.6, natural loops)."""
    blocks, follow = blocks_of(body)
    before = [[] for _ in blocks]
    for a, after in enumerate(follow):
        for b in after:
            before[b].append(a)
    everything = (1 << len(blocks)) - 1
    dominators = [everything if before[b] and b > 0 else 1 << b for b in range(len(blocks))]
    changed = True
    while changed:
        changed = False
        for b in range(1, len(blocks)):
            common = everything if before[b] else 0
            for a in before[b]:
                common &= dominators[a]
            changed |= dominators[b] != common | 1 << b
            dominators[b] = common | 1 << b
    loops = {}
    for a, after in enumerate(follow):
        for head in after:
            if not dominators[a] >> head & 1:
                continue
            inside, todo = loops.setdefault(head, {head}), [a]
            while todo:
                block = todo.pop()
                if block not in inside:
                    inside.add(block)
                    todo += before[block]
    busy = {head: inside for head, inside in loops.items()
            if any(PRODUCT.match(i[1]) for block in inside for i in blocks[block])}
    for head, inside in busy.items():
        if not any(other in inside and other != head for other in busy):
            yield [i for block in sorted(inside) for i in blocks[block]]


def spills(body, loop):
    """Stores of vectors to the stack, which %rbp points to as well where the function says so."""
    framed = any(i[1:] == ("mov", "%rsp,%rbp") for i in body)
    for address, mnemonic, operands in loop:
        store = STORE.match(operands) if "mov" in mnemonic else None
        if store and (store.group(2) == "%rsp" or framed):
            yield f"{address:x}: {mnemonic} {operands}"


def main():
    if not shutil.which("objdump"):
        print("SKIP: there is no objdump")
        return SKIP
    loops, bad = Counter(), 0
    for name, body in functions(sys.argv[1]):
        place = re.search(r"\bisa_(\w+)::(\w+)", name or "")
        for loop in innermost_loops(body) if place else []:
            if any(mnemonic == "call" for _, mnemonic, _ in loop):
                continue
            isa = place.group(1)
            loops[isa] += 1
            found = list(spills(body, loop))
            if found:
                reason = KNOWN.get(place.groups())
                bad += reason is None
                print(f"{isa} {place.group(2)}: {len(found)} spills in {len(loop)} instructions from {loop[0][0]:x}, first "
                      f"{found[0]}" + (f" (known: {reason})" if reason else f"\n  {name}"))
    print("innermost loops with products:", ", ".join(f"{n} {isa}" for isa, n in sorted(loops.items())))
    missing = [isa for isa in ("avx2", "avx512", "base") if loops[isa] < 20]
    if missing:
        print("too few loops found:", ", ".join(missing))
    return 1 if bad or missing else 0


sys.exit(main())
