// Copies and fills for backends whose encoders do nothing but run kernels. One element for each thread;
// `count` elements, at most 2^30.
struct TransferBlock { uint count, value; };

KERNEL(copy_bytes, IN(uchar, from), OUT(uchar, to), PARAMS(TransferBlock, p)) {
  const uint i = tg_id.x * tg_size.x + tid;
  if (i < p.count) to[i] = from[i];
}

// Both aligned to 16 bytes
KERNEL(copy_vectors, IN(uint4, from), OUT(uint4, to), PARAMS(TransferBlock, p)) {
  const uint i = tg_id.x * tg_size.x + tid;
  if (i < p.count) to[i] = from[i];
}

KERNEL(fill_bytes, OUT(uchar, to), PARAMS(TransferBlock, p)) {
  const uint i = tg_id.x * tg_size.x + tid;
  if (i < p.count) to[i] = uchar(p.value);
}
