// The blocks of an encoder on a batch of packed texts, in one call: bf16 products, float sums, norms
// and residual stream.
//
// Texts lie one after the other without padding. Several threads may share a batch: each has a
// range of rows, and they meet where attention needs the keys and values of other rows.
// All memory belongs to the caller. Structures and `lw_` functions are the C ABI that
// library.py mirrors; `lw_encode` checks the bounds of a batch, blocks.py the shapes of weights.

#include "threads.h"

namespace native {

extern "C" {

struct Linear {  // y = W x + b, packed as product.h says
  const bf16* weight;
  const float* bias;  // or null
  int32_t inputs, outputs;
};

struct LowRank {  // y += B (A x); both packed
  const bf16* a;  // null: this version does not adapt this layer
  const bf16* b;
  int32_t rank;  // both are packed with zeros up to a multiple of 32
};

struct Norm {
  const float* weight;  // null: no norm
  const float* bias;    // or null
};

struct Block {
  Linear qkv, projection, up, down;
  Norm first, second;
  const float* cosines;  // (positions, head_size / 2), or null: no rotation
  const float* sines;
  int32_t window;  // how far a token sees to each side; -1: all of its text
};

struct Encoder {
  const Block* blocks;
  int32_t block_count, width, heads, head_size, feed_forward;
  int32_t norm_first;   // norms precede each half of a block, as in ModernBERT; else they follow it
  int32_t gated;        // GELU of one half of `up` times the other, 16 columns of each in turn
  int32_t first_only;   // the last block computes only the first token of each text
  int32_t positions;    // rows of `cosines`
  float norm_epsilon;
};

struct Batch {
  int32_t texts, rows, versions;
  const int32_t* starts;         // (texts) first row of each
  const int32_t* lengths;        // (texts)
  const int32_t* version_rows;   // (versions + 1) rows from version i on; the last is `rows`
  const int32_t* version_texts;  // (versions + 1)
  const LowRank* low_rank;       // (versions, block_count, 4): qkv, projection, up, down
  float* x;                      // (rows, width) embeddings in, states out
  float* first;                  // (texts, width) states of the first tokens out, if `first_only`
};

}  // extern "C"

namespace {

// Rows whose intermediate states stay in the second-level cache: whole products.
constexpr int ROW_BLOCK = 128 / BEST_ROWS * BEST_ROWS;
constexpr int INPUT_BLOCK = 384;  // inputs of two panels that stay in the first-level cache

struct Shared {  // by the threads of a batch
  bf16* x;        // (rows, stride) input of the next product
  bf16* qkv;      // (3, heads, rows, head_size)
  bf16* keys;     // (heads, padded rows, head_size), packed per text
  bf16* values;   // likewise
  bf16* context;  // (rows, stride) output of attention
  size_t rows, padded_rows;
};

struct Scratch {  // of one thread
  bf16* hidden;         // (ROW_BLOCK + ROW_STEP, stride of feed_forward)
  bf16* low;            // (ROW_BLOCK + ROW_STEP, low_stride): A x
  size_t low_stride;    // of the largest rank
  float* sums;          // (ROW_BLOCK, COLUMNS)
  float* low_sums;      // likewise
  AttentionScratch attention;
};

struct Sizes {
  int rows, padded_rows, longest, rank;
};

Shared take_shared(Allocator& memory, const Encoder& e, const Sizes& s) {
  Shared shared;
  shared.rows = size_t(s.rows) + 2 * ROW_STEP;
  shared.padded_rows = s.padded_rows;
  shared.x = memory.take<bf16>(shared.rows * stride_of(e.width));
  shared.qkv = memory.take<bf16>(3 * shared.rows * e.width);
  shared.keys = memory.take<bf16>(shared.padded_rows * e.width);
  shared.values = memory.take<bf16>(shared.padded_rows * e.width);
  shared.context = memory.take<bf16>(shared.rows * stride_of(e.width));
  return shared;
}

Scratch take_scratch(Allocator& memory, const Encoder& e, const Sizes& s) {
  Scratch scratch;
  scratch.hidden = memory.take<bf16>((ROW_BLOCK + ROW_STEP) * stride_of(e.feed_forward));
  scratch.low_stride = stride_of(s.rank);
  scratch.low = memory.take<bf16>((ROW_BLOCK + ROW_STEP) * scratch.low_stride);
  scratch.sums = memory.take<float>(ROW_BLOCK * COLUMNS);
  scratch.low_sums = memory.take<float>(ROW_BLOCK * COLUMNS);
  scratch.attention.scores = memory.take<float>(BEST_ROWS * stride_of(padded(s.longest)));
  scratch.attention.probabilities = memory.take<bf16>(BEST_ROWS * stride_of(padded(s.longest)));
  scratch.attention.sums = scratch.sums;
  scratch.attention.queries = memory.take<bf16>(BEST_ROWS * e.head_size);
  return scratch;
}

// What a thread knows of the batch.
struct Task {
  const Encoder& encoder;
  const Batch& batch;
  const Shared& shared;
  const Scratch& scratch;
  const int32_t* key_starts;  // (texts) first row of each text's packed keys and values
  Barrier& barrier;
  int thread, threads;
};

// ---- products ----------------------------------------------------------------------------------

// Which versions these rows belong to: `boundaries` are those of the rows in question.
struct Adapted {
  const int32_t* boundaries;
  int block, layer;
};

const LowRank& low_rank(const Task& t, const Adapted& adapted, int version) {
  return t.batch.low_rank[(size_t(version) * t.encoder.block_count + adapted.block) * 4 + adapted.layer];
}

// Calls `inside(first, last, LowRank)` for the parts of rows from..to that an adapter changes, with
// rows counted from `from`.
template <class Inside>
void for_adapters(const Task& t, const Adapted& adapted, int from, int to, Inside inside) {
  for (int v = 0; v < t.batch.versions; v++) {
    const int first = std::max(from, adapted.boundaries[v]), last = std::min(to, adapted.boundaries[v + 1]);
    const LowRank& low = low_rank(t, adapted, v);
    if (first < last && low.a != nullptr) inside(first - from, last - from, low);
  }
}

// sums[rows][32] = a B for one or two panels of columns, inputs in blocks. used: the inputs whose
// weights are not zero. is_last: no other panels follow.
void multiply_panels(const bf16* a, size_t stride, const bf16* weight, int inputs, int used, int column,
                     int panels, bool is_last, int rows, float* sums) {
  for (int k = 0; k < used; k += INPUT_BLOCK) {
    const int count = std::min(INPUT_BLOCK, used - k);
    const bf16* b = weight + size_t(column) * inputs + size_t(k) * LANES;
    const bf16* next = is_last ? nullptr : weight + size_t(column + COLUMNS) * inputs;
    if (k + count < used) next = b + size_t(count) * LANES;
    multiply({a + k, stride, b, size_t(inputs) * LANES, count / 2, sums, COLUMNS, k > 0, panels, next}, rows);
  }
}

// Computes rows from..to of a layer, at most ROW_BLOCK of them. a: row `from`. `emit(column, sums)`
// gets 32 columns at a time: (rows, 32), without the bias.
template <class Emit>
void linear(const Task& t, const Linear& layer, const Adapted& adapted, const bf16* a, size_t stride,
            int from, int to, int first_column, int last_column, Emit emit) {
  const Scratch& s = t.scratch;
  const int rows = to - from;
  for_adapters(t, adapted, from, to, [&](int first, int last, const LowRank& low) {
    for (int column = 0; column < low.rank; column += COLUMNS) {
      const int panels = low.rank - column > LANES ? 2 : 1;
      multiply_panels(a + first * stride, stride, low.a, layer.inputs, layer.inputs, column, panels, true,
                      last - first, s.low_sums);
      for (int r = 0; r < last - first; r++) {
        const float* sums = s.low_sums + r * COLUMNS;
        store_bf16(s.low + (first + r) * s.low_stride + column, load(sums),
                   panels == 2 ? load(sums + LANES) : Floats{});
      }
    }
  });
  for (int column = first_column; column < last_column; column += COLUMNS) {
    multiply_panels(a, stride, layer.weight, layer.inputs, layer.inputs, column, 2,
                    column + COLUMNS == last_column, rows, s.sums);
    for_adapters(t, adapted, from, to, [&](int first, int last, const LowRank& low) {
      multiply_panels(s.low + first * s.low_stride, s.low_stride, low.b, padded(low.rank),
                      int(round_up(low.rank, INPUT_STEP)), column, 2, true, last - first, s.low_sums);
      for (int i = 0; i < (last - first) * COLUMNS; i += LANES) {
        float* sums = s.sums + first * COLUMNS + i;
        store(sums, load(sums) + load(s.low_sums + i));
      }
    });
    emit(column, s.sums);
  }
}

Floats bias_of(const Linear& layer, int column) {
  return layer.bias == nullptr ? Floats{} : load(layer.bias + column);
}

// y = (x - mean) / deviation * weight + bias, to `out` unless it is null, and to `rounded`.
void normalize(const Encoder& e, const Norm& norm, const float* x, float* out, bf16* rounded) {
  const int width = e.width;
  Floats mean{}, deviation = fill(1.0f);
  if (norm.weight != nullptr) {
    Floats total{}, squares{};
    for (int i = 0; i < width; i += LANES) total += load(x + i);
    mean = fill(sum(total) / width);
    for (int i = 0; i < width; i += LANES) {
      const Floats distance = load(x + i) - mean;
      squares += distance * distance;
    }
    deviation = fill(1 / std::sqrt(sum(squares) / width + e.norm_epsilon));
  }
  for (int i = 0; i < width; i += COLUMNS) {
    Floats y[2];
    for (int half = 0; half < 2; half++) {
      const int at = i + half * LANES;
      y[half] = (load(x + at) - mean) * deviation;
      if (norm.weight != nullptr) y[half] *= load(norm.weight + at);
      if (norm.bias != nullptr) y[half] += load(norm.bias + at);
      if (out != nullptr) store(out + at, y[half]);
    }
    store_bf16(rounded + i, y[0], y[1]);
  }
}

// ---- attention ---------------------------------------------------------------------------------

// Queries, keys and values of rows from..to. With rotary positions each pair of panels has, of one head, the
// first elements of 16 planes and then the second ones.
void project_qkv(const Task& t, int index, const bf16* a, int from, int to, int first_column,
                 int last_column, bool first_tokens) {
  const Encoder& e = t.encoder;
  const Block& block = e.blocks[index];
  const Adapted adapted{first_tokens ? t.batch.version_texts : t.batch.version_rows, index, 0};
  // The position of row `from` in its text.
  int first_text = 0;
  if (block.cosines != nullptr && !first_tokens)
    while (first_text + 1 < t.batch.texts && t.batch.starts[first_text + 1] <= from) first_text++;
  linear(t, block.qkv, adapted, a, stride_of(e.width), from, to, first_column, last_column,
         [&](int column, const float* sums) {
    const int part = column / e.width, within = column % e.width;
    const int head = within / e.head_size, element = within % e.head_size;
    const Floats b0 = bias_of(block.qkv, column), b1 = bias_of(block.qkv, column + LANES);
    bf16* out = t.shared.qkv + ((size_t(part) * e.heads + head) * t.shared.rows) * e.head_size + element;
    for (int r = from, text = first_text; r < to; r++, sums += COLUMNS) {
      Floats low = load(sums) + b0, high = load(sums + LANES) + b1;
      if (block.cosines != nullptr && part < 2) {
        while (!first_tokens && text + 1 < t.batch.texts && t.batch.starts[text + 1] <= r) text++;
        const int in_text = first_tokens ? 0 : std::max(r - t.batch.starts[text], 0);
        const int position = std::min(in_text, e.positions - 1);  // rows of no text may be beyond
        const size_t at = size_t(position) * (e.head_size / 2) + element / 2;
        const Floats cosine = load(block.cosines + at), sine = load(block.sines + at);
        const Floats turned = low * cosine - high * sine;
        high = high * cosine + low * sine;
        low = turned;
      }
      store_bf16(out + size_t(r) * e.head_size, low, high);
    }
  });
}

// Where the packed keys and values of a text and head begin.
size_t packed_start(const Task& t, int text, int head) {
  return (size_t(head) * t.shared.padded_rows + t.key_starts[text]) * t.encoder.head_size;
}

void pack_keys_and_values(const Task& t, int text, int head) {
  const Encoder& e = t.encoder;
  const int size = e.head_size, length = t.batch.lengths[text];
  const size_t per_head = t.shared.rows * size, start = size_t(t.batch.starts[text]) * size;
  const bf16* keys = t.shared.qkv + (e.heads + head) * per_head + start;
  const bf16* values = t.shared.qkv + (2 * e.heads + head) * per_head + start;
  pack_as_outputs(keys, size, length, size, t.shared.keys + packed_start(t, text, head));
  pack_as_inputs(values, size, length, size, t.shared.values + packed_start(t, text, head));
}

// Context of `count` queries of a text from number `first` on, for all heads. row: where the first
// query is in `qkv`, and its context in `context`.
void attend_text(const Task& t, int text, int window, int row, int first, int count) {
  const Encoder& e = t.encoder;
  const size_t stride = stride_of(e.width);
  for (int head = 0; head < e.heads; head++) {
    if (t.threads == 1) pack_keys_and_values(t, text, head);  // while they are at hand
    const size_t packed = packed_start(t, text, head);
    const Text content{t.shared.keys + packed, t.shared.values + packed, t.batch.lengths[text],
                       e.head_size, window, 1 / std::sqrt(float(e.head_size))};
    attend(content, t.shared.qkv + (head * t.shared.rows + row) * e.head_size, e.head_size, first, count,
           t.scratch.attention, t.shared.context + row * stride + head * e.head_size, stride, nullptr);
  }
}

// Rows of a block, so that blocks are about equal: each reads all weights, however few rows it has.
int block_of(int rows) {
  const int blocks = std::max(1, (rows + ROW_BLOCK - 1) / ROW_BLOCK);
  return int(round_up((rows + blocks - 1) / blocks, BEST_ROWS));
}

// ---- the rest of a block -----------------------------------------------------------------------

// x += projection(context), x += feed-forward(x), with the norms where the encoder has them. Rows
// from..to of `x` (rows, width), and of `rounded` and `context` (rows, stride).
void finish_block(const Task& t, int index, const int32_t* boundaries, int from, int to, float* x,
                  bf16* rounded, const bf16* context) {
  const Encoder& e = t.encoder;
  const Block& block = e.blocks[index];
  const Scratch& s = t.scratch;
  const size_t stride = stride_of(e.width), hidden_stride = stride_of(e.feed_forward);
  const int block_rows = block_of(to - from);
  for (int row = from; row < to; row += block_rows) {
    const int end = std::min(row + block_rows, to), rows = end - row;
    float* states = x + size_t(row) * e.width;
    bf16* inputs = rounded + row * stride;
    const auto add_to_states = [&](const Linear& layer, int column, const float* sums) {
      const Floats b0 = bias_of(layer, column), b1 = bias_of(layer, column + LANES);
      for (int r = 0; r < rows; r++, sums += COLUMNS) {
        const size_t at = size_t(r) * e.width + column;
        store(states + at, load(states + at) + load(sums) + b0);
        store(states + at + LANES, load(states + at + LANES) + load(sums + LANES) + b1);
      }
    };
    const auto norm = [&](const Norm& which) {
      for (int r = 0; r < rows; r++) {
        float* state = states + size_t(r) * e.width;
        normalize(e, which, state, e.norm_first ? nullptr : state, inputs + r * stride);
      }
    };
    linear(t, block.projection, {boundaries, index, 1}, context + row * stride, stride, row, end, 0, e.width,
           [&](int column, const float* sums) { add_to_states(block.projection, column, sums); });
    norm(e.norm_first ? block.second : block.first);
    linear(t, block.up, {boundaries, index, 2}, inputs, stride, row, end, 0, block.up.outputs,
           [&](int column, const float* sums) {
      const Floats b0 = bias_of(block.up, column), b1 = bias_of(block.up, column + LANES);
      bf16* hidden = s.hidden + (e.gated ? column / 2 : column);
      for (int r = 0; r < rows; r++, sums += COLUMNS, hidden += hidden_stride) {
        const Floats low = load(sums) + b0, high = load(sums + LANES) + b1;
        if (!e.gated) {
          store_bf16(hidden, gelu(low), gelu(high));
          continue;
        }
        bf16 both[COLUMNS];
        store_bf16(both, gelu(low) * high, Floats{});
        memcpy(hidden, both, LANES * sizeof(bf16));
      }
    });
    linear(t, block.down, {boundaries, index, 3}, s.hidden, hidden_stride, row, end, 0, e.width,
           [&](int column, const float* sums) { add_to_states(block.down, column, sums); });
    if (!e.norm_first)
      norm(block.second);
    else if (index + 1 < e.block_count)
      norm(e.blocks[index + 1].first);
  }
}

// The share of a thread: whole ROW_STEPs, so that products that round up stay in it.
int share_start(const Task& t, int count, int thread) {
  const int steps = (count + ROW_STEP - 1) / ROW_STEP;
  return std::min(count, int(int64_t(steps) * thread / t.threads) * ROW_STEP);
}

void run(const Task& t) {
  [[maybe_unused]] const Tiles tiles;
  const Encoder& e = t.encoder;
  const Batch& b = t.batch;
  const Shared& shared = t.shared;
  const size_t stride = stride_of(e.width);
  const int from = share_start(t, b.rows, t.thread), to = share_start(t, b.rows, t.thread + 1);
  const int block_rows = block_of(to - from);
  const Norm none{};
  for (int r = from; r < to; r++)
    normalize(e, e.norm_first ? e.blocks[0].first : none, b.x + size_t(r) * e.width, nullptr,
              shared.x + r * stride);
  for (int index = 0; index < e.block_count; index++) {
    const bool last = e.first_only && index == e.block_count - 1;
    const int window = e.blocks[index].window;
    for (int row = from; row < to; row += block_rows)
      project_qkv(t, index, shared.x + row * stride, row, std::min(row + block_rows, to),
                  last ? e.width : 0, 3 * e.width, false);
    t.barrier.wait(t.threads);
    if (t.threads > 1) {
      for (int64_t i = t.thread; i < int64_t(b.texts) * e.heads; i += t.threads)
        pack_keys_and_values(t, int(i / e.heads), int(i % e.heads));
      t.barrier.wait(t.threads);
    }
    if (last) break;
    for (int text = 0; text < b.texts; text++) {
      const int start = b.starts[text];
      const int first = std::max(from - start, 0), end = std::min(to - start, b.lengths[text]);
      if (first >= end) continue;
      attend_text(t, text, window, start + first, first, end - first);
    }
    finish_block(t, index, b.version_rows, from, to, b.x, shared.x, shared.context);
  }
  if (!e.first_only) return;
  // The last block, for the first tokens: row i belongs to text i. One thread does these few rows.
  if (t.thread > 0) return;
  const int index = e.block_count - 1;
  for (int text = 0; text < b.texts; text++) {
    float* state = b.first + size_t(text) * e.width;
    memcpy(state, b.x + size_t(b.starts[text]) * e.width, e.width * sizeof(float));
    normalize(e, e.norm_first ? e.blocks[index].first : none, state, nullptr, shared.x + text * stride);
  }
  const int block_texts = block_of(b.texts);
  for (int row = 0; row < b.texts; row += block_texts)
    project_qkv(t, index, shared.x + row * stride, row, std::min(row + block_texts, b.texts), 0, e.width, true);
  for (int text = 0; text < b.texts; text++) attend_text(t, text, e.blocks[index].window, text, 0, 1);
  finish_block(t, index, b.version_texts, 0, b.texts, b.first, shared.x, shared.context);
}

Sizes sizes_of(const Encoder& e, const Batch& b) {
  Sizes s{b.rows, 0, 0, COLUMNS};
  for (int i = 0; i < b.texts; i++) {
    s.padded_rows += padded(b.lengths[i]);
    s.longest = std::max(s.longest, b.lengths[i]);
  }
  for (size_t i = 0; i < size_t(b.versions) * e.block_count * 4; i++)
    s.rank = std::max(s.rank, padded(b.low_rank[i].rank));
  return s;
}

// A thread without rows would only wait for the others.
int useful_threads(const Batch& b, int threads) {
  return std::min(threads, (b.rows + ROW_STEP - 1) / ROW_STEP);
}

struct Workspace {
  Shared shared;
  std::vector<Scratch> scratch;  // by thread
  size_t size;
};

Workspace place(void* memory, const Encoder& e, const Batch& b, int threads) {
  Allocator allocator{static_cast<char*>(memory)};
  const Sizes sizes = sizes_of(e, b);
  Workspace result;
  result.shared = take_shared(allocator, e, sizes);
  for (int i = 0; i < threads; i++) result.scratch.push_back(take_scratch(allocator, e, sizes));
  result.size = allocator.used;
  return result;
}

bool is_valid(const Linear& layer, int inputs, int outputs) {
  return layer.weight != nullptr && layer.inputs == inputs && layer.outputs == outputs;
}

bool is_valid(const Encoder& e) {
  const bool sizes = e.block_count > 0 && e.heads > 0 && e.head_size > 0 && e.head_size % COLUMNS == 0 &&
                     e.width <= MAX_SIZE && int64_t(e.heads) * e.head_size == e.width &&
                     e.feed_forward > 0 && e.feed_forward <= MAX_SIZE && e.feed_forward % COLUMNS == 0;
  if (!sizes || e.blocks == nullptr) return false;
  for (int i = 0; i < e.block_count; i++) {
    const Block& b = e.blocks[i];
    if (!is_valid(b.qkv, e.width, 3 * e.width) || !is_valid(b.projection, e.width, e.width) ||
        !is_valid(b.up, e.width, e.feed_forward * (e.gated ? 2 : 1)) ||
        !is_valid(b.down, e.feed_forward, e.width) || b.window < -1 || b.window > MAX_TOKENS ||
        (b.cosines != nullptr && (b.sines == nullptr || e.positions <= 0)))
      return false;
  }
  return true;
}

// Boundaries that begin with 0, never fall and end with `count`.
bool covers(const int32_t* boundaries, int parts, int count) {
  for (int i = 0; i < parts; i++)
    if (boundaries[i + 1] < boundaries[i]) return false;
  return boundaries[0] == 0 && boundaries[parts] == count;
}

bool is_valid(const Encoder& e, const Batch& b) {
  if (b.texts <= 0 || b.rows <= 0 || b.rows > MAX_TOKENS || b.versions <= 0) return false;
  for (const void* each : {(const void*)b.starts, (const void*)b.lengths, (const void*)b.version_rows,
                           (const void*)b.version_texts, (const void*)b.low_rank, (const void*)b.x})
    if (each == nullptr) return false;
  if (e.first_only && (b.first == nullptr || b.texts > b.rows)) return false;
  if (!covers(b.version_rows, b.versions, b.rows) || !covers(b.version_texts, b.versions, b.texts)) return false;
  int row = 0;
  for (int i = 0; i < b.texts; i++) {
    if (b.starts[i] < row || b.lengths[i] <= 0 || b.lengths[i] > b.rows - b.starts[i]) return false;
    row = b.starts[i] + b.lengths[i];
    if (e.blocks[0].cosines != nullptr && b.lengths[i] > e.positions) return false;
  }
  for (size_t i = 0; i < size_t(b.versions) * e.block_count * 4; i++) {
    const LowRank& low = b.low_rank[i];
    if (low.a != nullptr && (low.b == nullptr || low.rank <= 0 || low.rank > MAX_SIZE)) return false;
  }
  return true;
}

}  // namespace

extern "C" {

// Whether this process may use what the library was compiled for. Call it before anything else.
int lw_is_usable() {
#ifdef __AMX_BF16__
  constexpr int ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
  return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
  return 1;
#endif
}

// The version of the compiler, which may change the last bits as well.
const char* lw_compiler() { return __VERSION__; }

// Bytes of aligned memory that `lw_encode` needs for this batch; 0 if an argument is invalid.
size_t lw_encode_workspace(const Encoder* encoder, const Batch* batch, int threads) try {
  if (threads <= 0 || !is_valid(*encoder) || !is_valid(*encoder, *batch)) return 0;
  return place(nullptr, *encoder, *batch, useful_threads(*batch, threads)).size;
} catch (const std::bad_alloc&) {
  return 0;
}

// Computes all blocks of a batch. Returns INVALID, with nothing computed, if an argument is or the
// workspace is too small, and NO_MEMORY if there is none for what is not in the workspace.
int lw_encode(const Encoder* encoder, const Batch* batch, int threads, void* memory, size_t size) try {
  const size_t needed = lw_encode_workspace(encoder, batch, threads);
  if (needed == 0 || size < needed || !is_aligned(memory)) return INVALID;
  threads = useful_threads(*batch, threads);
  const Workspace workspace = place(memory, *encoder, *batch, threads);
  std::vector<int32_t> key_starts(batch->texts);
  int32_t row = 0;
  for (int i = 0; i < batch->texts; i++) {
    key_starts[i] = row;
    row += padded(batch->lengths[i]);
  }
  Barrier barrier;
  run_on_threads(threads, [&](int thread, int count) {
    run({*encoder, *batch, workspace.shared, workspace.scratch[thread], key_starts.data(), barrier,
         thread, count});
  });
  return DONE;
} catch (const std::bad_alloc&) {
  return NO_MEMORY;
}

}  // extern "C"
}  // namespace native
