#!/bin/sh
# Training killed with SIGKILL at any moment and resumed, again and again: the same bytes as never stopped.
# NNLITE_RUNS=20 sets how many such trainings there are (5).
. "$(dirname "$0")/shell.sh"

make_idx data train 100
make_idx data t10k 20
fit="--data data --out killed.nnl --checkpoint run.ck --checkpoint-every 3"
expect 0 0 "$NNLITE" train --arch lenet --data data --epochs 60 --batch 16 --out whole.nnl
kills=0
run=0
while [ $run -lt "${NNLITE_RUNS:-5}" ]; do
  run=$((run + 1))
  rm -f killed.nnl run.ck
  last=$((kills + 30))  # then it may end, however slow the machine
  while [ ! -e killed.nnl ]; do
    if [ -e run.ck ]; then start="--resume run.ck"; else start="--arch lenet --epochs 60 --batch 16"; fi
    "$NNLITE" train $start $fit 2> err &
    pid=$!
    sleep 0.$(($(date +%N | cut -c 4-6 | sed 's/^0*//;s/^$/0/') % 40 + 10))
    [ $kills -ge $last ] || { kill -9 $pid 2> kill.log && kills=$((kills + 1)); }
    wait $pid 2> kill.log
    code=$?
    [ $code -eq 137 ] || [ $code -eq 0 ] || { fault "exit $code"; break; }
  done
  check "run $run gives the same bytes" cmp -s whole.nnl killed.nnl
done
check "some were killed" [ $kills -gt 0 ]
echo "$run trainings, $kills kills"
finish
