// The matrix instructions of sm_90a, issued by a warpgroup: four warps, the first a multiple of four. Sums are
// f32: thread l of warp w has of every eight columns 2 (l % 4) and the next one, in row 16 w + l / 4 (sums 4 j
// and 4 j + 1 for columns from 8 j on) and in the eighth row after it (4 j + 2, 4 j + 3).
template <int N> struct Sums { float at[N / 2]; };

FN uint shared_address(const void* p) { return uint(__cvta_generic_to_shared(p)); }

// A matrix in shared memory as the instructions are told of it: 64 elements of 16 bits make a line of 128 bytes,
// whose 16-byte chunks are swizzled by the line's number modulo 8; eight lines are 1024 bytes, aligned to as many.
// `across` is the distance in bytes to the next 64 elements along a line, where one instruction needs more.
FN u64 matrix_at(uint address, uint across = 0) {
  return u64((address & 0x3ffffu) >> 4) | u64(across ? across >> 4 : 1) << 16 | u64(1024 >> 4) << 32 | u64(1) << 62;
}

FN void multiplications_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
FN void multiplications_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits until at most `Left` groups are unfinished.
template <int Left> FN void multiplications_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Left) : "memory");
}
// What this thread has written to shared memory becomes visible to the matrix instructions, after a barrier.
FN void shared_for_matrices() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

#define SUMS_0 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
               "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define SUMS_1 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
               "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define SUMS_2 "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
               "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define SUMS_3 "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
               "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define EIGHT(s, i) "+f"(s[i]), "+f"(s[i + 1]), "+f"(s[i + 2]), "+f"(s[i + 3]), "+f"(s[i + 4]), "+f"(s[i + 5]), "+f"(s[i + 6]), "+f"(s[i + 7])
#define THIRTY_TWO(s, i) EIGHT(s, i), EIGHT(s, i + 8), EIGHT(s, i + 16), EIGHT(s, i + 24)

// sums = a b^T, or += where `accumulate` is not 0, for 64 rows of a, the N of b and 16 columns, which lie along lines
FN void multiply_f16(Sums<64>& sums, u64 a, u64 b, uint accumulate) {
  float* s = sums.at;
  asm volatile("{ .reg .pred p; setp.ne.b32 p, %34, 0; wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {" SUMS_0
               "}, %32, %33, p, 1, 1, 0, 0; }"
               : THIRTY_TWO(s, 0) : "l"(a), "l"(b), "r"(accumulate));
}
FN void multiply_bf16(Sums<128>& sums, u64 a, u64 b, uint accumulate) {
  float* s = sums.at;
  asm volatile("{ .reg .pred p; setp.ne.b32 p, %66, 0; wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" SUMS_0 ", " SUMS_1
               "}, %64, %65, p, 1, 1, 0, 0; }"
               : THIRTY_TWO(s, 0), THIRTY_TWO(s, 32) : "l"(a), "l"(b), "r"(accumulate));
}
FN void multiply_bf16(Sums<256>& sums, u64 a, u64 b, uint accumulate) {
  float* s = sums.at;
  asm volatile("{ .reg .pred p; setp.ne.b32 p, %130, 0; wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" SUMS_0 ", " SUMS_1 ", " SUMS_2 ", " SUMS_3
               "}, %128, %129, p, 1, 1, 0, 0; }"
               : THIRTY_TWO(s, 0), THIRTY_TWO(s, 32), THIRTY_TWO(s, 64), THIRTY_TWO(s, 96) : "l"(a), "l"(b), "r"(accumulate));
}
// sums += a b for 64 rows and 16 columns of a, in registers, and b, whose N columns lie along lines
FN void add_product(Sums<64>& sums, uint4 a, u64 b) {
  float* s = sums.at;
  asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {" SUMS_0
               "}, {%32, %33, %34, %35}, %36, 1, 1, 1, 1;"
               : THIRTY_TWO(s, 0) : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "l"(b));
}
FN void add_product(Sums<128>& sums, uint4 a, u64 b) {
  float* s = sums.at;
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {" SUMS_0 ", " SUMS_1
               "}, {%64, %65, %66, %67}, %68, 1, 1, 1, 1;"
               : THIRTY_TWO(s, 0), THIRTY_TWO(s, 32) : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "l"(b));
}
FN void add_product(Sums<256>& sums, uint4 a, u64 b) {
  float* s = sums.at;
  asm volatile("wgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16 {" SUMS_0 ", " SUMS_1 ", " SUMS_2 ", " SUMS_3
               "}, {%128, %129, %130, %131}, %132, 1, 1, 1, 1;"
               : THIRTY_TWO(s, 0), THIRTY_TWO(s, 32), THIRTY_TWO(s, 64), THIRTY_TWO(s, 96) : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "l"(b));
}
