// Threads of one call, and the memory that its caller gives them.
#pragma once

#include <atomic>
#include <exception>
#include <thread>
#include <vector>

#include "attention.h"

#ifdef __AMX_BF16__
#include <sys/syscall.h>
#include <unistd.h>
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace native {

// What a function of the C ABI returns.
enum Status { DONE = 0, INVALID = 1, NO_MEMORY = 2 };

// Limits at the border, so that no sum or product of sizes overflows: tokens of a batch or of a
// window, and inputs, outputs, heads and ranks of a layer.
constexpr int MAX_TOKENS = 1 << 24, MAX_SIZE = 1 << 16;

// Calls work(0, n) here and work(1, n) ... work(n - 1, n) on other threads, and waits for all. n is
// `threads`, or fewer where the system refuses to start as many.
template <class Work>
void run_on_threads(int threads, Work work) {
  std::atomic<int> started{0};  // 0: not all of them yet
  const auto wait_and_work = [&](int thread) {
    while (started.load(std::memory_order_acquire) == 0) std::this_thread::yield();
    work(thread, started.load(std::memory_order_relaxed));
  };
  std::vector<std::thread> others;
  others.reserve(threads - 1);
  try {
    for (int i = 1; i < threads; i++) others.emplace_back(wait_and_work, i);
  } catch (const std::exception&) {
  }
  const int count = int(others.size()) + 1;
  started.store(count, std::memory_order_release);
  work(0, count);
  for (std::thread& other : others) other.join();
}

struct Barrier {
  std::atomic<int> arrived{0}, round{0};
  void wait(int threads) {
    if (threads == 1) return;
    const int now = round.load(std::memory_order_relaxed);
    if (arrived.fetch_add(1, std::memory_order_acq_rel) == threads - 1) {
      arrived.store(0, std::memory_order_relaxed);
      round.store(now + 1, std::memory_order_release);
      return;
    }
    for (int spins = 1; round.load(std::memory_order_acquire) == now; spins++)
      if (spins % 10000 == 0) std::this_thread::yield();
  }
};

constexpr size_t ALIGNMENT = 64;  // of the caller's memory, and of each piece: a cache line

inline bool is_aligned(const void* memory) { return reinterpret_cast<uintptr_t>(memory) % ALIGNMENT == 0; }

// Hands out pieces of the caller's memory. From null it only counts. The address sanitizer reports
// what reads or writes between two pieces.
struct Allocator {
  char* memory;
  size_t used = 0;
  template <class T>
  T* take(size_t count) {
    char* piece = memory == nullptr ? nullptr : memory + used;
    const size_t size = count * sizeof(T);
#ifdef __SANITIZE_ADDRESS__
    const size_t end = round_up(size + 1, ALIGNMENT);
    if (piece != nullptr) {
      ASAN_UNPOISON_MEMORY_REGION(piece, size);  // of a call before, with other pieces
      ASAN_POISON_MEMORY_REGION(piece + size, end - size);
    }
#else
    const size_t end = round_up(size, ALIGNMENT);
#endif
    used += end;
    return reinterpret_cast<T*>(piece);
  }
};

}  // namespace native
