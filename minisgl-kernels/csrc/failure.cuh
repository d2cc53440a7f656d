// Failures as sentences: how they are raised, and where they stop. Never knows what failed.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <exception>

#include "minisgl_kernels.h"

namespace msgl {

// Keeps the sentence that msgl_last_error gives to this thread.
void set_last_error(const char *function, const char *reason);

// A refusal with a sentence, on its way to the C boundary.
struct Failure : std::exception {
    char text[400];
    const char *what() const noexcept override { return text; }
};

[[noreturn]] __attribute__((format(printf, 1, 2))) void refuse(const char *format, ...);

// Refuses if a call of the CUDA runtime failed.
void check(cudaError_t status, const char *what);

// Runs the body of an exported function; nothing that it throws gets out.
template <class Body>
int32_t guarded(const char *function, Body &&body) noexcept {
    try {
        body();
        return 0;
    } catch (const std::exception &error) {
        set_last_error(function, error.what());
    } catch (...) {
        set_last_error(function, "an exception of unknown type");
    }
    return 1;
}

// After a kernel launch: it could not be queued.
inline void check_launch() { check(cudaGetLastError(), "a kernel could not be launched"); }

}  // namespace msgl
