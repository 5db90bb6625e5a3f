// The exponentials alone, of numbers that stay in the cache: what a scan cannot be faster than.
#include "../ops/kernels/cpp/vector.h"

// Replaces each number by 2 to the power of its negative, so many times.
EXPORT void v2m_exp2(float* numbers, int64_t count, int64_t repeats, Parallel parallel, int64_t threads) {
    run({parallel, threads}, threads, count * repeats, [&](int64_t part) {
        for (int64_t i = 0; i < repeats; ++i)
            for (int64_t at = part * count / threads; at + LANES <= (part + 1) * count / threads; at += LANES)
                store(numbers + at, exp4_product(load(numbers + at, LANES), splat(-0.5f)), LANES);
    });
}
