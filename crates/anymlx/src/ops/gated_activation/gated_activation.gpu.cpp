// output = activation(gate) * up, `count` f32 values. One thread for each value.
struct GatedActivationBlock { uint count, activation; };

KERNEL(gated_activation_f32, IN(float, gate), IN(float, up), OUT(float, output), PARAMS(GatedActivationBlock, p)) {
  const uint i = tg_id.x * tg_size.x + tid;
  if (i < p.count) output[i] = activate(p.activation, gate[i]) * up[i];
}
