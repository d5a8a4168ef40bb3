#!/bin/sh
# A disk without room: one line, exit 1, what was there untouched and nothing left behind.
. "$(dirname "$0")/shell.sh"

mkdir disk
if ! mount -t tmpfs -o size=32k tmpfs disk 2> err; then
  echo "SKIP: no small disk can be mounted here ($(head -1 err))"
  exit 77
fi
trap 'umount "$work/disk"; rm -rf "$work"' EXIT
make_idx data train 40
make_idx data t10k 20
expect 0 0 "$NNLITE" train --arch "flatten, linear 10" --data data --epochs 1 --out good.nnl
expect 0 0 "$NNLITE_SAMPLES" data pictures 10
expect 0 0 "$NNLITE" predict good.nnl pictures --grid grid.png
expect 0 0 "$NNLITE" train --arch mlp --data data --epochs 1 --out model.nnl --checkpoint run.ck --log log.csv --plot plot.svg
expect 0 0 "$NNLITE" embed good.nnl good.h
for name in model.nnl run.ck log.csv plot.svg grid.png good.h; do      # of its kind, and small
  { head -c 500 $name; echo; echo before; } > disk/$name
done
head -c 30000 /dev/zero > disk/filler 2> err
cat /dev/zero > disk/rest 2> err
train="$NNLITE train --arch mlp --data data --epochs 1"
expect 1 1 $train --out disk/model.nnl
expect 1 1 $train --out disk/new.nnl
expect 1 1 $train --out new.nnl --checkpoint disk/run.ck
says "^nnlite: cannot be written: No space left on device: disk/run.ck: free some space"
check "the place is said once" [ "$(grep -o run.ck err | wc -l)" -eq 1 ]
expect 1 1 $train --out new.nnl --log disk/log.csv
expect 1 1 $train --out new.nnl --plot disk/plot.svg
expect 1 1 "$NNLITE" predict good.nnl pictures --grid disk/grid.png
expect 1 1 "$NNLITE" embed good.nnl disk/good.h
for name in model.nnl run.ck log.csv plot.svg grid.png good.h; do
  check "disk/$name is untouched" [ "$(tail -n 1 disk/$name)" = before ]
done
check "nothing new is on the disk" [ "$(ls -A disk | wc -l)" -eq 8 ]
checks=$((checks + 1))
"$NNLITE" info good.nnl --json > /dev/full 2> err && fault "writing to a full standard output is not noticed"
check "it is said in one line" [ "$(wc -l < err)" -eq 1 ]
finish
