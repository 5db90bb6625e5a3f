// The selective scan along the rows or columns of a map, and its gradients.
//
// Shapes: L cells of a line, D channels, N states, R rank of the step size. A block is LANES channels, one per lane;
// the states of a block are handled CHUNK at a time, CHUNK a constant so that they stay in registers. States beyond N
// have rate, B and C zero.
#include "vector.h"

extern "C" {

struct ScanArguments {
    Direction direction;
    int32_t softplus, has_low_rank;
    int64_t channels, states, rank;
    Map u, delta, B, C, gate;             // delta: [.., D], or [.., R] if has_low_rank
    float *A, *D, *delta_weight, *delta_bias;   // [D, N], [D], [D, R], [D]
    Map y;                                // output of the forward
    Map grad, du, ddelta, dB, dC, dgate;  // arguments and outputs of the backward
    float *dA, *dD;                       // [strips, D, N], [strips, D]
    int64_t strips;
    Parallel parallel;
    int64_t threads;
};

// A scan whose u, delta and B or C come from x: convolution and SiLU, then a projection to R + N numbers.
struct PassArguments {
    ScanArguments scan;  // without u, delta, B and C
    int64_t taps;
    int32_t projects_B;
    Map x;
    float *conv_weight, *conv_bias, *proj_weight;  // [D, K], [D], [R + N, D]
};

}  // extern "C"

namespace {

constexpr int64_t STRETCH = 64;  // cells that the forward takes through all channels at once
constexpr int64_t SEGMENT = 32;  // cells between two kept states of the backward

int chunk_for(int64_t states) { return states == 1 ? 1 : states <= 4 ? 4 : states <= 8 ? 8 : 16; }

thread_local std::vector<vfloat> scratch;

// Parts of one piece of scratch memory.
struct Scratch {
    vfloat* next;
    explicit Scratch(int64_t size) {
        if ((int64_t)scratch.size() < size) scratch.resize(size);
        next = scratch.data();
    }
    vfloat* take(int64_t size) {
        vfloat* taken = next;
        next += size;
        return taken;
    }
};

// Parameters laid out by block, in the order in which the loops read them.
struct Packed {
    int64_t blocks, chunks, chunk;
    std::vector<vfloat> rates, largest, weight, bias, skip;

    explicit Packed(const ScanArguments& s)
        : blocks((s.channels + LANES - 1) / LANES),
          chunks((s.states + chunk_for(s.states) - 1) / chunk_for(s.states)),
          chunk(chunk_for(s.states)),
          rates(blocks * chunks * chunk),
          largest(blocks),
          weight(s.has_low_rank ? blocks * s.rank : 0),
          bias(blocks),
          skip(blocks) {
        const int64_t padded = chunks * chunk;
        for (int64_t d = 0; d < s.channels; ++d) {
            const int64_t block = d / LANES, lane = d % LANES;
            for (int64_t n = 0; n < s.states; ++n) {
                const float rate = s.A[d * s.states + n] * LOG2_E;
                rates[block * padded + n][lane] = rate;
                const float size = rate < 0 ? -rate : rate;
                if (!(size <= largest[block][lane])) largest[block][lane] = size;
            }
            if (s.has_low_rank)
                for (int64_t r = 0; r < s.rank; ++r)
                    weight[block * s.rank + r][lane] = s.delta_weight[d * s.rank + r];
            if (s.delta_bias) bias[block][lane] = s.delta_bias[d];
            if (s.D) skip[block][lane] = s.D[d];
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

// Step sizes of one block of some cells, before (raw) and after softplus, and dt * u. Returns whether an exponent may be
// too large for exp2_product.
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
        longest = dt[t] <= longest ? longest : dt[t];  // keeps a NaN
    }
    const vfloat exponent = longest * p.largest[block];
    return any(~(exponent < LARGEST_EXPONENT));
}

// Adds up over the channels what is kept per lane, [chunks, L, CHUNK] as in pack_states.
void sum_states(const ScanArguments& s, const Packed& p, const vfloat* lanes, Line out) {
    if (!out.first) return;
    for (int64_t chunk = 0; chunk < p.chunks; ++chunk) {
        const int64_t first = chunk * p.chunk, count = std::min(p.chunk, s.states - first);
        for (int64_t t = 0; t < s.direction.length(); ++t, lanes += p.chunk)
            for (int64_t n = 0; n < count; ++n) out.at(t)[first + n] = sum(lanes[n]);
    }
}

template <bool IS_LARGE>
INLINE vfloat decay(vfloat rate, vfloat dt) {
    return IS_LARGE ? exp2_product(clamp_exponent(rate * dt), splat(1.0f)) : exp2_product(rate, dt);
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
void sweep_back(int64_t begin, int64_t end, const vfloat* rates, const vfloat* dt, const vfloat* drive,
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
            carry[n] = dh * a[n];
            const vfloat slope = carry[n] * before[n];
            to_step += slope * rates[n];
            dA[n] += slope * step;
        }
        ddt[t] += to_step;
        ddrive[t] += to_drive;
    }
    for (int n = 0; n < CHUNK; ++n) carry_memory[n] = carry[n];
}

// What a scan reads and writes along one line, or from some cell of it on.
struct ScanLines {
    Line u, delta, B, C, gate, y;
    ScanLines from(int64_t t) const {
        return {u.from(t), delta.from(t), B.from(t), C.from(t), gate.from(t), y.from(t)};
    }
};

// Runs all channels over the first cells of the lines; h [blocks, N padded] goes on from where it was.
template <int CHUNK, bool HAS_B, bool HAS_C>
void forward_cells(const ScanArguments& s, const Packed& p, const ScanLines& lines, int64_t cells, vfloat* h,
                   Scratch memory) {
    const int64_t padded = p.chunks * CHUNK, pack = (cells * padded + LANES - 1) / LANES;
    vfloat *dt = memory.take(cells), *drive = memory.take(cells), *y = memory.take(cells);
    float *B = (float*)memory.take(pack), *C = (float*)memory.take(pack);
    if (HAS_B) pack_states(s, p, lines.B, cells, B);
    if (HAS_C) pack_states(s, p, lines.C, cells, C);

    for (int64_t block = 0; block < p.blocks; ++block) {
        const int64_t c = block * LANES, lanes = s.channels - c;
        for (int64_t t = 0; t < cells; ++t) {
            if (lines.gate.first) __builtin_prefetch(lines.gate.at(t) + c);
            __builtin_prefetch(lines.y.at(t) + c, 1);
        }
        const bool is_large = step_sizes(s, p, block, lines.u, lines.delta, cells, y, dt, drive);
        std::fill(y, y + cells, vfloat{});
        for (int64_t chunk = 0; chunk < p.chunks; ++chunk) {
            const auto read = is_large ? sweep<CHUNK, HAS_B, HAS_C, true, true, false>
                                       : sweep<CHUNK, HAS_B, HAS_C, false, true, false>;
            const int64_t at = chunk * cells * CHUNK, states = block * padded + chunk * CHUNK;
            read(0, cells, &p.rates[states], dt, drive, B + at, C + at, h + states, y, nullptr, nullptr);
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

template <int CHUNK, bool HAS_B, bool HAS_C>
void scan_line(const ScanArguments& s, const Packed& p, int64_t index) {
    const Direction& d = s.direction;
    const ScanLines lines{d.line(s.u, index), d.line(s.delta, index), d.line(s.B, index),
                          d.line(s.C, index), d.line(s.gate, index),  d.line(s.y, index)};
    Scratch memory(forward_scratch(p, STRETCH));
    vfloat* h = memory.take(p.blocks * p.chunks * CHUNK);
    std::fill(h, h + p.blocks * p.chunks * CHUNK, vfloat{});
    for (int64_t t = 0; t < d.length(); t += STRETCH)
        forward_cells<CHUNK, HAS_B, HAS_C>(s, p, lines.from(t), std::min(STRETCH, d.length() - t), h, memory);
}

// The parameters of a pass besides those of its scan: taps by block, and the projection as [D, outputs padded].
struct PackedPass {
    int64_t vectors, outputs;
    std::vector<vfloat> taps, bias, projection;

    PackedPass(const PassArguments& a, const Packed& p)
        : vectors((a.scan.rank + a.scan.states + 2 * LANES - 1) / (2 * LANES) * 2),
          outputs(a.scan.rank + a.scan.states),
          taps(p.blocks * a.taps),
          bias(p.blocks),
          projection(p.blocks * LANES * vectors) {
        const int64_t channels = a.scan.channels;
        for (int64_t d = 0; d < channels; ++d) {
            for (int64_t k = 0; k < a.taps; ++k)
                taps[d / LANES * a.taps + k][d % LANES] = a.conv_weight[d * a.taps + k];
            bias[d / LANES][d % LANES] = a.conv_bias[d];
        }
        for (int64_t i = 0; i < outputs; ++i)
            for (int64_t d = 0; d < channels; ++d)
                projection[d * vectors + i / LANES][i % LANES] = a.proj_weight[i * channels + d];
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

template <int CHUNK, bool HAS_B, bool HAS_C>
void pass_line(const PassArguments& a, const Packed& p, const PackedPass& q, int64_t index) {
    const ScanArguments& s = a.scan;
    const Direction& d = s.direction;
    const Line x = d.line(a.x, index), gate = d.line(s.gate, index), y = d.line(s.y, index);
    const int64_t past = a.taps - 1, states = p.blocks * p.chunks * CHUNK;
    Scratch memory(forward_scratch(p, STRETCH) + STRETCH * (p.blocks + q.vectors) + STRETCH + past);
    vfloat *h = memory.take(states), *u = memory.take(STRETCH * p.blocks);
    vfloat *projected = memory.take(STRETCH * q.vectors), *window = memory.take(STRETCH + past);
    std::fill(h, h + states, vfloat{});
    const Line low{(float*)projected, q.vectors * LANES}, selected{low.first + s.rank, low.step};
    for (int64_t begin = 0; begin < d.length(); begin += STRETCH) {
        const int64_t cells = std::min(STRETCH, d.length() - begin);
        for (int64_t block = 0; block < p.blocks; ++block) {
            convolve_cells(x, begin, cells, block * LANES, s.channels - block * LANES, &q.taps[block * a.taps], a.taps,
                           q.bias[block], window, [&](int64_t t, vfloat v) { u[t * p.blocks + block] = v * sigmoid(v); });
        }
        project(q, u, p.blocks, s.channels, cells, projected);
        const ScanLines lines{{(float*)u, p.blocks * LANES}, low, selected, selected, gate.from(begin), y.from(begin)};
        forward_cells<CHUNK, HAS_B, HAS_C>(s, p, lines, cells, h, memory);
    }
}

template <int CHUNK, bool HAS_B, bool HAS_C>
void backward_strip(const ScanArguments& s, const Packed& p, int64_t strip) {
    const Direction& d = s.direction;
    const int64_t length = d.length(), padded = p.chunks * CHUNK, pack = (length * padded + LANES - 1) / LANES;
    const int64_t segments = (length + SEGMENT - 1) / SEGMENT, kept = std::min(length, SEGMENT);
    Scratch memory(7 * length + 2 * pack + 2 * length * padded + p.blocks * (padded + 1) +
                   (segments + 2 * kept + 2) * CHUNK);
    vfloat *raw = memory.take(length), *dt = memory.take(length), *drive = memory.take(length);
    vfloat *y = memory.take(length), *dy = memory.take(length), *ddt = memory.take(length);
    vfloat* ddrive = memory.take(length);
    float *B = (float*)memory.take(pack), *C = (float*)memory.take(pack);
    vfloat *dB = memory.take(length * padded), *dC = memory.take(length * padded);
    vfloat *dA = memory.take(p.blocks * padded), *dD = memory.take(p.blocks);
    vfloat *starts = memory.take(segments * CHUNK), *decays = memory.take(kept * CHUNK);
    vfloat *states = memory.take((kept + 1) * CHUNK), *carry = memory.take(CHUNK);
    std::fill(dA, dA + p.blocks * padded, vfloat{});
    std::fill(dD, dD + p.blocks, vfloat{});

    const int64_t first = strip * d.lines() / s.strips, last = (strip + 1) * d.lines() / s.strips;
    for (int64_t index = first; index < last; ++index) {
        const Line u = d.line(s.u, index), delta = d.line(s.delta, index), gate = d.line(s.gate, index);
        const Line grad = d.line(s.grad, index), du = d.line(s.du, index), ddelta = d.line(s.ddelta, index);
        const Line dgate = d.line(s.dgate, index);
        if (HAS_B) pack_states(s, p, d.line(s.B, index), length, B);
        if (HAS_C) pack_states(s, p, d.line(s.C, index), length, C);
        std::fill(dB, dB + length * padded, vfloat{});
        std::fill(dC, dC + length * padded, vfloat{});

        for (int64_t block = 0; block < p.blocks; ++block) {
            const int64_t c = block * LANES, lanes = s.channels - c;
            const bool is_large = step_sizes(s, p, block, u, delta, length, raw, dt, drive);
            for (int64_t t = 0; t < length; ++t) {
                dy[t] = load(grad.at(t) + c, lanes);
                if (gate.first) dy[t] *= load(gate.at(t) + c, lanes);
                y[t] = ddt[t] = ddrive[t] = vfloat{};
            }
            for (int64_t chunk = 0; chunk < p.chunks; ++chunk) {
                const auto pass = is_large ? sweep<CHUNK, HAS_B, HAS_C, true, false, false>
                                           : sweep<CHUNK, HAS_B, HAS_C, false, false, false>;
                const auto keep = is_large ? sweep<CHUNK, HAS_B, HAS_C, true, true, true>
                                           : sweep<CHUNK, HAS_B, HAS_C, false, true, true>;
                const int64_t at = chunk * length * CHUNK;
                const vfloat* rates = &p.rates[block * padded + chunk * CHUNK];
                std::fill(starts, starts + CHUNK, vfloat{});
                for (int64_t i = 1; i < segments; ++i) {
                    std::copy_n(starts + (i - 1) * CHUNK, CHUNK, starts + i * CHUNK);
                    pass((i - 1) * SEGMENT, i * SEGMENT, rates, dt, drive, B + at, C + at, starts + i * CHUNK,
                         nullptr, nullptr, nullptr);
                }
                std::fill(carry, carry + CHUNK, vfloat{});
                for (int64_t i = segments - 1; i >= 0; --i) {
                    const int64_t begin = i * SEGMENT, end = std::min(length, begin + SEGMENT);
                    keep(begin, end, rates, dt, drive, B + at, C + at, starts + i * CHUNK, y, decays, states);
                    sweep_back<CHUNK, HAS_B, HAS_C>(begin, end, rates, dt, drive, B + at, C + at, decays, states, dy,
                                                    carry, dA + block * padded + chunk * CHUNK, ddt, ddrive,
                                                    dB + chunk * length * CHUNK, dC + chunk * length * CHUNK);
                }
            }
            for (int64_t t = 0; t < length; ++t) {
                const vfloat x = load(u.at(t) + c, lanes);
                vfloat slope = ddt[t] * LN_2 + ddrive[t] * x;
                if (s.softplus) slope *= sigmoid(raw[t]);
                store(ddelta.at(t) + c, slope, lanes);
                store(du.at(t) + c, ddrive[t] * dt[t] + p.skip[block] * dy[t], lanes);
                dD[block] += dy[t] * x;
                if (gate.first)
                    store(dgate.at(t) + c, load(grad.at(t) + c, lanes) * (y[t] + p.skip[block] * x), lanes);
            }
        }
        if (HAS_B) sum_states(s, p, dB, d.line(s.dB, index));
        if (HAS_C) sum_states(s, p, dC, d.line(s.dC, index));
    }
    for (int64_t i = 0; i < s.channels; ++i) {
        const int64_t block = i / LANES, lane = i % LANES;
        for (int64_t n = 0; n < s.states; ++n)
            s.dA[(strip * s.channels + i) * s.states + n] = dA[block * padded + n][lane];
        s.dD[strip * s.channels + i] = dD[block][lane];
    }
}

int64_t cost(const ScanArguments& s, const Packed& p) {
    return s.direction.lines() * s.direction.length() * p.blocks * (s.states + 4);
}

struct ScanForward {
    const ScanArguments& s;
    template <int CHUNK, bool HAS_B, bool HAS_C>
    void call() const {
        const Packed p(s);
        run({s.parallel, s.threads}, s.direction.lines(), cost(s, p),
            [&](int64_t line) { scan_line<CHUNK, HAS_B, HAS_C>(s, p, line); });
    }
};

struct PassForward {
    const PassArguments& a;
    template <int CHUNK, bool HAS_B, bool HAS_C>
    void call() const {
        const Packed p(a.scan);
        const PackedPass q(a, p);
        run({a.scan.parallel, a.scan.threads}, a.scan.direction.lines(), 2 * cost(a.scan, p),
            [&](int64_t line) { pass_line<CHUNK, HAS_B, HAS_C>(a, p, q, line); });
    }
};

struct ScanBackward {
    const ScanArguments& s;
    template <int CHUNK, bool HAS_B, bool HAS_C>
    void call() const {
        const Packed p(s);
        run({s.parallel, s.threads}, s.strips, 3 * cost(s, p),
            [&](int64_t strip) { backward_strip<CHUNK, HAS_B, HAS_C>(s, p, strip); });
    }
};

template <int CHUNK, class Work>
void call_with(const Work& work, bool has_b, bool has_c) {
    if (has_b == has_c)
        work.template call<CHUNK, true, true>();
    else if (has_b)
        work.template call<CHUNK, true, false>();
    else
        work.template call<CHUNK, false, true>();
}

template <class Work>
void call_with(const Work& work, int64_t states, bool has_b, bool has_c) {
    switch (chunk_for(states)) {
        case 1: return call_with<1>(work, has_b, has_c);
        case 4: return call_with<4>(work, has_b, has_c);
        case 8: return call_with<8>(work, has_b, has_c);
        default: return call_with<16>(work, has_b, has_c);
    }
}

}  // namespace

extern "C" void v2m_scan_forward(const ScanArguments* s) {
    call_with(ScanForward{*s}, s->states, s->B.data, s->C.data);
}

extern "C" void v2m_pass_forward(const PassArguments* a) {
    call_with(PassForward{*a}, a->scan.states, a->projects_B, !a->projects_B);
}

extern "C" void v2m_scan_backward(const ScanArguments* s) {
    call_with(ScanBackward{*s}, s->states, s->B.data, s->C.data);
}
