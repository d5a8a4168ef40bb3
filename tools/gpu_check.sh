#!/bin/sh
# Everything about CUDA on a machine with an NVIDIA GPU: builds, tests, compute-sanitizer, the same bits again, and times
# beside PyTorch. Needs nvcc and CMake there, Python with PyTorch for the last part; no package index.
#   sh tools/gpu_check.sh --pack          on a machine that has them: headers and a little of MNIST into gpu_pack/
#   sh tools/gpu_check.sh [--short]       on the GPU machine, with gpu_pack/ beside tools/
# Prints a table; exit 1 if anything failed. The log of every part is in build/gpu_check/.
set -u
cd "$(dirname "$0")/.." || exit 1
root=$(pwd)
pack=$root/gpu_pack

if [ "${1:-}" = --pack ]; then
  . tools/setup.sh
  install_missing
  rm -rf "$pack" && mkdir -p "$pack/include" "$pack/cmake" "$pack/data/mnist" || exit 1
  for part in doctest stb CLI fmt nlohmann; do
    if [ ! -d "/usr/include/$part" ]; then echo "gpu_check: /usr/include/$part is missing: install its package"; exit 1; fi
    cp -r "/usr/include/$part" "$pack/include/" || exit 1
  done
  mkdir -p "$pack/lib/$(uname -m)" || exit 1
  for file in zlib.h zconf.h; do
    cp "$(find /usr/include -name $file | head -n 1)" "$pack/include/" || exit 1
  done
  cp "$(find /usr/lib -name libz.a | head -n 1)" "$pack/lib/$(uname -m)/" || exit 1
  # name of the package, its target, what its users are told
  while read -r package target options; do
    cat > "$pack/cmake/${package}Config.cmake" << END
add_library($target INTERFACE IMPORTED)
set_target_properties($target PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "\${CMAKE_CURRENT_LIST_DIR}/../include"
  INTERFACE_COMPILE_DEFINITIONS "$options")
END
    printf 'set(PACKAGE_VERSION 99)\nset(PACKAGE_VERSION_COMPATIBLE TRUE)\n' > "$pack/cmake/${package}ConfigVersion.cmake"
  done << 'END'
doctest doctest::doctest
CLI11 CLI11::CLI11
fmt fmt::fmt FMT_HEADER_ONLY
nlohmann_json nlohmann_json::nlohmann_json
END
  mnist=$(find_mnist)
  [ -z "$mnist" ] || cp "$mnist"/*ubyte* "$pack/data/mnist/" || exit 1
  du -sh "$pack"
  exit 0
fi

short=no
case "${1:-}" in
  --short) short=yes ;;
  "") ;;
  *) echo "usage: sh tools/gpu_check.sh [--pack | --short]"; exit 2 ;;
esac
for dir in /usr/local/cuda/bin /usr/local/cuda/compute-sanitizer; do PATH=$PATH:$dir; done
export PATH
command -v nvcc > /dev/null || { echo "gpu_check: no nvcc in PATH or /usr/local/cuda/bin"; exit 1; }
nvidia-smi -L 2> /dev/null | grep -q GPU || { echo "gpu_check: no GPU (nvidia-smi -L lists none)"; exit 1; }
[ -d "$pack/data/mnist" ] && NNLITE_DATA=${NNLITE_DATA:-$pack/data} && export NNLITE_DATA
logs=$root/build/gpu_check
build=$root/build/gpu
mkdir -p "$logs"
table=$logs/table.txt
nvidia-smi --query-gpu=name,driver_version,compute_cap --format=csv,noheader | tee "$table"
nvcc --version | grep release | tee -a "$table"
failed=0

# part NAME COMMAND...: one line of the table, and the log
part() {
  name=$1
  shift
  began=$(date +%s)
  if "$@" > "$logs/$name.log" 2>&1; then verdict=ok; else verdict=FAILED failed=1; fi
  if [ $verdict = ok ] && grep -q 'SKIP: there is no CUDA device' "$logs/$name.log"; then verdict='FAILED: no device' failed=1; fi
  printf '%-14s %-18s %5s s   %s\n' "$name" "$verdict" $(($(date +%s) - began)) "$(grep -E "$pattern" "$logs/$name.log" | tail -n 1)" |
    tee -a "$table"
  [ "$verdict" = ok ] || tail -n 25 "$logs/$name.log"
}

jobs=$(nproc 2> /dev/null || echo 4)
configure() {  # other compilers' warnings are not what is looked at here
  set -- -DNNLITE_WARNINGS=OFF -DCMAKE_CUDA_ARCHITECTURES=native -DCMAKE_PREFIX_PATH="$pack/cmake" \
    -DSTB_INCLUDE_DIR="$pack/include/stb"
  zlib=$pack/lib/$(uname -m)/libz.a
  [ ! -f "$zlib" ] || set -- "$@" -DZLIB_LIBRARY="$zlib" -DZLIB_INCLUDE_DIR="$pack/include"
  cmake --preset cuda -B "$build" "$@" && cmake --build "$build" -j "$jobs" --target $targets
}
again() {  # the same training 20 times, on the GPU: the same bytes
  for i in $(seq 20); do
    "$build/nnlite" train --arch lenet --data "$NNLITE_DATA/mnist" --steps 400 --seed 3 --cuda --out "$logs/again$i.nnl" || return 1
    cmp "$logs/again1.nnl" "$logs/again$i.nnl" || return 1
  done
  "$build/nnlite" eval "$logs/again1.nnl" --data "$NNLITE_DATA/mnist" --cuda
}
system() {  # on the GPU
  "$build/tests/systems/nnlite_systems" -tc="$1 full*" > "$logs/system.txt" 2>&1
  right=$?
  cat "$logs/system.txt"
  [ $right = 0 ] && grep -q 'device: GPU' "$logs/system.txt"
}
sanitize() { timeout 150 compute-sanitizer --tool "$1" --error-exitcode 9 "$build/tests/nnlite_tests_cuda" -tc="$2"; }

targets="nnlite_program nnlite_tests_cuda"
[ $short = yes ] || targets="$targets nnlite_tests nnlite_systems"
pattern='error|Built|Linking'
part build configure
[ $failed = 0 ] || exit 1
pattern='assertions'
part parity "$build/tests/nnlite_tests_cuda"
[ $short = yes ] || part cpu "$build/tests/nnlite_tests"
pattern='accuracy'
if [ -d "${NNLITE_DATA:-none}/mnist" ]; then
  part again again
  [ $short = yes ] || part S8 system S8
else echo "again          SKIP: no MNIST in NNLITE_DATA or gpu_pack/data" | tee -a "$table"; fi
if python3 -c 'import torch; assert torch.cuda.is_available()' 2> /dev/null; then
  pattern='geometric mean'
  part bench python3 tools/gpu_bench.py "$build/nnlite" $([ $short = no ] || echo --short)
  grep -E '^network|^[a-z0-9]+ B[0-9]|^NVIDIA|^epoch|^geometric|below' "$logs/bench.log" | tee -a "$table"
else
  echo "bench          SKIP: no PyTorch that sees a GPU" | tee -a "$table"
fi
pattern='ERROR SUMMARY|assertions'
if command -v compute-sanitizer > /dev/null; then
  part memcheck sanitize memcheck "*op table*,*many steps*,*pictures*,*large*"
  [ $short = yes ] || part racecheck sanitize racecheck "*whole networks*"
else
  echo "memcheck       SKIP: there is no compute-sanitizer" | tee -a "$table"
fi
exit $failed
