// Activations of gated feed-forward layers; numbered as in `Activation`.
enum { ACTIVATION_SILU = 0, ACTIVATION_GELU_TANH = 1, ACTIVATION_GELU_ERF = 2 };

// x / (1 + e^-z), with an exponential that cannot overflow
FN float gated_by(float x, float z) {
  const float e = exp(-fabs(z));
  return x * ((z < 0.0f ? e : 1.0f) / (1.0f + e));
}

// x / 2 (1 + erf(x / sqrt 2)), with erfc z = t p(t) e^-z^2 for z >= 0 and t = 1 / (1 + z / 2). Metal
// has no erf. The coefficients are those of the kernels for CPUs.
FN float gelu_erf(float x) {
  const float z = fabs(x) * 0.70710678f;
  const float t = 1.0f / fma(z, 0.5f, 1.0f);
  float p = -0.059172038f;
  p = fma(p, t, 0.28507885f);
  p = fma(p, t, -0.4882455f);
  p = fma(p, t, 0.27926603f);
  p = fma(p, t, -0.02745353f);
  p = fma(p, t, 0.20303804f);
  p = fma(p, t, 0.24301478f);
  p = fma(p, t, 0.28238758f);
  p = fma(p, t, 0.28208572f);
  const float half_erfc = 0.5f * t * p * exp(-z * z);
  return x * (x < 0.0f ? half_erfc : 1.0f - half_erfc);
}

FN float activate(uint activation, float x) {
  if (activation == ACTIVATION_SILU) return gated_by(x, x);
  // x / 2 (1 + tanh u) = x / (1 + e^-2u) with u = sqrt(2 / pi) (x + 0.044715 x^3)
  if (activation == ACTIVATION_GELU_TANH) return gated_by(x, 1.5957691f * x * fma(0.044715f, x * x, 1.0f));
  return gelu_erf(x);
}
