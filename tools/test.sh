#!/bin/sh
# Installs what is missing, builds, and runs every test that needs no accelerator: plain, then under the address and
# undefined-behaviour sanitizers. sh tools/test.sh [PRESET...]
set -u
cd "$(dirname "$0")/.." || exit 1
. tools/setup.sh
# the header is also compiled by these (tests/compile)
nnlite_packages="$nnlite_packages clang gcc-arm-none-eabi libstdc++-arm-none-eabi-newlib"
install_missing
[ $# -gt 0 ] || set -- release debug
jobs=$(nproc 2> /dev/null || echo 2)
summary=
failed=0
for preset; do
  start=$(date +%s)
  verdict=passed
  echo "== $preset: build"
  mkdir -p build
  if ! cmake --preset "$preset" > "build/$preset.log" 2>&1; then
    verdict="could not be configured"
    cat "build/$preset.log"
  elif ! cmake --build --preset "$preset" -j "$jobs"; then
    verdict="could not be built"
  else
    echo "== $preset: test"
    ctest --preset "$preset" -j "$jobs" || verdict="failed"
  fi
  [ "$verdict" = passed ] || failed=1
  summary="$summary$(printf '  %-10s %s, %s s' "$preset" "$verdict" $(($(date +%s) - start)))
"
done
[ -n "$(find_mnist)" ] || echo "no MNIST found: what needs it was skipped; sh tools/get_data.sh fetches it"
printf 'summary\n%s' "$summary"
exit $failed
