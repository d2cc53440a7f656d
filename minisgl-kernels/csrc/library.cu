// The library about itself: its version, what it holds, and the last failure of each thread.
// Never knows any kernel.
#include <cstdarg>
#include <cstdio>
#include <string>

#include "common.cuh"
#include "attention_backend.cuh"

// The build defines the architectures that it compiles for, separated by underscores.
#ifndef MSGL_ARCHS
#error "MSGL_ARCHS must be defined, for example as 80_90a"
#endif
#define MSGL_TEXT(...) #__VA_ARGS__
#define MSGL_TEXT_OF(...) MSGL_TEXT(__VA_ARGS__)

namespace msgl {
namespace {

thread_local char last_error[512] = "";

std::string manifest() {
    std::string archs = "\"";
    for (const char c : std::string(MSGL_TEXT_OF(MSGL_ARCHS))) {
        if (c == '_') {
            archs += "\", \"";
        } else {
            archs += c;
        }
    }
    return "{\"abi\": " + std::to_string(MSGL_ABI_VERSION) + ", \"archs\": [" + archs +
           "\"], \"attention\": {\"fi\": [" MSGL_FI_HEAD_DIMS "], \"fa\": [" MSGL_FA_HEAD_DIMS
           "], \"native\": [" MSGL_NATIVE_HEAD_DIMS "]}}";
}

}  // namespace

void set_last_error(const char *function, const char *reason) {
    std::snprintf(last_error, sizeof last_error, "%s: %s", function, reason);
}

void refuse(const char *format, ...) {
    Failure failure;
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(failure.text, sizeof failure.text, format, arguments);
    va_end(arguments);
    throw failure;
}

void check(cudaError_t status, const char *what) {
    if (status != cudaSuccess) {
        cudaGetLastError();  // which would keep it for a later launch
        refuse("%s: %s (CUDA error %d)", what, cudaGetErrorString(status), static_cast<int>(status));
    }
}

int num_processors() {
    int device = 0, count = 0;
    check(cudaGetDevice(&device), "there is no current device");
    check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device),
          "the device tells no number of multiprocessors");
    return count;
}

}  // namespace msgl

extern "C" int32_t msgl_abi_version(void) { return MSGL_ABI_VERSION; }

extern "C" const char *msgl_manifest(void) {
    static const std::string text = msgl::manifest();
    return text.c_str();
}

extern "C" const char *msgl_last_error(void) { return msgl::last_error; }
