// Rotates pair i of every head, (a, b), to (a cos t - b sin t, a sin t + b cos t) * magnitude, with
// t = positions[token] * frequencies[i], in place.
//
//   values: f32 [tokens, heads, head_dim]    positions: u32 [tokens]    frequencies: f32 [pairs]
// One threadgroup for each token (x) and head (y), its threads take the pairs in turn.
struct RopeBlock { uint heads, head_dim, pairs, interleaved; float magnitude; };

KERNEL(rope_f32, INOUT(float, values), IN(uint, positions), IN(float, frequencies), PARAMS(RopeBlock, p)) {
  const uint position = positions[tg_id.x];
  DEVICE float* head = values + (u64(tg_id.x) * p.heads + tg_id.y) * p.head_dim;
  for (uint i = tid; i < p.pairs; i += tg_size.x) {
    const Angle t = angle(position, frequencies[i]);
    const float sine = t.sine * p.magnitude, cosine = t.cosine * p.magnitude;
    const uint first = p.interleaved ? 2 * i : i, second = p.interleaved ? 2 * i + 1 : p.pairs + i;
    const float a = head[first], b = head[second];
    head[first] = a * cosine - b * sine;
    head[second] = a * sine + b * cosine;
  }
}
