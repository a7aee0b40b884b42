// What the runner (runner.cpp) asks of the emulator (emulator.cpp).
#ifndef GPU_RUNNER_H
#define GPU_RUNNER_H

// The order in which threads run between two meetings; results must not depend on it.
enum gpu_order { GPU_FORWARD, GPU_REVERSE, GPU_SHUFFLED };
struct gpu_schedule { gpu_order order; uint64_t seed; };

// The kernel of this name; null if this program has none.
const gpu_entry* gpu_host_find(const char* name);

// Runs a kernel over groups x threads; args[i] points at argument i, as for cuLaunchKernel.
// Returns when every thread has ended.
void gpu_host_launch(const gpu_entry* entry, uint3 groups, uint threads, gpu_schedule schedule, void** args);
#endif
