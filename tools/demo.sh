#!/bin/sh
# Installs what is missing, builds, and shows: pictures of digits read by the shipped model; a network that learns
# before your eyes and reads 20 digits from PNG files; a symbol taught from 5 drawings. The digits to learn from are
# MNIST's where it is found, else drawn by the program. No network is needed once the packages are there, and no Python.
# sh tools/demo.sh [--built FOLDER]     the programs are there already
set -eu
cd "$(dirname "$0")/.."
. tools/setup.sh

build=build/release
if [ $# -eq 2 ] && [ "$1" = --built ]; then
  build=$2
elif [ $# -gt 0 ]; then
  echo "usage: sh tools/demo.sh [--built FOLDER]     FOLDER holds the programs" >&2
  exit 2
else
  install_missing
  echo "== building"
  cmake --preset release > /dev/null
  cmake --build --preset release --target nnlite_program nnlite_samples
fi
nnlite=$build/nnlite
samples=$build/nnlite-samples
out=build/demo
rm -rf "$out"
mkdir -p "$out"

echo
echo "== 240 pictures drawn by the program, in hands and on papers that the shipped model did not learn from"
"$nnlite" predict models/digits.nnl tests/golden/digits --grid "$out/golden.png" > "$out/golden.txt"
grep -m 5 . "$out/golden.txt"
echo "...   all of them: $out/golden.txt"
"$nnlite" eval models/digits.nnl --data tests/golden/digits
echo
echo "== what the model sees of one"
"$nnlite" predict models/digits.nnl tests/golden/digits/3/00003.png --show

mnist=$(find_mnist)
if [ -n "$mnist" ]; then
  data=$mnist
  arch=lenet
  epochs=2
  preprocess=plain
  "$samples" "$mnist" "$out/digits" 20
else
  echo
  echo "There is no MNIST in \$NNLITE_DATA/mnist or ../shared/data/mnist; to fetch it: sh tools/get_data.sh"
  data=synthetic-digits:10000
  arch=lenet
  epochs=6
  preprocess=digit
  "$samples" digits "$out/digits" 20 2
fi
echo
echo "== training $arch on $data"
"$nnlite" train --arch $arch --preprocess $preprocess --data "$data" --epochs $epochs --out "$out/lenet.nnl" \
  --log "$out/lenet.csv" --plot "$out/lenet.svg"
echo
echo "== how good it is on digits that it did not learn from"
"$nnlite" eval "$out/lenet.nnl" --data "$data"
echo
echo "== 20 of them as PNG files, read back"
"$nnlite" predict "$out/lenet.nnl" "$out/digits" --grid "$out/digits.png"

echo
echo "== a star is no digit; the shipped model is taught it from 5 drawings"
"$samples" drawn star "$out/lesson" 5 1
"$samples" drawn star "$out/stars" 10 2
echo "10 other stars before:"
"$nnlite" predict models/digits.nnl "$out/stars"
"$nnlite" finetune models/digits.nnl --data "$out/lesson" --out "$out/taught.nnl"
echo "and after:"
"$nnlite" predict "$out/taught.nnl" "$out/stars" --grid "$out/stars.png"
echo
echo "and the 240 digits are not forgotten:"
"$nnlite" eval "$out/taught.nnl" --data tests/golden/digits | head -n 1

echo
echo "$out/golden.png   the 240 digits, titled prediction (label)"
echo "$out/digits.png   the 20 digits, read by the network that has just learned"
echo "$out/lenet.svg    loss and accuracy while it learned"
echo "$out/stars.png    the 10 stars"
echo
echo "Your own photograph of a digit: $nnlite predict models/digits.nnl photo.jpg"
