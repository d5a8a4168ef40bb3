# Sourced by demo.sh and test.sh: installs the Debian packages that the build needs and that are not there.
# Elsewhere it changes nothing, and CMake fetches the libraries that it does not find.
nnlite_packages="binutils cmake doctest-dev g++ libcli11-dev libdnnl-dev libfmt-dev libopenblas-pthread-dev libstb-dev ninja-build
  nlohmann-json3-dev zlib1g-dev"

install_missing() {
  command -v dpkg-query > /dev/null 2>&1 && command -v apt-get > /dev/null 2>&1 || return 0
  missing=
  for package in $nnlite_packages; do
    dpkg-query -W -f '${Status}' "$package" 2> /dev/null | grep -q 'ok installed' || missing="$missing $package"
  done
  [ -n "$missing" ] || return 0
  as_root=
  if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo > /dev/null 2>&1 && sudo -n true 2> /dev/null; then
      as_root=sudo
    else
      echo "missing:$missing; install them with: apt-get install$missing"
      return 0
    fi
  fi
  echo "installing:$missing"
  # shellcheck disable=SC2086 # a list of words
  DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -q --no-install-recommends $missing > /dev/null ||
    { $as_root apt-get update -q > /dev/null &&
      DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -q --no-install-recommends $missing > /dev/null; } ||
    echo "could not install all of:$missing; going on without"
}

# The folder with mnist/, or nothing.
find_mnist() {
  for folder in "${NNLITE_DATA:-}" ../shared/data; do
    if [ -n "$folder" ] && [ -e "$folder/mnist/train-images-idx3-ubyte.gz" -o -e "$folder/mnist/train-images-idx3-ubyte" ]; then
      echo "$folder/mnist"
      return 0
    fi
  done
}
