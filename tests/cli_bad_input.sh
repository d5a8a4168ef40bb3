#!/bin/sh
# Bad input to every command: one line for each bad file, exit 1, nothing written, what was there untouched.
. "$(dirname "$0")/shell.sh"

make_idx data train 40
make_idx data t10k 20
list="flatten, linear 10"
expect 0 0 "$NNLITE" train --arch "$list" --data data --epochs 1 --out good.nnl
expect 0 0 "$NNLITE_SAMPLES" data pictures 10
picture=pictures/3/00003.png
expect 0 0 "$NNLITE" predict good.nnl $picture

# ---- models
: > empty.nnl
echo "not a model" > text.nnl
head -c 1000 good.nnl > cut.nnl
cp good.nnl damaged.nnl
poke damaged.nnl $(($(wc -c < good.nnl) - 200)) 377
cp good.nnl future.nnl
poke future.nnl 8 002
cp good.nnl longer.nnl
head -c 64 /dev/zero >> longer.nnl
make_old old
echo "// A model, by nnlite embed." > old.h
for bad in missing.nnl pictures empty.nnl text.nnl cut.nnl damaged.nnl future.nnl longer.nnl; do
  expect 1 1 "$NNLITE" predict $bad $picture
  expect 1 1 "$NNLITE" eval $bad --data data
  expect 1 1 "$NNLITE" info $bad
  expect 1 1 "$NNLITE" verify $bad
  expect 1 1 "$NNLITE" verify $bad --json
  check "the JSON says so" grep -q '^  "ok": false' out
  expect 1 1 "$NNLITE" verify good.nnl --against $bad
  expect 1 1 "$NNLITE" bench $bad --seconds 0.01
  expect 1 1 "$NNLITE" embed $bad new.h
  expect 1 1 "$NNLITE" embed $bad old.h
  for out in new.nnl old; do
    expect 1 1 "$NNLITE" finetune $bad --data data --epochs 1 --out $out --log $out.csv --plot $out.svg
    expect 1 1 "$NNLITE" train --resume $bad --data data --out $out --checkpoint $out.ck
  done
done
check "new.nnl is not there" [ ! -e new.nnl ]
check "no log, plot or checkpoint is there" [ ! -e new.nnl.csv -a ! -e new.nnl.svg -a ! -e new.nnl.ck ]
check "old is untouched" [ "$(tail -n 1 old)$(cat old.h)" = "before// A model, by nnlite embed." ]
check "new.h is not there" [ ! -e new.h ]

# ---- valid files that the program cannot use, or whose answers it must put right
expect 0 0 "$NNLITE_ODD_MODELS"
printf '1,2,3,4,5,6,7,8,9,10,0\n10,9,8,7,6,5,4,3,2,1,1\n' > ten.csv
expect 1 1 "$NNLITE" info damaged.nnl
check "damaged is said once" [ "$(grep -o damage err | wc -l)" -eq 2 ]  # and in the name
expect 1 1 "$NNLITE" info empty.nnl
says "an empty file, not a model"
expect 1 1 "$NNLITE" info missing.nnl
says "give the name of a model"
for odd in input_only input_only10 whole_numbers; do
  expect 1 1 "$NNLITE" predict $odd.nnl $picture
  expect 1 1 "$NNLITE" eval $odd.nnl --data ten.csv
  expect 0 0 "$NNLITE" info $odd.nnl
  expect 0 0 "$NNLITE" embed $odd.nnl $odd.h
  expect 1 1 "$NNLITE" info $odd.nnl --train
  expect 1 1 "$NNLITE" bench $odd.nnl --seconds 0.01
  expect 1 1 "$NNLITE" bench $odd.nnl --seconds 0.01 --train
  expect 1 1 "$NNLITE" finetune $odd.nnl --data ten.csv --epochs 1 --out new.nnl
done
expect 0 0 "$NNLITE" predict one_label.nnl $picture --top 2
check "one label: it and its opposite" grep -q 'cat (.*not cat (\|not cat (.* cat (' out
expect 1 1 "$NNLITE" predict huge_scale.nnl $picture --show
says "not finite"
check "no answer is printed" [ ! -s out ]
expect 1 1 "$NNLITE" eval huge_scale.nnl --data data

# ---- pictures
mkdir bad
: > bad/empty.png
echo "just text" > bad/text.png
head -c 60 $picture > bad/cut.png
cp $picture bad/damaged.png
poke bad/damaged.png 60 377
printf 'P5 0 10 255\n' > bad/zero.pgm
printf 'P5 100000 100000 255\n' > bad/huge.pgm
printf '\211PNG\r\n\032\n\000\000\000\015IHDR\000\001\206\240\000\001\206\240\010\000\000\000\000\000\000\000\000' > bad/huge.png
for file in bad/* missing.png; do
  expect 1 1 "$NNLITE" predict good.nnl $file
  says "$file"
  expect 1 1 "$NNLITE" predict good.nnl $file --json
  check "the error is in the JSON" grep -q '"error": "' out
done
expect 1 7 "$NNLITE" predict good.nnl bad
mkdir nothing
expect 1 1 "$NNLITE" predict good.nnl nothing
expect 1 1 "$NNLITE" predict good.nnl $picture --grid nowhere/grid.png
expect 1 1 "$NNLITE" predict good.nnl $picture --grid pictures

# ---- a thousand pictures, three of them bad
mkdir many
i=0
while [ $i -lt 1000 ]; do
  cp $picture many/$(printf %04d $i).png
  i=$((i + 1))
done
for i in 0007 0500 0999; do head -c 50 $picture > many/$i.png; done
expect 1 3 "$NNLITE" predict good.nnl many
check "997 are answered" [ "$(wc -l < out)" -eq 997 ]
expect 1 3 "$NNLITE" predict good.nnl many --json
check "997 have no error" [ "$(grep -c '"error": null' out)" -eq 997 ]

# ---- data
train_fails() {  # LINES DATA: to a new file and over an old one
  expect 1 "$1" "$NNLITE" train --arch "$list" --data "$2" --epochs 1 --out new.nnl
  expect 1 "$1" "$NNLITE" train --arch "$list" --data "$2" --epochs 1 --out old --log old.csv
  check "nothing is written for $2" [ ! -e new.nnl -a ! -e old.csv -a "$(tail -n 1 old)" = before ]
}
train_fails 1 missing
train_fails 1 nothing
train_fails 1 good.nnl
train_fails 1 synthetic-digits:9
for set in short long counts text zipped label empty; do
  cp -r data $set
done
: > empty/train-images-idx3-ubyte
head -c 5000 data/train-images-idx3-ubyte > short/train-images-idx3-ubyte
echo >> long/train-labels-idx1-ubyte
poke counts/train-labels-idx1-ubyte 7 051
echo text > text/train-images-idx3-ubyte
gzip zipped/train-images-idx3-ubyte
head -c 60 zipped/train-images-idx3-ubyte.gz > cut.gz
mv cut.gz zipped/train-images-idx3-ubyte.gz
poke label/train-labels-idx1-ubyte 12 014
for set in short long counts text zipped label empty; do train_fails 1 $set; done
says "an empty file, not an IDX file"
train_fails 1 label
says "label 12 out of range"
says "record 4"
poke label/t10k-labels-idx1-ubyte 12 014
expect 1 1 "$NNLITE" eval good.nnl --data label
expect 1 1 "$NNLITE" finetune good.nnl --data label --out new.nnl
for rows in '1,2,0\n1,,1\n' '1,2,0\n1,x,1\n' '1,2,0\n1,nan,1\n' '1,2,0\n1,1\n' '' '\n'; do
  printf "$rows" > table.csv
  expect 1 1 "$NNLITE" train --arch "linear 2" --data table.csv --out new.nnl
  expect 1 1 "$NNLITE" eval good.nnl --data table.csv
done
printf '1,2,0\n1,,1\n' > table.csv
expect 1 1 "$NNLITE" train --arch "linear 2" --data table.csv --out new.nnl
says "table.csv, line 2, column 2"
mkdir -p classes/a classes/b
cp $picture classes/a/1.png
cp $picture classes/b/2.png
cp bad/text.png bad/cut.png classes/b
train_fails 2 classes
check "new.nnl is not there" [ ! -e new.nnl ]

# ---- places that cannot be written to
for option in --out --checkpoint --log --plot; do
  for place in nowhere/file pictures; do
    other=
    [ $option = --out ] || other="--out new.nnl"
    expect 1 1 "$NNLITE" train --arch "$list" --data data --epochs 1 $other $option $place
    says $place
  done
done
check "new.nnl is not there" [ ! -e new.nnl ]

for place in nowhere/file.h pictures; do
  expect 1 1 "$NNLITE" embed good.nnl $place
  says $place
done

# ---- a loss that is not finite: step and layer are named, no model, the last good checkpoint stays
awk 'BEGIN { for (i = 0; i < 64; i++) printf "%d,%s,%d\n", i, i == 50 ? "3e38" : i, i % 2 }' > large.csv
expect 1 1 "$NNLITE" train --arch "linear 8, relu, linear 2" --data large.csv --val 0 --epochs 50 --batch 4 \
  --optimizer sgd --lr 1e30 --schedule constant --out new.nnl --json
check "step and layer are named" grep -q 'step [0-9].*linear_' err
check "no model is written" [ ! -e new.nnl ]
cp old last.ck
for cut in "--lr 1e38 --steps 1" "--lr 1e30 --steps 50 --checkpoint last.ck --checkpoint-every 1"; do
  expect 1 1 "$NNLITE" train --arch mlp --data synthetic --optimizer sgd --schedule constant $cut --out old
  says "step [0-9]*: .*linear_"
  check "old is untouched" [ "$(tail -n 1 old)" = before ]
done
expect 1 1 "$NNLITE" train --resume last.ck --data synthetic --arch mlp --optimizer sgd --lr 1e30 --out old
says "the loss of step 2"

# ---- folders one too high or one too deep, pictures of several sizes, lessons with nothing on them
mkdir up up/mnist
cp data/train-* up/mnist
expect 1 1 "$NNLITE" train --arch mlp --data up --out new.nnl
says "one folder down: up: give up/mnist"
expect 1 1 "$NNLITE" train --arch mlp --data pictures/3 --out new.nnl
says "give a folder that holds one for each class"
expect 1 1 "$NNLITE" train --arch mlp --data syntetic-digits --out new.nnl
says "a .csv, or synthetic-digits"
expect 0 0 "$NNLITE_SAMPLES" digits sizes 20
expect 1 1 "$NNLITE" train --arch "flatten, linear 10" --data sizes --out new.nnl
says "pictures of several sizes.*--preprocess digit"
printf 'P5 40 40 255\n' > sizes/7/blank.pgm
head -c 1600 /dev/zero | tr '\000' '\310' >> sizes/7/blank.pgm
expect 1 1 "$NNLITE" train --arch lenet --preprocess digit --data sizes --out new.nnl
says "nothing is seen on it: sizes/7/blank.pgm"
expect 2 1 "$NNLITE" train --arch lenet --data data --epochs 1 --out new.nnl --log log.txt
says ".csv"
rm sizes/7/blank.pgm
expect 2 1 "$NNLITE" train --arch lenet --preprocess digit --data sizes --val 0.01 --reject 0.01 --out new.nnl
says "of so few samples --val leaves none"
check "new.nnl is not there" [ ! -e new.nnl ]

# ---- usage
expect 2 1 "$NNLITE"
expect 2 1 "$NNLITE" nonsense
says "'nonsense' is not a command: there are bench, .*, verify: see nnlite --help"
expect 2 1 "$NNLITE" train --nonsense
says "see nnlite train --help"
expect 2 1 "$NNLITE" predict
expect 2 1 "$NNLITE" predict good.nnl $picture --top 0
expect 2 1 "$NNLITE" predict good.nnl $picture --nonsense
expect 2 1 "$NNLITE" info
expect 2 1 "$NNLITE" info --arch nonsense
expect 2 1 "$NNLITE" info --arch "conv, relu"
expect 2 1 "$NNLITE" info --arch "conv 8 3,, relu"
expect 2 1 "$NNLITE" info --arch "flatten, maxpool 2"
expect 2 1 "$NNLITE" info --arch "linear 0"
for data in data pictures synthetic-digits:50; do
  expect 2 1 "$NNLITE" train --arch "conv 8 3, relu, linear 10" --data $data --out new.nnl
  says "put flatten before linear"
done
for size in 3000000000 2147483647 1000001; do
  expect 2 1 "$NNLITE" info --arch "flatten, linear $size"
  says "'$size' is not a size"
  expect 2 1 "$NNLITE" info --arch "conv $size 3"
  says "'$size' is not a size"
done
expect 2 1 "$NNLITE" info --arch "conv 8 99 pad 0"
expect 2 1 "$NNLITE" info good.nnl --arch mlp
expect 2 1 "$NNLITE" train --data data --out new.nnl
expect 2 1 "$NNLITE" train --arch mlp --out new.nnl
expect 2 1 "$NNLITE" train --arch mlp --data data --out new.nnl --optimizer nonsense
expect 2 1 "$NNLITE" train --arch mlp --data data --out new.nnl --optimizer sgd:nonsense=1
expect 2 1 "$NNLITE" train --arch mlp --data data --out new.nnl --schedule nonsense
expect 2 1 "$NNLITE" train --arch mlp --data data --out new.nnl --epochs 0
expect 2 1 "$NNLITE" train --arch mlp --data data --out new.nnl --lr -1
expect 2 1 "$NNLITE" train --arch mlp --data data --out new.nnl --val 1
expect 2 1 "$NNLITE" train --arch mlp --data data --out new.nnl --checkpoint new.nnl
for number in "--steps -1" "--steps 0" "--seed -1" "--seed 1x" "--epochs five" "--threads 0" "--checkpoint-every 0" \
  "--seed 18446744073709551616" "--batch 1.5"; do
  expect 2 1 "$NNLITE" train --arch "$list" --data data --epochs 1 --out new.nnl $number
  says "${number% *}: '${number#* }' is not a whole number"
done
for size in "--clip-norm nan" "--clip-value nan" "--clip-norm -1" "--clip-value inf" "--warmup -1" "--lr nan" "--val nan"; do
  expect 2 1 "$NNLITE" train --arch "$list" --data data --epochs 1 --out new.nnl $size
done
expect 2 1 "$NNLITE" embed good.nnl
for name in 3d.h my-model.h _m.h a__b.h .h "a b.h" a.b.h; do
  expect 2 1 "$NNLITE" embed good.nnl "$name"
  says "is no name in C++"
  check "$name is not there" [ ! -e "$name" ]
done
for name in grid.jpg grid PNG grid.png.gz; do
  expect 2 1 "$NNLITE" predict good.nnl $picture --grid $name
  says "ends in .png"
done
expect 2 1 "$NNLITE" embed good.nnl good.c
says "ends in .h or .hpp"
expect 2 1 "$NNLITE" train --arch mlp --data data --out new.nnl --plot run.png
says "ends in .svg"
check "none of them is there" [ ! -e grid.jpg -a ! -e grid -a ! -e PNG -a ! -e grid.png.gz -a ! -e good.c -a ! -e run.png ]

# ---- with --json one object is on stdout after a failure too
for words in "info missing.nnl" "eval good.nnl --data missing" "bench missing.nnl" "embed missing.nnl x.h" \
  "train --arch lenet --data missing --out new.nnl" "finetune missing.nnl --data data --out new.nnl" \
  "verify good.nnl --against missing.nnl" "predict missing.nnl $picture" "predict good.nnl $picture --top 0" "nonsense"; do
  "$NNLITE" $words --json > out 2> err
  check "$words --json: an object with the error" \
    [ "$(head -c 1 out)$(tail -n 1 out)$(grep -c '"error": {$\|"what": "\|"where": "\|"advice": "' out)" = "{}4" ]
  check "one line too" [ "$(wc -l < err)" -eq 1 ]
done
expect 2 1 env NNLITE_ISA=bogus "$NNLITE" info good.nnl
expect 2 1 "$NNLITE" finetune good.nnl --data data --update "" --out new.nnl
for option in --out --checkpoint --resume --log --plot; do
  expect 2 1 "$NNLITE" train --arch "$list" --data data --out new.nnl $option ""
  says "^nnlite: empty text after $option: give a value, or leave both out: see nnlite train --help$"
  expect 2 1 "$NNLITE" train --arch "$list" --data data --out new.nnl $option=
done
expect 2 1 "$NNLITE" predict good.nnl ""
check "new.nnl is not there" [ ! -e new.nnl ]
check "new.nnl is not there" [ ! -e new.nnl ]
for label in -1 1000 1.5 4000000000; do
  printf "1,2,0\n1,2,$label\n" > table.csv
  expect 1 1 "$NNLITE" train --arch "linear 2" --data table.csv --out new.nnl
done

# ---- an output is no input and no other output
ln -s good.nnl link.nnl
cp good.nnl kept.nnl
cp $picture own.png
cp ten.csv kept.csv
train="train --arch mlp --data ten.csv --val 0 --epochs 1"
for same in "--out new.nnl --log ./new.nnl" "--out new.nnl --plot $work/new.nnl" "--out ten.csv" "--out new.nnl --log ten.csv" \
  "--out new.nnl --log x --plot ./x" "--out new.nnl --checkpoint nothing/../new.nnl"; do
  expect 2 1 "$NNLITE" $train $same
done
for same in good.nnl ./good.nnl link.nnl; do
  expect 2 1 "$NNLITE" finetune good.nnl --data data --epochs 1 --out $same
  expect 2 1 "$NNLITE" finetune good.nnl --data data --epochs 1 --out new.nnl --checkpoint $same
  expect 2 1 "$NNLITE" predict good.nnl own.png --grid $same
  expect 2 1 "$NNLITE" embed good.nnl $same
done
expect 2 1 "$NNLITE" predict good.nnl own.png --grid ./own.png
check "all inputs are as they were" cmp -s good.nnl kept.nnl
check "the picture and the table too" cmp -s $picture own.png
check "the table too" cmp -s ten.csv kept.csv
check "new.nnl is not there" [ ! -e new.nnl ]

# ---- a file of another kind is never replaced, wherever it is; an empty one is, and one of the same kind
cp -r pictures kept
echo notes > notes.txt
for own in $picture ./pictures/../$picture data/train-labels-idx1-ubyte notes.txt; do
  for same in "--out $own" "--out new.nnl --checkpoint $own"; do
    expect 1 1 "$NNLITE" train --arch "$list" --data pictures --epochs 1 $same
    expect 1 1 "$NNLITE" finetune good.nnl --data pictures --replay data --epochs 1 $same
    says "^nnlite: --[a-z]* would replace a file that is no model: $own: choose another name, or remove the file first$"
  done
done
echo 1,2,0 > notes.csv
echo "int notes;" > notes.h
echo "<svg/>" > notes.svg
echo notes > notes.png
cp $picture photo.png
for fit in "train --arch mlp" "finetune good.nnl --replay data"; do
  expect 1 1 "$NNLITE" $fit --data pictures --epochs 1 --out new.nnl --log notes.csv
  says "^nnlite: --log would replace a file that is no log: notes.csv: choose another name, or remove the file first$"
  expect 1 1 "$NNLITE" $fit --data pictures --epochs 1 --out new.nnl --plot notes.svg
  says "^nnlite: --plot would replace a file that is no plot: notes.svg: choose another name, or remove the file first$"
done
for own in notes.png photo.png; do
  expect 1 1 "$NNLITE" predict good.nnl pictures --grid $own
  says "^nnlite: --grid would replace a file that is no grid: $own: choose another name, or remove the file first$"
done
expect 1 1 "$NNLITE" embed good.nnl notes.h
says "^nnlite: OUT would replace a file that is no embedded model: notes.h: choose another name, or remove the file first$"
check "all pictures are as they were" diff -r pictures kept
check "the notes too" [ "$(cat notes.txt notes.csv notes.h notes.svg notes.png)" = "notes
1,2,0
int notes;
<svg/>
notes" ]
check "and the photograph" cmp -s $picture photo.png
check "new.nnl is not there" [ ! -e new.nnl ]
for file in blank.nnl blank.csv blank.svg blank.png blank.h; do : > $file; done
for again in 1 2; do
  expect 0 0 "$NNLITE" train --arch "$list" --data pictures --epochs 1 --out blank.nnl --log blank.csv --plot blank.svg
  expect 0 0 "$NNLITE" embed blank.nnl blank.h
  expect 0 0 "$NNLITE" predict blank.nnl pictures --grid blank.png
done
expect 0 0 "$NNLITE" predict blank.nnl blank.png         # a picture that others read, too
check "the log is written" [ "$(wc -l < blank.csv)" -eq 2 ]
check "the header too" grep -q "^alignas(64) static const unsigned char blank_nnl" blank.h
finish
