"""Mistakes seen in public code, each as a change of this package and the test that must fail.

`make mistakes` applies them one at a time; tests/strategies/test_mistakes.py checks that every change still applies.
"""


def put_in(source: str, old: str, new: str) -> str:
    """Return the source with the change applied.

    Raises:
        ValueError: unless the old text occurs exactly once.
    """
    if source.count(old) != 1:
        raise ValueError(f"the old text must occur once, got {source.count(old)} times: {old!r}")
    return source.replace(old, new)


LIVE = "return self.opened is not None and (self._shared or torch.is_grad_enabled())"
OPEN = "        try:\n            yield opened.record\n"
CLOSE = "            self._current.opened = None\n            PREDRAWN.drawn = {}\n"
HOOK = "        handles = [embedding.register_forward_hook(self._at_embedding) for embedding in embeddings]\n"
OVERWRITE = """        handles = []
        for embedding in embeddings:
            def forward(ids, inner=embedding.forward, embedding=embedding):
                clean = inner(ids)
                noisy = self._at_embedding(embedding, (ids,), clean)
                return clean if noisy is None else noisy
            embedding.forward = forward
"""
EDITED = "        table = find_embedding(self.model).weight.data\n        extra = torch.rand_like(table)\n"
LENGTHS = 'lengths = batch.lengths if self.length == "document" else batch.lengths.new_tensor(embeds.shape[1])'
DRAW = "return randomness.uniform(keys, width)"
ONE_SIDED = "return (randomness.uniform(keys, width) + 1) / 2"
GAUSSIAN = "_of_rms(randomness.normal(keys, width), self.rms)"
WHOLE = 'return getattr(weight, "ndim", 0) == 2 and type(weight.data).__name__ != "DTensor"'
KEYS = "        keys = token_keys(input_ids, real, document, position, key)\n"
TRAINING = "not self.strategy.clean and self.model.training and torch.is_grad_enabled()"
GUARD = "return 1 / (self.length(delta, batch) + radius)"
MEAN = "return total / self.graded.sum().clamp(min=1)"
PLACES = "targets, aligned = self._targets(labels)"
EVERYWHERE, REAL = (
    f"{PLACES}\n        targets = targets | ~targets",
    f"{PLACES}\n        targets = self.batch.real[:, 1:]",
)
ALONE, WITH_LOSS = f"{PLACES}\n        aligned =", f"{PLACES}\n        own_labels ="

FORMULA = "strategies/test_oracles.py::test_additive_entries_equal_their_formula[neft_uniform]"
DISTRIBUTION = "noise/test_small_noise.py::test_noise_has_the_stated_distribution_and_size"
RMS = "noise/test_parts.py::test_rms_is_that_of_what_is_drawn"
GRADED = "passes/test_divergences.py::test_over_a_batch_it_is_the_mean_at_graded_places_of_all_logits[kl-0-llama]"
JOINT = "passes/test_joint_loss.py::test_what_is_beside_the_loss_is_the_divergence_at_the_targets"
SPLIT = "training/test_layouts.py::test_one_batch_of_four_is_four_of_one"
REFERENCE = "training/test_trainers.py::test_dpo_starts_at_ln_2_when_the_reference_sees_the_same_noise[peft0]"
RAW = "passes/test_anatomy.py::test_raw_noise_is_the_same_share_of_the_signal_on_every_family[gemma]"
HERE = "strategies/test_mistakes.py::test_"

# Number, mistake, test, and the changes: module, old text, new text.
# fmt: off
MISTAKES = (
    (1, "U[0, 1) instead of U(-1, 1)", "strategies/test_conformance.py::test_entry_conforms[neft_uniform]",
     ("noise/distributions", DRAW, ONE_SIDED)),
    (1, "U[0, 1) on layers", f"{DISTRIBUTION}[hype uniform-right]", ("noise/distributions", DRAW, ONE_SIDED)),
    (2, "U(-.5, .5), half the scale", f"{RMS}[Uniform]", ("noise/distributions", DRAW, f"{DRAW} / 2")),
    (3, "length: the padded width", FORMULA,
     ("noise/scales", LENGTHS, "lengths = batch.lengths.new_tensor(embeds.shape[1])")),
    (3, "length: the whole packed row", "noise/test_batch.py::test_reads_packed_rows",
     ("noise/batch", "lengths = sum_by_document(real.long(), document)",
      "lengths = real.sum(1, keepdim=True).expand_as(document)")),
    (3, "length: a constant", FORMULA, ("noise/scales", LENGTHS, "lengths = batch.lengths.new_tensor(512)")),
    (4, "noise on padding", FORMULA,
     ("noise/tokens", "return batch.real.float()", "return (batch.real | ~batch.real).float()")),
    (4, "noise on the padding of a packed row", "noise/test_batch.py::test_reads_what_trl_collates",
     ("noise/carriers", ".where(~tail, -1)", "")),
    (5, "noise in evaluation", "training/test_sft_trainer.py::test_evaluation_is_that_of_the_clean_model",
     ("training/session", f"training = {TRAINING}", "training = not self.strategy.clean"), ("passes/open_pass", LIVE, "return self.opened is not None")),
    (5, "noise in generation: whenever the model is in train mode",
     "training/test_trainers.py::test_only_the_pass_that_trains_is_noisy[GRPO]",
     ("passes/open_pass", LIVE, "return self.opened is not None"), ("passes/hooks", CLOSE, "            PREDRAWN.drawn = {}\n"),
     ("passes/hooks", "or not self._current.live or", "or not self.model.training or")),
    (5, "noise in the reference model", REFERENCE, ("passes/open_pass", LIVE, "return self.opened is not None")),
    (5, "noise after an exception", "passes/test_hooks.py::test_an_exception_closes_the_pass",
     ("passes/hooks", f"{OPEN}        finally:\n{CLOSE}", "        yield opened.record\n" + CLOSE.replace(" " * 12, " " * 8))),
    (5, "a hook left after an exception", "training/test_sft_trainer.py::test_an_exception_leaves_no_hook_and_a_second_run_works",
     ("training/mixin", "            history.starts = False\n            self.session.detach()\n",
      "            history.starts = False\n")),
    (6, "a noise that cannot enter is ignored", f"{HERE}noise_that_cannot_enter_is_an_error_and_not_ignored",
     ("passes/step", "if record.batch is None or unseen or (noisy and not record.deltas):", "if record.batch is None:")),
    (6, "a model without a token embedding is accepted", "training/test_loop.py::test_models_and_batches_that_cannot_work",
     ("passes/anatomy", "if not isinstance(embedding, nn.Module) or isinstance(embedding, nn.ModuleList):", "embedding = embedding or nn.Identity()\n    if False:")),
    (6, "alpha is ignored", FORMULA, ("noise/scales", "alpha = value_at(self.alpha, batch.progress)", "alpha = 5.0")),
    (7, "every nn.Embedding is hooked", f"{HERE}only_the_token_embedding_gets_noise",
     ("passes/hooks", "embeddings = [find_embedding(each) for each in models]",
      "embeddings = [m for each in models for m in each.modules() if isinstance(m, nn.Embedding)]")),
    (8, "the embedding's own factor is ignored", RAW,
     ("passes/open_pass", "replace(record.batch.at(site), factor=factor)", "record.batch.at(site)")),
    (9, "the dtype is promoted by the noise", "passes/test_rounding.py::test_zero_delta_changes_no_bit",
     ("passes/adding", "_Sum.apply(total, embeds, delta)", "_Sum.apply(total.float(), embeds, delta)")),
    (9, "the noise is rounded away", "passes/test_rounding.py::test_bf16_keeps_mean_and_rms_of_small_noise[1.0-8192]",
     ("passes/adding", "if embeds.dtype not in DROPPED_MANTISSA_BITS:", "if True:")),
    (10, "the module's forward is overwritten", f"{HERE}nothing_of_the_model_is_replaced", ("passes/hooks", HOOK, OVERWRITE)),
    (11, "the table is edited, and with it the tied head", f"{HERE}the_tied_head_reads_clean_weights",
     ("passes/hooks", OPEN, f"{EDITED}        table += extra\n{OPEN}"),
     ("passes/hooks", CLOSE, f"{CLOSE}            table -= extra\n")),
    (12, "losses compared with the noise on", "compare/test_compare.py::test_losses_are_measured_with_the_noise_off",
     ("compare/measures", "with torch.no_grad(), trainer.accelerator.autocast():",
      "with trainer.session.noisy_pass(batch, key=1):")),
    (12, "losses evaluated with the noise on",
     "evaluation/test_evaluation_model.py::test_scores_agree_with_numpy_and_the_trainer",
     ("evaluation/losses", "    found: dict[int, Scores] = {}\n",
      '    found, noise = {}, noise or __import__("neft_zoo").make("neft_uniform").noise\n')),
    (13, "a radius that only guards against 0 / 0", "objectives/test_adversarial.py::test_a_radius_is_a_radius[smart-right]",
     ("objectives/norm_ball", "return (radius / self.length(delta, batch).clamp(min=SMALLEST)).clamp(max=1)", GUARD)),
    (14, "a divergence over padding", GRADED,
     ("passes/predictions", ALONE, ALONE.replace(PLACES, EVERYWHERE))),
    (14, "a divergence over the prompt", GRADED,
     ("passes/predictions", ALONE, ALONE.replace(PLACES, REAL))),
    (14, "a divergence over padding, made with the losses", f"{JOINT}[whole]",
     ("passes/predictions", WITH_LOSS, WITH_LOSS.replace(PLACES, EVERYWHERE))),
    (14, "a divergence over the prompt, made with the losses", f"{JOINT}[padded]",
     ("passes/predictions", WITH_LOSS, WITH_LOSS.replace(PLACES, REAL))),
    (14, "a divergence summed over tokens", GRADED, ("passes/predictions", MEAN, "return total")),
    (14, "a divergence averaged per micro-batch", f"{SPLIT}[r3f]", ("passes/predictions", "return total * self.token_weight", MEAN)),
    (15, "JS with its arguments reversed", "passes/test_divergences.py::test_a_divergence_equals_its_definition[js-1.0]",
     ("passes/divergences", "(_kl(log_p, log_mean) + _kl(log_q, log_mean)) / 2",
      "(_kl(log_mean, log_p) + _kl(log_mean, log_q)) / 2")),
    (16, "the original cross-entropy dropped",
     "objectives/test_objectives.py::test_cutoff_keeps_the_original_loss[cutoff_token-0.0]",
     ("objectives/consistency", "enumerate((self.first, self.second))", "enumerate((0.0, self.second))")),
    (17, "zero_grad inside a trainer's step", f"{SPLIT}[freelb]",
     ("passes/accumulation", "        parameters = parameters_of(part)\n",
      "        parameters = parameters_of(part)\n        for each in parameters:\n            each.grad = None\n")),
    (17, "zero_grad inside a loop's step",
     "passes/test_step.py::test_gradients_of_an_earlier_micro_batch_are_kept[symnoise]",
     ("passes/step", "        self.passes.append(record)\n",
      "        self.passes.append(record)\n        self.hooks.model.zero_grad()\n")),
    (18, "the variance of a distribution used as its deviation", f"{RMS}[Gaussian]",
     ("noise/distributions", GAUSSIAN, GAUSSIAN.replace("self.rms", "self.rms**2"))),
    (18, "the variance of a size used as its deviation", f"{DISTRIBUTION}[pdr-right]",
     ("noise/scales", "* value_at(self.size, batch.progress)", "* value_at(self.size, batch.progress) ** 2")),
    (19, "weight noise added and subtracted in place",
     "strategies/test_flat_lora.py::test_flat_lora_restores_every_bit_after_200_cycles_in_bf16[True]",
     ("passes/changing_weights", "weight.data.copy_(saved)", "weight.data.sub_(weight.data - saved)")),
    (19, "the global seed reset", "training/test_sft_trainer.py::test_noise_leaves_the_global_random_state_alone",
     ("noise/batch", KEYS, f"        torch.manual_seed(0)\n{KEYS}")),
    (20, "the hidden size hard-coded", FORMULA,
     ("noise/scales", "(lengths.float() * embeds.shape[-1]).sqrt()", "(lengths.float() * 4096).sqrt()")),
    (20, "the number of steps hard-coded", "training/test_sft_trainer.py::test_noise_is_logged_at_its_nominal_size",
     ("training/progress", "max(1, state.max_steps)", "1218")),
    (21, "R-Drop accepted on a model without dropout",
     "objectives/test_objectives.py::test_r_drop_without_dropout_says_what_to_set",
     ("objectives/consistency", "        require_dropout(model)\n", "")),
    (22, "dropout masks drawn anew at every step of an ascent",
     "passes/test_step.py::test_all_passes_of_a_step_share_their_dropout_masks[freelb-False]",
     ("passes/step", "            self._same_dropout()\n", "            pass\n")),
    (23, "the table read outside the forward pass, where a sharded engine holds none",
     f"{HERE}relative_noise_looks_at_the_output_and_not_at_the_table",
     ("passes/hooks", OPEN, f"        find_embedding(self.model).weight[0].norm()\n{OPEN}")),
    (23, "a sharded table taken for a whole one", f"{HERE}a_sharded_table_is_not_looked_at",
     ("passes/sharding", WHOLE, "return True")),
    (24, "another prompt in evaluation than in training", "evaluation/test_evaluation_model.py::test_rows_are_the_trainers_own",
     ("evaluation/records", "add_generation_prompt=True", "add_generation_prompt=False")),
    (24, "the trainer's chat template not used in evaluation",
     "evaluation/test_evaluation_model.py::test_prompts_go_through_the_trainers_template",
     ("evaluation/records", "chat_template=template", "chat_template=None")),
    (25, "the random start of virtual adversarial training kept in its direction",
     "objectives/test_adversarial.py::test_the_direction_of_vat_is_the_gradients_in_long_documents_too[200]",
     ("objectives/ascent", "higher = up if afresh else delta.detach() + up", "higher = delta.detach() + up")),
    (26, "a token's share taken from its gradient, not from its perturbation",
     "objectives/test_adversarial.py::test_token_vat_weighs_every_tokens_perturbation_by_its_share[0.5]",
     ("objectives/token_aware", "norms = tokens.square()", "norms = gradient.square()")),
    (27, "a radius per layer instead of one for all", "objectives/test_adversarial.py::test_vaccine_moves_all_layers_by_one_length[all]",
     ("objectives/norm_ball", "if not self.joint:", "if True:")),
    (28, "a clean teacher that learns from its pupils",
     "objectives/test_objectives.py::test_noisefit_learns_from_the_clean_pass_as_from_a_constant",
     ("objectives/clean_teacher", 'step.divergence("kl", clean, noisy, constant=True)', 'step.divergence("kl", clean, noisy)')),
    (29, "the size of a noise multiplied in twice", "objectives/test_objectives.py::test_noisefit_adds_robust_noise",
     ("noise/robust", "mul_(mad * varied[..., None] * size)", "mul_(mad * varied[..., None] * size * size)")),
    (30, "the gradient of dropped weights not divided by what is kept",
     "strategies/test_weight_entries.py::test_mixout_mixes_whole_inputs_with_the_weights_that_training_began_with",
     ("passes/linear_weights", "grad * factor.to(grad.dtype)", "grad * (factor != 0)")),
    (31, "one draw for all image tokens of a document", "noise/test_batch.py::test_placeholders_are_a_site_of_their_own[False]",
     ("noise/batch", 'self.document_stream("placeholders") + position * GOLDEN', 'self.document_stream("placeholders")')),
    (31, "noise on the text around an image", "passes/test_vision.py::test_visual_noise_is_on_projected_image_tokens_only",
     ("noise/additive", "return PLACEHOLDERS", "return layer")),
    (32, "perplexities one position off", "objectives/test_token_masking.py::test_stm_grades_the_tokens_that_the_starting_model_finds_likely[inputs0]",
     ("passes/starting_model", "[:, :-1][graded]", "[:, 1:][graded]")),
    (32, "perplexities of the model as it is, not as it was", "objectives/test_token_masking.py::test_stm_grades_the_tokens_that_the_starting_model_finds_likely[inputs0]",
     ("passes/starting_model", "        stack.enter_context(adapter_off(model))\n", "")),
)
# fmt: on
