#include "sweeps.h"

namespace {

template <bool HAS_B, bool HAS_C>
INLINE vfloat update(vfloat a, vfloat input, float b, float c, vfloat& h) {
    h = a * h + (HAS_B ? input * b : input);
    return HAS_C ? h * c : h;
}

// With READ, y gets <C, h> added. With KEEP, the decays and the states before and after every cell are kept.
template <bool IS_GEOMETRIC, int CHUNK, bool HAS_B, bool HAS_C, bool READ, bool KEEP>
void sweep(const SweepArguments& s, int64_t cells, vfloat* h_memory) {
    constexpr int WIDTH = CHUNK < 4 ? CHUNK : 4;  // powers that are held at once
    vfloat *const y = s.y, *decays = s.decays, *states = s.states;
    vfloat h[CHUNK];
    for (int n = 0; n < CHUNK; ++n) h[n] = h_memory[n];
    if (KEEP)
        for (int n = 0; n < CHUNK; ++n) *states++ = h[n];
    for (int64_t t = 0; t < cells; ++t) {
        const vfloat step = IS_GEOMETRIC ? s.ratio[t] : s.dt[t], input = s.drive[t];
        const float *b = s.B + t * CHUNK, *c = s.C + t * CHUNK;
        vfloat powers[WIDTH], ratio = step;
        if (IS_GEOMETRIC) {
            powers[0] = s.lowest[t];
            for (int width = 1; width < WIDTH; width *= 2, ratio *= ratio)
                for (int i = 0; i < width; ++i) powers[width + i] = powers[i] * ratio;
        }
        vfloat even{}, odd{};
#pragma GCC unroll 16
        for (int n = 0; n < CHUNK; ++n) {
            const vfloat a = IS_GEOMETRIC ? powers[n % WIDTH] : exp4_product(s.rates[n], step);
            if (IS_GEOMETRIC && n + WIDTH < CHUNK) powers[n % WIDTH] *= ratio;
            const vfloat read = update<HAS_B, HAS_C>(a, input, b[n], c[n], h[n]);
            if (READ) (n % 2 ? odd : even) += read;
            if (KEEP) {
                *decays++ = a;
                *states++ = h[n];
            }
        }
        if (READ) y[t] += even + odd;
    }
    for (int n = 0; n < CHUNK; ++n) h_memory[n] = h[n];
}

// The same where exponents are out of the range of exp4_product. That is rare, so there is one for all chunks.
template <bool HAS_B, bool HAS_C, bool READ, bool KEEP>
void sweep_large(const SweepArguments& s, int64_t cells, vfloat* h) {
    vfloat *decays = s.decays, *states = s.states;
    if (KEEP)
        for (int64_t n = 0; n < s.chunk; ++n) *states++ = h[n];
    for (int64_t t = 0; t < cells; ++t)
        for (int64_t n = 0; n < s.chunk; ++n) {
            const vfloat a = exp4(s.rates[n] * s.dt[t]);
            const vfloat read =
                update<HAS_B, HAS_C>(a, s.drive[t], s.B[t * s.chunk + n], s.C[t * s.chunk + n], h[n]);
            if (READ) s.y[t] += read;
            if (KEEP) {
                *decays++ = a;
                *states++ = h[n];
            }
        }
}

// Where rates are geometric, the gradient of A is left to the caller, who has its sum over the states in ddt.
template <bool IS_GEOMETRIC, int CHUNK, bool HAS_B, bool HAS_C>
void sweep_back(const SweepBackArguments& s, int64_t cells) {
    vfloat carry[CHUNK];
    for (int n = 0; n < CHUNK; ++n) carry[n] = s.carry[n];
    vfloat *const dA = s.dA, *const ddt = s.ddt, *const ddrive = s.ddrive;
    for (int64_t t = cells - 1; t >= 0; --t) {
        const float *b = s.B + t * CHUNK, *c = s.C + t * CHUNK;
        const vfloat *a = s.decays + t * CHUNK, *before = s.states + t * CHUNK;
        const vfloat *after = before + CHUNK, step = s.dt[t], input = s.drive[t], grad = s.dy[t];
        vfloat *dB = s.dB + t * CHUNK, *dC = s.dC + t * CHUNK;
        vfloat to_step{}, to_drive{};
#pragma GCC unroll 16
        for (int n = 0; n < CHUNK; ++n) {
            const vfloat dh = carry[n] + (HAS_C ? grad * c[n] : grad);
            if (HAS_C) dC[n] += grad * after[n];
            if (HAS_B) dB[n] += dh * input;
            to_drive += HAS_B ? dh * b[n] : dh;
            const vfloat slope = dh * before[n] * a[n];  // in this order, as a state before the first cell is 0
            carry[n] = dh * a[n];
            to_step += slope * s.A[n];
            if (!IS_GEOMETRIC) dA[n] += slope * step;
        }
        ddt[t] += to_step;
        ddrive[t] += to_drive;
    }
    for (int n = 0; n < CHUNK; ++n) s.carry[n] = carry[n];
}

template <int CHUNK, bool HAS_B, bool HAS_C>
constexpr Loops LOOPS{
    {sweep<false, CHUNK, HAS_B, HAS_C, true, false>, sweep_large<HAS_B, HAS_C, true, false>,
     sweep<true, CHUNK, HAS_B, HAS_C, true, false>},
    {sweep<false, CHUNK, HAS_B, HAS_C, false, false>, sweep_large<HAS_B, HAS_C, false, false>,
     sweep<true, CHUNK, HAS_B, HAS_C, false, false>},
    {sweep<false, CHUNK, HAS_B, HAS_C, true, true>, sweep_large<HAS_B, HAS_C, true, true>,
     sweep<true, CHUNK, HAS_B, HAS_C, true, true>},
    {sweep_back<false, CHUNK, HAS_B, HAS_C>, sweep_back<true, CHUNK, HAS_B, HAS_C>},
};

template <int CHUNK>
const Loops& loops_for_chunk(bool has_B, bool has_C) {
    return has_B && has_C ? LOOPS<CHUNK, true, true> : has_B ? LOOPS<CHUNK, true, false> : LOOPS<CHUNK, false, true>;
}

}  // namespace

int chunk_for(int64_t states) { return states == 1 ? 1 : states <= 4 ? 4 : states <= 8 ? 8 : 16; }

const Loops& loops_for(int64_t states, bool has_B, bool has_C) {
    switch (chunk_for(states)) {
        case 1: return loops_for_chunk<1>(has_B, has_C);
        case 4: return loops_for_chunk<4>(has_B, has_C);
        case 8: return loops_for_chunk<8>(has_B, has_C);
        default: return loops_for_chunk<16>(has_B, has_C);
    }
}
