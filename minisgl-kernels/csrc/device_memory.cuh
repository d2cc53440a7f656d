// Device memory, page-locked memory and events with an owner. Never knows what is in them.
#pragma once

#include <utility>

#include "common.cuh"

namespace msgl {

class DeviceMemory {
   public:
    DeviceMemory() = default;
    explicit DeviceMemory(int64_t bytes) : bytes_(bytes) {
        check(cudaMalloc(&data_, static_cast<size_t>(bytes)), "device memory for attention");
    }
    DeviceMemory(DeviceMemory &&other) noexcept { *this = std::move(other); }
    DeviceMemory &operator=(DeviceMemory &&other) noexcept {
        std::swap(data_, other.data_);
        std::swap(bytes_, other.bytes_);
        return *this;
    }
    ~DeviceMemory() {
        cudaFree(data_);
        cudaGetLastError();
    }

    template <class T>
    T *as() const {
        return static_cast<T *>(data_);
    }
    int64_t bytes() const { return bytes_; }

   private:
    void *data_ = nullptr;
    int64_t bytes_ = 0;
};

// Page-locked host memory for copies to the device that are still under way when the call that
// started them returns. There are two of it, used in turn; whoever comes back to the first waits
// until the copies out of it are done.
class PinnedPair {
   public:
    explicit PinnedPair(int64_t bytes) : bytes_(bytes) {
        for (Half &half : halves_) {
            check(cudaMallocHost(&half.data, static_cast<size_t>(bytes)), "page-locked memory");
            check(cudaEventCreateWithFlags(&half.copied, cudaEventDisableTiming), "an event");
        }
    }
    PinnedPair(const PinnedPair &) = delete;
    PinnedPair &operator=(const PinnedPair &) = delete;
    ~PinnedPair() {
        for (Half &half : halves_) {
            if (half.copied != nullptr) cudaEventDestroy(half.copied);
            cudaFreeHost(half.data);
        }
        cudaGetLastError();
    }

    // The half whose turn it is, free to be written.
    char *next() {
        current_ = 1 - current_;
        check(cudaEventSynchronize(halves_[current_].copied), "waiting for an earlier plan");
        return static_cast<char *>(halves_[current_].data);
    }
    // All copies out of the current half are queued.
    void queued(cudaStream_t stream) {
        check(cudaEventRecord(halves_[current_].copied, stream), "recording an event");
    }
    int64_t bytes() const { return bytes_; }

   private:
    struct Half {
        void *data = nullptr;
        cudaEvent_t copied = nullptr;
    };
    Half halves_[2];
    int current_ = 0;
    int64_t bytes_;
};

}  // namespace msgl
