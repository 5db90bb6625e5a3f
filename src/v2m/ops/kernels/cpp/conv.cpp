// Causal depthwise convolution along the rows or columns of a map, then SiLU, and their gradients.
//
// Shapes: L cells of a line, D channels, K taps; the last tap meets the cell itself, the others those scanned before.
#include "vector.h"

extern "C" {

struct ConvArguments {
    Direction direction;
    int64_t channels, taps;
    Map x;
    float *weight, *bias;    // [D, K], [D]
    Map y;                   // output of the forward
    Map grad, dx;            // argument and output of the backward
    float *dweight, *dbias;  // [strips, D, K], [strips, D]
    int64_t strips;
    Parallel parallel;
    int64_t threads;
};

}  // extern "C"

namespace {

thread_local std::vector<vfloat> scratch;

struct Packed {
    int64_t blocks;
    std::vector<vfloat> weight, bias;

    explicit Packed(const ConvArguments& s)
        : blocks((s.channels + LANES - 1) / LANES), weight(blocks * s.taps), bias(blocks) {
        for (int64_t d = 0; d < s.channels; ++d) {
            for (int64_t k = 0; k < s.taps; ++k)
                weight[d / LANES * s.taps + k][d % LANES] = s.weight[d * s.taps + k];
            bias[d / LANES][d % LANES] = s.bias[d];
        }
    }
};

void forward_line(const ConvArguments& s, const Packed& p, int64_t index) {
    const Direction& d = s.direction;
    const Line x = d.line(s.x, index), out = d.line(s.y, index);
    scratch.resize(d.length() + s.taps - 1);
    for (int64_t block = 0; block < p.blocks; ++block) {
        const int64_t c = block * LANES, lanes = s.channels - c;
        convolve_cells(x, 0, d.length(), c, lanes, &p.weight[block * s.taps], s.taps, p.bias[block], scratch.data(),
                       [&](int64_t t, vfloat v) { store(out.at(t) + c, v * sigmoid(v), lanes); });
    }
}

void backward_strip(const ConvArguments& s, const Packed& p, int64_t strip) {
    const Direction& d = s.direction;
    const int64_t length = d.length(), past = s.taps - 1;
    scratch.resize(2 * (length + past) + p.blocks * (s.taps + 1));
    vfloat *cells = scratch.data(), *slopes = cells + length + past, *dweight = slopes + length + past;
    vfloat* dbias = dweight + p.blocks * s.taps;
    std::fill(dweight, dbias + p.blocks, vfloat{});
    std::fill(slopes + length, slopes + length + past, vfloat{});

    const int64_t first = strip * d.lines() / s.strips, last = (strip + 1) * d.lines() / s.strips;
    for (int64_t index = first; index < last; ++index) {
        const Line x = d.line(s.x, index), grad = d.line(s.grad, index), dx = d.line(s.dx, index);
        for (int64_t block = 0; block < p.blocks; ++block) {
            const int64_t c = block * LANES, lanes = s.channels - c;
            const vfloat* weight = &p.weight[block * s.taps];
            convolve_cells(x, 0, length, c, lanes, weight, s.taps, p.bias[block], cells, [&](int64_t t, vfloat v) {
                const vfloat g = sigmoid(v);
                slopes[t] = load(grad.at(t) + c, lanes) * g * (1.0f + v * (1.0f - g));
                dbias[block] += slopes[t];
                for (int64_t k = 0; k < s.taps; ++k) dweight[block * s.taps + k] += slopes[t] * cells[t + k];
            });
            for (int64_t t = 0; t < length; ++t) {
                vfloat v{};
                for (int64_t k = 0; k < s.taps; ++k) v += weight[k] * slopes[t + past - k];
                store(dx.at(t) + c, v, lanes);
            }
        }
    }
    for (int64_t i = 0; i < s.channels; ++i) {
        for (int64_t k = 0; k < s.taps; ++k)
            s.dweight[(strip * s.channels + i) * s.taps + k] = dweight[i / LANES * s.taps + k][i % LANES];
        s.dbias[strip * s.channels + i] = dbias[i / LANES][i % LANES];
    }
}

int64_t cost(const ConvArguments& s, const Packed& p) {
    return s.direction.lines() * s.direction.length() * p.blocks * (s.taps + 2);
}

}  // namespace

extern "C" void v2m_conv_silu_forward(const ConvArguments* s) {
    const Packed p(*s);
    run({s->parallel, s->threads}, s->direction.lines(), cost(*s, p), [&](int64_t i) { forward_line(*s, p, i); });
}

extern "C" void v2m_conv_silu_backward(const ConvArguments* s) {
    const Packed p(*s);
    run({s->parallel, s->threads}, s->strips, 3 * cost(*s, p), [&](int64_t i) { backward_strip(*s, p, i); });
}
