// The inner loops: one block of channels and one chunk of states along some cells of a line.
//
// A chunk has CHUNK states, a constant so that they stay in registers. The decays of a cell are exp(dt * A), one
// exponential per state, or where the rates of a channel are geometric, the powers of the first.
#pragma once

#include "vector.h"

struct SweepArguments {
    int64_t chunk;
    const vfloat *rates, *dt;      // of free decays, to the base of exp4_product: [CHUNK], [cells]
    const vfloat *ratio, *lowest;  // of geometric ones: that between two states, and the decay of the first, [cells]
    const vfloat* drive;           // dt * u, [cells]
    const float *B, *C;            // [cells, CHUNK]
    vfloat* y;                     // gets <C, h> added, [cells]
    vfloat *decays, *states;       // kept for the way back, [cells, CHUNK] and [1 + cells, CHUNK]
};

struct SweepBackArguments {
    const vfloat *A, *dt;           // [CHUNK], [cells]
    const vfloat *drive, *dy;       // [cells]
    const float *B, *C;             // [cells, CHUNK]
    const vfloat *decays, *states;  // what the forward kept
    vfloat *carry, *dA;             // [CHUNK]
    vfloat *ddt, *ddrive;           // get the sums over the states added, [cells]
    vfloat *dB, *dC;                // per lane, [cells, CHUNK]
};

// The loops for one CHUNK and for whether B and C are given.
struct Loops {
    // Runs over some cells and updates h [CHUNK]. By Decay.
    using Sweep = void (*)(const SweepArguments&, int64_t cells, vfloat* h);
    Sweep read[3], pass[3], keep[3];
    // The gradients of what keep computed, from the last cell to the first. carry holds a * dh of the cell after.
    using SweepBack = void (*)(const SweepBackArguments&, int64_t cells);
    SweepBack back[2];  // by whether rates are geometric
};

int chunk_for(int64_t states);

const Loops& loops_for(int64_t states, bool has_B, bool has_C);
