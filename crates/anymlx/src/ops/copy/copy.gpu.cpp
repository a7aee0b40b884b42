// to = from in another element type, rounded to nearest, ties to even; `count` values, one thread each.
struct CopyBlock { uint count; };

#define COPY(name, From, To)                                          \
  KERNEL(name, IN(From, from), OUT(To, to), PARAMS(CopyBlock, p)) {   \
    const uint i = tg_id.x * tg_size.x + tid;                         \
    if (i < p.count) st(to + i, ld(from + i));                        \
  }
COPY(copy_f32_to_f16, float, f16)
COPY(copy_f32_to_bf16, float, bf16)
COPY(copy_f16_to_f32, f16, float)
COPY(copy_f16_to_bf16, f16, bf16)
COPY(copy_bf16_to_f32, bf16, float)
COPY(copy_bf16_to_f16, bf16, f16)
