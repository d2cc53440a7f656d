#!/bin/sh
# Builds a driver, cuBLASLt, an NCCL and a kernels library for GPUs that are not there.
#
#   build.sh all|nccl FOLDER [-DNAME=VALUE ..]   definitions are for nccl.c, which lists them
#
# NCCL meets in FOLDER, and nccl.log there has a line for each communicator that is made or aborted.
# With LD_LIBRARY_PATH=FOLDER, MINISGL_NCCL_SO=FOLDER/libnccl.so.2 and
# MINISGL_KERNELS=FOLDER/libminisgl_kernels.so a program takes them for real.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
what=$1 folder=$2
shift 2
compile="${CC:-cc} -std=c11 -O1 -shared -fPIC -pthread"
mkdir -p "$folder"
cd "$folder"

$compile -o libnccl.so.2 "-DFOLDER=\"$PWD\"" "$@" "$here/nccl.c" -ldl
if [ "$what" = nccl ]; then exit; fi
$compile -o libcuda.so "$here/cuda.c"
ln -sf libcuda.so libcuda.so.1
ln -sf libcuda.so libcublasLt.so.13
ln -sf libcuda.so libcublasLt.so

# Kernels that do nothing, one for each that the header declares.
header=$here/../../../minisgl-kernels/csrc/minisgl_kernels.h
{
    cat <<'END'
int32_t msgl_abi_version(void) { return MSGL_ABI_VERSION; }
const char *msgl_manifest(void) { return "{\"archs\": [\"90a\"], \"attention\": {\"fi\": [64, 128], \"fa\": [64, 128]}}"; }
const char *msgl_last_error(void) { return "a pretended error"; }
int32_t msgl_attention_create(const msgl_attention_config *config, msgl_attention **out) {
    *out = (msgl_attention *)config;
    return 0;
}
END
    ${CC:-cc} -E -P "$header" | tr '\n' ' ' | sed 's/;/;\n/g' |
        grep -E '^ *int(32|64)_t msgl_' | grep -v -e msgl_abi_version -e msgl_attention_create |
        sed -e 's/^\( *int64_t.*\);$/\1 { return 256; }/' -e 's/;$/ { return 0; }/'
} >kernels.c
$compile -include "$header" -o libminisgl_kernels.so kernels.c
