// The exact two-dimensional scan and its gradients. One image and one block of LANES channels, one per lane, are taken
// through the map cell by cell, row by row; the states of one row are kept for the next.
//
// Shapes: H, W the map, D channels, N states, L levels. Levels are the iterates of all sweeps, carried along together:
// a level takes its coupled terms from the level below. The coupled states are one level, which takes them from itself.
#include <cmath>

#include "vector.h"

extern "C" {

constexpr int KINDS = 2;        // row states and column states, in this order
constexpr int STATE_GRADS = 6;  // of B, C and the coupling, of both kinds

struct Scan2dArguments {
    int64_t batch, height, width, channels, states, levels;
    int32_t is_coupled, softplus, reverse_row, reverse_col, is_geometric;
    Map u, delta[KINDS], B[KINDS], C[KINDS], coupling[KINDS];
    float* A[KINDS];              // [D, N], or [D] if is_geometric
    Map y;                        // output of the forward
    Map grad, du, ddelta[KINDS];  // argument and outputs of the backward
    float *map_sums, *rate_sums;  // gradients, [groups of blocks, B, H, W, N, 6] and [strips of images, 2, (of A)]
    int64_t groups, strips;
    Parallel parallel;
    int64_t threads;
};

}  // extern "C"

namespace {

constexpr int64_t KEPT_VECTORS = 1 << 14;  // states that the backward keeps even if it could keep fewer

template <class Number>
struct Pair {
    Number row, col;
};
using Both = Pair<vfloat>;

// What all states of a cell share: steps before and after softplus, and times u; on the way back, the gradient of y.
struct Step {
    Both raw, dt, drive;
    vfloat u, dy;
};

// What all channels of a state of a cell share; the coupling is that of the cell itself, of the row states of the
// cell to the right, and of the column states of the cell below, which is 0 outside the map.
struct Weights {
    Pair<float> B, C, g;
    float g_right, g_below;
};

// A map in the order of the scan: its rows.
struct Rows {
    const Scan2dArguments& s;
    int64_t image;

    Line operator()(const Map& map, int64_t i) const {
        float* row = map.data + image * map.batch + (s.reverse_col ? s.height - 1 - i : i) * map.row;
        return s.reverse_row ? Line{row + (s.width - 1) * map.col, -map.col} : Line{row, map.col};
    }
};

// Rates by block, [blocks, rates of a channel], and the largest of each channel.
struct PackedRates {
    int64_t blocks, per_channel;
    std::vector<Both> A, rates, largest;  // rates are A to the base of exp4_product

    explicit PackedRates(const Scan2dArguments& s)
        : blocks((s.channels + LANES - 1) / LANES),
          per_channel(s.is_geometric ? 1 : s.states),
          A(blocks * per_channel),
          rates(A.size()),
          largest(blocks) {
        for (int64_t d = 0; d < s.channels; ++d)
            for (int64_t n = 0; n < per_channel; ++n) {
                const int64_t at = d / LANES * per_channel + n, lane = d % LANES;
                const float row_rate = s.A[0][d * per_channel + n], col_rate = s.A[1][d * per_channel + n];
                Both &rate = rates[at], &most = largest[d / LANES];
                A[at].row[lane] = row_rate;
                A[at].col[lane] = col_rate;
                rate.row[lane] = row_rate * LOG4_E;
                rate.col[lane] = col_rate * LOG4_E;
                most.row[lane] = std::max(most.row[lane], std::abs(rate.row[lane]));
                most.col[lane] = std::max(most.col[lane], std::abs(rate.col[lane]));
            }
    }
};

// The weights of one image in the order of the scan, [H, W, N].
void pack_weights(const Scan2dArguments& s, const Rows& rows, Weights* packed) {
    for (int64_t i = 0; i < s.height; ++i) {
        const auto lines = [&](const Map* maps) { return Pair<Line>{rows(maps[0], i), rows(maps[1], i)}; };
        const Pair<Line> B = lines(s.B), C = lines(s.C), g = lines(s.coupling);
        const bool is_last = i + 1 == s.height;
        const Line g_below = is_last ? Line{} : rows(s.coupling[1], i + 1);
        for (int64_t j = 0; j < s.width; ++j)
            for (int64_t n = 0; n < s.states; ++n) {
                const auto here = [&](const Pair<Line>& x) { return Pair<float>{x.row.at(j)[n], x.col.at(j)[n]}; };
                const float g_right = j + 1 == s.width ? 0.0f : g.row.at(j + 1)[n];
                *packed++ = {here(B), here(C), here(g), g_right, is_last ? 0.0f : g_below.at(j)[n]};
            }
    }
}

// One block of channels of one image.
struct Block {
    const Scan2dArguments& s;
    const Both *A, *rates, *largest;
    const Weights* weights;
    int64_t channel, lanes;
    Rows rows;

    Block(const Scan2dArguments& s, const PackedRates& p, const std::vector<Weights>& weights, int64_t image,
          int64_t block)
        : s(s),
          A(p.A.data() + block * p.per_channel),
          rates(p.rates.data() + block * p.per_channel),
          largest(&p.largest[block]),
          weights(weights.data()),
          channel(block * LANES),
          lanes(s.channels - channel),
          rows{s, image} {}

    // Asks for what is written soon.
    void prefetch(Line line) const {
        for (int64_t j = 0; j < s.width; ++j) __builtin_prefetch(line.at(j) + channel, 1);
    }
};

// Steps of a row. Returns how their decays come about.
Decay find_steps(const Block& b, int64_t i, Step* steps) {
    const Scan2dArguments& s = b.s;
    const Line u = b.rows(s.u, i), row = b.rows(s.delta[0], i), col = b.rows(s.delta[1], i);
    const Line grad = s.grad.data ? b.rows(s.grad, i) : Line{};
    Both longest{};
    for (int64_t j = 0; j < s.width; ++j) {
        Step& step = steps[j];
        step.u = load(u.at(j) + b.channel, b.lanes);
        if (grad.first) step.dy = load(grad.at(j) + b.channel, b.lanes);
        step.raw = {load(row.at(j) + b.channel, b.lanes), load(col.at(j) + b.channel, b.lanes)};
        step.dt = s.softplus ? Both{softplus(step.raw.row), softplus(step.raw.col)} : step.raw;
        step.drive = {step.dt.row * step.u, step.dt.col * step.u};
        longest.row = maximum(magnitude(step.dt.row), longest.row);  // leaves out NaN, which exp4_product hands on
        longest.col = maximum(magnitude(step.dt.col), longest.col);
    }
    const vfloat exponent = maximum(longest.row * b.largest->row, longest.col * b.largest->col);
    if (s.is_geometric) return GEOMETRIC;
    return any(~(exponent < LARGEST_EXPONENT)) ? LARGE : FREE;
}

INLINE vfloat mix(vfloat own, vfloat other, float share) { return own - own * share + other * share; }

template <Decay DECAY>
INLINE vfloat decay(vfloat rate, vfloat dt) {
    return DECAY == FREE ? exp4_product(rate, dt) : exp4(rate * dt);
}

// States of one row, given those of the row above, in buffers [1 + W, N, L] that begin with a cell left of the map;
// both may be one. Writes the outputs, or with KEEP the decays instead.
template <bool IS_COUPLED, Decay DECAY, bool KEEP>
void row_forward(const Block& b, int64_t i, const Step* steps, const Both* above, Both* here, Both* decays) {
    const Scan2dArguments& s = b.s;
    const int64_t states = s.states, levels = IS_COUPLED ? 1 : s.levels, cell = states * levels;
    const Weights* w = b.weights + i * s.width * states;
    const Line y = KEEP ? Line{} : b.rows(s.y, i);
    if (!KEEP) b.prefetch(y);
    for (int64_t j = 0; j < s.width; ++j) {
        const Step& step = steps[j];
        const Both *left = here + j * cell, *up = above + (j + 1) * cell;
        Both *h = here + (j + 1) * cell, read{};
        vfloat e_row{}, e_col{}, ratio_row{}, ratio_col{};
        for (int64_t n = 0; n < states; ++n, ++w, left += levels, up += levels, h += levels) {
            if (DECAY != GEOMETRIC || n == 0) {
                e_row = ratio_row = decay<DECAY>(b.rates[n].row, step.dt.row);
                e_col = ratio_col = decay<DECAY>(b.rates[n].col, step.dt.col);
            } else {
                e_row *= ratio_row;
                e_col *= ratio_col;
            }
            const vfloat input_row = step.drive.row * w->B.row, input_col = step.drive.col * w->B.col;
            vfloat other_left{}, other_up{};  // the other kind, a level below
            Both last{};
            for (int64_t m = 0; m < levels; ++m) {
                const Both l = left[m], u = up[m];
                if (IS_COUPLED) other_left = l.col, other_up = u.row;
                last.row = e_row * mix(l.row, other_left, w->g.row) + input_row;
                last.col = e_col * mix(u.col, other_up, w->g.col) + input_col;
                h[m] = last;
                if (!IS_COUPLED) other_left = l.col, other_up = u.row;
            }
            if (KEEP) {
                *decays++ = {e_row, e_col};
            } else {
                read.row += last.row * w->C.row;
                read.col += last.col * w->C.col;
            }
        }
        if (!KEEP) store(y.at(j) + b.channel, read.row + read.col, b.lanes);
    }
}

// By Decay.
using RowForward = void (*)(const Block&, int64_t, const Step*, const Both*, Both*, Both*);
template <bool IS_COUPLED, bool KEEP>
constexpr RowForward ROW_FORWARD[3] = {row_forward<IS_COUPLED, FREE, KEEP>, row_forward<IS_COUPLED, LARGE, KEEP>,
                                       row_forward<IS_COUPLED, GEOMETRIC, KEEP>};

void forward_block(const Block& b) {
    const Scan2dArguments& s = b.s;
    const int64_t row = (1 + s.width) * s.states * s.levels;
    Scratch memory(KINDS * row + s.width * (int64_t)(sizeof(Step) / sizeof(vfloat)));
    Both* h = (Both*)memory.take(KINDS * row);
    Step* steps = (Step*)memory.next;
    std::fill(h, h + row, Both{});
    const RowForward* forward = s.is_coupled ? ROW_FORWARD<true, false> : ROW_FORWARD<false, false>;
    for (int64_t i = 0; i < s.height; ++i) {
        const Decay decay = find_steps(b, i, steps);
        forward[decay](b, i, steps, h, h, nullptr);
    }
}

// What the backward sums up or hands on as it goes from cell to cell.
struct Carried {
    Both* dA;          // of one row, [rates of a channel]
    vfloat* dweights;  // of one cell, [N, 6], and up to LANES more
    vfloat *right;     // gradients of the decayed row states of the cell to the right, [N, L]
    vfloat *below;     // and of the decayed column states of the row below, [W, N, L]
};

// What the backward writes along a row.
struct GradientLines {
    Line du, ddelta_row, ddelta_col, dweights;

    GradientLines(const Block& b, int64_t i)
        : du(b.rows(b.s.du, i)), ddelta_row(b.rows(b.s.ddelta[0], i)), ddelta_col(b.rows(b.s.ddelta[1], i)) {
        const int64_t col = STATE_GRADS * b.s.states, row = b.s.width * col;
        dweights = b.rows(Map{b.s.map_sums, b.s.height * row, row, col}, i);
        for (const Line& line : {du, ddelta_row, ddelta_col}) b.prefetch(line);
    }

    // Sums over the channels of the block are added to those of the blocks before.
    INLINE void write(const Block& b, int64_t j, const Step& step, Both ddt, Both ddrive, const vfloat* lanes) const {
        const int64_t sums = STATE_GRADS * b.s.states;
        for (int64_t k = 0; k < sums; k += LANES) {
            float* sum = dweights.at(j) + k;
            store(sum, load(sum, sums - k) + sum_each(lanes + k), sums - k);
        }
        Both ddelta{ddt.row + ddrive.row * step.u, ddt.col + ddrive.col * step.u};
        if (b.s.softplus) {
            ddelta.row *= sigmoid(step.raw.row);
            ddelta.col *= sigmoid(step.raw.col);
        }
        store(ddelta_row.at(j) + b.channel, ddelta.row, b.lanes);
        store(ddelta_col.at(j) + b.channel, ddelta.col, b.lanes);
        store(du.at(j) + b.channel, ddrive.row * step.dt.row + ddrive.col * step.dt.col, b.lanes);
    }
};

// Gradients of what row_forward computed, from the last cell to the first.
template <bool IS_COUPLED, bool IS_GEOMETRIC>
void row_backward(const Block& b, int64_t i, const Step* steps, const Both* above, const Both* here,
                  const Both* decays, const Carried& carried) {
    const int64_t states = b.s.states, levels = IS_COUPLED ? 1 : b.s.levels, cell = states * levels;
    const GradientLines gradients(b, i);
    std::fill(carried.right, carried.right + cell, vfloat{});
    for (int64_t j = b.s.width - 1; j >= 0; --j) {
        const Weights* w = b.weights + (i * b.s.width + j) * states;
        const Step& step = steps[j];
        const Both *left = here + j * cell, *up = above + (j + 1) * cell, *h = here + (j + 1) * cell;
        const Both* e = decays + j * states;
        vfloat *right = carried.right, *below = carried.below + j * cell, *out = carried.dweights;
        Both ddt{}, ddrive{};
        for (int64_t n = 0; n < states; ++n, ++w, ++e) {
            vfloat above_right{}, above_below{};  // those of right and below, a level above
            Both dinput{}, slope{}, dg{};
            for (int64_t m = levels - 1; m >= 0; --m) {
                const vfloat r = right[m], d = below[m];
                const bool is_last = m == levels - 1;
                // Of the state: from the cells to the right and below, own kind and other, and from the output.
                if (IS_COUPLED) above_right = r, above_below = d;
                Both dh{r - r * w->g_right, d - d * w->g_below};
                if (IS_COUPLED || !is_last) {
                    dh.row += above_below * w->g_below;
                    dh.col += above_right * w->g_right;
                }
                if (is_last) {
                    dh.row += step.dy * w->C.row;
                    dh.col += step.dy * w->C.col;
                }
                above_right = r, above_below = d;
                dinput.row += dh.row;
                dinput.col += dh.col;
                // Of what it went on from. In the buffers it takes the place of what was read above.
                const vfloat f_row = dh.row * e->row, f_col = dh.col * e->col;
                right[m] = f_row;
                below[m] = f_col;
                // Of the exponent and of the coupling, which need what the forward went on from.
                const vfloat other_left = IS_COUPLED ? left[m].col : m ? left[m - 1].col : vfloat{};
                const vfloat other_up = IS_COUPLED ? up[m].row : m ? up[m - 1].row : vfloat{};
                slope.row += dh.row * mix(left[m].row, other_left, w->g.row) * e->row;
                slope.col += dh.col * mix(up[m].col, other_up, w->g.col) * e->col;
                dg.row += f_row * other_left - f_row * left[m].row;
                dg.col += f_col * other_up - f_col * up[m].col;
            }
            // All levels got the same input: their sums are the gradients of steps, rates and weights.
            ddrive.row += dinput.row * w->B.row;
            ddrive.col += dinput.col * w->B.col;
            if (IS_GEOMETRIC) {
                ddt.row += slope.row * (n + 1.0f);
                ddt.col += slope.col * (n + 1.0f);
            } else {
                ddt.row += slope.row * b.A[n].row;
                ddt.col += slope.col * b.A[n].col;
                carried.dA[n].row += slope.row * step.dt.row;
                carried.dA[n].col += slope.col * step.dt.col;
            }
            *out++ = dinput.row * step.drive.row;
            *out++ = dinput.col * step.drive.col;
            *out++ = step.dy * h[levels - 1].row;
            *out++ = step.dy * h[levels - 1].col;
            *out++ = dg.row;
            *out++ = dg.col;
            left += levels, up += levels, h += levels, right += levels, below += levels;
        }
        if (IS_GEOMETRIC) {
            carried.dA->row += ddt.row * step.dt.row;
            carried.dA->col += ddt.col * step.dt.col;
            ddt = {ddt.row * b.A->row, ddt.col * b.A->col};
        }
        gradients.write(b, j, step, ddt, ddrive, carried.dweights);
    }
}

// Scans one block again, keeps the states of some rows, from the last ones to the first, and runs back through them.
// Of the rows before them, only every so many are kept, as many as rows: so memory grows with the root of H.
void backward_block(const Block& b, Both* dA) {
    const Scan2dArguments& s = b.s;
    const int64_t cell = s.states * s.levels, row = (1 + s.width) * cell;
    int64_t kept = std::min(s.height, std::max<int64_t>(1, KEPT_VECTORS / (2 * row + 1)));
    while (kept * kept < s.height) ++kept;
    const int64_t segments = (s.height + kept - 1) / kept, rates = s.is_geometric ? 1 : s.states;
    const int64_t dweights = STATE_GRADS * s.states + LANES;
    constexpr int64_t STEP = sizeof(Step) / sizeof(vfloat);
    Scratch memory(2 * row * (segments + kept) + kept * s.width * (2 * s.states + STEP) + 2 * rates + dweights +
                   (1 + s.width) * cell);
    Both *starts = (Both*)memory.take(2 * row * segments), *states = (Both*)memory.take(2 * row * kept);
    Both* decays = (Both*)memory.take(2 * kept * s.width * s.states);
    Step* steps = (Step*)memory.take(kept * s.width * STEP);
    const Carried carried{(Both*)memory.take(2 * rates), memory.take(dweights), memory.take(cell),
                          memory.take(s.width * cell)};
    std::fill(carried.dweights, carried.dweights + dweights, vfloat{});
    std::fill(carried.below, carried.below + s.width * cell, vfloat{});
    std::fill(starts, starts + row, Both{});
    for (int64_t k = 1; k < segments; ++k) std::fill_n(starts + k * row, cell, Both{});
    for (int64_t k = 0; k < kept; ++k) std::fill_n(states + k * row, cell, Both{});

    // Forward to the last segment, keeping the row before each.
    const RowForward* pass = s.is_coupled ? ROW_FORWARD<true, true> : ROW_FORWARD<false, true>;
    const auto back = s.is_geometric ? (s.is_coupled ? row_backward<true, true> : row_backward<false, true>)
                                     : (s.is_coupled ? row_backward<true, false> : row_backward<false, false>);
    for (int64_t i = 0; i < (segments - 1) * kept; ++i) {
        Both* h = starts + (i / kept + 1) * row;
        const Decay decay = find_steps(b, i, steps);
        pass[decay](b, i, steps, i % kept ? h : h - row, h, decays);
    }
    // From the last segment to the first: its rows again, all kept, then back through them.
    for (int64_t segment = segments - 1; segment >= 0; --segment) {
        const int64_t begin = segment * kept, count = std::min(kept, s.height - begin);
        const auto above = [&](int64_t k) { return k ? states + (k - 1) * row : starts + segment * row; };
        for (int64_t k = 0; k < count; ++k) {
            const Decay decay = find_steps(b, begin + k, steps + k * s.width);
            pass[decay](b, begin + k, steps + k * s.width, above(k), states + k * row,
                           decays + k * s.width * s.states);
        }
        for (int64_t k = count - 1; k >= 0; --k) {
            // The rates' gradients are summed by rows first: long sums of float32 lose digits.
            std::fill(carried.dA, carried.dA + rates, Both{});
            back(b, begin + k, steps + k * s.width, above(k), states + k * row, decays + k * s.width * s.states,
                 carried);
            for (int64_t n = 0; n < rates; ++n) {
                dA[n].row += carried.dA[n].row;
                dA[n].col += carried.dA[n].col;
            }
        }
    }
}

int64_t cost(const Scan2dArguments& s, const PackedRates& p) {
    return KINDS * s.batch * p.blocks * s.height * s.width * s.states * s.levels;
}

}  // namespace

// A part is some images and a group of blocks. Their numbers depend on the sizes only, and so do the results.
EXPORT void v2m_scan_2d_forward(const Scan2dArguments* s) {
    const PackedRates p(*s);
    run({s->parallel, s->threads}, s->batch * s->groups, cost(*s, p), [&](int64_t part) {
        const int64_t image = part / s->groups, group = part % s->groups;
        std::vector<Weights> weights(s->height * s->width * s->states);
        pack_weights(*s, Rows{*s, image}, weights.data());
        for (int64_t block = group * p.blocks / s->groups; block < (group + 1) * p.blocks / s->groups; ++block)
            forward_block(Block(*s, p, weights, image, block));
    });
}

EXPORT void v2m_scan_2d_backward(const Scan2dArguments* s) {
    const PackedRates p(*s);
    run({s->parallel, s->threads}, s->strips * s->groups, 3 * cost(*s, p), [&](int64_t part) {
        const int64_t strip = part / s->groups, group = part % s->groups;
        const int64_t first = group * p.blocks / s->groups, end = (group + 1) * p.blocks / s->groups;
        const int64_t cells = s->height * s->width, sums = cells * STATE_GRADS * s->states;
        std::vector<Weights> weights(cells * s->states);
        std::vector<Both> dA((end - first) * p.per_channel);
        Scan2dArguments own = *s;
        own.map_sums += group * s->batch * sums;
        for (int64_t image = strip * s->batch / s->strips; image < (strip + 1) * s->batch / s->strips; ++image) {
            pack_weights(*s, Rows{*s, image}, weights.data());
            std::fill_n(own.map_sums + image * sums, sums, 0.0f);
            for (int64_t block = first; block < end; ++block)
                backward_block(Block(own, p, weights, image, block), dA.data() + (block - first) * p.per_channel);
        }
        float* rows = s->rate_sums + strip * KINDS * s->channels * p.per_channel;
        float* cols = rows + s->channels * p.per_channel;
        for (int64_t d = first * LANES; d < std::min(s->channels, end * LANES); ++d)
            for (int64_t n = 0; n < p.per_channel; ++n) {
                const Both& sum = dA[(d / LANES - first) * p.per_channel + n];
                rows[d * p.per_channel + n] = sum.row[d % LANES];
                cols[d * p.per_channel + n] = sum.col[d % LANES];
            }
    });
}
