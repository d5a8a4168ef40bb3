#!/bin/sh
# Pictures of every kind, read by the shipped model: each is answered, rejected or refused in one line, in little memory.
. "$(dirname "$0")/shell.sh"

model=$tests/../models/digits.nnl
peak() {  # COMMAND...: its peak memory must stay under 256 MB, where it can be measured; not with a sanitizer
  grep -q __asan_init "$NNLITE" && return 0  # it keeps what was freed
  [ -x /usr/bin/time ] || return 0
  /usr/bin/time -o peak -f %M "$@" > out 2> err
  check "$(tail -n 1 peak) KB of memory: $*" [ "$(tail -n 1 peak)" -lt 262144 ]
}

# ---- what other programs write: 16 bits, a palette, CMYK, transparent, progressive, turned by EXIF, several frames
for file in gray16.png palette.png cmyk.jpg transparent.png progressive.jpg turned.jpg animated.png; do
  expect 0 0 "$NNLITE" predict "$model" "$tests/golden/pictures/$file"
  check "$file shows a 3" grep -q ': 3 (' out
done
expect 1 1 "$NNLITE" predict "$model" "$tests/golden/pictures/animated.gif"
says "not a PNG, JPEG, BMP or binary PNM picture"

# ---- large and small
"$NNLITE_ODD_MODELS" pictures
printf 'P5 1 1 255\n\200' > one.pgm
{ printf 'P5 4096 4096 255\n'; head -c 16777216 /dev/zero | tr '\000' '\310'; } > gray.pgm
{ printf 'P6 16384 1 255\n'; head -c 49152 /dev/zero; } > line.ppm
head -c 3000 /dev/urandom > noise.bin
{ printf 'P5 50 60 255\n'; cat noise.bin; } > noise.pgm
for file in one.pgm gray.pgm line.ppm noise.pgm large.png large16.png; do
  expect 0 0 "$NNLITE" predict "$model" $file
  check "$file is rejected" grep -q "^$file: rejected: .* (best guess [0-9], " out
  expect 0 0 "$NNLITE" predict "$model" $file --json
  check "the JSON says so" grep -q '"rejected": true' out
  check "and why" grep -q '"reason": "' out
  expect 0 0 "$NNLITE" predict "$model" $file --accept-all --json
  check "all are accepted" grep -q '"rejected": false' out
  check "without a reason" grep -q '"reason": null' out
done
expect 0 0 "$NNLITE" predict "$model" one.pgm gray.pgm large.png
check "nothing is on them" [ "$(grep -c ': rejected: blank' out)" -eq 3 ]
for file in larger16.png huge.png bomb.png; do
  expect 1 1 "$NNLITE" predict "$model" $file
  says $file
done
expect 1 1 "$NNLITE" predict "$model" larger16.png
says "MB to read"
truncate -s 3G enormous.png  # no block of the disk is taken
expect 1 1 "$NNLITE" predict "$model" enormous.png
says "MB to read: enormous.png: make it smaller"
peak "$NNLITE" predict "$model" enormous.png
rm enormous.png
{ printf 'P6 5700 5700 255\n'; head -c 97470000 /dev/zero | tr '\000' '\310'; } > wide.ppm
mkdir wide
for i in 1 2 3; do ln wide.ppm wide/$i.ppm; done
peak "$NNLITE" predict "$model" wide --threads 3
rm -r wide wide.ppm
mkdir large
for i in 1 2 3 4; do
  cp large16.png large/$i.png
  cp bomb.png large/$i-bomb.png
  cp large.png large/$i-large.png
done
peak "$NNLITE" predict "$model" large --threads 4
peak "$NNLITE" predict "$model" gray.pgm --grid grid.png

# ---- blank, several, none of them; a picture with its answers
expect 0 0 "$NNLITE_SAMPLES" others others 40
expect 0 0 "$NNLITE" predict "$model" others --top 3 --grid grid.png
check "three guesses" grep -q 'rejected: several digits (best guess [0-9], [0-9.]* %; [0-9], [0-9.]* %; [0-9], ' out
check "9 of 10 blank pages" [ "$(grep -c 'blank/.*rejected: blank' out)" -ge 9 ]
check "9 of 10 pairs" [ "$(grep -c 'two/.*rejected: several' out)" -ge 9 ]
expect 0 0 "$NNLITE" predict "$model" others/two/00003.png --show
check "28 rows are drawn" [ "$(wc -l < out)" -eq 29 ]

expect 0 0 "$NNLITE" eval "$model" --data "$tests/golden/digits" --json
check "eval says what predict would reject" grep -q '"rejected": 0' out
"$NNLITE_SAMPLES" drawn star lesson 5 > /dev/null
"$NNLITE_SAMPLES" digits odd 10 > /dev/null
for file in lesson/star/*; do mv "$file" odd/4/star-"${file##*/}"; done
expect 0 0 "$NNLITE" eval "$model" --data odd
check "stars are rejected" grep -q '^predict answers 10, 100.00 % of them right, and rejects 5, [0-5] of them with a right guess$' out

# ---- the picture of the README
expect 0 0 "$NNLITE" predict "$model" "$tests"/golden/digits/?/000[0-2]?.png --grid grid.png
check "golden/grid.png is what predict draws" cmp -s grid.png "$tests/golden/grid.png"

# ---- the same answers on any number of threads
expect 0 0 "$NNLITE" predict "$model" "$tests/golden/digits" --threads 1
mv out one.txt
expect 0 0 "$NNLITE" predict "$model" "$tests/golden/digits" --threads 3
check "threads do not matter" cmp -s one.txt out
finish
