#!/bin/sh
# Training that is killed (SIGKILL) at random moments and resumed ends with the bytes of training that never stopped,
# and with its log; an older file in the place of the checkpoint is never gone on from.
. "$(dirname "$0")/shell.sh"

make_idx data train 60
train="--data data --checkpoint-every 3 --out model.nnl --log run.csv"
fit="--arch lenet --batch 8 --optimizer adam --schedule cosine --val 0.1 --seed 5"
# shellcheck disable=SC2086 # lists of options
expect 0 0 "$NNLITE" train --data data $fit --epochs 25 --out whole.nnl --log whole.csv
expect 0 0 "$NNLITE" train --data data --arch mlp --epochs 3 --steps 5 --out other.nnl --checkpoint other.ck
results() { cut -d , -f 1-5 "$1"; }  # all of a log but the seconds
results whole.csv > whole.txt
runs=${NNLITE_KILLS:-5} killed=0 resumed=0
run=0
while [ $run -lt "$runs" ]; do
  run=$((run + 1))
  rm -f model.nnl
  cp other.ck run.ck
  tries=0
  while [ ! -f model.nnl ] && [ $tries -lt 40 ]; do
    tries=$((tries + 1))
    if ! cmp -s other.ck run.ck; then
      resumed=$((resumed + 1))
      "$NNLITE" train $train --resume run.ck 2> err &
    else
      "$NNLITE" train $train $fit --epochs 25 --checkpoint run.ck 2> err &
    fi
    pid=$!
    # A third, a half, ... of a run; the last tries are left alone.
    [ $tries -gt 4 ] || { sleep "0.$(awk "BEGIN {srand($run * 100 + $tries); printf \"%03d\", 20 + 250 * rand()}")"
      kill -9 $pid 2> /dev/null && killed=$((killed + 1)); }
    wait $pid 2> /dev/null
  done
  check "run $run ends with the same bytes" cmp -s whole.nnl model.nnl
  results run.csv > run.txt
  check "run $run has the same log" cmp -s whole.txt run.txt
done
echo "$runs runs, killed $killed times, resumed $resumed times"
finish
