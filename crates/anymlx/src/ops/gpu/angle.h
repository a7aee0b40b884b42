// Angles of rotary position embeddings.
struct Angle { float sine, cosine; };

// Sine and cosine of position * frequency to about 1e-7, at any position. The angle is counted in
// quarter turns as the exact sum of a few f32, whose whole parts drop out one by one.
FN Angle angle(uint position, float frequency) {
  // 2 / pi as a sum
  const float high = 0.63661977f, low = 2.5682553e-8f;
  const float turn = frequency * high;
  const float turn_low = fma(frequency, high, -turn) + frequency * low;
  // both halves of the position are exact
  const float far = float(position & ~4095u), near = float(position & 4095u);
  const float a = far * turn, b = near * turn;
  const float a_low = fma(far, turn, -a), b_low = fma(near, turn, -b);
  const float whole_a = rint(a), whole_b = rint(b);
  float rest = (a - whole_a) + (b - whole_b);
  rest = rest + (a_low + b_low + (far + near) * turn_low);
  const float whole_rest = rint(rest);
  rest = rest - whole_rest;
  // the last quarter of a turn, 0..3; every term is a whole number far below 2^24
  const float quarters = (whole_a - 4.0f * floor(whole_a * 0.25f)) + (whole_b - 4.0f * floor(whole_b * 0.25f)) + whole_rest;
  const uint quarter = uint(int(quarters)) & 3u;
  const float r = rest * 1.57079633f, square = r * r;
  const float s = fma(r * square, fma(square, fma(square, fma(square, 2.7557319e-6f, -1.9841270e-4f), 8.3333333e-3f), -0.16666667f), r);
  const float c = fma(square * square, fma(square, fma(square, 2.4801587e-5f, -1.3888889e-3f), 0.041666667f), fma(square, -0.5f, 1.0f));
  Angle result;
  result.sine = (quarter & 1u) ? c : s;
  result.cosine = (quarter & 1u) ? s : c;
  if (quarter & 2u) result.sine = -result.sine;
  if ((quarter + 1u) & 2u) result.cosine = -result.cosine;
  return result;
}
