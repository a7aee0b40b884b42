// Dense weights: their element type by the name of the encoding.
typedef float dense_f32;
typedef f16 dense_f16;
typedef bf16 dense_bf16;
