// Enough of CUDA for g++: a kernel's threads run as fibres, block after block, on one CPU thread.
//
// A thread runs until the next __syncthreads() or its end, then the next one does: from the first
// to the last, or with `on_host::falling` from the last to the first. What only holds because
// threads run at once, or in an order, is found by comparing the two. `on_host::faults` counts
// launches that CUDA would refuse, and barriers that not all threads of a block reach.
// The text of a launch, kernel<<<blocks, threads>>>(...), must become ON_HOST(kernel, blocks,
// threads)(...). Include it first: standard headers must not see __CUDACC__.
#pragma once
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <unordered_map>
#include <vector>

#define __CUDACC__
#define __host__
#define __device__
#define __global__
#define __shared__ static

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 0, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
static dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace on_host {
struct Fibre {  // runs one thread of every block; entered by `start`, later by `at`
    ucontext_t start;
    jmp_buf at;
    std::vector<char> stack;
    bool ended;
};
static std::vector<Fibre> fibres(1024);
static jmp_buf scheduler;
static Fibre* running;
static std::function<void()> kernel;
static int faults = 0;
static bool falling = false;

static void wait() {
    if (!_setjmp(running->at)) _longjmp(scheduler, 1);
}
static void run_threads() {
    for (;;) {
        kernel();
        running->ended = true;
        wait();
    }
}
__attribute__((noinline)) static void resume() {
    if (_setjmp(scheduler)) return;
    if (running->stack.size()) _longjmp(running->at, 1);
    running->stack.resize(1 << 16);
    getcontext(&running->start);
    running->start.uc_stack.ss_sp = running->stack.data();
    running->start.uc_stack.ss_size = running->stack.size();
    makecontext(&running->start, run_threads, 0);
    setcontext(&running->start);
}
static void run_block(unsigned count) {
    for (unsigned k = 0; k < count; k++) fibres[k].ended = false;
    for (unsigned ended = 0; ended < count;) {
        ended = 0;
        for (unsigned k = 0; k < count; k++) {
            threadIdx = dim3(falling ? count - 1 - k : k, 0, 0);
            running = &fibres[threadIdx.x];
            if (!running->ended) resume();
            ended += running->ended;
        }
        if (ended > 0 && ended < count) faults++;
    }
}
static void run(dim3 blocks, unsigned count) {
    if (blocks.x == 0 || blocks.x > 0x7fffffffu || blocks.y > 65535 || count < 1 || count > 1024) {
        faults++;
        return;
    }
    gridDim = blocks;
    blockDim = dim3(count);
    for (unsigned y = 0; y < blocks.y; y++)
        for (unsigned x = 0; x < blocks.x; x++) {
            blockIdx = dim3(x, y, 0);
            run_block(count);
        }
}

template <class Kernel> auto grid(dim3 blocks, unsigned count, Kernel body) {
    return [=](auto... given) {
        kernel = [=] { body(given...); };
        run(blocks, count);
    };
}
}
#define ON_HOST(kernel, blocks, threads) \
    on_host::grid(blocks, threads, [](auto... given) { kernel(given...); })

static void __syncthreads() { on_host::wait(); }

// What Jittor gives to a body.
namespace jittor {
typedef long long int64;
typedef unsigned char uint8;
typedef float float32;
typedef double float64;
typedef int int32;
struct Var {
    void* memory;
    int64 num;
    std::vector<int64> shape;
    template <class T> T* ptr() { return (T*)memory; }
};
struct CodeOp {
    std::vector<Var*> _inputs, _outputs;
    std::unordered_map<std::string, double> data;
};
// Run a body: memory and shapes (dimensions, then sizes) of its inputs and outputs, its numbers.
template <class Body> int call(
    int inputs, int outputs, void** memory, const int64* shapes,
    int numbers, const char** names, const double* values, int falling
) {
    Body body;
    std::vector<Var> all(inputs + outputs);
    for (int k = 0; k < inputs + outputs; k++) {
        all[k].memory = memory[k];
        all[k].num = 1;
        for (int64 left = *shapes++; left > 0; left--) {
            all[k].shape.push_back(*shapes);
            all[k].num *= *shapes++;
        }
        (k < inputs ? body._inputs : body._outputs).push_back(&all[k]);
    }
    for (int k = 0; k < numbers; k++) body.data[names[k]] = values[k];
    on_host::faults = 0;
    on_host::falling = falling;
    body.run();
    return on_host::faults;
}
}
