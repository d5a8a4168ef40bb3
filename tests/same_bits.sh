#!/bin/sh
# The same bits from two runs, every thread count, every instruction set with a fused multiply-add, g++ and
# clang++ at several flags, steps merged by the planner or not; the class without one (base) the same within
# itself.
#   same_bits.sh PROGRAM SOURCE_FOLDER quick|long     PROGRAM is tests/same_bits.cpp as this build made it
set -u
program=$1 source=$2 form=$3
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
failed=0 runs=0

# compare LINE CLASS WHAT: the first line of a class and network is what the others must be.
compare() {
  runs=$((runs + 1))
  expected=$work/expected-$2-$network
  [ -f "$expected" ] || echo "$1" > "$expected"
  [ "$(cat "$expected")" = "$1" ] && case $1 in *parameters*) return ;; esac
  echo "DIFFERENT $3: $1"
  echo "  expected: $(cat "$expected")"
  failed=1
}

try() {  # try WHAT BINARY: all threads and instruction sets of our own binary, two sets of the others; long
         # forms leave out scalar and -O0, which are slow, and run all with merged steps switched off, too
  for set in default scalar avx2 avx512 neon base; do
    class=fma
    [ $set = base ] && class=base
    for threads in 1 2 3 7; do
      [ $set = default ] || [ $form = long ] || [ $threads = 1 ] || [ $threads = 3 ] || continue
      [ $form$set = longscalar ] && continue
      [ "$1" = own ] || [ "$form$1" = "long$apart" ] || case $set-$threads in default-1 | base-1) ;; *) continue ;; esac
      if [ $set = default ]; then line=$("$2" "$network" "$steps" $threads)
      else line=$(NNLITE_ISA=$set "$2" "$network" "$steps" $threads); fi
      compare "$line" $class "$1 $set threads=$threads"
    done
  done
}

apart="g++ -O2 -DNNLITE_NO_FUSION"             # steps apart
compilers() {
  for compiler in g++ clang++; do
    command -v $compiler > /dev/null 2>&1 || { echo "SKIP $compiler: it is not installed"; continue; }
    for flags in "-O1 -ffp-contract=fast -mfma" -O0 -O2 "-O3 -march=native" "-O2 -ffp-contract=fast -mfma" \
        "-O2 -DNNLITE_NO_FUSION"; do
      case "$form$compiler $flags" in
        long*-O0) continue ;;
        quick"clang++ -O1 -ffp"* | *"$apart" | long*) ;;
        *) continue ;;
      esac
      binary=$work/same_bits_$(echo "$compiler$flags" | tr -c 'a-z0-9A-Z\n' _)
      # shellcheck disable=SC2086 # a list of flags
      $compiler -std=c++17 $flags -I "$source" "$source/tests/same_bits.cpp" "$source/tools/engine.cpp" \
        -o "$binary" -pthread || exit 1
      echo "$compiler $flags" > "$binary.name"
    done
  done
}

case $form in
  long) list="mlp:500 lenet:500 resnet8:500 dscnn:500" ;;
  *)    list="mlp:20 lenet:4 resnet8:2 dscnn:2" ;;
esac
compilers
for item in $list; do
  network=${item%:*} steps=${item#*:}
  compare "$("$program" "$network" "$steps")" fma "first run"
  compare "$("$program" "$network" "$steps" 1 places)" fma "second run, with a sample at many places"
  try own "$program"
  for name in "$work"/*.name; do
    [ -f "$name" ] && try "$(cat "$name")" "${name%.name}"
  done
  cat "$work/expected-fma-$network"
done
echo "$runs runs"
exit $failed
