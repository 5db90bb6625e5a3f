// The selective scan along the rows or columns of a map, the directional pass around it (convolution and projection
// before it, while a line is in the cache), and the gradients of both.
//
// Shapes: L cells of a line, D channels, N states, R rank of the step size, K taps. A block is LANES channels, one per
// lane; the states of a block are handled CHUNK at a time, CHUNK a constant so that they stay in registers. States
// beyond N have the rate of the first, since 0 times an infinite step is no number, and B and C zero.
#include "sweeps.h"

extern "C" {

struct ScanArguments {
    Direction direction;
    int32_t softplus, has_low_rank, is_geometric;
    int64_t channels, states, rank;
    Map u, delta, B, C, gate;                  // delta: [.., D], or [.., R] if has_low_rank
    float *A, *D, *delta_weight, *delta_bias;  // [D, N] ([D] if is_geometric), [D], [D, R], [D]
    Map y;                                     // output of the forward
    Map grad, du, ddelta, dB, dC, dgate;       // arguments and outputs of the backward
    float* sums;                               // gradients of the parameters, [strips, all their sizes]
    int64_t strips;
    Parallel parallel;
    int64_t threads;
};

// A scan whose u, delta and B or C come from x: convolution and SiLU, then a projection to R + N numbers.
struct PassArguments {
    ScanArguments scan;  // without u, delta, B and C
    int64_t taps;
    int32_t projects_B;
    Map x, dx;
    float *conv_weight, *conv_bias, *proj_weight;  // [D, K], [D], [R + N, D]
};

}  // extern "C"

namespace {

constexpr int64_t STRETCH = 64;  // cells that are taken through all channels at once
constexpr int64_t GROUP = 8;     // long columns that are taken through a stretch in turns, as they share its memory pages

int64_t stretches(const Direction& d) { return (d.length() + STRETCH - 1) / STRETCH; }

int64_t group(const Direction& d) { return d.along_columns && stretches(d) > 1 ? GROUP : 1; }

// Parameters laid out by block, in the order in which the loops read them.
struct Packed {
    int64_t blocks, chunks, chunk, padded;
    bool has_B, has_C;  // both also where neither is given
    bool is_geometric;  // of one state, both kinds of decay are the same
    const Loops& loops;
    std::vector<vfloat> A, rates, largest, weight, bias, skip;  // rates are A to the base of exp4_product
    std::vector<vfloat> counts;                                 // 1 to N, what a geometric rate is multiplied by

    Packed(const ScanArguments& s, bool is_B_given, bool is_C_given)
        : blocks((s.channels + LANES - 1) / LANES),
          chunks((s.states + chunk_for(s.states) - 1) / chunk_for(s.states)),
          chunk(chunk_for(s.states)),
          padded(chunks * chunk),
          has_B(is_B_given || !is_C_given),
          has_C(is_C_given || !is_B_given),
          is_geometric(s.is_geometric && s.states != 1),
          loops(loops_for(s.states, has_B, has_C)),
          A(blocks * rates_per_channel()),
          rates(A.size()),
          largest(blocks),
          weight(s.has_low_rank ? blocks * s.rank : 0),
          bias(blocks),
          skip(blocks),
          counts(is_geometric ? padded : 0) {
        for (size_t n = 0; n < counts.size(); ++n) counts[n] = splat(n + 1.0f);
        const int64_t given = is_geometric ? 1 : s.states, kept = rates_per_channel();
        for (int64_t d = 0; d < s.channels; ++d) {
            const int64_t block = d / LANES, lane = d % LANES;
            for (int64_t n = 0; n < given; ++n) {
                const float rate = s.A[d * given + n] * LOG4_E;
                A[block * kept + n][lane] = s.A[d * given + n];
                rates[block * kept + n][lane] = rate;
                const float size = rate < 0 ? -rate : rate;
                if (size > largest[block][lane]) largest[block][lane] = size;
            }
            for (int64_t n = given; n < kept; ++n)
                rates[block * kept + n][lane] = rates[block * kept][lane];
            if (s.has_low_rank)
                for (int64_t r = 0; r < s.rank; ++r)
                    weight[block * s.rank + r][lane] = s.delta_weight[d * s.rank + r];
            if (s.delta_bias) bias[block][lane] = s.delta_bias[d];
            if (s.D) skip[block][lane] = s.D[d];
        }
        // Lanes beyond D have the weights of the first of their block: here too, 0 times infinity is no number.
        for (int64_t d = s.channels; d < blocks * LANES; ++d)
            for (int64_t r = 0; r < (s.has_low_rank ? s.rank : 0); ++r) {
                vfloat& packed = weight[d / LANES * s.rank + r];
                packed[d % LANES] = packed[0];
            }
    }

    int64_t rates_per_channel() const { return is_geometric ? 1 : padded; }
};

// B or C of some cells as [chunks, cells, CHUNK], with zeros beyond N; ones where the argument is the constant 1.
ONCE void pack_states(const ScanArguments& s, const Packed& p, Line line, int64_t cells, float* packed) {
    for (int64_t chunk = 0; chunk < p.chunks; ++chunk) {
        const int64_t first = chunk * p.chunk, count = std::min(p.chunk, s.states - first);
        for (int64_t t = 0; t < cells; ++t, packed += p.chunk) {
            for (int64_t n = 0; n < count; ++n) packed[n] = line.first ? line.at(t)[first + n] : 1.0f;
            for (int64_t n = count; n < p.chunk; ++n) packed[n] = 0.0f;
        }
    }
}

// Calls use(size, i) for pieces of count items from the i-th on. The sizes are constants, powers of two up to SIZE, so
// that what is summed for a piece stays in registers.
template <int SIZE, class Use>
INLINE void in_pieces(int64_t count, const Use& use, int64_t i = 0) {
    for (; i + SIZE <= count; i += SIZE) use(std::integral_constant<int, SIZE>{}, i);
    if constexpr (SIZE > 1) in_pieces<SIZE / 2>(count, use, i);
}

// Adds the products of numbers [cells, count] with a matrix of weights by lane: out[t] += sum of numbers[t, j] weight[j].
INLINE void add_products(Line numbers, const vfloat* weight, int64_t count, int64_t cells, vfloat* out, int64_t step) {
    in_pieces<8>(cells, [&](auto size, int64_t t) {
        vfloat x[size];
        for (int i = 0; i < size; ++i) x[i] = out[(t + i) * step];
        for (int64_t j = 0; j < count; ++j) {
            const float* number = numbers.at(t) + j;
            for (int i = 0; i < size; ++i) x[i] += weight[j] * number[i * numbers.step];
        }
        for (int i = 0; i < size; ++i) out[(t + i) * step] = x[i];
    });
}

// Adds the gradient of such weights: dweight[j] += sum over t of out[t] numbers[t, j].
INLINE void add_outer(const vfloat* out, int64_t step, Line numbers, int64_t count, int64_t cells, vfloat* dweight) {
    in_pieces<8>(count, [&](auto size, int64_t j) {
        vfloat x[size];
        for (int i = 0; i < size; ++i) x[i] = dweight[j + i];
        for (int64_t t = 0; t < cells; ++t) {
            const float* number = numbers.at(t) + j;
            const vfloat left = out[t * step];
            for (int i = 0; i < size; ++i) x[i] += left * number[i];
        }
        for (int i = 0; i < size; ++i) dweight[j + i] = x[i];
    });
}

// The gradient of such numbers, per lane: dnumbers[t, j] = sum over the blocks of out[t, block] weight[block, j].
INLINE void sum_products(const vfloat* out, int64_t blocks, const vfloat* weight, int64_t count, int64_t cells,
                         vfloat* dnumbers) {
    for (int64_t t = 0; t < cells; ++t, out += blocks, dnumbers += count)
        in_pieces<8>(count, [&](auto size, int64_t j) {
            vfloat x[size] = {};
            for (int64_t block = 0; block < blocks; ++block)
                for (int i = 0; i < size; ++i) x[i] += out[block] * weight[block * count + j + i];
            for (int i = 0; i < size; ++i) dnumbers[j + i] = x[i];
        });
}

// Steps of one block of some cells: dt, dt * u, the slope of softplus (or room for it), and of geometric decays the
// ratio of two states and the decay of the lowest state of a chunk.
struct Steps {
    vfloat *dt, *drive, *slope, *ratio = nullptr, *lowest = nullptr;

    Steps(const Packed& p, int64_t cells, Scratch& memory)
        : dt(memory.take(cells)), drive(memory.take(cells)), slope(memory.take(cells)) {
        if (p.is_geometric) ratio = memory.take(cells), lowest = memory.take(cells);
    }
    static int64_t size(const Packed& p, int64_t cells) { return cells * (p.is_geometric ? 5 : 3); }
};

// Computes the steps, with slopes only if KEEP_SLOPE, and returns where the decays come from.
template <bool KEEP_SLOPE>
ONCE Decay find_steps(const ScanArguments& s, const Packed& p, int64_t block, Line u, Line delta, int64_t cells,
                 const Steps& steps) {
    const int64_t c = block * LANES, lanes = s.channels - c;
    vfloat *raw = steps.slope, *dt = steps.dt, *drive = steps.drive;
    const vfloat bias = p.bias[block];
    if (s.has_low_rank) {
        std::fill(raw, raw + cells, bias);
        add_products(delta, &p.weight[block * s.rank], s.rank, cells, raw, 1);
    } else {
        for (int64_t t = 0; t < cells; ++t) {
            prefetch_ahead<false>(delta, t, cells, c);
            raw[t] = bias + load(delta.at(t) + c, lanes);
        }
    }
    vfloat longest{};
    for (int64_t t = 0; t < cells; ++t) {
        vfloat step = raw[t];
        if (s.softplus) step = KEEP_SLOPE ? softplus(step, &raw[t]) : softplus(step);
        dt[t] = step;
        drive[t] = step * load(u.at(t) + c, lanes);
        longest = maximum(magnitude(step), longest);  // leaves out NaN, which exp4_product hands on
    }
    const bool is_large = any(~(longest * p.largest[block] < LARGEST_EXPONENT));
    if (!p.is_geometric) return is_large ? LARGE : FREE;
    const vfloat rate = p.rates[block];
    for (int64_t t = 0; t < cells; ++t)
        steps.ratio[t] = steps.lowest[t] = is_large ? exp4(rate * dt[t]) : exp4_product(rate, dt[t]);
    return GEOMETRIC;
}

// Goes on to the states of the next chunk, the decays of which are smaller by a power of the ratio.
void raise_lowest(const Steps& steps, int64_t cells, int64_t chunk) {
    for (int64_t t = 0; t < cells; ++t) {
        vfloat power = steps.ratio[t];
        for (int64_t n = 1; n < chunk; n *= 2) power *= power;
        steps.lowest[t] *= power;
    }
}

// Adds up over the channels what is kept per lane. The sums take the place of the first vectors; LANES vectors more
// are read than there are.
ONCE float* sum_lanes(vfloat* lanes, int64_t count) {
    float* sums = (float*)lanes;
    for (int64_t i = 0; i < count; i += LANES) store(sums + i, sum_each(lanes + i));
    return sums;
}

// Writes rows of numbers by channel, kept as [blocks, stride], as [D, width]; returns the end.
ONCE float* unpack(const vfloat* packed, int64_t channels, int64_t width, float* out, int64_t stride) {
    for (int64_t d = 0; d < channels; ++d) {
        const float* row = (const float*)(packed + d / LANES * stride) + d % LANES;
        for (int64_t i = 0; i < width; ++i) *out++ = row[i * LANES];
    }
    return out;
}

// What a scan reads and writes along one line, from some cell of it on.
struct ScanLines {
    Line u, delta, B, C, gate, y;

    static ScanLines at(const ScanArguments& s, int64_t index, int64_t begin) {
        const auto line = [&](const Map& map) { return s.direction.line(map, index).from(begin); };
        return {line(s.u), line(s.delta), line(s.B), line(s.C), line(s.gate), line(s.y)};
    }
};

// Runs all channels over the first cells of the lines; h [blocks, N padded] goes on from where it was. Without y, it is
// all that is wanted.
ONCE void forward_cells(const ScanArguments& s, const Packed& p, const ScanLines& lines, int64_t cells, vfloat* h,
                   Scratch memory) {
    const int64_t pack = (cells * p.padded + LANES - 1) / LANES;
    const Steps steps(p, cells, memory);
    vfloat* y = memory.take(cells);
    float *B = (float*)memory.take(pack), *C = (float*)memory.take(pack);
    if (p.has_B) pack_states(s, p, lines.B, cells, B);
    if (p.has_C) pack_states(s, p, lines.C, cells, C);

    for (int64_t block = 0; block < p.blocks; ++block) {
        const int64_t c = block * LANES, lanes = s.channels - c;
        const Decay decay = find_steps<false>(s, p, block, lines.u, lines.delta, cells, steps);
        std::fill(y, y + cells, vfloat{});
        for (int64_t chunk = 0; chunk < p.chunks; ++chunk) {
            const int64_t at = chunk * cells * p.chunk, states = block * p.padded + chunk * p.chunk;
            if (chunk && p.is_geometric) raise_lowest(steps, cells, p.chunk);
            SweepArguments sweep{p.chunk};
            sweep.rates = p.is_geometric ? nullptr : &p.rates[states];
            sweep.dt = steps.dt, sweep.ratio = steps.ratio, sweep.lowest = steps.lowest, sweep.drive = steps.drive;
            sweep.B = B + at, sweep.C = C + at, sweep.y = y;
            const auto& loops = lines.y.first ? p.loops.read : p.loops.pass;
            loops[decay](sweep, cells, h + states);
        }
        if (!lines.y.first) continue;
        const vfloat skip = p.skip[block];
        for (int64_t t = 0; t < cells; ++t) {
            if (lines.gate.first) prefetch_ahead<false>(lines.gate, t, cells, c);
            prefetch_ahead<true>(lines.y, t, cells, c);
            vfloat v = y[t] + skip * load(lines.u.at(t) + c, lanes);
            if (lines.gate.first) v *= load(lines.gate.at(t) + c, lanes);
            store(lines.y.at(t) + c, v, lanes);
        }
    }
}

int64_t forward_scratch(const Packed& p, int64_t cells) {
    return Steps::size(p, cells) + cells + 2 * ((cells * p.padded + LANES - 1) / LANES);
}

void scan_lines(const ScanArguments& s, const Packed& p, int64_t first, int64_t count) {
    const int64_t length = s.direction.length(), states = p.blocks * p.padded;
    Scratch memory(forward_scratch(p, STRETCH) + count * states);
    vfloat* h = memory.take(count * states);
    std::fill(h, h + count * states, vfloat{});
    for (int64_t t = 0; t < length; t += STRETCH)
        for (int64_t i = 0; i < count; ++i)
            forward_cells(s, p, ScanLines::at(s, first + i, t), std::min(STRETCH, length - t), h + i * states, memory);
}

// The parameters of a pass besides those of its scan: taps by block, and the projection as [D, outputs padded], for the
// backward also by block.
struct PackedPass {
    int64_t vectors, outputs;
    std::vector<vfloat> taps, bias, projection, by_block;

    PackedPass(const PassArguments& a, const Packed& p, bool is_backward)
        : vectors((a.scan.rank + a.scan.states + 2 * LANES - 1) / (2 * LANES) * 2),
          outputs(a.scan.rank + a.scan.states),
          taps(p.blocks * a.taps),
          bias(p.blocks),
          projection(p.blocks * LANES * vectors),
          by_block(is_backward ? p.blocks * outputs : 0) {
        const int64_t channels = a.scan.channels;
        for (int64_t d = 0; d < channels; ++d) {
            for (int64_t k = 0; k < a.taps; ++k)
                taps[d / LANES * a.taps + k][d % LANES] = a.conv_weight[d * a.taps + k];
            bias[d / LANES][d % LANES] = a.conv_bias[d];
        }
        for (int64_t d = 0; d < channels; ++d)
            for (int64_t i = 0; i < outputs; ++i) {
                const float value = a.proj_weight[i * channels + d];
                projection[d * vectors + i / LANES][i % LANES] = value;
                if (is_backward) by_block[d / LANES * outputs + i][d % LANES] = value;
            }
    }
};

// Two vectors of outputs of the projection for CELLS cells, summed in registers.
template <int CELLS>
void project_tile(const vfloat* s, int64_t step, const vfloat* weight, int64_t vectors, int64_t channels,
                  vfloat* out) {
    vfloat left[CELLS] = {}, right[CELLS] = {};
    for (int64_t d = 0; d < channels; ++d, weight += vectors) {
        const float* value = (const float*)s + d;
#pragma GCC unroll 8
        for (int t = 0; t < CELLS; ++t) {
            left[t] += value[t * step * LANES] * weight[0];
            right[t] += value[t * step * LANES] * weight[1];
        }
    }
    for (int t = 0; t < CELLS; ++t) {
        out[t * vectors] = left[t];
        out[t * vectors + 1] = right[t];
    }
}

ONCE void project(const PackedPass& q, const vfloat* s, int64_t blocks, int64_t channels, int64_t cells, vfloat* out) {
    constexpr int MOST_CELLS = LANES == 16 ? 7 : 6;  // as registers allow
    for (int64_t v = 0; v < q.vectors; v += 2) {
        int64_t t = 0;
        for (; t + MOST_CELLS <= cells; t += MOST_CELLS)
            project_tile<MOST_CELLS>(s + t * blocks, blocks, &q.projection[v], q.vectors, channels,
                                     out + t * q.vectors + v);
        for (; t + 2 <= cells; t += 2)
            project_tile<2>(s + t * blocks, blocks, &q.projection[v], q.vectors, channels, out + t * q.vectors + v);
        if (t < cells)
            project_tile<1>(s + t * blocks, blocks, &q.projection[v], q.vectors, channels, out + t * q.vectors + v);
    }
}

// Runs all channels of a pass over cells of a line; h and y are as in forward_cells.
ONCE void pass_cells(const PassArguments& a, const Packed& p, const PackedPass& q, int64_t index, int64_t begin,
                int64_t cells, bool is_read, vfloat* h, Scratch memory) {
    const ScanArguments& s = a.scan;
    const Line x = s.direction.line(a.x, index);
    vfloat *u = memory.take(cells * p.blocks), *projected = memory.take(cells * q.vectors);
    vfloat* window = memory.take(cells + a.taps - 1);
    for (int64_t block = 0; block < p.blocks; ++block)
        convolve_cells(x, begin, cells, block * LANES, s.channels - block * LANES, &q.taps[block * a.taps], a.taps,
                       q.bias[block], window, [&](int64_t t, vfloat v) { u[t * p.blocks + block] = silu(v); });
    project(q, u, p.blocks, s.channels, cells, projected);
    ScanLines lines = ScanLines::at(s, index, begin);
    lines.u = {(float*)u, p.blocks * LANES};
    lines.delta = {(float*)projected, q.vectors * LANES};
    lines.B = lines.C = {lines.delta.first + s.rank, lines.delta.step};
    if (!is_read) lines.y = {nullptr, 0};
    forward_cells(s, p, lines, cells, h, memory);
}

int64_t pass_scratch(const PassArguments& a, const Packed& p, const PackedPass& q, int64_t cells) {
    return forward_scratch(p, cells) + cells * (p.blocks + q.vectors + 1) + a.taps - 1;
}

void pass_lines(const PassArguments& a, const Packed& p, const PackedPass& q, int64_t first, int64_t count) {
    const int64_t length = a.scan.direction.length(), states = p.blocks * p.padded;
    Scratch memory(pass_scratch(a, p, q, STRETCH) + count * states);
    vfloat* h = memory.take(count * states);
    std::fill(h, h + count * states, vfloat{});
    for (int64_t t = 0; t < length; t += STRETCH)
        for (int64_t i = 0; i < count; ++i)
            pass_cells(a, p, q, first + i, t, std::min(STRETCH, length - t), true, h + i * states, memory);
}

// Gradients of the parameters of a scan, by block, summed over the lines of a strip.
struct ScanSums {
    vfloat *dA, *dD;

    ScanSums(const Packed& p, Scratch& memory)
        : dA(memory.take(p.blocks * p.rates_per_channel())), dD(memory.take(p.blocks)) {
        std::fill(dA, dD + p.blocks, vfloat{});
    }
    static int64_t size(const Packed& p) { return p.blocks * (p.rates_per_channel() + 1); }
    static int64_t numbers(const ScanArguments& s) { return s.channels * ((s.is_geometric ? 1 : s.states) + 1); }

    float* write(const ScanArguments& s, const Packed& p, float* out) const {
        const int64_t given = s.is_geometric ? 1 : s.states;
        return unpack(dD, s.channels, 1, unpack(dA, s.channels, given, out, p.rates_per_channel()), 1);
    }
};

// Takes some lines forward, keeping the states before each stretch, then back from the last stretch to the first, by
// forward(line, begin, cells, h) and back(line, begin, cells, h, carry); h is that before the stretch, carry is a * dh of
// the cell after it. Both are null for lines of one stretch, where they would be zeros to write and read.
template <class Forward, class Back>
INLINE void forward_and_back(const Direction& d, const Packed& p, int64_t lines, Scratch& memory,
                             const Forward& forward, const Back& back) {
    const int64_t states = p.blocks * p.padded, count = stretches(d);
    if (count == 1) {
        for (int64_t i = 0; i < lines; ++i) back(i, 0, d.length(), nullptr, nullptr);
        return;
    }
    vfloat *h = memory.take(count * lines * states), *carry = memory.take(lines * states);
    std::fill(h, h + lines * states, vfloat{});
    std::fill(carry, carry + lines * states, vfloat{});
    for (int64_t k = 0; k + 1 < count; ++k)
        for (int64_t i = 0; i < lines; ++i) {
            const vfloat* before = h + (k * lines + i) * states;
            vfloat* after = h + ((k + 1) * lines + i) * states;
            std::copy_n(before, states, after);
            forward(i, k * STRETCH, STRETCH, after);
        }
    for (int64_t k = count - 1; k >= 0; --k)
        for (int64_t i = 0; i < lines; ++i)
            back(i, k * STRETCH, std::min(STRETCH, d.length() - k * STRETCH), h + (k * lines + i) * states,
                 carry + i * states);
}

int64_t forward_and_back_scratch(const Direction& d, const Packed& p) {
    return stretches(d) == 1 ? 0 : (stretches(d) + 1) * group(d) * p.blocks * p.padded;
}

// What the backward of some cells of a line reads, and its gradients of B and C per lane, [chunks, cells, CHUNK].
struct BackwardLine {
    Line u, delta, B, C, gate, grad, dgate;
    vfloat *dB, *dC;

    static BackwardLine at(const ScanArguments& s, int64_t index, int64_t begin) {
        const auto line = [&](const Map& map) { return s.direction.line(map, index).from(begin); };
        return {line(s.u),    line(s.delta), line(s.B), line(s.C), line(s.gate),
                line(s.grad), line(s.dgate), nullptr,   nullptr};
    }
};

int64_t backward_scratch(const Packed& p, int64_t cells) {
    return Steps::size(p, cells) + 4 * cells + 2 * (cells * p.padded / LANES + 1) + 2 * (cells * p.padded + LANES) +
           (2 * cells + 3) * p.chunk;
}

// Runs some cells of a line backwards and hands the gradients of u and of the step size before bias and softplus, by
// cell, to use(block, du, ddelta). h and carry [blocks, N padded] are those of forward_and_back.
template <class Use>
void backward_cells(const ScanArguments& s, const Packed& p, BackwardLine& line, int64_t cells, const vfloat* h,
                    vfloat* carry, const ScanSums& sums, Scratch memory, const Use& use) {
    const int64_t pack = cells * p.padded / LANES + 1;
    const Steps steps(p, cells, memory);
    vfloat *dy = memory.take(cells), *y = memory.take(cells), *ddt = memory.take(cells);
    vfloat* ddrive = memory.take(cells);
    float *B = (float*)memory.take(pack), *C = (float*)memory.take(pack);
    line.dB = memory.take(cells * p.padded + LANES), line.dC = memory.take(cells * p.padded + LANES);
    vfloat *start = memory.take(p.chunk), *own_carry = memory.take(p.chunk);
    SweepArguments sweep{p.chunk};
    sweep.dt = steps.dt, sweep.ratio = steps.ratio, sweep.lowest = steps.lowest, sweep.drive = steps.drive;
    sweep.y = y, sweep.decays = memory.take(cells * p.chunk), sweep.states = memory.take((cells + 1) * p.chunk);
    SweepBackArguments back{};
    back.dt = steps.dt, back.drive = steps.drive, back.dy = dy, back.ddt = ddt, back.ddrive = ddrive;
    back.decays = sweep.decays, back.states = sweep.states;
    // What all blocks of channels share: B and C are packed once, their gradients added up over the blocks.
    if (p.has_B) pack_states(s, p, line.B, cells, B), std::fill_n(line.dB, cells * p.padded, vfloat{});
    if (p.has_C) pack_states(s, p, line.C, cells, C), std::fill_n(line.dC, cells * p.padded, vfloat{});

    for (int64_t block = 0; block < p.blocks; ++block) {
        const int64_t c = block * LANES, lanes = s.channels - c;
        const Decay decay = find_steps<true>(s, p, block, line.u, line.delta, cells, steps);
        for (int64_t t = 0; t < cells; ++t) {
            prefetch_ahead<false>(line.grad, t, cells, c);
            vfloat slope = load(line.grad.at(t) + c, lanes);
            if (line.gate.first) {
                prefetch_ahead<false>(line.gate, t, cells, c);
                prefetch_ahead<true>(line.dgate, t, cells, c);
                slope *= load(line.gate.at(t) + c, lanes);
            }
            dy[t] = slope;
            y[t] = ddt[t] = ddrive[t] = vfloat{};
        }
        for (int64_t chunk = 0; chunk < p.chunks; ++chunk) {
            const int64_t at = chunk * cells * p.chunk, first = chunk * p.chunk, own = block * p.padded + first;
            if (chunk && p.is_geometric) raise_lowest(steps, cells, p.chunk);
            if (!p.is_geometric) sweep.rates = &p.rates[own];
            sweep.B = back.B = B + at, sweep.C = back.C = C + at;
            back.A = p.is_geometric ? &p.counts[first] : &p.A[own];
            back.dA = sums.dA + own, back.dB = line.dB + at, back.dC = line.dC + at;
            back.carry = carry ? carry + own : own_carry;
            if (!carry) std::fill(own_carry, own_carry + p.chunk, vfloat{});
            for (int64_t n = 0; n < p.chunk; ++n) start[n] = h ? h[own + n] : vfloat{};
            // The states and decays again, then the gradients while they are in the cache.
            p.loops.keep[decay](sweep, cells, start);
            p.loops.back[p.is_geometric](back, cells);
        }
        // All states are summed up by now: the rate, the drive dt * u, softplus, skip and gate, cell by cell.
        const vfloat skip = p.skip[block], rate = p.is_geometric ? p.A[block] : vfloat{};
        vfloat dD{}, dA{};
        for (int64_t t = 0; t < cells; ++t) {
            const vfloat x = load(line.u.at(t) + c, lanes);
            vfloat to_step = ddt[t];
            if (p.is_geometric) {
                dA += to_step * steps.dt[t];
                to_step *= rate;
            }
            to_step += ddrive[t] * x;
            ddt[t] = s.softplus ? to_step * steps.slope[t] : to_step;
            ddrive[t] = ddrive[t] * steps.dt[t] + skip * dy[t];
            dD += dy[t] * x;
            if (line.gate.first)
                store(line.dgate.at(t) + c, load(line.grad.at(t) + c, lanes) * (y[t] + skip * x), lanes);
        }
        sums.dD[block] += dD;
        if (p.is_geometric) sums.dA[block] += dA;
        use(block, ddrive, ddt);
    }
}

// Adds up a gradient of B or C over the lanes and hands it over number by number, to use(t, n, sum).
template <class Use>
INLINE void sum_states(const ScanArguments& s, const Packed& p, int64_t cells, vfloat* lanes, const Use& use) {
    const float* sums = sum_lanes(lanes, cells * p.padded);
    for (int64_t chunk = 0; chunk < p.chunks; ++chunk)
        for (int64_t t = 0; t < cells; ++t, sums += p.chunk)
            for (int64_t n = chunk * p.chunk; n < std::min(s.states, (chunk + 1) * p.chunk); ++n)
                use(t, n, sums[n - chunk * p.chunk]);
}

// Runs cells of a line backwards, from the gradients of the output to those of all maps.
void scan_backward_cells(const ScanArguments& s, const Packed& p, int64_t index, int64_t begin, int64_t cells,
                         const vfloat* h, vfloat* carry, const ScanSums& sums, Scratch memory) {
    const auto line_of = [&](const Map& map) { return s.direction.line(map, index).from(begin); };
    const Line du = line_of(s.du), ddelta = line_of(s.ddelta), dB = line_of(s.dB), dC = line_of(s.dC);
    BackwardLine line = BackwardLine::at(s, index, begin);
    backward_cells(s, p, line, cells, h, carry, sums, memory,
                   [&](int64_t block, const vfloat* x, const vfloat* slopes) {
                       const int64_t c = block * LANES, lanes = s.channels - c;
                       for (int64_t t = 0; t < cells; ++t) {
                           prefetch_ahead<true>(du, t, cells, c);
                           prefetch_ahead<true>(ddelta, t, cells, c);
                           store(du.at(t) + c, x[t], lanes);
                           store(ddelta.at(t) + c, slopes[t], lanes);
                       }
                   });
    if (dB.first) sum_states(s, p, cells, line.dB, [&](int64_t t, int64_t n, float sum) { dB.at(t)[n] = sum; });
    if (dC.first) sum_states(s, p, cells, line.dC, [&](int64_t t, int64_t n, float sum) { dC.at(t)[n] = sum; });
}

// Calls use(first, count) for the lines of a strip, as many at a time as go through a stretch in turns.
template <class Use>
INLINE void in_groups(const ScanArguments& s, int64_t strip, const Use& use) {
    const Direction& d = s.direction;
    const int64_t end = (strip + 1) * d.lines() / s.strips;
    for (int64_t i = strip * d.lines() / s.strips; i < end; i += group(d)) use(i, std::min(group(d), end - i));
}

void scan_backward_strip(const ScanArguments& s, const Packed& p, int64_t strip) {
    const Direction& d = s.direction;
    const int64_t cells = std::min(STRETCH, d.length());
    Scratch memory(std::max(backward_scratch(p, cells), forward_scratch(p, cells)) + ScanSums::size(p) +
                   forward_and_back_scratch(d, p));
    const ScanSums sums(p, memory);
    in_groups(s, strip, [&](int64_t first, int64_t lines) {
        Scratch own = memory;
        forward_and_back(
            d, p, lines, own,
            [&](int64_t i, int64_t begin, int64_t cells, vfloat* h) {
                ScanLines line = ScanLines::at(s, first + i, begin);
                line.y = {nullptr, 0};
                forward_cells(s, p, line, cells, h, own);
            },
            [&](int64_t i, int64_t begin, int64_t cells, const vfloat* h, vfloat* carry) {
                scan_backward_cells(s, p, first + i, begin, cells, h, carry, sums, own);
            });
    });
    sums.write(s, p, s.sums + strip * ScanSums::numbers(s));
}

// Gradients of the parameters that a pass has besides those of its scan.
struct PassSums {
    vfloat *taps, *bias, *projection, *delta_weight, *delta_bias;

    PassSums(const PassArguments& a, const Packed& p, const PackedPass& q, Scratch& memory)
        : taps(memory.take(p.blocks * a.taps)),
          bias(memory.take(p.blocks)),
          projection(memory.take(p.blocks * q.outputs)),
          delta_weight(memory.take(p.blocks * a.scan.rank)),
          delta_bias(memory.take(p.blocks)) {
        std::fill(taps, delta_bias + p.blocks, vfloat{});
    }
    static int64_t size(const PassArguments& a, const Packed& p, const PackedPass& q) {
        return p.blocks * (a.taps + 2 + q.outputs + a.scan.rank);
    }
    static int64_t numbers(const PassArguments& a, const PackedPass& q) {
        return a.scan.channels * (a.taps + 2 + q.outputs + a.scan.rank);
    }

    void write(const PassArguments& a, const PackedPass& q, float* out) const {
        const int64_t channels = a.scan.channels;
        out = unpack(taps, channels, a.taps, out, a.taps);
        out = unpack(bias, channels, 1, out, 1);
        out = unpack(projection, channels, q.outputs, out, q.outputs);
        out = unpack(delta_weight, channels, a.scan.rank, out, a.scan.rank);
        unpack(delta_bias, channels, 1, out, 1);
    }
};

// Gradients along some cells of a line, cell by cell and block by block: of the convolved input, the sigmoid that SiLU
// multiplied by, and the step sizes before bias and softplus.
struct PassCells {
    vfloat *u, *gates, *du, *ddelta, *window, *slopes;

    PassCells(const PassArguments& a, const Packed& p, int64_t cells, Scratch& memory)
        : u(memory.take(cells * p.blocks)),
          gates(memory.take(cells * p.blocks)),
          du(memory.take(cells * p.blocks)),
          ddelta(memory.take(cells * p.blocks)),
          window(memory.take(cells + a.taps - 1)),
          slopes(memory.take(cells + a.taps - 1)) {}
    static int64_t size(const PassArguments& a, const Packed& p, int64_t cells) {
        return 4 * cells * p.blocks + 2 * (cells + a.taps - 1);
    }
};

// Of one block, back through SiLU and the convolution to x. Cells reached some after them, so slopes after the last cell
// come from those that were taken back before, and the first ones are left there for the next.
ONCE void convolution_back(const PassArguments& a, const PackedPass& q, const PassSums& sums, int64_t block, Line x, Line dx,
                      int64_t begin, int64_t cells, const PassCells& m, int64_t blocks, vfloat* slopes_after) {
    const int64_t past = a.taps - 1, c = block * LANES, lanes = a.scan.channels - c;
    vfloat *window = m.window, *slopes = m.slopes, bias{};
    for (int64_t i = 0; i < past; ++i)
        window[i] = begin + i < past ? vfloat{} : load(x.at(begin + i - past) + c, lanes);
    for (int64_t t = 0; t < cells; ++t) {
        const vfloat gate = m.gates[t * blocks + block], out = m.u[t * blocks + block];
        window[past + t] = load(x.at(begin + t) + c, lanes);
        slopes[t] = m.du[t * blocks + block] * (gate + out * (1.0f - gate));
        bias += slopes[t];
    }
    sums.bias[block] += bias;
    std::copy_n(slopes_after, past, slopes + cells);
    std::copy_n(slopes, past, slopes_after);
    const vfloat* weight = &q.taps[block * a.taps];
    for (int64_t k = 0; k < a.taps; ++k) {
        vfloat sum{};
        for (int64_t t = 0; t < cells; ++t) sum += slopes[t] * window[t + k];
        sums.taps[block * a.taps + k] += sum;
    }
    for (int64_t t = 0; t < cells; ++t) {
        prefetch_ahead<true>(dx.from(begin), t, cells, c);
        vfloat v{};
        for (int64_t k = 0; k < a.taps; ++k) v += weight[k] * slopes[t + past - k];
        store(dx.at(begin + t) + c, v, lanes);
    }
}

int64_t pass_backward_scratch(const PassArguments& a, const Packed& p, const PackedPass& q, int64_t cells) {
    return backward_scratch(p, cells) + PassCells::size(a, p, cells) + cells * (q.vectors + a.scan.rank) + LANES +
           cells * q.outputs / LANES + 1;
}

// Runs cells of a line backwards, from the gradients of the output to those of x and of the gate.
void pass_backward_cells(const PassArguments& a, const Packed& p, const PackedPass& q, int64_t index, int64_t begin,
                         int64_t cells, const vfloat* h, vfloat* carry, vfloat* slopes_after,
                         const ScanSums& scan_sums, const PassSums& sums, Scratch memory) {
    const ScanArguments& s = a.scan;
    const int64_t rank = s.rank, blocks = p.blocks;
    const Line x = s.direction.line(a.x, index), dx = s.direction.line(a.dx, index);
    const PassCells m(a, p, cells, memory);
    vfloat *projected = memory.take(cells * q.vectors), *dlow = memory.take(cells * rank + LANES);
    float* dprojected = (float*)memory.take(cells * q.outputs / LANES + 1);
    const Line low{(float*)projected, q.vectors * LANES}, projection_grad{dprojected, q.outputs};
    // The forward up to the scan, again.
    for (int64_t block = 0; block < blocks; ++block)
        convolve_cells(x, begin, cells, block * LANES, s.channels - block * LANES, &q.taps[block * a.taps], a.taps,
                       q.bias[block], m.window, [&](int64_t t, vfloat v) {
                           const vfloat gate = sigmoid(v);
                           m.gates[t * blocks + block] = gate;
                           m.u[t * blocks + block] = silu(v, gate);
                       });
    project(q, m.u, blocks, s.channels, cells, projected);

    BackwardLine line = BackwardLine::at(s, index, begin);
    line.u = {(float*)m.u, blocks * LANES}, line.delta = low;
    line.B = line.C = {low.first + rank, low.step};
    backward_cells(s, p, line, cells, h, carry, scan_sums, memory,
                   [&](int64_t block, const vfloat* x_grad, const vfloat* slope) {
                       for (int64_t t = 0; t < cells; ++t) {
                           m.du[t * blocks + block] = x_grad[t];
                           m.ddelta[t * blocks + block] = slope[t];
                       }
                   });

    // The gradients of what was projected, cell by cell: of the low-rank steps, then of B or C.
    sum_products(m.ddelta, blocks, p.weight.data(), rank, cells, dlow);
    const float* low_grad = sum_lanes(dlow, cells * rank);
    for (int64_t t = 0; t < cells; ++t)
        for (int64_t r = 0; r < rank; ++r) projection_grad.at(t)[r] = *low_grad++;
    sum_states(s, p, cells, p.has_B ? line.dB : line.dC,
               [&](int64_t t, int64_t n, float sum) { projection_grad.at(t)[rank + n] = sum; });

    // Back through the projections and the convolution, to their weights and to x.
    for (int64_t block = 0; block < blocks; ++block) {
        const vfloat* ddelta = m.ddelta + block;
        vfloat bias{};
        for (int64_t t = 0; t < cells; ++t) bias += ddelta[t * blocks];
        sums.delta_bias[block] += bias;
        add_outer(ddelta, blocks, low, rank, cells, sums.delta_weight + block * rank);
        add_outer(m.u + block, blocks, projection_grad, q.outputs, cells, sums.projection + block * q.outputs);
        add_products(projection_grad, &q.by_block[block * q.outputs], q.outputs, cells, m.du + block, blocks);
        convolution_back(a, q, sums, block, x, dx, begin, cells, m, blocks, slopes_after + block * (a.taps - 1));
    }
}

void pass_backward_strip(const PassArguments& a, const Packed& p, const PackedPass& q, int64_t strip) {
    const ScanArguments& s = a.scan;
    const Direction& d = s.direction;
    const int64_t cells = std::min(STRETCH, d.length()), slopes = p.blocks * (a.taps - 1);
    Scratch memory(std::max(pass_backward_scratch(a, p, q, cells), pass_scratch(a, p, q, cells)) +
                   ScanSums::size(p) + PassSums::size(a, p, q) + forward_and_back_scratch(d, p) + group(d) * slopes);
    const ScanSums scan_sums(p, memory);
    const PassSums sums(a, p, q, memory);
    in_groups(s, strip, [&](int64_t first, int64_t lines) {
        Scratch own = memory;
        vfloat* slopes_after = own.take(lines * slopes);
        std::fill(slopes_after, slopes_after + lines * slopes, vfloat{});
        forward_and_back(
            d, p, lines, own,
            [&](int64_t i, int64_t begin, int64_t cells, vfloat* h) {
                pass_cells(a, p, q, first + i, begin, cells, false, h, own);
            },
            [&](int64_t i, int64_t begin, int64_t cells, const vfloat* h, vfloat* carry) {
                pass_backward_cells(a, p, q, first + i, begin, cells, h, carry, slopes_after + i * slopes, scan_sums,
                                    sums, own);
            });
    });
    float* out = s.sums + strip * (ScanSums::numbers(s) + PassSums::numbers(a, q));
    sums.write(a, q, scan_sums.write(s, p, out));
}

int64_t cost(const ScanArguments& s, const Packed& p) {
    return s.direction.lines() * s.direction.length() * p.blocks * (s.states + 4);
}

// A part of a forward is a group of lines, of a backward a strip.
int64_t groups(const Direction& d) { return (d.lines() + group(d) - 1) / group(d); }

}  // namespace

EXPORT void v2m_scan_forward(const ScanArguments* s) {
    const Packed p(*s, s->B.data, s->C.data);
    const Direction& d = s->direction;
    run({s->parallel, s->threads}, groups(d), cost(*s, p), [&](int64_t i) {
        scan_lines(*s, p, i * group(d), std::min(group(d), d.lines() - i * group(d)));
    });
}

EXPORT void v2m_scan_backward(const ScanArguments* s) {
    const Packed p(*s, s->B.data, s->C.data);
    run({s->parallel, s->threads}, s->strips, 3 * cost(*s, p), [&](int64_t i) { scan_backward_strip(*s, p, i); });
}

EXPORT void v2m_pass_forward(const PassArguments* a) {
    const ScanArguments& s = a->scan;
    const Packed p(s, a->projects_B, !a->projects_B);
    const PackedPass q(*a, p, false);
    const Direction& d = s.direction;
    run({s.parallel, s.threads}, groups(d), 2 * cost(s, p), [&](int64_t i) {
        pass_lines(*a, p, q, i * group(d), std::min(group(d), d.lines() - i * group(d)));
    });
}

EXPORT void v2m_pass_backward(const PassArguments* a) {
    const ScanArguments& s = a->scan;
    const Packed p(s, a->projects_B, !a->projects_B);
    const PackedPass q(*a, p, true);
    run({s.parallel, s.threads}, s.strips, 4 * cost(s, p), [&](int64_t i) { pass_backward_strip(*a, p, q, i); });
}
