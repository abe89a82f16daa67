#!/usr/bin/env bash
# Builds stubs of the libraries that ONNX Runtime's CUDA provider loads, so that it loads without a GPU.
# Usage: tests/cuda_placement/build.sh PROVIDER HEADERS FOLDER   (the provider's .so, CUDA's headers, the output folder)
set -euo pipefail
provider=${1:?usage: tests/cuda_placement/build.sh PROVIDER HEADERS FOLDER}
headers=$2
folder=$3
here=$(dirname "$0")

# all CUDA functions that the provider links to; those that no_device.c does not define fail
nm -D --undefined-only "$provider" | grep -oE '\b(__)?cu(da|blas|blasLt|Tensor)[A-Z]\w*' | sort -u |
    sed 's/.*/__attribute__((weak)) int &(void) { return 1; }/' >"$folder/others.c"
# each library has all functions, because their distribution does not matter; cuDNN is loaded by name
for library in $(readelf -d "$provider" | grep -oE 'libcu[^]]+') libcudnn.so.9; do
    echo "$library { *; };" >"$folder/versions"
    gcc -shared -fPIC -Wall -Werror -isystem "$headers" -Wl,-soname,"$library" -Wl,--version-script="$folder/versions" \
        -o "$folder/$library" "$here/no_device.c" "$folder/others.c"
done
