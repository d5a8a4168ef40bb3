"""Registers and memory of every kernel of nnlite_cuda.cu as the compiler gives them, held to the limits of sm_87.

  python3 cuda_resources.py NVCC SOURCE_FOLDER [ARCHITECTURE...]     87 unless others are given

Fails where a kernel spills, or a block of 256 threads would not fit: 65,536 registers, 48 KiB of shared memory a block,
4 KiB of arguments. Shared memory is asked for at the launch, so that of the compiler must be none.
"""
import re
import subprocess
import sys
import tempfile

THREADS, REGISTERS, ARGUMENTS = 256, 65536, 4096


def kernels_of(nvcc, source, architecture):
    with tempfile.NamedTemporaryFile(suffix=".cubin") as out:
        run = subprocess.run(
            [nvcc, "-std=c++17", "-O2", "-I", source, "-cubin", f"-arch=sm_{architecture}", "--resource-usage", "-o", out.name,
             source + "/nnlite_cuda.cu"], capture_output=True, text=True, check=False)
    text = run.stdout + run.stderr
    if run.returncode != 0:
        sys.exit(f"cuda_resources: sm_{architecture} does not compile\n{text}")
    names, found = re.findall(r"Compiling entry function '(\w+)'", text), []
    plain = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout.splitlines()
    for name, block in zip(plain, re.split(r"Compiling entry function", text)[1:]):
        number = lambda pattern: int((re.search(pattern, block) or [0, 0])[1])  # pylint: disable=cell-var-from-loop
        short = re.sub(r"nnlite::f32::(cuda::)?|\(.*| ?void ", "", name.replace("(bool)", "")).strip()
        found.append((short, number(r"Used (\d+) registers"), number(r"(\d+) bytes spill stores"),
                      number(r"(\d+) bytes stack frame"), number(r"(\d+) bytes smem"), number(r"(\d+) bytes cmem\[0\]")))
    return found


def main():
    if len(sys.argv) < 3:
        print("usage: cuda_resources.py NVCC SOURCE_FOLDER [ARCHITECTURE...]", file=sys.stderr)
        return 2
    failed = False
    for architecture in sys.argv[3:] or ["87"]:
        found = kernels_of(sys.argv[1], sys.argv[2], architecture)
        print(f"sm_{architecture}: {len(found)} kernels\n{'registers':>9} {'spilled':>8} {'stack':>6} {'shared':>7} {'arguments':>9}  kernel")
        for name, registers, spilled, stack, shared, arguments in sorted(found, key=lambda k: -k[1]):
            bad = registers * THREADS > REGISTERS or spilled or shared or arguments > ARGUMENTS
            failed |= bool(bad)
            print(f"{registers:>9} {spilled:>8} {stack:>6} {shared:>7} {arguments:>9}  {name}{'   FAIL' if bad else ''}")
        if not found:
            print("FAIL no kernel was found")
            failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
