#!/bin/sh
# The runs of the real model, in order of importance, after `make real-model`: three seeds of every row before more
# seeds of any. Only missing runs are executed; results go to docs/results, or to the given folder.
#
#   sh recipes/results/run_smollm2.sh                   # docs/results, two runs at a time of 4.6 GiB each
#   SEEDS=5 JOBS=1 sh recipes/results/run_smollm2.sh runs/compare
#   EVALUATION= sh recipes/results/run_smollm2.sh       # losses only; the models are kept
#   sh recipes/results/run_smollm2.sh docs/results/evaluated    # then evaluates the kept models, without training again
#
# The site shows runs in `evaluated/NAME` with those in `NAME` that they are of.
# All measures of `neft-zoo evaluate`, on all 128 test records and 100 of IFEval's prompts. Run `make punkt` first: 64
# prompts that need nltk's sentence splitter would be left out otherwise.
set -e
output=${1:-docs/results}
parts="[losses, memorization, text, robustness, forgetting, quantization, prompts, safety, instructions]"
sizes="records: 128, answers: 128, max_new_tokens: 256, unrelated_records: 64, instruction_prompts: 100"
evaluation=${EVALUATION-"parts: $parts, $sizes, instruction_tokens: 512, words: 20, rates: [0.1], alphas: [15.0]"}

compare() {
    recipe=$1
    shift
    neft-zoo compare "results/$recipe" --train_records 96 ${evaluation:+--evaluate "$evaluation"} --output "$output" \
        --jobs "${JOBS:-2}" --seeds "${SEEDS:-3}" --keep_models "${MODELS:-build/models}" --lengths 1 "$@"
}

# Noise compared with plain training of the same and of other lengths.
compare smollm2 --strategies none,neft_uniform --set neft_uniform.alpha=5,15 --controls epochs_2,epochs_1
# Other noise of the same energy, and dropout in the same place.
compare smollm2 --strategies embedding_dropout,neft_gaussian --set neft_gaussian.alpha=15 \
    --set neft_gaussian.match_rms=true
compare smollm2 --strategies symnoise --compute-matched --output "$output/compute"
compare smollm2 --strategies masked_thought --controls weight_decay,learning_rate
compare smollm2_lora --strategies neft_uniform --set neft_uniform.alpha=15 --controls epochs_1,lora_dropout
# Entries of 2024 and later.
compare smollm2_lora --strategies lora_matrix_dropout
