#!/bin/sh
# --cuda: one line where there is no GPU or the program knows none; else training, and checkpoints that change devices.
# NNLITE_ON_CUDA names a program whose GPU is the fake one of fake_cuda, where there is one.
. "$(dirname "$0")/shell.sh"

make_idx data train 40
make_idx data t10k 20
"$NNLITE_SAMPLES" data pictures 3 > out 2> err || fault "no samples"
set -- --data data --epochs 2 --lr 0.05 --batch 16
expect 0 0 "$NNLITE" train --arch "flatten, linear 10" "$@" --out cpu.nnl --checkpoint cpu.ck

"$NNLITE" bench --arch "flatten, linear 10" --seconds 0.01 --cuda > out 2> err
reason=$(sed -n 's/^nnlite: \(built without CUDA\|no CUDA device\): .*/\1/p' err)
if [ -n "$reason" ]; then
  expect 1 1 "$NNLITE" bench cpu.nnl --cuda
  says "$reason"
  expect 1 1 "$NNLITE" eval cpu.nnl --data data --cuda
  says "$reason"
  expect 1 1 "$NNLITE" predict cpu.nnl pictures --cuda --json
  says "$reason"
  check "the error is one object" grep -q "\"what\": \"$reason\"" out
  expect 1 1 "$NNLITE" train --arch "flatten, linear 10" "$@" --out not.nnl --cuda
  says "$reason"
  expect 1 1 "$NNLITE" finetune cpu.nnl "$@" --out not.nnl --cuda
  says "$reason"
  check "nothing was written" [ ! -e not.nnl ]
fi

for command in "bench cpu.nnl" "eval cpu.nnl --data data" "predict cpu.nnl pictures" \
  "finetune cpu.nnl $* --out not.nnl" "train --arch flatten $* --out not.nnl"; do
  expect 2 1 "$NNLITE" $command --cuda --tf32 --bf16
  says "--tf32 excludes --bf16"
  expect 2 1 "$NNLITE" $command --bf16
  says "--bf16 requires --cuda"
done

# ---- what runs, without a GPU
shows_launches() {
  expect 0 0 "$1" info cpu.nnl --cuda --train
  check "a pass is its turn and one product" grep -q '^inference: 2 launches' out
  check "told by blocks and threads" grep -q '^  linear_1 *Linear *forward *cuda *Prepare 1 x 256, Products [0-9]* x 512' out
  check "a step trains the weights" grep -q '^  linear_1 *SGD *update *cuda *with the next' out
  check "by one launch" grep -q '^  linear_1 *SGD *update *cuda *Step [0-9]* x 256$' out
  check "every row of launches tells its layer" [ "$(grep -c '^   .* [0-9]* x 256$' out)" -eq 0 ]
  expect 0 0 "$1" info --arch "flatten, linear 4096, linear 4096" --batch 64 --cuda --bf16
  check "large products are the library's" grep -q '^  linear_2 *Linear *forward *cuda *cuBLASLt$' out
  expect 0 0 "$1" info --arch "flatten, linear 10" --cuda --json
  check "JSON has the rows" grep -q '"phase": "forward"' out
}
if [ "$reason" = "built without CUDA" ]; then
  expect 1 1 "$NNLITE" info cpu.nnl --cuda
  says "$reason"
else
  shows_launches "$NNLITE"
fi

# ---- on a device
gpu=${NNLITE_ON_CUDA:-}
[ -n "$reason" ] || gpu=$NNLITE
if [ -n "$gpu" ]; then
  shows_launches "$gpu"
  expect 0 0 "$gpu" train --arch "flatten, linear 10" "$@" --out gpu.nnl --checkpoint gpu.ck --cuda
  expect 0 0 "$gpu" eval gpu.nnl --data data --cuda --json
  accuracy=$(grep '"accuracy"' out)
  expect 0 0 "$NNLITE" eval gpu.nnl --data data --json
  check "the CPU is as right" [ "$accuracy" = "$(grep '"accuracy"' out)" ]
  expect 0 0 "$NNLITE" verify gpu.nnl
  expect 0 0 "$gpu" predict gpu.nnl pictures --cuda
  for mode in "" --train "--train --profile"; do
    expect 0 0 "$gpu" bench gpu.nnl --cuda --seconds 0.01 $mode --json
    check "the device is named" grep -q '"isa": "cuda"' out
  done
  expect 0 0 "$gpu" finetune gpu.nnl --data data --epochs 1 --out tuned.nnl --update head --cuda
  expect 0 0 "$gpu" train --arch "flatten, linear 10" "$@" --out bf16.nnl --checkpoint bf16.ck --cuda --bf16
  check "factors of 8 bits give another model" [ "$(cmp -s bf16.nnl gpu.nnl; echo $?)" -eq 1 ]
  for way in "cpu.ck --cuda:a GPU with fp32" "gpu.ck --cuda --tf32:a GPU with tf32" "gpu.ck:the CPU" \
    "gpu.ck --cuda --bf16:a GPU with bf16" "bf16.ck --cuda --tf32:a GPU with tf32" \
    "bf16.ck --cuda:a GPU with fp32"; do
    cp "${way%%.ck*}.ck" there.ck
    flag=${way%:*}
    expect 0 0 "$gpu" train --data data --epochs 3 --resume there.ck ${flag#*.ck} --out on.nnl
    says "there.ck was not made on ${way#*:}: going on there"
    check "it went on" grep -q '^epoch 3/3' err
  done
  expect 0 0 "$gpu" train --data data --epochs 3 --resume gpu.ck --out on.nnl --cuda
  check "the same device needs no word" [ "$(grep -c 'made on' err)" -eq 0 ]
  expect 0 0 "$gpu" train --data data --epochs 3 --resume bf16.ck --out on.nnl --cuda --bf16
  check "nor does the same precision" [ "$(grep -c 'made on' err)" -eq 0 ]
  expect 0 0 "$gpu" train --arch "flatten, linear 10" --data data --epochs 3 --lr 0.05 --batch 16 --schedule constant \
    --out whole.nnl --checkpoint whole.ck --cuda
  expect 0 0 "$gpu" train --arch "flatten, linear 10" --data data --epochs 3 --steps 4 --lr 0.05 --batch 16 \
    --schedule constant --out part.nnl --checkpoint part.ck --cuda
  expect 0 0 "$gpu" train --data data --resume part.ck --out part.nnl --cuda
  check "a run that was stopped ends with the same model" cmp -s part.nnl whole.nnl
else
  echo "SKIP: nothing ran with --cuda: $reason"
fi
finish
