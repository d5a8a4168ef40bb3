#!/bin/sh
# The header compiles alone and without a warning: compilers, standards, switches, two translation units, and freestanding
# for a Cortex-M4, whose size is printed. No global constructors, no heap.      compile.sh SOURCE_FOLDER
set -u
source=$1
here=$source/tests/compile
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
strict="-Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Wdouble-promotion -Wold-style-cast -Werror"
failed=0

check() {  # check WHAT COMMAND...
  what=$1
  shift
  if "$@" > "$work/log" 2>&1; then echo "ok   $what"; return 0; fi
  echo "FAIL $what"
  head -20 "$work/log"
  failed=1
  return 1
}

check_alone() {  # check_alone COMPILER FLAGS...
  compiler=$1
  shift
  for file in interface implementation; do
    # shellcheck disable=SC2086 # a list of flags
    check "$compiler $* $file" "$compiler" -I "$source" $strict "$@" -fsyntax-only "$here/$file.cpp"
  done
}

for compiler in g++ clang++; do
  command -v $compiler > /dev/null 2>&1 || { echo "SKIP $compiler: it is not installed"; continue; }
  for standard in c++17 c++20; do check_alone $compiler -std=$standard; done
  check_alone $compiler -std=c++17 -fno-exceptions -fno-rtti
  check_alone $compiler -std=c++17 -DNNLITE_REAL=double
  for switch in SIMD STDIO STRINGS THREADS TRAINING; do check_alone $compiler -std=c++17 -DNNLITE_NO_$switch; done
  check_alone $compiler -std=c++17 -DNNLITE_NO_SIMD -DNNLITE_NO_STDIO -DNNLITE_NO_STRINGS -DNNLITE_NO_THREADS \
    -DNNLITE_NO_TRAINING
done

# Fast arithmetic is refused.
if g++ -std=c++17 -ffast-math -I "$source" -fsyntax-only "$here/implementation.cpp" 2> "$work/log"; then
  echo "FAIL -ffast-math is accepted"
  failed=1
fi

# Two translation units, as it ships, with the time of the implementation.
check "g++ -O2, the implementation" sh -c "g++ -std=c++17 -O2 -I '$source' $strict -c '$here/implementation.cpp' \
  -o '$work/unit.o' && times > '$work/times'"
echo "     user and system time $(tail -n 1 "$work/times"), $(size "$work/unit.o" | awk 'NR == 2 {print $1}') bytes of code"
check "two translation units" g++ -std=c++17 -I "$source" "$here/interface.cpp" "$work/unit.o" -o "$work/two" -pthread &&
  check "they run" "$work/two"
check "no global constructors" sh -c "! objdump -h '$work/unit.o' | grep -q init_array"
check "no heap" sh -c "! nm -u '$work/unit.o' | grep -wE 'malloc|calloc|realloc|free|_Zn[wa]m|_Zd[la]Pv|_Zd[la]Pvm'"

if command -v arm-none-eabi-g++ > /dev/null 2>&1; then
  arm="arm-none-eabi-g++ -mcpu=cortex-m4 -mthumb -mfloat-abi=hard -mfpu=fpv4-sp-d16 -std=c++17 -Os -ffreestanding"
  arm="$arm -fno-exceptions -fno-rtti -ffunction-sections -fdata-sections -I $source $strict"
  arm="$arm -DNNLITE_NO_STDIO -DNNLITE_NO_STRINGS -DNNLITE_NO_THREADS"
  check "Cortex-M4, with training" $arm -c "$here/implementation.cpp" -o "$work/training.o"
  check "Cortex-M4, inference of Linear and ReLU" $arm -DNNLITE_NO_TRAINING -c "$here/microcontroller.cpp" -o "$work/m4.o" &&
    check "Cortex-M4 links without a C library" arm-none-eabi-g++ -mcpu=cortex-m4 -mthumb -mfloat-abi=hard \
      -mfpu=fpv4-sp-d16 -nostdlib -Wl,--gc-sections -Wl,-e,read_model -Wl,--defsym=model_file=0x10000000 \
      -Wl,--defsym=model_size=0x10001000 "$work/m4.o" -lgcc -o "$work/m4.elf" && {
      arm-none-eabi-size "$work/m4.elf"
      check "no global constructors on Cortex-M4" sh -c "! arm-none-eabi-objdump -h '$work/m4.elf' | grep -q init_array"
    }
else
  echo "SKIP Cortex-M4: arm-none-eabi-g++ is not installed"
fi
exit $failed
