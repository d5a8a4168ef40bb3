#!/bin/sh
# Fetches public copies of the data that tests, examples and the demo use. Contents are checked by SHA-256.
# sh tools/get_data.sh [FOLDER]     default: $NNLITE_DATA, else ../shared/data
set -eu
cd "$(dirname "$0")/.."
case ${1:-} in
  -*) echo "usage: sh tools/get_data.sh [FOLDER]     MNIST into FOLDER/mnist; default: \$NNLITE_DATA, else ../shared/data" >&2; exit 2 ;;
esac
folder=${1:-${NNLITE_DATA:-../shared/data}}

fetch() {  # URL FILE
  if command -v curl > /dev/null 2>&1; then
    curl -fsSL --retry 2 -o "$2" "$1"
  elif command -v wget > /dev/null 2>&1; then
    wget -q -O "$2" "$1"
  else
    echo "nnlite: neither curl nor wget: get_data.sh: install one of them" >&2
    exit 1
  fi
}

# The gzipped files differ from copy to copy, so the hash is that of the contents.
get_mnist() {  # NAME SHA256
  file=$folder/mnist/$1.gz
  if [ -e "$file" ] && [ "$(gzip -dc "$file" | sha256sum | cut -d ' ' -f 1)" = "$2" ]; then
    echo "$file is there"
    return 0
  fi
  for mirror in https://ossci-datasets.s3.amazonaws.com/mnist https://storage.googleapis.com/cvdf-datasets/mnist; do
    fetch "$mirror/$1.gz" "$file.part" || continue
    if [ "$(gzip -dc "$file.part" 2> /dev/null | sha256sum | cut -d ' ' -f 1)" = "$2" ]; then
      mv "$file.part" "$file"
      echo "$file fetched from $mirror"
      return 0
    fi
    echo "the copy of $1 at $mirror is not the original" >&2
  done
  rm -f "$file.part"
  echo "nnlite: cannot fetch: $1: check the network, or put the file into $folder/mnist yourself" >&2
  exit 1
}

mkdir -p "$folder/mnist"
get_mnist train-images-idx3-ubyte ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db
get_mnist train-labels-idx1-ubyte 65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5
get_mnist t10k-images-idx3-ubyte 0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7
get_mnist t10k-labels-idx1-ubyte ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2
