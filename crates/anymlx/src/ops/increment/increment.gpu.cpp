// values[i] += 1, wrapping. One thread for each value.
struct IncrementBlock { uint count; };

KERNEL(increment_u32, INOUT(uint, values), PARAMS(IncrementBlock, p)) {
  const uint i = tg_id.x * tg_size.x + tid;
  if (i < p.count) values[i] += 1;
}
