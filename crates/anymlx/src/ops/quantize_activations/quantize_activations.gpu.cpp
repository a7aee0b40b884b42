// The 8-bit form of activations, as layout.rs describes it: of each 32 values q = round(x * 127 / amax),
// the scale amax / 127, and the sum of q over each 16. A group with a value that is not finite gets
// the scale NaN. The refined form has a second row for what the first leaves over, in the same way.
//
//   input: f32 [rows, columns]    output: `row_bytes` bytes for each row, or twice as many
// One threadgroup for each row. A simdgroup takes 128 values at a time, four to a lane: eight lanes
// share a scale, four share a sum.
struct QuantizeBlock { uint columns, groups, row_bytes, vectors; };

// Writes the form of the simdgroup's 128 values from column `first` on, of which this lane has four.
// Returns what it leaves over; its operations are the CPU's, so that the second row is the same too.
FN float4 quantize(float4 v, DEVICE uchar* row, QuantizeBlock p, uint first, uint lane) {
  const uint i = first + 4 * lane, group = i / 32;
  float top = max(max(fabs(v.x), fabs(v.y)), max(fabs(v.z), fabs(v.w)));
  float taint = v.x * 0.0f + v.y * 0.0f + v.z * 0.0f + v.w * 0.0f;  // NaN unless all are finite
  for (ushort m = 1; m < 8; m <<= 1) {
    top = max(top, simd_shuffle_xor(top, m));
    taint += simd_shuffle_xor(taint, m);
  }
  const bool zero = !(top > 1e-36f);  // 127 / top must be finite
  const float inverse = zero ? 0.0f : 127.0f / top, scale = zero ? 0.0f : top / 127.0f;
  if (!(taint == 0.0f)) v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  const int a = int(rint(v.x * inverse)), b = int(rint(v.y * inverse));
  const int c = int(rint(v.z * inverse)), d = int(rint(v.w * inverse));
  int sum = a + b + c + d;
  sum += simd_shuffle_xor(sum, 1);
  sum += simd_shuffle_xor(sum, 2);
  const int other = simd_shuffle_xor(sum, 4);
  DEVICE uchar* scales = row + p.columns;
  DEVICE uchar* sums = scales + 4 * p.groups;
  if (i < p.columns)
    store_u32(row + i, uint(a & 255) | uint(b & 255) << 8 | uint(c & 255) << 16 | uint(d & 255) << 24);
  if (lane % 8 == 0 && group < p.groups) {
    store_u32(scales + 4 * group, as_type<uint>(scale + taint));
    store_u32(sums + 4 * group, uint(sum & 65535) | uint(other) << 16);
  }
  return make_float4(add_rn(v.x, -mul_rn(scale, float(a))), add_rn(v.y, -mul_rn(scale, float(b))),
                     add_rn(v.z, -mul_rn(scale, float(c))), add_rn(v.w, -mul_rn(scale, float(d))));
}

// One row in one or two steps. The surplus groups and the bytes at the end are zero.
FN void quantize_row(const DEVICE float* x, DEVICE uchar* row, QuantizeBlock p, uint steps, uint tid, uint threads,
                     uint lane, uint simd_id, uint num_simds) {
  for (uint first = 128 * simd_id; first < 32 * p.groups; first += 128 * num_simds) {
    const uint i = first + 4 * lane;
    float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (i < p.columns) v = p.vectors ? load4(x + i) : make_float4(x[i], x[i + 1], x[i + 2], x[i + 3]);
    for (uint step = 0; step < steps; step++) v = quantize(v, row + step * p.row_bytes, p, first, lane);
  }
  const uint used = p.columns + 8 * p.groups;
  for (uint step = 0; step < steps; step++)
    for (uint i = used + 4 * tid; i < p.row_bytes; i += 4 * threads) store_u32(row + step * p.row_bytes + i, 0);
}

KERNEL(quantize_activations_f32, IN(float, input), OUT(uchar, output), PARAMS(QuantizeBlock, p)) {
  quantize_row(input + u64(tg_id.x) * p.columns, output + u64(tg_id.x) * p.row_bytes, p, 1, tid, tg_size.x, lane,
               simd_id, num_simds);
}

KERNEL(quantize_activations_refined_f32, IN(float, input), OUT(uchar, output), PARAMS(QuantizeBlock, p)) {
  quantize_row(input + u64(tg_id.x) * p.columns, output + 2 * u64(tg_id.x) * p.row_bytes, p, 2, tid, tg_size.x, lane,
               simd_id, num_simds);
}
