// The product of a few rows with 32 columns of a packed matrix: where nearly all of the time goes.
//
// A matrix of K inputs and N outputs is packed as [N/16][K/2][16][2]: panels of 16 outputs, in which
// the weights of two neighboring inputs lie side by side, because that is what the instructions
// multiply (bf16 pairs, added in float). K is packed as a multiple of 32, N of 32.
#pragma once

#include "vectors.h"

namespace native {

constexpr int COLUMNS = 32;    // of one product: two panels
constexpr int ROW_STEP = 16;   // a product may read and write rows up to the next multiple of this

// c[rows][32] = a[rows][K] B, or += if `add`.
//
// a_stride, c_stride: elements from one row to the next. b: the first of two panels, `panel`
// elements apart. pairs: K / 2. panels: 1 computes the first 16 columns only. next: b of the product
// that follows, or null.
struct Product {
  const bf16* a;
  size_t a_stride;
  const bf16* b;
  size_t panel;
  int pairs;
  float* c;
  size_t c_stride;
  bool add;
  int panels = 2;
  const bf16* next = nullptr;
};

#ifdef __AVX512BF16__

// R rows, with all sums in registers: R * 2 of the 32.
template <int R, int PANELS>
static __attribute__((noinline)) void multiply_rows(const Product& p, int row) {
  const bf16* a = p.a + row * p.a_stride;
  float* c = p.c + row * p.c_stride;
  __m512 sums[R][PANELS];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
    for (int half = 0; half < PANELS; half++)
      sums[r][half] = p.add ? _mm512_loadu_ps(c + r * p.c_stride + LANES * half) : _mm512_setzero_ps();
  for (int k = 0; k < p.pairs; k++) {
    __m512bh b[PANELS];
    for (int half = 0; half < PANELS; half++)
      b[half] = (__m512bh)_mm512_loadu_si512(p.b + half * p.panel + k * 32);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      int32_t pair;
      memcpy(&pair, a + r * p.a_stride + 2 * k, sizeof pair);
      const __m512bh both = (__m512bh)_mm512_set1_epi32(pair);
      for (int half = 0; half < PANELS; half++) sums[r][half] = _mm512_dpbf16_ps(sums[r][half], both, b[half]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
    for (int half = 0; half < PANELS; half++)
      _mm512_storeu_ps(c + r * p.c_stride + LANES * half, sums[r][half]);
}

#else

template <int R, int PANELS>
static void multiply_rows(const Product& p, int row) {
  for (int r = row; r < row + R; r++) {
    float* c = p.c + r * p.c_stride;
    for (int half = 0; half < PANELS; half++) {
      Floats total = p.add ? load(c + LANES * half) : Floats{};
      for (int k = 0; k < p.pairs; k++) {
        uint32_t pair;
        memcpy(&pair, p.a + r * p.a_stride + 2 * k, sizeof pair);
        const uint32_t first = pair << 16, second = pair & 0xffff0000u;
        float a0, a1;
        memcpy(&a0, &first, sizeof a0);
        memcpy(&a1, &second, sizeof a1);
        Ints b;
        memcpy(&b, p.b + half * p.panel + k * 32, sizeof b);
        total += a0 * from_bits(b << 16);
        total += a1 * from_bits(b & int32_t(0xffff0000u));
      }
      store(c + LANES * half, total);
    }
  }
}

#endif

#ifdef __AMX_BF16__

// Two or one times 16 rows, with sums in tiles 0 to 3, of which one panel needs 0 and 2.
template <int R, int PANELS>
static void multiply_tiles(const Product& p, int row) {
  asm volatile("" ::: "memory");  // the loads below do not say what they read
  const bf16* a = p.a + row * p.a_stride;
  float* c = p.c + row * p.c_stride;
  const size_t a_bytes = p.a_stride * sizeof(bf16), c_bytes = p.c_stride * sizeof(float);
  if (p.add) {
    _tile_loadd(0, c, c_bytes);
    if (PANELS == 2) _tile_loadd(1, c + LANES, c_bytes);
    if (R == 2) {
      _tile_loadd(2, c + 16 * p.c_stride, c_bytes);
      if (PANELS == 2) _tile_loadd(3, c + 16 * p.c_stride + LANES, c_bytes);
    }
  } else {
    _tile_zero(0);
    if (PANELS == 2) _tile_zero(1);
    if (R == 2) {
      _tile_zero(2);
      if (PANELS == 2) _tile_zero(3);
    }
  }
  for (int k = 0; k < p.pairs; k += 16) {
    _tile_loadd(6, p.b + k * 32, 64);
    if (PANELS == 2) _tile_loadd(7, p.b + p.panel + k * 32, 64);
    _tile_loadd(4, a + 2 * k, a_bytes);
    _tile_dpbf16ps(0, 4, 6);
    if (PANELS == 2) _tile_dpbf16ps(1, 4, 7);
    if (R == 2) {
      _tile_loadd(5, a + 16 * p.a_stride + 2 * k, a_bytes);
      _tile_dpbf16ps(2, 5, 6);
      if (PANELS == 2) _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, c, c_bytes);
  if (PANELS == 2) _tile_stored(1, c + LANES, c_bytes);
  if (R == 2) {
    _tile_stored(2, c + 16 * p.c_stride, c_bytes);
    if (PANELS == 2) _tile_stored(3, c + 16 * p.c_stride + LANES, c_bytes);
  }
}

constexpr int BEST_ROWS = 32;   // of one product: more keep more sums at hand
constexpr int INPUT_STEP = 32;  // inputs are multiplied this many at a time

template <int PANELS>
static void multiply_all(const Product& p, int rows) {
  int row = 0;
  for (; row + 32 <= rows + 15; row += 32) multiply_tiles<2, PANELS>(p, row);
  if (row < rows) multiply_tiles<1, PANELS>(p, row);
}

// Every thread sets the shapes of its tiles: eight of 16 rows of 64 bytes.
struct Tiles {
  Tiles() {
    struct {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } shapes;
    _tile_loadconfig(&shapes);
  }
  ~Tiles() { _tile_release(); }
};

#else

constexpr int BEST_ROWS = 12;
constexpr int INPUT_STEP = 2;

// Weights pass through the second-level cache once for each block of rows, and loading them from
// the third level takes a seventh of the time, unless it begins while the panels before are used.
static void fetch_next(const Product& p, int row, int rows) {
  for (int k = p.pairs * row / rows; k < p.pairs * (row + BEST_ROWS) / rows; k++) {
    __builtin_prefetch(p.next + k * 32, 0, 2);
    __builtin_prefetch(p.next + p.panel + k * 32, 0, 2);
  }
}

template <int PANELS>
static void multiply_all(const Product& p, int rows) {
  int row = 0;
  for (; row + BEST_ROWS <= rows; row += BEST_ROWS) {
    if (p.next != nullptr) fetch_next(p, row, rows);
    multiply_rows<BEST_ROWS, PANELS>(p, row);
  }
  if (rows == 1) return multiply_rows<1, PANELS>(p, 0);
  for (; row < rows; row += 4) multiply_rows<4, PANELS>(p, row);
}

struct Tiles {};

#endif

static void multiply(const Product& p, int rows) {
  p.panels == 1 ? multiply_all<1>(p, rows) : multiply_all<2>(p, rows);
}

}  // namespace native
