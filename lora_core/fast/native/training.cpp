// Attention for training, forward and backward, without dropout. One task is one text and one head;
// threads take tasks as they come, and none depends on another, so their number changes no bit.
//
// The forward pass keeps the logarithm of the sum of each softmax, from which the backward pass
// computes the probabilities again:
//
//   P = exp(s Q Kᵀ - log_sums)    dS = P ∘ (dO Vᵀ - rowsum(dO ∘ O))    dQ = s dS K
//   dV = Pᵀ dO    dK = s dSᵀ Q, with Pᵀ and dSᵀ from K Qᵀ and V dOᵀ
//
// (Dao et al. 2022, FlashAttention, algorithm 4, with whole rows in place of its blocks.)

#include "threads.h"

namespace native {

extern "C" {

struct Rows {  // numbers of a head lie together; strides in elements
  bf16* data;
  int64_t text, head, token;
};

struct Attention {
  int32_t texts, heads, size, tokens;  // tokens: of each text, the last of which may be padding
  int32_t window;                      // how far a token sees to each side; -1: all of its text
  float scale;
  const int32_t* lengths;  // (texts)
  float* log_sums;         // (texts, heads, tokens)
  Rows query, key, value, out;
  Rows d_out, d_query, d_key, d_value;  // gradients
};

}  // extern "C"

namespace {

struct Scratch {  // of one thread, for a text of `tokens`
  AttentionScratch attention;
  float* d_scores;        // (BEST_ROWS, stride)
  bf16* d_probabilities;  // likewise
  bf16 *query, *key, *value, *d_out;                                  // (tokens, size)
  bf16 *query_outputs, *key_outputs, *value_outputs, *d_out_outputs;  // packed
  bf16 *query_inputs, *key_inputs, *value_inputs, *d_out_inputs;      // packed
  float *log_sums, *products;                                         // (tokens)
};

Scratch take_scratch(Allocator& memory, const Attention& a) {
  const size_t rows = padded(a.tokens), stride = stride_of(int(rows)), numbers = rows * a.size;
  Scratch s;
  s.attention.scores = memory.take<float>(BEST_ROWS * stride);
  s.attention.probabilities = memory.take<bf16>(BEST_ROWS * stride);
  s.attention.sums = memory.take<float>(BEST_ROWS * COLUMNS);
  s.attention.queries = memory.take<bf16>(BEST_ROWS * a.size);
  s.d_scores = memory.take<float>(BEST_ROWS * stride);
  s.d_probabilities = memory.take<bf16>(BEST_ROWS * stride);
  for (bf16** each : {&s.query, &s.key, &s.value, &s.d_out, &s.query_outputs, &s.key_outputs,
                      &s.value_outputs, &s.d_out_outputs, &s.query_inputs, &s.key_inputs,
                      &s.value_inputs, &s.d_out_inputs})
    *each = memory.take<bf16>(numbers);
  s.log_sums = memory.take<float>(rows);
  s.products = memory.take<float>(rows);
  return s;
}

bf16* start(const Rows& rows, int text, int head) {
  return rows.data + text * rows.text + head * rows.head;
}

// Rows of a head next to each other, with zeros up to the padded length.
void copy(const Rows& rows, int text, int head, int length, int size, bf16* to) {
  const bf16* from = start(rows, text, head);
  for (int i = 0; i < length; i++) memcpy(to + size_t(i) * size, from + i * rows.token, size * sizeof(bf16));
  memset(to + size_t(length) * size, 0, size_t(padded(length) - length) * size * sizeof(bf16));
}

void forward(const Attention& a, const Scratch& s, int text, int head) {
  const int length = a.lengths[text];
  copy(a.query, text, head, length, a.size, s.query);
  pack_as_outputs(start(a.key, text, head), a.key.token, length, a.size, s.key_outputs);
  pack_as_inputs(start(a.value, text, head), a.value.token, length, a.size, s.value_inputs);
  const Text content{s.key_outputs, s.value_inputs, length, a.size, a.window, a.scale};
  attend(content, s.query, a.size, 0, length, s.attention, start(a.out, text, head), a.out.token,
         a.log_sums + (size_t(text) * a.heads + head) * a.tokens);
}

// Writes factor * A B for rows of a block: A (rows, width) in bf16, B packed as inputs.
void multiply_out(const bf16* a, const Seen& columns, int length, int size, const bf16* packed, int rows,
                  float factor, float* sums, bf16* out, size_t out_stride) {
  const size_t stride = stride_of(padded(length));
  for (int column = 0; column < size; column += COLUMNS) {
    multiply({a, stride, packed + size_t(column) * padded(length) + size_t(columns.first) * LANES,
              size_t(padded(length)) * LANES, (columns.last - columns.first) / 2, sums, COLUMNS, false}, rows);
    for (int r = 0; r < rows; r++)
      store_bf16(out + r * out_stride + column, load(sums + r * COLUMNS) * factor,
                 load(sums + r * COLUMNS + LANES) * factor);
  }
}

// Probabilities and gradients of scores of rows row..row+rows: queries against keys, or keys against
// queries (`by_key`), whose statistics then belong to columns.
void score_gradients(const Attention& a, const Scratch& s, const Seen& columns, int length, int row, int rows,
                     bool by_key) {
  const size_t stride = stride_of(padded(length)), panel = size_t(LANES) * a.size;
  const int width = columns.last - columns.first;
  const float factor = a.scale * LOG2_E;
  const bf16* scored = (by_key ? s.key : s.query) + size_t(row) * a.size;
  const bf16* weighed = (by_key ? s.value : s.d_out) + size_t(row) * a.size;
  const bf16* scored_by = (by_key ? s.query_outputs : s.key_outputs) + size_t(columns.first) * a.size;
  const bf16* weighed_by = (by_key ? s.d_out_outputs : s.value_outputs) + size_t(columns.first) * a.size;
  for (int i = 0; i < width; i += COLUMNS) {
    const size_t at = size_t(i) * a.size, size = a.size;
    multiply({scored, size, scored_by + at, panel, a.size / 2, s.attention.scores + i, stride, false}, rows);
    multiply({weighed, size, weighed_by + at, panel, a.size / 2, s.d_scores + i, stride, false}, rows);
  }
  for (int r = 0; r < rows; r++) {
    const float *scores = s.attention.scores + r * stride, *gradients = s.d_scores + r * stride;
    bf16 *p = s.attention.probabilities + r * stride, *dp = s.d_probabilities + r * stride;
    for (int i = 0; i < width; i += COLUMNS) {
      Floats probability[2], gradient[2];
      for (int half = 0; half < 2; half++) {
        const int at = i + half * LANES, column = columns.first + at;
        const Floats log_sum = by_key ? load(s.log_sums + column) : fill(s.log_sums[row + r]);
        const Floats product = by_key ? load(s.products + column) : fill(s.products[row + r]);
        probability[half] = exp2(load(scores + at) * factor - log_sum);
        gradient[half] = probability[half] * (load(gradients + at) - product);
      }
      store_bf16(p + i, probability[0], probability[1]);
      store_bf16(dp + i, gradient[0], gradient[1]);
    }
    const Seen visible = seen(row + r, length, a.window, columns.first);
    for (bf16* each : {p, dp}) {
      memset(each, 0, visible.first * sizeof(bf16));
      memset(each + visible.last, 0, (width - visible.last) * sizeof(bf16));
    }
  }
}

void backward(const Attention& a, const Scratch& s, int text, int head) {
  const int length = a.lengths[text], size = a.size;
  copy(a.query, text, head, length, size, s.query);
  copy(a.key, text, head, length, size, s.key);
  copy(a.value, text, head, length, size, s.value);
  copy(a.d_out, text, head, length, size, s.d_out);
  pack_as_outputs(s.query, size, length, size, s.query_outputs);
  pack_as_outputs(s.key, size, length, size, s.key_outputs);
  pack_as_outputs(s.value, size, length, size, s.value_outputs);
  pack_as_outputs(s.d_out, size, length, size, s.d_out_outputs);
  pack_as_inputs(s.query, size, length, size, s.query_inputs);
  pack_as_inputs(s.key, size, length, size, s.key_inputs);
  pack_as_inputs(s.d_out, size, length, size, s.d_out_inputs);
  const float* log_sums = a.log_sums + (size_t(text) * a.heads + head) * a.tokens;
  const bf16* out = start(a.out, text, head);
  for (int i = 0; i < padded(length); i++) {
    Floats product{};
    if (i < length)
      for (int j = 0; j < size; j += LANES)
        product += load_bf16(out + i * a.out.token + j) * load_bf16(s.d_out + i * size + j);
    s.products[i] = sum(product);
    s.log_sums[i] = i < length ? log_sums[i] : INFINITY;
  }
  bf16* d_query = start(a.d_query, text, head);
  bf16* d_key = start(a.d_key, text, head);
  bf16* d_value = start(a.d_value, text, head);
  for (int row = 0; row < length; row += BEST_ROWS) {
    const int rows = std::min(BEST_ROWS, length - row);
    const Seen columns = seen_by_block(row, rows, length, a.window);
    score_gradients(a, s, columns, length, row, rows, false);
    multiply_out(s.d_probabilities, columns, length, size, s.key_inputs, rows, a.scale, s.attention.sums,
                 d_query + row * a.d_query.token, a.d_query.token);
    score_gradients(a, s, columns, length, row, rows, true);
    multiply_out(s.attention.probabilities, columns, length, size, s.d_out_inputs, rows, 1.0f,
                 s.attention.sums, d_value + row * a.d_value.token, a.d_value.token);
    multiply_out(s.d_probabilities, columns, length, size, s.query_inputs, rows, a.scale, s.attention.sums,
                 d_key + row * a.d_key.token, a.d_key.token);
  }
}

bool is_valid(const Attention& a) {
  for (int size : {a.texts, a.heads, a.tokens, a.size})
    if (size <= 0) return false;
  if (a.texts > MAX_TOKENS || a.tokens > MAX_TOKENS || a.window < -1 || a.window > MAX_TOKENS ||
      a.heads > MAX_SIZE || a.size > MAX_SIZE || a.size % COLUMNS != 0)
    return false;
  for (const Rows& each : {a.query, a.key, a.value, a.out})
    if (each.data == nullptr) return false;
  if (a.lengths == nullptr || a.log_sums == nullptr) return false;
  for (int i = 0; i < a.texts; i++)
    if (a.lengths[i] < 0 || a.lengths[i] > a.tokens) return false;
  return true;
}

bool has_gradients(const Attention& a) {
  return a.d_out.data != nullptr && a.d_query.data != nullptr && a.d_key.data != nullptr &&
         a.d_value.data != nullptr;
}

// Of as many threads as there are tasks, at most.
std::vector<Scratch> place(void* memory, const Attention& a, int threads, size_t* size) {
  Allocator allocator{static_cast<char*>(memory)};
  std::vector<Scratch> result;
  threads = int(std::min<int64_t>(threads, int64_t(a.texts) * a.heads));
  for (int i = 0; i < threads; i++) result.push_back(take_scratch(allocator, a));
  *size = allocator.used;
  return result;
}

template <class Work>
int run(const Attention& a, int threads, void* memory, size_t size, Work work) {
  size_t needed = 0;
  if (threads <= 0 || !is_valid(a) || !is_aligned(memory)) return INVALID;
  place(nullptr, a, threads, &needed);
  if (size < needed) return INVALID;
  const std::vector<Scratch> scratch = place(memory, a, threads, &needed);
  std::atomic<int64_t> next{0};
  run_on_threads(int(scratch.size()), [&](int thread, int) {
    [[maybe_unused]] const Tiles tiles;
    for (int64_t i; (i = next.fetch_add(1)) < int64_t(a.texts) * a.heads;)
      work(a, scratch[thread], int(i / a.heads), int(i % a.heads));
  });
  return DONE;
}

}  // namespace

extern "C" {

// Bytes of aligned memory that the passes need; 0 if an argument is invalid.
size_t lw_attention_workspace(const Attention* attention, int threads) try {
  size_t size = 0;
  if (threads > 0 && is_valid(*attention)) place(nullptr, *attention, threads, &size);
  return size;
} catch (const std::bad_alloc&) {
  return 0;
}

// Writes `out` and `log_sums` for the tokens of each text, not for padding. Returns as `lw_encode`.
int lw_attention_forward(const Attention* attention, int threads, void* memory, size_t size) try {
  return run(*attention, threads, memory, size, forward);
} catch (const std::bad_alloc&) {
  return NO_MEMORY;
}

// Writes the gradients of query, key and value, likewise.
int lw_attention_backward(const Attention* attention, int threads, void* memory, size_t size) try {
  return has_gradients(*attention) ? run(*attention, threads, memory, size, backward) : INVALID;
} catch (const std::bad_alloc&) {
  return NO_MEMORY;
}

}  // extern "C"
}  // namespace native
