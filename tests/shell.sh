# Sourced by tests/cli_*.sh, which ctest runs with NNLITE and NNLITE_SAMPLES naming the programs.
set -u
: "${NNLITE:?}" "${NNLITE_SAMPLES:?}"
tests=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
checks=0
failures=0

fault() {
  failures=$((failures + 1))
  echo "FAILED: $*"
  sed 's/^/    stderr: /' err | head -5
}

# expect CODE LINES COMMAND...: runs it, its output in `out` and `err`; wants this exit code and this many lines that
# begin with "nnlite: " on stderr, and in case of an error no other line there but training's report.
expect() {
  code=$1 lines=$2
  shift 2
  checks=$((checks + 1))
  "$@" > out 2> err
  got=$?
  [ $got -eq "$code" ] || fault "exit $got instead of $code: $*"
  said=$(grep -c '^nnlite: ' err)
  [ "$said" -eq "$lines" ] || fault "$said messages instead of $lines: $*"
  other=$(grep -c -v '^nnlite: \|^epoch \|^step \|samples to train on\|saved, sha256' err)
  [ "$code" -eq 0 ] || [ "$other" -eq 0 ] || fault "other lines on stderr: $*"
}

# says WORDS: the last command's stderr holds them.
says() {
  checks=$((checks + 1))
  grep -q -- "$1" err || fault "stderr does not say '$1'"
}

check() {  # check WHAT COMMAND...
  what=$1
  shift
  checks=$((checks + 1))
  "$@" || fault "$what"
}

finish() {
  echo "$checks checks, $failures failed"
  [ $failures -eq 0 ]
  exit
}

# A set of COUNT pictures of 28 x 28, each of one gray that follows from its label, as IDX: PART-images... in FOLDER.
make_idx() {  # FOLDER PART COUNT
  mkdir -p "$1"
  count=$(printf '\\%03o' "$3")
  images=$1/$2-images-idx3-ubyte labels=$1/$2-labels-idx1-ubyte
  printf '\000\000\010\003\000\000\000'"$count"'\000\000\000\034\000\000\000\034' > "$images"
  printf '\000\000\010\001\000\000\000'"$count" > "$labels"
  i=0
  while [ $i -lt "$3" ]; do
    label=$((i % 10))
    head -c 784 /dev/zero | tr '\000' "$(printf '\\%03o' $((20 * label)))" >> "$images"
    printf "$(printf '\\%03o' $label)" >> "$labels"
    i=$((i + 1))
  done
}

# A file that begins like a model, so that one may take its place; its last line is "before".
make_old() {  # FILE
  printf '\211NNL\r\n\032\nbefore\n' > "$1"
}

# Changes the byte at OFFSET of FILE to the one written as an octal escape.
poke() {  # FILE OFFSET OCTAL
  printf "\\$3" | dd of="$1" bs=1 seek="$2" conv=notrunc 2> dd.log
}
