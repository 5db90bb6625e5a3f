// Vectors of channels as wide as the machine's registers, the functions that the kernels need of them, and
// threads. Nothing here knows PyTorch.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

typedef float vfloat __attribute__((vector_size(LANES * 4)));
typedef int32_t vint __attribute__((vector_size(LANES * 4)));

#define INLINE inline __attribute__((always_inline))
// For what is called in several places: the first use of the kernels waits until they are compiled.
#define ONCE __attribute__((noinline))

// All else is hidden: the loader makes one of the inline variables of all libraries of a process, even where they are
// made for other processors and so have other vectors.
#define EXPORT extern "C" __attribute__((visibility("default")))

INLINE vfloat splat(float x) { return x - vfloat{}; }

INLINE vfloat load(const float* p) {
    vfloat v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

INLINE void store(float* p, vfloat v) { std::memcpy(p, &v, sizeof v); }

// Calls of their own, so that the vectors of the loops around them stay in registers.
ONCE inline vfloat load_part(const float* p, int64_t lanes) {
    vfloat v{};
    std::memcpy(&v, p, lanes * sizeof(float));
    return v;
}

ONCE inline void store_part(float* p, vfloat v, int64_t lanes) {
    std::memcpy(p, &v, lanes * sizeof(float));
}

INLINE vfloat load(const float* p, int64_t lanes) { return lanes >= LANES ? load(p) : load_part(p, lanes); }

INLINE void store(float* p, vfloat v, int64_t lanes) {
    if (lanes >= LANES)
        store(p, v);
    else
        store_part(p, v, lanes);
}

// y where either is NaN.
INLINE vfloat maximum(vfloat x, vfloat y) { return x > y ? x : y; }

INLINE vfloat minimum(vfloat x, vfloat y) { return x < y ? x : y; }

INLINE vfloat magnitude(vfloat x) { return (vfloat)((vint)x & 0x7fffffff); }

INLINE bool any(vint mask) {
    int32_t bits = 0;
    for (int i = 0; i < LANES; ++i) bits |= mask[i];
    return bits != 0;
}

INLINE float sum(vfloat v) {
    float half[LANES];
    std::memcpy(half, &v, sizeof v);
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; ++i) half[i] += half[i + width];
    return half[0];
}

// Of two vectors that are cut into pieces of WIDTH lanes, the even or the odd pieces, of a and b in turns.
template <int WIDTH, bool ODD>
constexpr int interleaved_lane(int i) {
    const int pair = i / (2 * WIDTH) * (2 * WIDTH), is_from_b = i / WIDTH % 2;
    return is_from_b * LANES + pair + (ODD ? WIDTH : 0) + i % WIDTH;
}

template <int WIDTH, bool ODD, size_t... I>
INLINE vfloat interleave(vfloat a, vfloat b, std::index_sequence<I...>) {
#if defined(__clang__)
    return __builtin_shufflevector(a, b, interleaved_lane<WIDTH, ODD>(I)...);
#else
    return __builtin_shuffle(a, b, vint{interleaved_lane<WIDTH, ODD>(I)...});
#endif
}

// Adds up each of LANES vectors over its lanes; each round halves their number.
template <int WIDTH = LANES / 2>
INLINE vfloat sum_each(const vfloat* v) {
    if constexpr (WIDTH == 0) {
        return *v;
    } else {
        constexpr std::make_index_sequence<LANES> all{};
        vfloat half[WIDTH];
        for (int i = 0; i < WIDTH; ++i) {
            const vfloat a = v[i], b = v[i + WIDTH];
            half[i] = interleave<WIDTH, false>(a, b, all) + interleave<WIDTH, true>(a, b, all);
        }
        return sum_each<WIDTH / 2>(half);
    }
}

// 4^x for |x| < 63 (or NaN), to about 1 ulp: 2x is split into a multiple of 1/ROOTS and a rest. Adding MAGIC to x
// rounds to that multiple and leaves it, as an integer, in the low bits. For the rest there is a polynomial; the power
// of two is put together from a table of the roots and an addition to the exponent. Where there is no instruction that
// looks up lanes, ROOTS is 1. Fusing the product x = rate * time into both steps saves a rounding. It is 4^x, not 2^x,
// for the logarithm of 4 is above 1: no rate, however large, overflows where the base is changed.
#if defined(__AVX512F__)
constexpr int ROOTS = 32;
constexpr float MAGIC = 0x1.8p17f;
INLINE vfloat power(vfloat f) { return f * (f * (4 * 0.24022702872753143f) + 2 * 0.6931573152542114f); }
#elif defined(__AVX2__)
constexpr int ROOTS = 8;
constexpr float MAGIC = 0x1.8p19f;
INLINE vfloat power(vfloat f) {
    return f * (f * (f * (8 * 0.0554962232708931f) + 4 * 0.2402576357126236f) + 2 * 0.6931472420692444f);
}
#else
constexpr int ROOTS = 1;
constexpr float MAGIC = 0x1.8p22f;
INLINE vfloat power(vfloat f) {
    vfloat p = f * (32 * 0.0013264724984765053f) + 16 * 0.009671512991189957f;
    p = f * p + 8 * 0.05550733581185341f;
    p = f * p + 4 * 0.24022242426872253f;
    return f * (f * p + 2 * 0.6931470036506653f);
}
#endif

// The bits of 2^(j/ROOTS), less what shifting j into the exponent's place adds to them.
struct Roots {
    alignas(64) int32_t bits[ROOTS];
    constexpr Roots() : bits() {
        constexpr int SHIFT = 23 - (ROOTS == 32 ? 5 : ROOTS == 8 ? 3 : 0);
        constexpr uint32_t ROOTS_OF_TWO[32] = {
            0x3f800000, 0x3f82cd87, 0x3f85aac3, 0x3f88980f, 0x3f8b95c2, 0x3f8ea43a, 0x3f91c3d3, 0x3f94f4f0,
            0x3f9837f0, 0x3f9b8d3a, 0x3f9ef532, 0x3fa27043, 0x3fa5fed7, 0x3fa9a15b, 0x3fad583f, 0x3fb123f6,
            0x3fb504f3, 0x3fb8fbaf, 0x3fbd08a4, 0x3fc12c4d, 0x3fc5672a, 0x3fc9b9be, 0x3fce248c, 0x3fd2a81e,
            0x3fd744fd, 0x3fdbfbb8, 0x3fe0ccdf, 0x3fe5b907, 0x3feac0c7, 0x3fefe4ba, 0x3ff5257d, 0x3ffa83b3};
        for (int j = 0; j < ROOTS; ++j)
            bits[j] = (int32_t)(ROOTS_OF_TWO[j * (32 / ROOTS)] - ((uint32_t)j << SHIFT));
    }
};
alignas(64) constexpr Roots ROOT;

INLINE vfloat exp4_product(vfloat rate, vfloat time) {
    vfloat rounded = rate * time + MAGIC;
    vfloat f = rate * time - (rounded - MAGIC);
#if defined(__AVX512F__)
    __m512i low = _mm512_load_si512(ROOT.bits), high = _mm512_load_si512(ROOT.bits + 16);
    vint root = (vint)_mm512_permutex2var_epi32(low, (__m512i)rounded, high);
    vfloat scale = (vfloat)(root + ((vint)rounded << 18));
#elif defined(__AVX2__)
    __m256i table = _mm256_load_si256((const __m256i*)ROOT.bits);
    vint root = (vint)_mm256_permutevar8x32_epi32(table, (__m256i)rounded);
    vfloat scale = (vfloat)(root + ((vint)rounded << 20));
#else
    vfloat scale = (vfloat)(ROOT.bits[0] + ((vint)rounded << 23));
#endif
    return scale * power(f) + scale;
}

constexpr float LOG4_E = 0.7213475204444817f;
constexpr float LARGEST_EXPONENT = 62.5f;

// The square of 4^(x / 2), which is 0 or infinite where x is clamped. A NaN stays one.
INLINE vfloat squared(vfloat clamped) {
    vfloat root = exp4_product(clamped, splat(0.5f));
    return root * root;
}

// 4^x for any x.
INLINE vfloat exp4(vfloat x) {
    return squared(minimum(splat(2 * LARGEST_EXPONENT), maximum(splat(-2 * LARGEST_EXPONENT), x)));
}

// e^-|x|.
INLINE vfloat decline(vfloat x) {
    vfloat exponent = (vfloat)((vint)x | INT32_MIN) * LOG4_E;
    return squared(maximum(splat(-2 * LARGEST_EXPONENT), exponent));
}

// Not 1 / (1 + e^-x), which is 0 where what is left may still be multiplied by something large.
INLINE vfloat sigmoid(vfloat x) {
    vfloat e = decline(x);
    return (x < 0 ? e : splat(1.0f)) / (1.0f + e);
}

// x sigmoid(x), given the sigmoid. As PyTorch has it: 0 where e^-x is infinite.
INLINE vfloat silu(vfloat x, vfloat g) { return x * (x * -LOG4_E >= 64 ? vfloat{} : g); }

INLINE vfloat silu(vfloat x) { return silu(x, sigmoid(x)); }

// log(1 + e^x) = max(x, 0) + log(1 + e), e = decline(x), and log(1 + e) = 2 artanh(s / 2), s = e / (1 + e / 2).
INLINE vfloat softplus(vfloat x, vfloat s) {
    vfloat s2 = s * s;
    vfloat p = s2 * (0.14006149768829346f / 256) + 0.14000874757766724f / 64;
    p = s2 * p + 0.2001076489686966f / 16;
    p = s2 * p + 0.3333320915699005f / 4;
    return maximum(x, vfloat{}) + (s + s * s2 * p);
}

INLINE vfloat softplus(vfloat x) {
    vfloat e = decline(x);
    return softplus(x, e / (1.0f + 0.5f * e));
}

// Both softplus and its slope, the sigmoid, by one exponential and one division.
INLINE vfloat softplus(vfloat x, vfloat* slope) {
    vfloat e = decline(x), half = 1.0f + 0.5f * e, one = 1.0f + e, inverse = 1.0f / (half * one);
    *slope = (x < 0 ? e : splat(1.0f)) * (half * inverse);
    return softplus(x, e * (one * inverse));
}

// How the decays exp(dt A) of a channel come about: each by exp4_product, by exp4 where exponents may be out of its range,
// or as powers of the first one where rates are geometric.
enum Decay { FREE, LARGE, GEOMETRIC };

// A channel-last map [B, H, W, channels]; strides in elements, channels side by side.
struct Map {
    float* data;
    int64_t batch, row, col;
};

// The cells of one row or column of a map in the order of a scan.
struct Line {
    float* first;
    int64_t step;
    INLINE float* at(int64_t t) const { return first + t * step; }
    INLINE Line from(int64_t t) const { return {first ? at(t) : nullptr, step}; }
};

// Asks for a cell of a block of channels that is needed soon: one that comes later in the line, or at its end one of the
// next block. Processors do not foresee steps as long as those of a column.
template <bool IS_WRITTEN>
INLINE void prefetch_ahead(Line line, int64_t t, int64_t cells, int64_t channel) {
    constexpr int64_t AHEAD = 16;
    const int64_t next = t + std::min(AHEAD, cells);
    const float* p = next < cells ? line.at(next) + channel : line.at(next - cells) + channel + LANES;
    __builtin_prefetch(p, IS_WRITTEN);
}

struct Direction {
    int64_t batch, height, width;
    int32_t along_columns, reverse;

    int64_t lines_per_image() const { return along_columns ? width : height; }
    int64_t lines() const { return batch * lines_per_image(); }
    int64_t length() const { return along_columns ? height : width; }

    Line line(const Map& map, int64_t index) const {
        if (!map.data) return {nullptr, 0};
        int64_t image = index / lines_per_image(), i = index % lines_per_image();
        int64_t step = along_columns ? map.row : map.col;
        float* first = map.data + image * map.batch + i * (along_columns ? map.col : map.row);
        return reverse ? Line{first + (length() - 1) * step, -step} : Line{first, step};
    }
};

// Hands the causal convolution of LANES channels, at cells [begin, begin + cells) of a line, to use(t, value), t
// counted from begin. Cells before the first are zero. window takes cells + taps - 1 vectors and keeps the inputs.
template <class Use>
INLINE void convolve_cells(Line x, int64_t begin, int64_t cells, int64_t channel, int64_t lanes, const vfloat* weight,
                           int64_t taps, vfloat bias, vfloat* window, const Use& use) {
    const int64_t past = taps - 1;
    for (int64_t i = 0; i < past; ++i)
        window[i] = begin + i < past ? vfloat{} : load(x.at(begin + i - past) + channel, lanes);
    for (int64_t t = 0; t < cells; ++t) {
        prefetch_ahead<false>(x.from(begin), t, cells, channel);
        window[past + t] = load(x.at(begin + t) + channel, lanes);
    }
    for (int64_t t = 0; t < cells; ++t) {
        vfloat v = bias;
        for (int64_t k = 0; k < taps; ++k) v += weight[k] * window[t + k];
        use(t, v);
    }
}

inline thread_local std::vector<vfloat> scratch;

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

// Threads come from GOMP_parallel of the OpenMP runtime that PyTorch uses, so that there is one pool; where it has
// none, from std::thread. Parts are numbered, so results do not depend on which thread does which.
using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);

struct Threads {
    Parallel parallel;
    int64_t count;
};

template <class Work>
void run(const Threads& threads, int64_t parts, int64_t cost, const Work& work) {
    constexpr int64_t CHEAP = 100000;  // in updates of a vector: not worth waking a thread
    int64_t count = std::min(threads.count, std::min(parts, 1 + cost / CHEAP));
    if (count <= 1) {
        for (int64_t part = 0; part < parts; ++part) work(part);
        return;
    }
    struct Shared {
        const Work& work;
        int64_t parts;
        std::atomic<int64_t> next;
    } shared{work, parts, {0}};
    auto body = [](void* data) {
        Shared& s = *static_cast<Shared*>(data);
        for (int64_t part; (part = s.next.fetch_add(1)) < s.parts;) s.work(part);
    };
    if (threads.parallel) {
        threads.parallel(body, &shared, (unsigned)count, 0);
        return;
    }
    std::vector<std::thread> others;
    for (int64_t i = 1; i < count; ++i) others.emplace_back(+body, (void*)&shared);
    body(&shared);
    for (auto& thread : others) thread.join();
}
