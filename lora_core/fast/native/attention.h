// softmax(s Q Kᵀ) V of one text and one head, a few queries at a time. Keys and values are packed
// for product.h; each row of scores is whole, so that the softmax needs no correction afterwards.
#pragma once

#include <algorithm>

#include "product.h"

namespace native {

constexpr float LOG2_E = 1.44269504f;  // exponents are to base 2

inline size_t round_up(size_t n, size_t step) { return (n + step - 1) / step * step; }
inline int padded(int length) { return int(round_up(length, COLUMNS)); }
// Rows that are a power of two apart would fall into the same few cache lines.
inline size_t stride_of(int columns) { return columns + COLUMNS; }

// Rows (length, size) as a matrix of `size` inputs and `length` outputs: the keys of Q Kᵀ. Zeros up
// to the padded length.
inline void pack_as_outputs(const bf16* rows, size_t stride, int length, int size, bf16* packed) {
  for (int panel = 0; panel < padded(length); panel += LANES)
    for (int column = 0; column < size; column += 2 * LANES) {
      Ints pairs[LANES] = {};
      for (int i = 0; i < std::min(LANES, length - panel); i++)
        memcpy(&pairs[i], rows + (panel + i) * stride + column, sizeof pairs[i]);
      transpose(pairs);
      memcpy(packed + size_t(panel) * size + column * LANES, pairs, sizeof pairs);
    }
}

// Rows (length, size) as a matrix of `length` inputs and `size` outputs: the values of P V. Zeros up
// to the padded length.
inline void pack_as_inputs(const bf16* rows, size_t stride, int length, int size, bf16* packed) {
  static constexpr bf16 zeros[LANES] = {};
  for (int row = 0; row < padded(length); row += 2)
    for (int panel = 0; panel < size; panel += LANES) {
      const bf16* first = rows + row * stride + panel;
      interleave(row < length ? first : zeros, row + 1 < length ? first + stride : zeros,
                 packed + size_t(panel) * padded(length) + row * LANES);
    }
}

// The positions first..last that a row sees, counted from `begin`.
struct Seen {
  int first, last;
};
inline Seen seen(int row, int length, int window, int begin) {
  return {window < 0 ? 0 : std::max(0, row - window) - begin,
          (window < 0 ? length : std::min(length, row + window + 1)) - begin};
}

// What rows row..row+rows see together, in whole pairs of panels.
inline Seen seen_by_block(int row, int rows, int length, int window) {
  if (window < 0) return {0, padded(length)};
  return {std::max(0, row - window) / COLUMNS * COLUMNS,
          std::min(padded(length), padded(row + rows + window))};
}

struct Text {  // of one head
  const bf16* keys;    // packed as outputs
  const bf16* values;  // packed as inputs
  int length, size;    // tokens, and numbers of a head
  int window;          // how far a token sees to each side; -1: all of the text
  float scale;         // s
};

struct AttentionScratch {
  float* scores;        // (BEST_ROWS, stride of the longest text)
  bf16* probabilities;  // likewise
  float* sums;          // (BEST_ROWS, COLUMNS)
  bf16* queries;        // (BEST_ROWS, size)
};

// out[count][size] of the queries from number `first` on. log_sums[count], unless null: the
// logarithm to base 2 of the sum that each softmax divides by.
inline void attend(const Text& text, const bf16* queries, size_t query_stride, int first, int count,
                   const AttentionScratch& s, bf16* out, size_t out_stride, float* log_sums) {
  const size_t stride = stride_of(padded(text.length));
  const float factor = text.scale * LOG2_E;
  for (int block = 0; block < count; block += BEST_ROWS) {
    const int rows = std::min(BEST_ROWS, count - block), row = first + block;
    const Seen keys = seen_by_block(row, rows, text.length, text.window);
    const int width = keys.last - keys.first;
    // The product reads more rows than these, which another thread may be writing.
    const bool copied = rows < BEST_ROWS;
    for (int r = 0; copied && r < rows; r++)
      memcpy(s.queries + r * text.size, queries + (block + r) * query_stride, text.size * sizeof(bf16));
    const bf16* a = copied ? s.queries : queries + block * query_stride;
    const size_t a_stride = copied ? text.size : query_stride;
    for (int key = 0; key < width; key += COLUMNS)
      multiply({a, a_stride,
                text.keys + size_t(keys.first + key) * text.size, size_t(LANES) * text.size,
                text.size / 2, s.scores + key, stride, false}, rows);
    float inverse_sums[BEST_ROWS];
    for (int r = 0; r < rows; r++) {
      float* scores = s.scores + r * stride;
      bf16* probabilities = s.probabilities + r * stride;
      const Seen visible = seen(row + r, text.length, text.window, keys.first);
      for (int i = 0; i < visible.first; i++) scores[i] = -INFINITY;
      for (int i = visible.last; i < width; i++) scores[i] = -INFINITY;
      Floats highest = load(scores);
      for (int i = LANES; i < width; i += LANES) highest = max(highest, load(scores + i));
      const float top = largest(highest) * factor;
      Floats total{};
      for (int i = 0; i < width; i += COLUMNS) {
        const Floats low = exp2(load(scores + i) * factor - top);
        const Floats high = exp2(load(scores + i + LANES) * factor - top);
        total += low + high;
        store_bf16(probabilities + i, low, high);
      }
      inverse_sums[r] = 1 / sum(total);
      if (log_sums != nullptr) log_sums[block + r] = top + std::log2(sum(total));
    }
    for (int column = 0; column < text.size; column += COLUMNS) {
      multiply({s.probabilities, stride,
                text.values + size_t(column) * padded(text.length) + size_t(keys.first) * LANES,
                size_t(padded(text.length)) * LANES, width / 2, s.sums, COLUMNS, false}, rows);
      for (int r = 0; r < rows; r++) {
        const float* sums = s.sums + r * COLUMNS;
        store_bf16(out + (block + r) * out_stride + column, load(sums) * inverse_sums[r],
                   load(sums + LANES) * inverse_sums[r]);
      }
    }
  }
}

}  // namespace native
