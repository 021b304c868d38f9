#!/bin/sh
# All runs of the site's tables. Only missing runs are executed; results go to docs/results, or to the given folder.
#
#   sh recipes/results/run.sh                           # docs/results, the shipped model, two runs at a time
#   JOBS=1 sh recipes/results/run.sh docs/results/gpu gpu
set -e
output=${1:-docs/results}
where=${2:-results}
evaluation="records: 96, answers: 32, max_new_tokens: 64, min_new_tokens: 48, words: 20, rates: [0.1], alphas: [5.0, 15.0]"
main=none,neft_uniform,neft_gaussian,symnoise
twelve=$main,neft_scheduled,masked_thought,token_dropout,embedding_dropout,token_relative,r3f,freelb,hype
# All entries except those that need an adapter (below) or images; the two with many ascent passes come last.
most='[!cflrsv]*,cutoff_*,fgm,freelb,lnsr,r3f,sam,smart,symnoise,vaccine,vat'

compare() {
    recipe=$1
    shift
    neft-zoo compare "$where/$recipe" --train_records 192 --evaluate "$evaluation" --output "$output" \
        --jobs "${JOBS:-2}" --lengths 1 "$@"
}

compare dolly --strategies "$main" --seeds 10
compare dolly --strategies "$most" --seeds 5
compare gsm8k --strategies "$twelve" --seeds 5 --lengths 1/4,1/2,2
compare dolly --strategies neft_uniform,neft_gaussian --seeds 5 --set 'neft_*.alpha=1,5,10,15,30' \
    --set 'neft_gaussian.match_rms=false,true'
compare dolly --strategies none --seeds 5 --lengths 1/4,1/2 \
    --controls label_smoothing,weight_decay,learning_rate,instruction_modelling,dft,eaft,gem \
    --set label_smoothing.label_smoothing_factor=0.05,0.1,0.2 --set weight_decay.weight_decay=0.01,0.1,1.0 \
    --set learning_rate.learning_rate=2.5e-4,5.0e-4,2.0e-3  # the recipe has 1.0e-3
compare dolly_lora --strategies "$main,r_drop,flat_lora,lora_matrix_dropout,stm" --seeds 5 --lengths 1/4,1/2 \
    --controls lora_dropout --set lora_dropout.lora_dropout=0.2,0.3  # the recipe has 0.1
compare dolly_packed --strategies none,neft_uniform,symnoise --seeds 5 --lengths 1/4,1/2
compare dolly --strategies cat --seeds 5
compare dolly --strategies lat --seeds 5 --set 'lat.layers=[2],[0.125]'
# At equal compute, in a separate folder; and with an evaluation every 6 steps instead of once per epoch.
compare dolly --strategies symnoise,r3f,freelb,pgd --seeds 5 --compute-matched --output "$output/compute"
compare dolly_often --strategies "$main" --seeds 5 --lengths 1/4,1/2
# Again, with the side effects that some methods are for: what rounding the weights adds, and forgetting.
evaluation="parts: [losses, memorization, text, robustness, quantization, forgetting], unrelated_records: 64, $evaluation"
compare dolly --strategies none,quant_noise,mixout,sam,neft_uniform --seeds 5 --output "$output/evaluated"
