#!/bin/sh
# What the engine takes of examples/load_from_flash on x86-64: .text + .rodata at -Os with unused sections left out,
# less the bytes of the model; the C library is not in the program. And what it asks of that library: no heap, no file.
#   size.sh SOURCE_FOLDER FOLDER_OF_DIGITS_NNL_H [FLAGS...]
set -u
source=$1 header=$2
shift 2
limit=$((120 * 1024))
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
case $(g++ -dumpmachine 2> /dev/null) in
  x86_64*) ;;
  *) echo "SKIP: no g++ for x86-64"; exit 77 ;;
esac
g++ -std=c++17 -Os -DNDEBUG -fno-exceptions -fno-rtti -fno-asynchronous-unwind-tables -ffunction-sections \
  -fdata-sections -Wl,--gc-sections -no-pie "$@" -I "$source" -I "$header" "$source/examples/load_from_flash.cpp" \
  -o "$work/program" || exit 1
"$work/program" > "$work/out" || { echo "FAIL it does not read its digit"; exit 1; }

section() { size -A -d "$work/program" | awk -v name="$1" '$1 == name {n = $2} END {print n + 0}'; }
nm -S --size-sort "$work/program" > "$work/symbols"
model=$((0x$(awk '/digits_nnl$/ {print $2}' "$work/symbols")))
text=$(section .text) rodata=$(section .rodata)
engine=$((text + rodata - model))
echo "engine $engine bytes: .text $text, .rodata $((rodata - model)) and the model's $model; static memory $(section .bss)"
echo "largest:"
tail -n 12 "$work/symbols" | awk '{print $2, $4}' | c++filt | while read -r bytes name; do
  printf '%8d %s\n' "0x$bytes" "$name"
done
failed=0
[ $engine -le $limit ] || { echo "FAIL more than $limit bytes"; failed=1; }
# printf, puts and putchar are the example's own; sqrtf is where a compiler leaves errno to the C library
asked=$(nm -u "$work/program" | awk '{sub(/@.*/, "", $NF); print $NF}' |
  grep -vxE '__libc_start_main|__gmon_start__|_ITM_.*|printf|puts|putchar|sqrtf|getenv|mem(cmp|cpy|move|set)|str(cmp|len)')
[ -z "$asked" ] || { echo "FAIL asks the C library for" $asked; failed=1; }
[ "$(section .init_array)" -le 8 ] || { echo "FAIL global constructors"; failed=1; }  # 8: the start code's own
exit $failed
