// The selective scan along the rows or columns of a map, the directional pass around it (convolution and projection
// before it, while a line is in the cache), and the gradients of both.
//
// Shapes: L cells of a line, D channels, N states, R rank of the step size, K taps. A block is LANES channels, one per
// lane; the states of a block are handled CHUNK at a time, CHUNK a constant so that they stay in registers. States
// beyond N have the rate of the first, since 0 times an infinite step is no number, and B and C zero.
#include "vector.h"

extern "C" {

struct ScanArguments {
    Direction direction;
    int32_t softplus, has_low_rank;
    int64_t channels, states, rank;
    Map u, delta, B, C, gate;                  // delta: [.., D], or [.., R] if has_low_rank
    float *A, *D, *delta_weight, *delta_bias;  // [D, N], [D], [D, R], [D]
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

constexpr int64_t STRETCH = 64;  // cells that the forward takes through all channels at once
constexpr int64_t SEGMENT = 32;  // cells between two kept states of the backward

int chunk_for(int64_t states) { return states == 1 ? 1 : states <= 4 ? 4 : states <= 8 ? 8 : 16; }

// The inner loops, sweep and sweep_back, for one CHUNK and for whether B and C are given. The first three are pairs:
// for exponents in and out of the range of exp4_product.
struct Loops {
    using Sweep = void (*)(int64_t begin, int64_t end, const vfloat* rates, const vfloat* dt, const vfloat* drive,
                           const float* B, const float* C, vfloat* h, vfloat* y, vfloat* decays, vfloat* states);
    using SweepBack = void (*)(int64_t begin, int64_t end, const vfloat* A, const vfloat* dt, const vfloat* drive,
                               const float* B, const float* C, const vfloat* decays, const vfloat* states,
                               const vfloat* dy, vfloat* carry, vfloat* dA, vfloat* ddt, vfloat* ddrive, vfloat* dB,
                               vfloat* dC);
    Sweep read[2], pass[2], keep[2];
    SweepBack back;
};

Loops loops_for(int64_t states, bool has_B, bool has_C);

// Parameters laid out by block, in the order in which the loops read them.
struct Packed {
    int64_t blocks, chunks, chunk;
    bool has_B, has_C;  // both also where neither is given
    Loops loops;
    std::vector<vfloat> A, rates, largest, weight, bias, skip;  // rates are A to the base of exp4_product

    Packed(const ScanArguments& s, bool is_B_given, bool is_C_given)
        : blocks((s.channels + LANES - 1) / LANES),
          chunks((s.states + chunk_for(s.states) - 1) / chunk_for(s.states)),
          chunk(chunk_for(s.states)),
          has_B(is_B_given || !is_C_given),
          has_C(is_C_given || !is_B_given),
          loops(loops_for(s.states, has_B, has_C)),
          A(blocks * chunks * chunk),
          rates(A.size()),
          largest(blocks),
          weight(s.has_low_rank ? blocks * s.rank : 0),
          bias(blocks),
          skip(blocks) {
        const int64_t padded = chunks * chunk;
        for (int64_t d = 0; d < s.channels; ++d) {
            const int64_t block = d / LANES, lane = d % LANES;
            for (int64_t n = 0; n < s.states; ++n) {
                const float rate = s.A[d * s.states + n] * LOG4_E;
                A[block * padded + n][lane] = s.A[d * s.states + n];
                rates[block * padded + n][lane] = rate;
                const float size = rate < 0 ? -rate : rate;
                if (size > largest[block][lane]) largest[block][lane] = size;
            }
            for (int64_t n = s.states; n < padded; ++n)
                rates[block * padded + n][lane] = rates[block * padded][lane];
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
};

// B or C of some cells as [chunks, cells, CHUNK], with zeros beyond N; ones where the argument is the constant 1.
void pack_states(const ScanArguments& s, const Packed& p, Line line, int64_t cells, float* packed) {
    for (int64_t chunk = 0; chunk < p.chunks; ++chunk) {
        const int64_t first = chunk * p.chunk, count = std::min(p.chunk, s.states - first);
        for (int64_t t = 0; t < cells; ++t, packed += p.chunk) {
            for (int64_t n = 0; n < count; ++n) packed[n] = line.first ? line.at(t)[first + n] : 1.0f;
            for (int64_t n = count; n < p.chunk; ++n) packed[n] = 0.0f;
        }
    }
}

// The product of a low-rank delta with its matrix, CELLS cells at a time so that the matrix is read less often.
template <int CELLS>
INLINE void expand(Line delta, const vfloat* weight, int64_t rank, vfloat bias, vfloat* raw) {
    vfloat x[CELLS];
    for (int t = 0; t < CELLS; ++t) x[t] = bias;
    for (int64_t r = 0; r < rank; ++r)
        for (int t = 0; t < CELLS; ++t) x[t] += weight[r] * delta.at(t)[r];
    for (int t = 0; t < CELLS; ++t) raw[t] = x[t];
}

// Step sizes of one block of some cells, before (raw) and after softplus, and dt * u. Returns whether an exponent may
// be too large for exp4_product.
bool step_sizes(const ScanArguments& s, const Packed& p, int64_t block, Line u, Line delta, int64_t cells, vfloat* raw,
                vfloat* dt, vfloat* drive) {
    const int64_t c = block * LANES, lanes = s.channels - c;
    if (s.has_low_rank) {
        const vfloat* weight = &p.weight[block * s.rank];
        int64_t t = 0;
        for (; t + 4 <= cells; t += 4) expand<4>(delta.from(t), weight, s.rank, p.bias[block], raw + t);
        for (; t < cells; ++t) expand<1>(delta.from(t), weight, s.rank, p.bias[block], raw + t);
    } else {
        for (int64_t t = 0; t < cells; ++t) raw[t] = p.bias[block] + load(delta.at(t) + c, lanes);
    }
    vfloat longest{};
    for (int64_t t = 0; t < cells; ++t) {
        dt[t] = s.softplus ? softplus(raw[t]) : raw[t];
        drive[t] = dt[t] * load(u.at(t) + c, lanes);
        longest = maximum(magnitude(dt[t]), longest);  // leaves out NaN, which exp4_product hands on
    }
    const vfloat exponent = longest * p.largest[block];
    return any(~(exponent < LARGEST_EXPONENT));
}

// Adds up over the channels what is kept per lane.
void sum_lanes(const vfloat* lanes, int64_t count, float* out) {
    for (int64_t i = 0; i < count; ++i) out[i] = sum(lanes[i]);
}

// Writes rows of numbers by channel, kept as [blocks, stride], as [D, width]; returns the end.
float* unpack(const vfloat* packed, int64_t channels, int64_t width, float* out, int64_t stride) {
    for (int64_t d = 0; d < channels; ++d) {
        const float* row = (const float*)(packed + d / LANES * stride) + d % LANES;
        for (int64_t i = 0; i < width; ++i) *out++ = row[i * LANES];
    }
    return out;
}

// Runs the states of a chunk over cells [begin, end) and updates h. With READ, y gets <C, h> added. With KEEP, the
// decays and the states before and after every cell are kept for the way back.
template <int CHUNK, bool HAS_B, bool HAS_C, bool IS_LARGE, bool READ, bool KEEP>
void sweep(int64_t begin, int64_t end, const vfloat* rates, const vfloat* dt, const vfloat* drive, const float* B,
           const float* C, vfloat* h_memory, vfloat* y, vfloat* decays, vfloat* states) {
    vfloat h[CHUNK];
    for (int n = 0; n < CHUNK; ++n) h[n] = h_memory[n];
    if (KEEP)
        for (int n = 0; n < CHUNK; ++n) states[n] = h[n];
    for (int64_t t = begin; t < end; ++t) {
        const vfloat step = dt[t], input = drive[t];
        const float *b = B + t * CHUNK, *c = C + t * CHUNK;
        vfloat even{}, odd{};
#pragma GCC unroll 16
        for (int n = 0; n < CHUNK; ++n) {
            const vfloat a = decay<IS_LARGE>(rates[n], step);
            h[n] = a * h[n] + (HAS_B ? input * b[n] : input);
            if (READ) (n % 2 ? odd : even) += HAS_C ? h[n] * c[n] : h[n];
            if (KEEP) {
                decays[(t - begin) * CHUNK + n] = a;
                states[(t - begin + 1) * CHUNK + n] = h[n];
            }
        }
        if (READ) y[t] += even + odd;
    }
    for (int n = 0; n < CHUNK; ++n) h_memory[n] = h[n];
}

// Gradients of what sweep<KEEP> computed, from the last cell to the first. carry holds a * dh of the cell after.
template <int CHUNK, bool HAS_B, bool HAS_C>
void sweep_back(int64_t begin, int64_t end, const vfloat* A, const vfloat* dt, const vfloat* drive,
                const float* B, const float* C, const vfloat* decays, const vfloat* states, const vfloat* dy,
                vfloat* carry_memory, vfloat* dA, vfloat* ddt, vfloat* ddrive, vfloat* dB, vfloat* dC) {
    vfloat carry[CHUNK];
    for (int n = 0; n < CHUNK; ++n) carry[n] = carry_memory[n];
    for (int64_t t = end - 1; t >= begin; --t) {
        const float *b = B + t * CHUNK, *c = C + t * CHUNK;
        const vfloat *a = decays + (t - begin) * CHUNK, *before = states + (t - begin) * CHUNK;
        const vfloat *after = before + CHUNK, step = dt[t], input = drive[t], grad = dy[t];
        vfloat to_step{}, to_drive{};
#pragma GCC unroll 16
        for (int n = 0; n < CHUNK; ++n) {
            const vfloat dh = carry[n] + (HAS_C ? grad * c[n] : grad);
            if (HAS_C) dC[t * CHUNK + n] += grad * after[n];
            if (HAS_B) dB[t * CHUNK + n] += dh * input;
            to_drive += HAS_B ? dh * b[n] : dh;
            const vfloat slope = dh * before[n] * a[n];  // in this order, as a state before the first cell is 0
            carry[n] = dh * a[n];
            to_step += slope * A[n];
            dA[n] += slope * step;
        }
        ddt[t] += to_step;
        ddrive[t] += to_drive;
    }
    for (int n = 0; n < CHUNK; ++n) carry_memory[n] = carry[n];
}

template <int CHUNK, bool HAS_B, bool HAS_C>
constexpr Loops LOOPS{
    {sweep<CHUNK, HAS_B, HAS_C, false, true, false>, sweep<CHUNK, HAS_B, HAS_C, true, true, false>},
    {sweep<CHUNK, HAS_B, HAS_C, false, false, false>, sweep<CHUNK, HAS_B, HAS_C, true, false, false>},
    {sweep<CHUNK, HAS_B, HAS_C, false, true, true>, sweep<CHUNK, HAS_B, HAS_C, true, true, true>},
    sweep_back<CHUNK, HAS_B, HAS_C>,
};

template <int CHUNK>
Loops loops_for_chunk(bool has_B, bool has_C) {
    return has_B && has_C ? LOOPS<CHUNK, true, true> : has_B ? LOOPS<CHUNK, true, false> : LOOPS<CHUNK, false, true>;
}

Loops loops_for(int64_t states, bool has_B, bool has_C) {
    switch (chunk_for(states)) {
        case 1: return loops_for_chunk<1>(has_B, has_C);
        case 4: return loops_for_chunk<4>(has_B, has_C);
        case 8: return loops_for_chunk<8>(has_B, has_C);
        default: return loops_for_chunk<16>(has_B, has_C);
    }
}

// What a scan reads and writes along one line, or from some cell of it on.
struct ScanLines {
    Line u, delta, B, C, gate, y;
    ScanLines from(int64_t t) const {
        return {u.from(t), delta.from(t), B.from(t), C.from(t), gate.from(t), y.from(t)};
    }
};

// Runs all channels over the first cells of the lines; h [blocks, N padded] goes on from where it was.
void forward_cells(const ScanArguments& s, const Packed& p, const ScanLines& lines, int64_t cells, vfloat* h,
                   Scratch memory) {
    const int64_t padded = p.chunks * p.chunk, pack = (cells * padded + LANES - 1) / LANES;
    vfloat *dt = memory.take(cells), *drive = memory.take(cells), *y = memory.take(cells);
    float *B = (float*)memory.take(pack), *C = (float*)memory.take(pack);
    if (p.has_B) pack_states(s, p, lines.B, cells, B);
    if (p.has_C) pack_states(s, p, lines.C, cells, C);

    for (int64_t block = 0; block < p.blocks; ++block) {
        const int64_t c = block * LANES, lanes = s.channels - c;
        for (int64_t t = 0; t < cells; ++t) {  // in time for the end of this round
            if (lines.gate.first) __builtin_prefetch(lines.gate.at(t) + c);
            __builtin_prefetch(lines.y.at(t) + c, 1);
        }
        const bool is_large = step_sizes(s, p, block, lines.u, lines.delta, cells, y, dt, drive);
        std::fill(y, y + cells, vfloat{});
        for (int64_t chunk = 0; chunk < p.chunks; ++chunk) {
            const int64_t at = chunk * cells * p.chunk, states = block * padded + chunk * p.chunk;
            p.loops.read[is_large](0, cells, &p.rates[states], dt, drive, B + at, C + at, h + states, y, nullptr,
                                   nullptr);
        }
        for (int64_t t = 0; t < cells; ++t) {
            vfloat v = y[t];
            if (s.D) v += p.skip[block] * load(lines.u.at(t) + c, lanes);
            if (lines.gate.first) v *= load(lines.gate.at(t) + c, lanes);
            store(lines.y.at(t) + c, v, lanes);
        }
    }
}

int64_t forward_scratch(const Packed& p, int64_t cells) {
    const int64_t padded = p.chunks * p.chunk;
    return 3 * cells + 2 * (cells * padded + LANES - 1) / LANES + 2 + p.blocks * padded;
}

void scan_line(const ScanArguments& s, const Packed& p, int64_t index) {
    const Direction& d = s.direction;
    const ScanLines lines{d.line(s.u, index), d.line(s.delta, index), d.line(s.B, index),
                          d.line(s.C, index), d.line(s.gate, index),  d.line(s.y, index)};
    Scratch memory(forward_scratch(p, STRETCH));
    vfloat* h = memory.take(p.blocks * p.chunks * p.chunk);
    std::fill(h, h + p.blocks * p.chunks * p.chunk, vfloat{});
    for (int64_t t = 0; t < d.length(); t += STRETCH)
        forward_cells(s, p, lines.from(t), std::min(STRETCH, d.length() - t), h, memory);
}

// The parameters of a pass besides those of its scan: taps by block, and the projection both as [D, outputs padded] and
// by block.
struct PackedPass {
    int64_t vectors, outputs;
    std::vector<vfloat> taps, bias, projection, by_block;

    PackedPass(const PassArguments& a, const Packed& p)
        : vectors((a.scan.rank + a.scan.states + 2 * LANES - 1) / (2 * LANES) * 2),
          outputs(a.scan.rank + a.scan.states),
          taps(p.blocks * a.taps),
          bias(p.blocks),
          projection(p.blocks * LANES * vectors),
          by_block(p.blocks * outputs) {
        const int64_t channels = a.scan.channels;
        for (int64_t d = 0; d < channels; ++d) {
            for (int64_t k = 0; k < a.taps; ++k)
                taps[d / LANES * a.taps + k][d % LANES] = a.conv_weight[d * a.taps + k];
            bias[d / LANES][d % LANES] = a.conv_bias[d];
        }
        for (int64_t i = 0; i < outputs; ++i)
            for (int64_t d = 0; d < channels; ++d) {
                const float value = a.proj_weight[i * channels + d];
                projection[d * vectors + i / LANES][i % LANES] = value;
                by_block[d / LANES * outputs + i][d % LANES] = value;
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

void project(const PackedPass& q, const vfloat* s, int64_t blocks, int64_t channels, int64_t cells, vfloat* out) {
    for (int64_t v = 0; v < q.vectors; v += 2) {
        int64_t t = 0;
        for (; t + 6 <= cells; t += 6)
            project_tile<6>(s + t * blocks, blocks, &q.projection[v], q.vectors, channels, out + t * q.vectors + v);
        for (; t + 2 <= cells; t += 2)
            project_tile<2>(s + t * blocks, blocks, &q.projection[v], q.vectors, channels, out + t * q.vectors + v);
        if (t < cells)
            project_tile<1>(s + t * blocks, blocks, &q.projection[v], q.vectors, channels, out + t * q.vectors + v);
    }
}

// Gradients of the projection for one block: of its input, added to du, and of its matrix.
template <int CELLS>
INLINE void project_back(const float* dprojected, int64_t outputs, const vfloat* weight, const vfloat* u, vfloat* du,
                         int64_t step, vfloat* dweight) {
    vfloat grad[CELLS];
    for (int t = 0; t < CELLS; ++t) grad[t] = du[t * step];
    for (int64_t j = 0; j < outputs; ++j)
        for (int t = 0; t < CELLS; ++t) {
            const float slope = dprojected[t * outputs + j];
            grad[t] += weight[j] * slope;
            dweight[j] += u[t * step] * slope;
        }
    for (int t = 0; t < CELLS; ++t) du[t * step] = grad[t];
}

void pass_line(const PassArguments& a, const Packed& p, const PackedPass& q, int64_t index) {
    const ScanArguments& s = a.scan;
    const Direction& d = s.direction;
    const Line x = d.line(a.x, index), gate = d.line(s.gate, index), y = d.line(s.y, index);
    const int64_t past = a.taps - 1, states = p.blocks * p.chunks * p.chunk;
    Scratch memory(forward_scratch(p, STRETCH) + STRETCH * (p.blocks + q.vectors) + STRETCH + past);
    vfloat *h = memory.take(states), *u = memory.take(STRETCH * p.blocks);
    vfloat *projected = memory.take(STRETCH * q.vectors), *window = memory.take(STRETCH + past);
    std::fill(h, h + states, vfloat{});
    const Line low{(float*)projected, q.vectors * LANES}, selected{low.first + s.rank, low.step};
    for (int64_t begin = 0; begin < d.length(); begin += STRETCH) {
        const int64_t cells = std::min(STRETCH, d.length() - begin);
        for (int64_t block = 0; block < p.blocks; ++block)
            convolve_cells(x, begin, cells, block * LANES, s.channels - block * LANES, &q.taps[block * a.taps], a.taps,
                           q.bias[block], window,
                           [&](int64_t t, vfloat v) { u[t * p.blocks + block] = silu(v); });
        project(q, u, p.blocks, s.channels, cells, projected);
        const Line input{(float*)u, p.blocks * LANES};
        const ScanLines lines{input, low, selected, selected, gate.from(begin), y.from(begin)};
        forward_cells(s, p, lines, cells, h, memory);
    }
}

// Gradients of the parameters of a scan, by block, summed over the lines of a strip.
struct ScanSums {
    vfloat *dA, *dD;

    ScanSums(const Packed& p, Scratch& memory)
        : dA(memory.take(p.blocks * p.chunks * p.chunk)), dD(memory.take(p.blocks)) {
        std::fill(dA, dD + p.blocks, vfloat{});
    }
    static int64_t size(const Packed& p) { return p.blocks * (p.chunks * p.chunk + 1); }

    float* write(const ScanArguments& s, const Packed& p, float* out) const {
        return unpack(dD, s.channels, 1, unpack(dA, s.channels, s.states, out, p.chunks * p.chunk), 1);
    }
};

// What the backward of one line reads, and its gradients of B and C per lane, [chunks, L, CHUNK].
struct BackwardLine {
    Line u, delta, B, C, gate, grad, dgate;
    vfloat *dB, *dC;
};

int64_t backward_scratch(const Packed& p, int64_t length) {
    const int64_t padded = p.chunks * p.chunk, kept = std::min(length, SEGMENT);
    return 7 * length + 2 * (length * padded / LANES + 1) + 2 * length * padded +
           (length / SEGMENT + 2 * kept + 3) * p.chunk;
}

// Runs one line backwards and hands the gradients of u and of the step size before bias and softplus, by cell, to
// use(block, du, ddelta).
template <class Use>
void backward_line(const ScanArguments& s, const Packed& p, BackwardLine& line, const ScanSums& sums, Scratch memory,
                   const Use& use) {
    const int64_t length = s.direction.length(), padded = p.chunks * p.chunk, pack = length * padded / LANES + 1;
    const int64_t segments = (length + SEGMENT - 1) / SEGMENT, kept = std::min(length, SEGMENT);
    vfloat *raw = memory.take(length), *dt = memory.take(length), *drive = memory.take(length);
    vfloat *y = memory.take(length), *dy = memory.take(length), *ddt = memory.take(length);
    vfloat* ddrive = memory.take(length);
    float *B = (float*)memory.take(pack), *C = (float*)memory.take(pack);
    line.dB = memory.take(length * padded), line.dC = memory.take(length * padded);
    vfloat *starts = memory.take(segments * p.chunk), *decays = memory.take(kept * p.chunk);
    vfloat *states = memory.take((kept + 1) * p.chunk), *carry = memory.take(p.chunk);
    // What all blocks of channels share: B and C are packed once, their gradients added up over the blocks.
    if (p.has_B) pack_states(s, p, line.B, length, B);
    if (p.has_C) pack_states(s, p, line.C, length, C);
    std::fill(line.dB, line.dC + length * padded, vfloat{});

    for (int64_t block = 0; block < p.blocks; ++block) {
        const int64_t c = block * LANES, lanes = s.channels - c;
        const bool is_large = step_sizes(s, p, block, line.u, line.delta, length, raw, dt, drive);
        for (int64_t t = 0; t < length; ++t) {
            dy[t] = load(line.grad.at(t) + c, lanes);
            if (line.gate.first) dy[t] *= load(line.gate.at(t) + c, lanes);
            y[t] = ddt[t] = ddrive[t] = vfloat{};
        }
        for (int64_t chunk = 0; chunk < p.chunks; ++chunk) {
            const int64_t at = chunk * length * p.chunk, states_at = block * padded + chunk * p.chunk;
            const vfloat* rates = &p.rates[states_at];
            // Forward through all segments but the last, keeping the states between them.
            std::fill(starts, starts + p.chunk, vfloat{});
            for (int64_t i = 1; i < segments; ++i) {
                std::copy_n(starts + (i - 1) * p.chunk, p.chunk, starts + i * p.chunk);
                p.loops.pass[is_large]((i - 1) * SEGMENT, i * SEGMENT, rates, dt, drive, B + at, C + at,
                                       starts + i * p.chunk, nullptr, nullptr, nullptr);
            }
            // From the last segment to the first: its states and decays again, then its gradients while they are
            // in the cache.
            std::fill(carry, carry + p.chunk, vfloat{});
            for (int64_t i = segments - 1; i >= 0; --i) {
                const int64_t begin = i * SEGMENT, end = std::min(length, begin + SEGMENT);
                p.loops.keep[is_large](begin, end, rates, dt, drive, B + at, C + at, starts + i * p.chunk, y, decays,
                                       states);
                p.loops.back(begin, end, &p.A[states_at], dt, drive, B + at, C + at, decays, states, dy, carry,
                             sums.dA + states_at, ddt, ddrive, line.dB + at, line.dC + at);
            }
        }
        // All states are summed up by now: the drive dt * u, softplus, skip and gate, cell by cell.
        for (int64_t t = 0; t < length; ++t) {
            const vfloat x = load(line.u.at(t) + c, lanes);
            ddt[t] += ddrive[t] * x;
            if (s.softplus) ddt[t] *= sigmoid(raw[t]);
            ddrive[t] = ddrive[t] * dt[t] + p.skip[block] * dy[t];
            sums.dD[block] += dy[t] * x;
            if (line.gate.first)
                store(line.dgate.at(t) + c, load(line.grad.at(t) + c, lanes) * (y[t] + p.skip[block] * x), lanes);
        }
        use(block, ddrive, ddt);
    }
}

// Writes a gradient of B or C, kept per lane, to a map.
void write_states(const ScanArguments& s, const Packed& p, const vfloat* lanes, Line out) {
    if (!out.first) return;
    for (int64_t chunk = 0; chunk < p.chunks; ++chunk) {
        const int64_t first = chunk * p.chunk, count = std::min(p.chunk, s.states - first);
        for (int64_t t = 0; t < s.direction.length(); ++t, lanes += p.chunk) sum_lanes(lanes, count, out.at(t) + first);
    }
}

void scan_backward_strip(const ScanArguments& s, const Packed& p, int64_t strip) {
    const Direction& d = s.direction;
    Scratch memory(backward_scratch(p, d.length()) + ScanSums::size(p));
    const ScanSums sums(p, memory);
    for (int64_t i = strip * d.lines() / s.strips; i < (strip + 1) * d.lines() / s.strips; ++i) {
        const Line du = d.line(s.du, i), ddelta = d.line(s.ddelta, i);
        BackwardLine line{d.line(s.u, i),    d.line(s.delta, i), d.line(s.B, i),     d.line(s.C, i), d.line(s.gate, i),
                          d.line(s.grad, i), d.line(s.dgate, i), nullptr, nullptr};
        backward_line(s, p, line, sums, memory, [&](int64_t block, const vfloat* x, const vfloat* slopes) {
            const int64_t c = block * LANES, lanes = s.channels - c;
            for (int64_t t = 0; t < d.length(); ++t) {
                store(du.at(t) + c, x[t], lanes);
                store(ddelta.at(t) + c, slopes[t], lanes);
            }
        });
        if (p.has_B) write_states(s, p, line.dB, d.line(s.dB, i));
        if (p.has_C) write_states(s, p, line.dC, d.line(s.dC, i));
    }
    sums.write(s, p, s.sums + strip * s.channels * (s.states + 1));
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

    void write(const PassArguments& a, const PackedPass& q, float* out) const {
        const int64_t channels = a.scan.channels;
        out = unpack(taps, channels, a.taps, out, a.taps);
        out = unpack(bias, channels, 1, out, 1);
        out = unpack(projection, channels, q.outputs, out, q.outputs);
        out = unpack(delta_weight, channels, a.scan.rank, out, a.scan.rank);
        unpack(delta_bias, channels, 1, out, 1);
    }
};

void pass_backward_strip(const PassArguments& a, const Packed& p, const PackedPass& q, int64_t strip) {
    const ScanArguments& s = a.scan;
    const Direction& d = s.direction;
    const int64_t length = d.length(), past = a.taps - 1, rank = s.rank;
    Scratch memory(backward_scratch(p, length) + ScanSums::size(p) + PassSums::size(a, p, q) +
                   length * (2 * p.blocks + q.vectors + rank + 3) + 2 * past + length * q.outputs / LANES + 1);
    const ScanSums scan_sums(p, memory);
    const PassSums sums(a, p, q, memory);
    vfloat *u = memory.take(length * p.blocks), *du = memory.take(length * p.blocks);
    vfloat *projected = memory.take(length * q.vectors), *dlow = memory.take(length * rank);
    vfloat *window = memory.take(length + past), *slopes = memory.take(length + past);
    float* dprojected = (float*)memory.take(length * q.outputs / LANES + 1);
    const Line low{(float*)projected, q.vectors * LANES}, selected = Line{low.first + rank, low.step};
    std::fill(slopes + length, slopes + length + past, vfloat{});

    for (int64_t i = strip * d.lines() / s.strips; i < (strip + 1) * d.lines() / s.strips; ++i) {
        const Line x = d.line(a.x, i), dx = d.line(a.dx, i), gate = d.line(s.gate, i), grad = d.line(s.grad, i);
        prefetch(x, length, s.channels);
        prefetch(gate, length, s.channels);
        prefetch(grad, length, s.channels);
        // The forward up to the scan, again.
        for (int64_t block = 0; block < p.blocks; ++block)
            convolve_cells(x, 0, length, block * LANES, s.channels - block * LANES, &q.taps[block * a.taps], a.taps,
                           q.bias[block], window,
                           [&](int64_t t, vfloat v) { u[t * p.blocks + block] = silu(v); });
        project(q, u, p.blocks, s.channels, length, projected);
        std::fill(dlow, dlow + length * rank, vfloat{});

        // The scan backwards. Step sizes come from the low-rank ones, whose gradients all blocks add to.
        BackwardLine line{{(float*)u, p.blocks * LANES}, low, selected, selected, gate, grad,
                          d.line(s.dgate, i), nullptr, nullptr};
        backward_line(s, p, line, scan_sums, memory, [&](int64_t block, const vfloat* x_grad, const vfloat* slope) {
            for (int64_t t = 0; t < length; ++t) {
                du[t * p.blocks + block] = x_grad[t];
                sums.delta_bias[block] += slope[t];
            }
            for (int64_t r = 0; r < rank; ++r) {
                const vfloat weight = p.weight[block * rank + r];
                vfloat dweight{};
                for (int64_t t = 0; t < length; ++t) {
                    dlow[t * rank + r] += slope[t] * weight;
                    dweight += slope[t] * low.at(t)[r];
                }
                sums.delta_weight[block * rank + r] += dweight;
            }
        });

        // The gradients of what was projected, cell by cell: of the low-rank steps, then of B or C.
        const vfloat* dstates = p.has_B ? line.dB : line.dC;
        for (int64_t t = 0; t < length; ++t) {
            float* out = dprojected + t * q.outputs;
            sum_lanes(dlow + t * rank, rank, out);
            for (int64_t n = 0; n < s.states; ++n)
                out[rank + n] = sum(dstates[(n / p.chunk * length + t) * p.chunk + n % p.chunk]);
        }
        // Back through the projection, to its matrix and to the input of the scan.
        for (int64_t block = 0; block < p.blocks; ++block) {
            const vfloat* weight = &q.by_block[block * q.outputs];
            vfloat* dweight = sums.projection + block * q.outputs;
            int64_t t = 0;
            for (; t + 4 <= length; t += 4)
                project_back<4>(dprojected + t * q.outputs, q.outputs, weight, u + t * p.blocks + block,
                                du + t * p.blocks + block, p.blocks, dweight);
            for (; t < length; ++t)
                project_back<1>(dprojected + t * q.outputs, q.outputs, weight, u + t * p.blocks + block,
                                du + t * p.blocks + block, p.blocks, dweight);
        }
        // Back through SiLU and the convolution, which is computed once more rather than kept. The slopes past the end
        // are zero, so that each cell may read those of all cells that it reached.
        for (int64_t block = 0; block < p.blocks; ++block) {
            const int64_t c = block * LANES, lanes = s.channels - c;
            const vfloat* weight = &q.taps[block * a.taps];
            convolve_cells(x, 0, length, c, lanes, weight, a.taps, q.bias[block], window, [&](int64_t t, vfloat v) {
                const vfloat g = sigmoid(v);
                slopes[t] = du[t * p.blocks + block] * g * (1.0f + v * (1.0f - g));
                sums.bias[block] += slopes[t];
                for (int64_t k = 0; k < a.taps; ++k) sums.taps[block * a.taps + k] += slopes[t] * window[t + k];
            });
            for (int64_t t = 0; t < length; ++t) {
                vfloat v{};
                for (int64_t k = 0; k < a.taps; ++k) v += weight[k] * slopes[t + past - k];
                store(dx.at(t) + c, v, lanes);
            }
        }
    }
    float* out = s.sums + strip * s.channels * (s.states + a.taps + q.outputs + rank + 3);
    sums.write(a, q, scan_sums.write(s, p, out));
}

int64_t cost(const ScanArguments& s, const Packed& p) {
    return s.direction.lines() * s.direction.length() * p.blocks * (s.states + 4);
}

}  // namespace

EXPORT void v2m_scan_forward(const ScanArguments* s) {
    const Packed p(*s, s->B.data, s->C.data);
    run({s->parallel, s->threads}, s->direction.lines(), cost(*s, p), [&](int64_t i) { scan_line(*s, p, i); });
}

EXPORT void v2m_scan_backward(const ScanArguments* s) {
    const Packed p(*s, s->B.data, s->C.data);
    run({s->parallel, s->threads}, s->strips, 3 * cost(*s, p), [&](int64_t i) { scan_backward_strip(*s, p, i); });
}

EXPORT void v2m_pass_forward(const PassArguments* a) {
    const ScanArguments& s = a->scan;
    const Packed p(s, a->projects_B, !a->projects_B);
    const PackedPass q(*a, p);
    run({s.parallel, s.threads}, s.direction.lines(), 2 * cost(s, p), [&](int64_t i) { pass_line(*a, p, q, i); });
}

EXPORT void v2m_pass_backward(const PassArguments* a) {
    const ScanArguments& s = a->scan;
    const Packed p(s, a->projects_B, !a->projects_B);
    const PackedPass q(*a, p);
    run({s.parallel, s.threads}, s.strips, 4 * cost(s, p), [&](int64_t i) { pass_backward_strip(*a, p, q, i); });
}
