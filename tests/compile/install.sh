#!/bin/sh
# Another project finds what was installed: the header, and with nvcc the CUDA backend, as a target that it compiles.
#                                                                                install.sh SOURCE_FOLDER BUILD_FOLDER
set -u
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
failed=0

check() {  # check WHAT COMMAND...
  what=$1
  shift
  if "$@" > "$work/log" 2>&1; then echo "ok   $what"; return 0; fi
  echo "FAIL $what"
  tail -20 "$work/log"
  failed=1
}

configure() {  # configure FOLDER OPTIONS...: the project there
  folder=$work/$1
  shift
  cp "$source/tests/compile/interface.cpp" "$folder"
  cmake -S "$folder" -B "$folder/build" -DCMAKE_PREFIX_PATH="$work/there" -DCMAKE_EXPORT_COMPILE_COMMANDS=ON "$@"
}

source=$1
check "installs" cmake --install "$2" --prefix "$work/there"
check "the CUDA backend is beside the header" cmp "$source/nnlite_cuda.cu" "$work/there/include/nnlite_cuda.cu"
mkdir "$work/plain" "$work/cuda"
cat > "$work/plain/CMakeLists.txt" << 'END'
cmake_minimum_required(VERSION 3.16)
project(plain LANGUAGES CXX)
find_package(nnlite REQUIRED)
add_library(plain OBJECT interface.cpp)
target_link_libraries(plain PRIVATE nnlite::nnlite)
END
check "is found" configure plain
check "compiles" cmake --build "$work/plain/build"

nvcc=$(PATH=$PATH:${CUDA_PATH:-/usr/local/cuda}/bin command -v "${CUDACXX:-nvcc}")
[ -n "$nvcc" ] || { echo "SKIP nnlite::cuda: nvcc is not found"; exit $failed; }
cat > "$work/cuda/CMakeLists.txt" << 'END'
cmake_minimum_required(VERSION 3.18)
project(cuda LANGUAGES CXX CUDA)
find_package(nnlite REQUIRED)
add_executable(cuda interface.cpp)
target_link_libraries(cuda PRIVATE nnlite::cuda)
END
check "is found with CUDA" configure cuda -DCMAKE_CUDA_COMPILER="$nvcc" -DCMAKE_CUDA_ARCHITECTURES=80
check "its build has the backend" grep -q "file.*$work/there/include/nnlite_cuda.cu" "$work/cuda/build/compile_commands.json"
exit $failed
