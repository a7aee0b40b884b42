// The logits of llama.cpp for every position of a given input, for `make.py --compare`.
//
//   llama_cpp_logits MODEL.gguf TOKEN [TOKEN ..]   > LOGITS     (native-endian float32, [tokens, vocabulary])
//
// Runs on the CPU with a float32 key-value cache and without flash attention, which would round more than needed.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "llama.h"

int main(int argc, char ** argv) {
    if (argc < 3) {
        std::fprintf(stderr, "usage: %s MODEL.gguf TOKEN [TOKEN ..]\n", argv[0]);
        return 2;
    }
    std::vector<llama_token> tokens;
    for (int i = 2; i < argc; ++i) {
        tokens.push_back(std::atoi(argv[i]));
    }
    const int count = static_cast<int>(tokens.size());

    llama_backend_init();
    llama_model_params model_params = llama_model_default_params();
    model_params.n_gpu_layers = 0;
    llama_model * model = llama_model_load_from_file(argv[1], model_params);
    if (model == nullptr) {
        return 1;
    }
    llama_context_params params = llama_context_default_params();
    params.n_ctx = 128;
    params.n_batch = params.n_ubatch = 128;
    params.n_threads = params.n_threads_batch = 1;
    params.type_k = params.type_v = GGML_TYPE_F32;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    llama_context * context = llama_init_from_model(model, params);
    if (context == nullptr) {
        return 1;
    }
    llama_batch batch = llama_batch_init(count, 0, 1);
    batch.n_tokens = count;
    for (int i = 0; i < count; ++i) {
        batch.token[i] = tokens[i];
        batch.pos[i] = i;
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = 1;
    }
    if (llama_decode(context, batch) != 0) {
        std::fprintf(stderr, "llama_decode failed\n");
        return 1;
    }
    const size_t vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));
    for (int i = 0; i < count; ++i) {
        if (std::fwrite(llama_get_logits_ith(context, i), sizeof(float), vocabulary, stdout) != vocabulary) {
            std::perror("stdout");
            return 1;
        }
    }
    llama_batch_free(batch);
    llama_free(context);
    llama_model_free(model);
    return 0;
}
