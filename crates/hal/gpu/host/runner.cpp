// Runs kernels for the `emulator` backend: requests on standard input, answers on standard output.
// All numbers are little-endian.
//
//   request  u8 any value, u32 bytes of the name, name, u32 groups[3], u32 threads, u32 order, u64 seed, u32 bindings,
//            per binding: u32 written, u32 alignment (address modulo 256), u64 bytes, the bytes;
//            u64 bytes of the parameter block, the bytes
//   answer   u32 0, then the bytes of each written binding; or u32 bytes of a message, the message
//
// Every binding is a heap block of its own with exactly its bytes, so that a sanitizer sees each
// access outside. What a kernel must not do ends the process; the other side reads standard error.
#include "../gpu.h"
#include "runner.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string>
#include <unistd.h>
#include <vector>

extern "C" __attribute__((weak)) void __asan_poison_memory_region(const volatile void*, size_t);
extern "C" __attribute__((weak)) void __asan_unpoison_memory_region(const volatile void*, size_t);

namespace {
enum { ALIGNMENT = 256 };
int answers;  // where standard output was: a kernel's text cannot reach it

[[noreturn]] void give_up(const char* what) {
  fprintf(stderr, "runner: %s: %s\n", what, strerror(errno));
  _Exit(71);
}

// False at the end of the requests.
bool read_all(void* to, size_t bytes) {
  for (size_t at = 0; at < bytes;) {
    const ssize_t n = read(0, (char*)to + at, bytes - at);
    if (n == 0) return false;
    if (n < 0 && errno != EINTR) give_up("read a request");
    if (n > 0) at += n;
  }
  return true;
}
template <typename T> T take() {
  T value;
  if (!read_all(&value, sizeof value)) _Exit(0);
  return value;
}
void write_all(const void* from, size_t bytes) {
  for (size_t at = 0; at < bytes;) {
    const ssize_t n = write(answers, (const char*)from + at, bytes - at);
    if (n < 0 && errno != EINTR) give_up("write an answer");
    if (n > 0) at += n;
  }
}

// A heap block that ends with its last byte and has the alignment of the device's memory.
struct Block {
  char *base, *start;
  size_t bytes;
  Block(size_t offset, size_t size) : bytes(size) {
    base = nullptr;
    if (posix_memalign((void**)&base, ALIGNMENT, offset + size)) give_up("allocate a binding");
    if (offset && __asan_poison_memory_region) __asan_poison_memory_region(base, offset);
    start = base + offset;
  }
  void end() {
    if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(base, start - base);
    free(base);
  }
};

std::string format(const char* text, ...) __attribute__((format(printf, 1, 2)));
std::string format(const char* text, ...) {
  char line[512];
  va_list rest;
  va_start(rest, text);
  vsnprintf(line, sizeof line, text, rest);
  va_end(rest);
  return line;
}

struct Binding { bool written; Block data; Block before; };

// What is wrong with the arguments; empty if nothing is.
std::string check(const gpu_entry* e, const std::string& name, uint threads, const std::vector<Binding>& bindings,
                  size_t block) {
  if (!e) return format("the text has no kernel `%s`", name.c_str());
  if (threads == 0 || threads % 32 || threads > e->threads)
    return format("%u threads, needed a multiple of 32, at most %u", threads, e->threads);
  const size_t given = bindings.size() + (block ? 1 : 0);
  if (given != e->argument_count)
    return format("%zu bindings and a parameter block of %zu bytes, the kernel has %zu parameters", bindings.size(),
                  block, e->argument_count);
  for (size_t i = 0; i < bindings.size(); i++) {
    const gpu_argument& a = e->arguments[i];
    const Binding& b = bindings[i];
    if (a.kind == GPU_BLOCK) return format("argument %zu is a buffer, the kernel has its block there", i);
    if ((a.kind == GPU_WRITE) != b.written)
      return format("binding %zu is declared as %s, the kernel's parameter is %s", i, b.written ? "written" : "read",
                    a.kind == GPU_WRITE ? "OUT or INOUT" : "IN");
    if (b.data.bytes % a.bytes) return format("binding %zu: %zu bytes for elements of %zu", i, b.data.bytes, a.bytes);
  }
  if (block && (e->arguments[given - 1].kind != GPU_BLOCK || e->arguments[given - 1].bytes != block))
    return format("a parameter block of %zu bytes, the kernel's has %zu", block, e->arguments[given - 1].bytes);
  return std::string();
}

void serve_one() {
  std::string name(take<uint32_t>(), ' ');
  if (!read_all(&name[0], name.size())) _Exit(0);
  uint3 groups;
  groups.x = take<uint32_t>();
  groups.y = take<uint32_t>();
  groups.z = take<uint32_t>();
  const uint threads = take<uint32_t>();
  gpu_schedule schedule;
  schedule.order = gpu_order(take<uint32_t>());
  schedule.seed = take<uint64_t>();
  std::vector<Binding> bindings;
  for (uint32_t n = take<uint32_t>(); n > 0; n--) {
    const bool written = take<uint32_t>();
    const size_t offset = take<uint32_t>() % ALIGNMENT;
    const size_t bytes = take<uint64_t>();
    Binding b = {written, Block(offset, bytes), Block(0, written ? 1 : bytes)};
    if (!read_all(b.data.start, bytes)) _Exit(0);
    if (!written) memcpy(b.before.start, b.data.start, bytes);
    bindings.push_back(b);
  }
  Block block(0, take<uint64_t>());
  if (!read_all(block.start, block.bytes)) _Exit(0);

  const gpu_entry* entry = gpu_host_find(name.c_str());
  std::string wrong = check(entry, name, threads, bindings, block.bytes);
  if (wrong.empty()) {
    std::vector<void*> args;
    for (Binding& b : bindings) args.push_back(&b.data.start);
    if (block.bytes) args.push_back(block.start);
    gpu_host_launch(entry, groups, threads, schedule, args.data());
    for (size_t i = 0; i < bindings.size(); i++)
      if (!bindings[i].written && memcmp(bindings[i].data.start, bindings[i].before.start, bindings[i].data.bytes))
        wrong = format("the kernel wrote binding %zu, which is declared as read", i);
  }
  const uint32_t length = wrong.size();
  write_all(&length, sizeof length);
  write_all(wrong.data(), length);
  for (Binding& b : bindings) {
    if (wrong.empty() && b.written) write_all(b.data.start, b.data.bytes);
    b.data.end();
    b.before.end();
  }
  block.end();
}
}  // namespace

// arguments: seconds after which a launch counts as endless
int main(int argc, char** argv) {
  answers = dup(1);
  if (answers < 0 || dup2(2, 1) < 0) give_up("redirect standard output");
  const unsigned limit = argc > 1 ? atoi(argv[1]) : 0;
  for (;;) {
    alarm(0);
    char first;  // waits for the next request without a limit
    if (!read_all(&first, 1)) return 0;
    alarm(limit);
    serve_one();
  }
}
