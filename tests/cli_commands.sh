#!/bin/sh
# What every command prints and writes: the contract that scripts rely on.
. "$(dirname "$0")/shell.sh"

make_idx data train 40
make_idx data t10k 20

has_keys() {  # KEYS: the JSON in `out` has them, and nothing else is there
  for key in $1; do check "key $key is in the JSON" grep -q "\"$key\":" out; done
  check "the JSON is one object" [ "$(head -c 1 out)$(tail -n 1 out)" = '{}' ]
}

# ---- reference networks: parameters as PyTorch counts them
for row in mlp:199210 lenet:61706 cnn99:467818 resnet8:77946 dscnn:23180 mbv1:213586 mbv2:3504872 unet:1942577; do
  expect 0 0 "$NNLITE" info --arch ${row%:*} --json
  check "${row%:*} has ${row#*:} parameters" grep -q "\"parameters\": ${row#*:},\$" out
done
has_keys "parameters macs layers name op shape memory inference training total weights activations state derived scratch \
  in_place lower_bound gradients optimizer"
expect 0 0 "$NNLITE" info --arch mlp --train --batch 64
check "training memory is shown" grep -q '^training, batch 64' out
expect 0 0 "$NNLITE" info --arch "conv 8 3, relu, maxpool 2, flatten, linear 10" --json
check "a list is 28 x 28 x 1 by itself" grep -q '"parameters": 15770,' out
expect 0 0 "$NNLITE" info --arch \
  "conv 8 10x4 stride 2 pad 5x1 nobias, batchnorm, leakyrelu 0.1, conv 8 3 groups 8, elu, avgpool 2, upsample 2, \
convtranspose 4 2 stride 2, tanh, dropout 0.2, globalavgpool, flatten, linear 3 nobias, logsoftmax"

# ---- train, eval, predict, verify, bench
expect 0 0 "$NNLITE" train --arch "flatten, linear 10" --data data --epochs 30 --lr 0.05 --out m.nnl --log m.csv \
  --plot m.svg --json
has_keys "epochs epoch train_loss val_loss val_accuracy seconds model sha256 arena_bytes"
check "sha256 is that of the file" grep -q "$(sha256sum m.nnl | cut -d ' ' -f 1)" out
check "the log has a heading and 30 rows" [ "$(wc -l < m.csv)" -eq 31 ]
check "the plot is a drawing" grep -q '</svg>' m.svg
expect 0 0 "$NNLITE" eval m.nnl --data data --json
has_keys "loss accuracy count confusion classes label precision recall"
check "all 20 are counted" grep -q '"count": 20' out
expect 0 0 "$NNLITE" eval m.nnl --data data
expect 0 0 "$NNLITE_SAMPLES" data pictures 20
expect 0 0 "$NNLITE" predict m.nnl pictures --top 3 --json --grid grid.png
has_keys "model results path label probability rejected top error"
check "3 of the likeliest for each of 20" [ "$(grep -c '"probability"' out)" -eq 80 ]
expect 0 0 "$NNLITE" predict m.nnl grid.png --show
check "28 rows are drawn" [ "$(wc -l < out)" -eq 29 ]
expect 0 0 "$NNLITE" verify m.nnl --against m.nnl --json
has_keys "ok checks name detail max_abs_error first_diverging"
check "it checks out" grep -q '^  "ok": true' out
"$NNLITE" predict m.nnl grid.png missing.png > out 2>&1
check "an error stands behind the answers before it" [ "$(tail -n 1 out | cut -d : -f 1)" = nnlite ]
expect 0 0 "$NNLITE" info m.nnl --json
for mode in "" --train; do
  expect 0 0 "$NNLITE" bench m.nnl --seconds 0.05 $mode --json
  has_keys "work batch threads isa mode ms median p10 p90 p99 gflops arena_bytes allocations"
  check "nothing is allocated" grep -q '"allocations": \(0\|-1\)$' out
  expect 0 0 "$NNLITE" bench m.nnl --seconds 0.05 $mode --profile --json
  has_keys "peak_gflops profile layer op phase kernel us percent gflops percent_of_peak bytes"
done
check "updates are in the profile of training" grep -q '"phase": "update"' out

# ---- the same bytes, whatever the threads; another seed, other bytes
expect 0 0 "$NNLITE" train --arch lenet --data data --epochs 2 --threads 1 --out one.nnl
expect 0 0 "$NNLITE" train --arch lenet --data data --epochs 2 --threads 3 --out three.nnl
expect 0 0 "$NNLITE" train --arch lenet --data data --epochs 2 --seed 2 --out seed.nnl
check "threads do not matter" cmp -s one.nnl three.nnl
expect 1 1 "$NNLITE" verify one.nnl --against seed.nnl
says "two models that differ: one.nnl and seed.nnl, layer [a-z0-9_]*: "
check "the file itself is good" [ "$(grep -c '^ok ' out)$(grep -c '^DIFFERS against' out)" = 31 ]
"$NNLITE" verify one.nnl --against seed.nnl > out 2>&1
check "the verdict stands last" [ "$(tail -n 1 out | cut -d : -f 1)" = nnlite ]
expect 1 1 "$NNLITE" verify one.nnl --against m.nnl --json
check "the JSON says so" grep -q '^  "ok": false' out
check "the seed does" [ "$(cmp one.nnl seed.nnl > cmp.log; echo $?)" -eq 1 ]

# ---- stop and go on: the same bytes as never stopped, however often checkpoints are written
fit="--data data --epochs 6 --batch 16"
expect 0 0 "$NNLITE" train --arch lenet $fit --out whole.nnl
expect 0 0 "$NNLITE" train --arch lenet $fit --checkpoint run.ck --checkpoint-every 2 --steps 7 --out part.nnl
cp run.ck first.ck
expect 0 0 "$NNLITE" train --data data --resume run.ck --checkpoint run.ck --checkpoint-every 1 --out resumed.nnl
check "resumed is whole" cmp -s whole.nnl resumed.nnl
cp first.ck going.ck
expect 0 0 "$NNLITE" train --data data --resume going.ck --steps 12 --out more.nnl
check "without --checkpoint it is kept up to date where it was" [ "$(cmp first.ck going.ck > cmp.log; echo $?)" -eq 1 ]
expect 0 0 "$NNLITE" train --data data --resume going.ck --checkpoint other.ck --steps 13 --out more.nnl --json
has_keys "step unfinished"
check "the steps done are said" grep -q '"step": 13,$' out
check "and the loss of the epoch in hand" [ "$(grep -c '"epoch": 5,$\|"train_loss": [0-9]' out)" -eq 2 ]
expect 0 0 "$NNLITE" train --data data --resume going.ck --out resumed.nnl --json
check "nothing is unfinished" grep -q '"unfinished": null' out
check "resumed twice is whole" cmp -s whole.nnl resumed.nnl
expect 0 0 "$NNLITE" train --data data --resume other.ck --out resumed.nnl
check "from the other file too" cmp -s whole.nnl resumed.nnl
expect 1 1 "$NNLITE" train --data data --resume missing.ck --out new.nnl
says "no such checkpoint: missing.ck"
expect 1 1 "$NNLITE" train --data data --resume whole.nnl --out new.nnl
says "this is a model, not a checkpoint: .*: give a file that --checkpoint wrote"
cp first.ck again.ck
expect 0 0 "$NNLITE" train --arch lenet $fit --lr 0.001 --seed 1 --resume again.ck --threads 2 --out again.nnl
check "the same settings may be given again" cmp -s whole.nnl again.nnl
differs() {  # OPTION VALUE OF-THE-CHECKPOINT
  expect 2 1 "$NNLITE" train --data data --resume first.ck --out new.nnl $1 $2
  says "^nnlite: $1 $2: the checkpoint first.ck has $3: leave $1 out"
}
differs --arch mlp "another network"
differs --augment shift=2 none
differs --batch 8 16
differs --clip-norm 1 0
differs --lr 0.5 0.001
differs --optimizer sgd:momentum=0.5 adam
differs --schedule cosine:eta_min=1 onecycle
differs --seed 9 1
differs --val 0.5 0
differs --weight-decay 0.5 0

# ---- --steps that end inside an epoch: it has its row and its point, which the run that finishes it replaces
fit="--arch lenet --data data --epochs 4 --batch 16"
expect 0 0 "$NNLITE" train $fit --out whole.nnl --log whole.csv
rm -f plot.svg
for steps in 2 5; do
  going_on=
  [ $steps -eq 2 ] || going_on="--resume row.ck"
  expect 0 0 "$NNLITE" train $fit --steps $steps --out part.nnl --checkpoint row.ck $going_on --log row.csv \
    --plot plot.svg --json
  says "^step $steps  loss .*  validation loss .*  accuracy "
  last=$(tail -n 1 row.csv)
  check "the epoch in hand is the last row" [ "$(wc -l < row.csv) ${last%%,*}" = "$((steps / 3 + 2)) $((steps / 3 + 1))" ]
  check "validated" [ "$(echo "$last" | grep -c '^[0-9],[0-9.]*,[0-9.]*,[0-9.]*,[0-9.e-]*,[0-9.]*$')" -eq 1 ]
  check "and drawn, behind those of the log" [ "$(grep -c '<circle' plot.svg)" -eq $((3 * (steps / 3 + 1))) ]
  check "in the JSON it is the unfinished one" [ "$(sed '/"unfinished"/,$d' out | grep -c '"epoch":')" -eq $((steps / 3)) ]
  check "with its validation" [ "$(sed '1,/"unfinished"/d' out | grep -c '"epoch": [12],\|"val_accuracy": [0-9]')" -eq 2 ]
  rm plot.svg
done
expect 0 0 "$NNLITE" train --data data --resume row.ck --out part.nnl --log row.csv
check "resumed is whole" cmp -s whole.nnl part.nnl
cut -d , -f 1-5 whole.csv > whole.txt
cut -d , -f 1-5 row.csv > row.txt
check "its log too" cmp -s whole.txt row.txt

# ---- the rate falls for good only where an epoch ends
awk 'BEGIN { for (i = 0; i < 40; i++) print i % 7 "," i % 5 "," i % 2 }' > small.csv
fit="--arch mlp --data small.csv --val 0.2 --batch 8 --epochs 6 --schedule plateau:patience=0,factor=0.5,threshold=0.5"
expect 0 0 "$NNLITE" train $fit --out p1.nnl
expect 0 0 "$NNLITE" train $fit --out p2.nnl --checkpoint pc.nnl --steps 10
expect 0 0 "$NNLITE" train --data small.csv --resume pc.nnl --out p2.nnl
check "a stop inside an epoch does not count for the plateau" cmp -s p1.nnl p2.nnl
cp -r data other
poke other/train-labels-idx1-ubyte 20 007
expect 1 1 "$NNLITE" train --data other --resume first.ck --out new.nnl
check "new.nnl is not there" [ ! -e new.nnl ]

# ---- embed: the bytes of the model and its ops by name; of a checkpoint, the model alone
array_of() {  # FILE: the numbers of the array in it, one a line
  grep '^[0-9]' "$1" | tr ',' '\n' | grep .
}
expect 0 0 "$NNLITE" embed one.nnl digits_nnl.h --json
has_keys "model header array bytes ops arena_bytes"
check "the ops are in the order of their names" grep -q \
  '{&nnlite::Conv2d::op, &nnlite::Flatten::op, &nnlite::Linear::op, &nnlite::MaxPool2d::op, &nnlite::ReLU::op};' digits_nnl.h
od -An -v -tu1 one.nnl | tr -s ' ' '\n' | grep . > one.txt
array_of digits_nnl.h > array.txt
check "the array is the file" cmp -s one.txt array.txt
expect 0 0 "$NNLITE" embed one.nnl digits.h
check "the name is that of the file, the bytes are the same" cmp -s digits.h digits_nnl.h
expect 0 0 "$NNLITE" embed first.ck ck.h
expect 0 0 "$NNLITE" embed part.nnl part.h
expect 0 0 "$NNLITE" embed one.nnl room.h --max-image 90
check "room for pictures is asked for" grep -q '^static const int room_max_image = 90;$' room.h
check "the state of training is left out" [ "$(array_of ck.h | wc -l)" -le "$(array_of part.h | wc -l)" ]

# ---- Ctrl-C: the checkpoint is saved, the way to go on is said, exit 130
mkdir "it's here"
cp -r data "it's here/my data"
fit="--epochs 100000 --checkpoint-every 50 --threads 2 --val 0.25 --batch 16 --augment shift=2"
"$NNLITE" train --arch lenet --data "it's here/my data" $fit --checkpoint "it's here/a ck" --out stop.nnl \
  --log "a log.csv" --plot stop.svg --json > out 2> err &
pid=$!
sleep 1
kill -INT $pid
wait $pid
check "exit 130" [ $? -eq 130 ]
has_keys "epochs step unfinished"
check "no model in the JSON" grep -q '"model": null' out
check "a checkpoint but no model" [ -s "it's here/a ck" -a ! -e stop.nnl ]
go_on=$(sed -n 's/.*; to go on: nnlite //p' err)
for part in "--data 'it'\\\\''s here/my data'" "--log 'a log.csv'" "--plot stop.svg" "--threads 2" "--checkpoint-every 50"; do
  check "it says $part" grep -q -- "$part" err
done
eval "expect 0 0 \"\$NNLITE\" $go_on --steps 1"
check "what it says goes on" [ -s stop.nnl ]

# ---- finetune: only what is named changes
for update in all bias head linear_3; do
  expect 0 0 "$NNLITE" finetune one.nnl --data data --epochs 1 --update $update --out tuned.nnl || break
done
expect 2 1 "$NNLITE" finetune one.nnl --data data --epochs 1 --update nonsense --out new.nnl

# ---- what finetune takes where nothing is given; train has no lessons
expect 0 0 "$NNLITE" finetune --help
tr -s ' \n' ' ' < out > help
for said in 'head (the last layer), or names of layers with commas (default all; for a lesson head)' \
  'go through the data (default 10; for a lesson 8)' "Learning rate (default: the optimizer's; for a lesson 0.006)" \
  'background=0 (default none; for a lesson digits)' 't10k-\* files, else 0.1; for a lesson none)'; do
  check "finetune --help: $said" grep -q "$said" help
done
check "the defaults stand there once" [ "$(grep -c -- '--epochs 8\|--lr 0.006' help)" -eq 0 ]
expect 0 0 "$NNLITE" train --help
check "train has no lessons" [ "$(grep -c 'for a lesson' out)" -eq 0 ]
check "a checkpoint does not keep --steps" [ "$(tr -s ' \n' ' ' < out | grep -c 'give it again with --resume')" -eq 1 ]

# ---- finetune resumed: from the same model, with the same --update; a checkpoint goes where a link leads
ln -s tuned.ck link.ck
tune="--data data --epochs 4"
expect 0 0 "$NNLITE" finetune one.nnl $tune --update linear_3 --out whole.nnl
: > tuned.ck
expect 0 0 "$NNLITE" finetune one.nnl $tune --update linear_3 --out tuned.nnl --checkpoint link.ck --steps 2
check "the link is still one" [ -h link.ck -a -s tuned.ck ]
for update in all head linear_4 linear_3,linear_4; do
  expect 2 1 "$NNLITE" finetune one.nnl --data data --update $update --resume tuned.ck --out new.nnl
done
expect 1 1 "$NNLITE" finetune three.nnl --data data --resume first.ck --out new.nnl
expect 1 1 "$NNLITE" finetune seed.nnl --data data --resume tuned.ck --out new.nnl
check "new.nnl is not there" [ ! -e new.nnl ]
expect 0 0 "$NNLITE" finetune one.nnl --data data --resume tuned.ck --out tuned.nnl
check "finetune resumed is whole" cmp -s whole.nnl tuned.nnl

# ---- class folders and tables
expect 0 0 "$NNLITE" train --arch lenet --data pictures --epochs 2 --out folders.nnl
expect 0 0 "$NNLITE" eval folders.nnl --data pictures --json
check "all 20 pictures are counted" grep -q '"count": 20' out
awk 'BEGIN { for (i = 0; i < 200; i++) { x = i % 20; print x "," 20 - x "," (x > 9) } }' > table.csv
grep ',1$' table.csv > ones.csv
for list in "linear 8, relu, linear 2" "linear 8, relu, linear 1" "linear 8, relu, linear 1, sigmoid" mlp; do
  expect 0 0 "$NNLITE" train --arch "$list" --data table.csv --epochs 40 --lr 0.01 --out table.nnl
  expect 0 0 "$NNLITE" eval table.nnl --data table.csv --json
  check "$list: learned" grep -q '"accuracy": \(1\|0.9\)' out
  expect 0 0 "$NNLITE" eval table.nnl --data ones.csv --json
  check "$list: a table of one class" grep -q '"accuracy": \(1\|0.9\)' out
done
awk 'BEGIN { for (i = 0; i < 60; i++) { x = i % 3; print x "," x * x "," 5 * x + 2 } }' > gaps.csv
expect 0 0 "$NNLITE" train --arch "linear 3" --data gaps.csv --epochs 60 --lr 0.1 --out gaps.nnl
expect 0 0 "$NNLITE" eval gaps.nnl --data gaps.csv --json
check "classes keep their numbers" [ "$(grep -c '"label": "\(2\|7\|12\)"' out)" -eq 3 ]
expect 0 0 "$NNLITE" train --arch "linear 2" --data table.csv --epochs 1 --optimizer sgd --schedule constant --lr 1e9 \
  --out table.nnl
says "loss [0-9.]*e+[0-9]*  "
says "[0-9]\.[0-9] KB to train in"
for schedule in constant step:step_size=1 exponential cosine onecycle plateau; do
  for optimizer in sgd:momentum=0.9,nesterov adagrad rmsprop adam:beta1=0.8 adamw; do
    expect 0 0 "$NNLITE" train --arch "linear 2" --data table.csv --epochs 2 --schedule $schedule --optimizer $optimizer \
      --out table.nnl
  done
done

# ---- pictures that the project draws
fit="--data synthetic-digits:100 --epochs 2 --batch 16"
expect 0 0 "$NNLITE" train --arch lenet $fit --out drawn.nnl
expect 0 0 "$NNLITE" train --arch lenet $fit --checkpoint drawn.ck --steps 9 --out half.nnl
expect 0 0 "$NNLITE" train --data synthetic-digits:100 --resume drawn.ck --out again.nnl
check "resumed is whole" cmp -s drawn.nnl again.nnl
expect 0 0 "$NNLITE" eval drawn.nnl --data synthetic-digits:100 --json
check "the test part is a fifth" grep -q '"count": 20' out
count_files() { find "$1" -name '*.png' | wc -l; }
expect 0 0 "$NNLITE_SAMPLES" digits made 20
check "2 drawings of each digit" [ "$(count_files made/7)" -eq 2 ]
tune="drawn.nnl --data made --epochs 1"
expect 0 0 "$NNLITE" finetune $tune --replay synthetic-digits:100 --out tuned.nnl
expect 0 0 "$NNLITE" finetune $tune --replay synthetic-digits:100 --out half.nnl --checkpoint tuned.ck --steps 1
expect 0 0 "$NNLITE" finetune drawn.nnl --data made --resume tuned.ck --out again.nnl
check "what is seen again comes from the checkpoint" cmp -s tuned.nnl again.nnl
expect 0 0 "$NNLITE_SAMPLES" composed data pages 30
check "3 pages of each digit" [ "$(count_files pages/7)" -eq 3 ]
expect 0 0 "$NNLITE" train --arch lenet --preprocess digit $fit --out digit.nnl
check "synthetic-digits come through the front end unless told otherwise" cmp -s drawn.nnl digit.nnl
expect 0 0 "$NNLITE_SAMPLES" digits made2 20
check "the same seed, the same bytes" diff -r made made2
expect 0 0 "$NNLITE_SAMPLES" drawn star symbols 5
check "5 stars" [ "$(count_files symbols/star)" -eq 5 ]
# a second lesson repeats what the model keeps of the first, and so when it is resumed
expect 0 0 "$NNLITE" train --arch lenet --preprocess digit --data synthetic-digits:100 --epochs 1 --out seen.nnl
expect 0 0 "$NNLITE" finetune seen.nnl --data symbols --replay synthetic-digits:100 --epochs 1 --out first.nnl
mv symbols/star star
"$NNLITE_SAMPLES" drawn triangle symbols 5 > /dev/null
again="finetune first.nnl --data symbols --replay synthetic-digits:100 --epochs 2"
expect 0 0 "$NNLITE" $again --out second.nnl
check "5 pictures and 5 of before" grep -q 'a lesson of 5 pictures, 5 of earlier ones' err
expect 0 0 "$NNLITE" $again --out half.nnl --checkpoint second.ck --steps 2
expect 0 0 "$NNLITE" finetune first.nnl --data symbols --resume second.ck --out resumed.nnl
check "resumed is whole" cmp -s second.nnl resumed.nnl
# new classes are said once nothing can be refused any more
expect 2 1 "$NNLITE" finetune first.nnl --data symbols --replay none --val 0 --reject 0.01 --out new.nnl
expect 1 1 "$NNLITE" finetune first.nnl --data symbols --replay nowhere --out new.nnl
expect 0 0 "$NNLITE" finetune first.nnl --data symbols --replay none --epochs 1 --out more.nnl
check "a new class is said" [ "$(grep -c '^new class: ' err)" -eq 1 ]
says "^new class: triangle$"
rm -r symbols/triangle
mv star symbols/star
expect 0 0 "$NNLITE_SAMPLES" others others 40
check "10 of each kind" [ "$(count_files others/two)" -eq 10 ]
expect 0 0 "$NNLITE_SAMPLES" others others2 8 3 training
expect 0 0 "$NNLITE_SAMPLES" sheet others sheet.png
expect 0 0 "$NNLITE" predict drawn.nnl sheet.png made symbols others
for words in "" "data" "drawn dragon symbols" "digits made x" "others o 1 1 all" "golden a b"; do
  "$NNLITE_SAMPLES" $words > out 2> err
  check "nnlite-samples $words: a wrong command line" [ $? -eq 2 ]
  says "usage: nnlite-samples"
done
expect 0 0 "$NNLITE" train --arch unet:2 --data synthetic --steps 2 --batch 2 --out unet.nnl
expect 0 0 "$NNLITE" --version
expect 0 0 "$NNLITE" train --help
finish
