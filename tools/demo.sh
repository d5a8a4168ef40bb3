#!/bin/sh
# Installs what is missing, builds, trains LeNet on MNIST, writes 20 test digits as PNG files, reads them, and saves
# them in one picture, each titled "prediction (label)", green or red. Without MNIST it shows what the shipped
# models can do.
# sh tools/demo.sh [--built FOLDER]     the programs are there already
set -eu
cd "$(dirname "$0")/.."
. tools/setup.sh

build=build/release
if [ "${1:-}" = --built ]; then
  build=$2
else
  install_missing
  echo "== building"
  cmake --preset release > /dev/null
  cmake --build --preset release --target nnlite_program nnlite_samples
fi
nnlite=$build/nnlite
out=build/demo
rm -rf "$out"
mkdir -p "$out"

mnist=$(find_mnist)
if [ -z "$mnist" ]; then
  echo "There is no MNIST in \$NNLITE_DATA/mnist or ../shared/data/mnist; to fetch it: sh tools/get_data.sh"
  echo "Without it, this is what the shipped models say of themselves."
  for model in models/*.nnl; do
    [ -e "$model" ] || continue
    echo
    echo "== $model"
    "$nnlite" verify "$model"
    "$nnlite" info "$model"
    "$nnlite" bench "$model" --seconds 0.5
  done
  echo
  echo "== a small network, trained on made-up pictures"
  "$nnlite" train --arch "conv 8 3, relu, maxpool 2, flatten, linear 10" --data synthetic --epochs 2 --out "$out/small.nnl"
  "$nnlite" verify "$out/small.nnl"
  exit 0
fi

echo "== training LeNet on $mnist"
"$nnlite" train --arch lenet --data "$mnist" --epochs 2 --out "$out/lenet.nnl" --log "$out/lenet.csv" --plot "$out/lenet.svg"
echo
echo "== how good it is on the 10,000 test digits"
"$nnlite" eval "$out/lenet.nnl" --data "$mnist"
echo
echo "== 20 of them as PNG files, read back"
"$build/nnlite-samples" "$mnist" "$out/digits" 20
"$nnlite" predict "$out/lenet.nnl" "$out/digits" --grid "$out/digits.png"
echo
echo "$out/digits.png   the 20 digits, titled prediction (label)"
echo "$out/lenet.svg    loss and accuracy while it learned"
echo "$out/lenet.nnl    the model: $nnlite predict $out/lenet.nnl your-own-picture.png"
