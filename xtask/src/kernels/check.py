"""Loads the kernels library as Rust will, and calls what works without a GPU.

Usage: check.py LIBRARY FUNCTION..
"""

import ctypes
import json
import sys

path, *functions = sys.argv[1:]
library = ctypes.CDLL(path)
for name in functions:
    assert hasattr(library, name), f"{name} is not exported"

library.msgl_manifest.restype = ctypes.c_char_p
library.msgl_last_error.restype = ctypes.c_char_p
library.msgl_sampling_scratch_bytes.restype = ctypes.c_int64
library.msgl_sampling_scratch_bytes.argtypes = [ctypes.c_int64]
library.msgl_peer_flag_bytes.restype = ctypes.c_int64


class Rows(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("row_len", ctypes.c_int64),
        ("stride", ctypes.c_int64),
    ]


manifest = json.loads(library.msgl_manifest())
assert manifest["abi"] == library.msgl_abi_version() >= 1, manifest
assert manifest["archs"] and manifest["attention"]["native"], manifest
assert library.msgl_sampling_scratch_bytes(3) == 3 * library.msgl_sampling_scratch_bytes(1) > 0
assert library.msgl_peer_flag_bytes() > 0


def refused(words, status):
    message = library.msgl_last_error().decode()
    assert status != 0 and words in message, (status, message)


# Refused before the GPU is asked for anything, each with a sentence that names what is wrong.
some = Rows(4096, 2, 8, 8)
other = Rows(4096, 2, 9, 9)
nothing = Rows(None, 0, 8, 8)
refused("dtype is 7", library.msgl_add(7, some, some, None))
refused("2 x 9", library.msgl_add(0, other, some, None))
refused("element_bytes is 3", library.msgl_copy(3, some, some, None))
refused("dtype is 7", library.msgl_quantize_rows(7, some, some, None, None))
refused("2 x 9", library.msgl_quantize_rows(0, other, some, None, None))
refused("0 parts", library.msgl_reduce_sum(0, None, 0, some, None))
# No rows are no work, with or without a GPU.
assert library.msgl_add(0, nothing, nothing, None) == 0
print(f"kernels library: ABI {manifest['abi']}, sm_{', sm_'.join(manifest['archs'])}, "
      f"{len(functions)} functions")
