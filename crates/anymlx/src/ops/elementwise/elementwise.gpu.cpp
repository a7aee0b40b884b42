// Sums, products and caps of f32 values. One thread for each value; `count` values.
struct CountBlock { uint count; };
struct FactorBlock { uint count; float factor; };
struct BiasBlock { uint count, columns; };

// output = left + right
KERNEL(add_f32, IN(float, left), IN(float, right), OUT(float, output), PARAMS(CountBlock, p)) {
  const uint i = tg_id.x * tg_size.x + tid;
  if (i < p.count) output[i] = left[i] + right[i];
}

// target += update
KERNEL(add_in_place_f32, INOUT(float, target), IN(float, update), PARAMS(CountBlock, p)) {
  const uint i = tg_id.x * tg_size.x + tid;
  if (i < p.count) target[i] += update[i];
}

// values[r, c] += bias[c]
KERNEL(add_bias_f32, INOUT(float, values), IN(float, bias), PARAMS(BiasBlock, p)) {
  const uint i = tg_id.x * tg_size.x + tid;
  if (i < p.count) values[i] += bias[i % p.columns];
}

// output = left * right
KERNEL(multiply_f32, IN(float, left), IN(float, right), OUT(float, output), PARAMS(CountBlock, p)) {
  const uint i = tg_id.x * tg_size.x + tid;
  if (i < p.count) output[i] = left[i] * right[i];
}

// values *= factor
KERNEL(scale_f32, INOUT(float, values), PARAMS(FactorBlock, p)) {
  const uint i = tg_id.x * tg_size.x + tid;
  if (i < p.count) values[i] *= p.factor;
}

// values = factor * tanh(values / factor)
KERNEL(softcap_f32, INOUT(float, values), PARAMS(FactorBlock, p)) {
  const uint i = tg_id.x * tg_size.x + tid;
  if (i < p.count) values[i] = p.factor * tanh(values[i] / p.factor);
}
