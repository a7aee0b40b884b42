// Products of N rows of weights with T rows of activations, by one simdgroup: each lane takes its
// share of the columns, and simd_sum joins the lanes. Sums are f32; integer products within a run of
// 16 are exact.
template <typename P, int N> struct Rows { P at[N]; };
template <int N, int T> struct Sums { float at[N][T]; };

template <int N, int T> FN Sums<N, T> no_sums() {
  Sums<N, T> sums;
  for (int n = 0; n < N; n++) for (int t = 0; t < T; t++) sums.at[n][t] = 0.0f;
  return sums;
}

// Four values, at once where the host knows that they are aligned.
FN float4 four_values(const DEVICE float* p, bool aligned) {
  return aligned ? load4(p) : make_float4(p[0], p[1], p[2], p[3]);
}

#if defined(ELEMENT_IS_QUANTIZED)
typedef GPU_CAT(format_, ELEMENT) Format;
typedef uchar Stored;

FN int dot16(Run r, uint4 q) {
  return dot4_i8(r.q[0], q.x, dot4_i8(r.q[1], q.y, dot4_i8(r.q[2], q.z, dot4_i8(r.q[3], q.w, 0))));
}

// Where row `row` of the weights begins
FN const DEVICE uchar* weight_row(const DEVICE uchar* weight, uint row, uint columns) {
  return weight + u64(row) * (columns / Format::BLOCK * Format::BYTES);
}

// 8-bit activations: `columns` quants, then f32 scales of each 32, then i16 sums of each 16
template <int N, int T>
FN Sums<N, T> dot_rows_i8(Rows<const DEVICE uchar*, N> w, Rows<const DEVICE uchar*, T> x, uint columns, uint groups,
                          uint lane) {
  Sums<N, T> sums = no_sums<N, T>();
  const uint pieces = columns / Format::BLOCK * Format::PIECES;
  for (uint i = lane; i < pieces; i += 32) {
    const uint block = i / Format::PIECES, piece = i % Format::PIECES;
    UNROLL
    for (uint part = 0; part < Format::RUNS; part++) {
      const uint index = block * (Format::BLOCK / 16) + Format::index_of(piece, part);
      Run r[N];
      UNROLL
      for (int n = 0; n < N; n++) r[n] = Format::run(w.at[n] + block * Format::BYTES, piece, part);
      UNROLL
      for (int t = 0; t < T; t++) {
        const uint4 q = load_u128(x.at[t] + 16 * index);
        const float scale = as_type<float>(load_u32(x.at[t] + columns + 4 * (index / 2)));
        const float sum = float(int(load_u16(x.at[t] + columns + 4 * groups + 2 * index) << 16) >> 16);
        UNROLL
        for (int n = 0; n < N; n++) {
          const float product = r[n].d * float(dot16(r[n], q));
          sums.at[n][t] += scale * (Format::HAS_MIN ? product - r[n].m * sum : product);
        }
      }
    }
  }
  return sums;
}

template <int N, int T>
FN Sums<N, T> dot_rows_f32(Rows<const DEVICE uchar*, N> w, Rows<const DEVICE float*, T> x, uint columns,
                           uint vector_columns, uint lane) {
  Sums<N, T> sums = no_sums<N, T>();
  const uint pieces = columns / Format::BLOCK * Format::PIECES;
  for (uint i = lane; i < pieces; i += 32) {
    const uint block = i / Format::PIECES, piece = i % Format::PIECES;
    for (uint part = 0; part < Format::RUNS; part++) {
      const uint index = block * (Format::BLOCK / 16) + Format::index_of(piece, part);
      UNROLL
      for (int n = 0; n < N; n++) {
        const Run r = Format::run(w.at[n] + block * Format::BYTES, piece, part);
        UNROLL
        for (uint word = 0; word < 4; word++) {
          const float4 q = signed_bytes(r.q[word]);
          const float4 v = make_float4(fma(r.d, q.x, -r.m), fma(r.d, q.y, -r.m), fma(r.d, q.z, -r.m), fma(r.d, q.w, -r.m));
          UNROLL
          for (int t = 0; t < T; t++)
            sums.at[n][t] += dot(v, four_values(x.at[t] + 16 * index + 4 * word, vector_columns > 0));
        }
      }
    }
  }
  return sums;
}
#else
typedef GPU_CAT(dense_, ELEMENT) Stored;

FN const DEVICE Stored* weight_row(const DEVICE Stored* weight, uint row, uint columns) {
  return weight + u64(row) * columns;
}

// Columns below `vector_columns` are taken four at a time, the others one by one.
template <int N, int T>
FN Sums<N, T> dot_rows_f32(Rows<const DEVICE Stored*, N> w, Rows<const DEVICE float*, T> x, uint columns,
                           uint vector_columns, uint lane) {
  Sums<N, T> sums = no_sums<N, T>();
  for (uint i = 4 * lane; i < vector_columns; i += 128) {
    float4 v[N];
    UNROLL
    for (int n = 0; n < N; n++) v[n] = load4(w.at[n] + i);
    UNROLL
    for (int t = 0; t < T; t++) {
      const float4 values = load4(x.at[t] + i);
      UNROLL
      for (int n = 0; n < N; n++) sums.at[n][t] += dot(v[n], values);
    }
  }
  for (uint i = vector_columns + lane; i < columns; i += 32) {
    UNROLL
    for (int n = 0; n < N; n++) {
      const float v = ld(w.at[n] + i);
      UNROLL
      for (int t = 0; t < T; t++) sums.at[n][t] = fma(v, x.at[t][i], sums.at[n][t]);
    }
  }
  return sums;
}
#endif
