"""Losses, answers, memorization and robustness of a tiny Llama, fresh and trained until it knows 8 records."""

import copy
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from architectures import TEXT, text
from datasets import Dataset
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from small_subject import load
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertLMHeadModel,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from neft_zoo import NoiseError, NoiseSFTConfig, make
from neft_zoo.evaluation import answers as answering
from neft_zoo.evaluation import evaluate, generation, prepare
from neft_zoo.evaluation.answer_results import Extraction
from neft_zoo.evaluation.forgetting import unrelated_rows
from neft_zoo.evaluation.generation import generate, pad_left
from neft_zoo.evaluation.loading import best_checkpoint
from neft_zoo.evaluation.losses import graded_logits, last_hidden, score, summary
from neft_zoo.evaluation.memorization import extraction
from neft_zoo.evaluation.options import Options
from neft_zoo.evaluation.records import prompt_tokens, with_question
from neft_zoo.evaluation.results import NoisePoint
from neft_zoo.evaluation.robustness import ReplaceTokens, _other_is_nearer, flips, noise_curve, replacement_curve
from neft_zoo.noise.batch import Batch, step_key
from neft_zoo.passes.positions import longest_sequence

WORDS = "the cell divides when its energy is enough to copy what it holds and then it rests for long".split()
RECORDS = [
    {
        "prompt": [{"role": "user", "content": f"Question {i} about {' '.join(WORDS[: i % 3 + 1])}?"}],
        "completion": [{"role": "assistant", "content": " ".join(WORDS[i:] + WORDS[: 2 * i])}],
    }
    for i in range(8)
]


def build(tokenizer):
    torch.manual_seed(0)
    numbers = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
    ends = dict(pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id)
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, **numbers, **ends))


def arguments(folder, **settings):
    quiet = dict(report_to="none", use_cpu=True, bf16=False, disable_tqdm=True, gradient_checkpointing=False)
    return NoiseSFTConfig(output_dir=str(folder), per_device_eval_batch_size=3, **{**quiet, **settings})


@pytest.fixture(scope="module")
def fresh(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fresh") / "out"
    args = arguments(folder, packing=True, max_length=64, noise="neft_uniform", eval_strategy="no")
    subject = prepare(build(tokenizer), tokenizer, args, {"train": RECORDS, "test": RECORDS[5:] + RECORDS[:2]})
    assert not folder.exists() and args.packing and args.noise == "neft_uniform", "the arguments are the caller's"
    return subject


def test_nothing_is_remarked_on_options_that_a_recipe_has_to_have(tokenizer, tmp_path, caplog):
    prepare(build(tokenizer), tokenizer, arguments(tmp_path, model_init_kwargs={"revision": "a"}), {"test": RECORDS})
    assert not caplog.records


def twin(subject):
    """Return an equal model; a copy of one that TRL has patched would go on calling the original."""
    model = build(subject.tokenizer)
    model.load_state_dict(subject.model.state_dict())
    return model


@pytest.fixture(scope="module")
def fitted(fresh):
    """Return the same model after it has learned all records."""
    model = twin(fresh).train()
    rows = fresh.trainer.data_collator([{"input_ids": r.input_ids, "labels": r.labels} for r in fresh.rows["train"]])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(400):
        loss = model(**rows).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 0.02:
            break
    return fresh.with_model(model)


def naive(model, row):
    """Return log-probabilities and confidences of graded tokens in float64, one record at a time."""
    with torch.no_grad():
        logits = model(torch.tensor([row.input_ids])).logits[0].double().numpy()
    top = logits.max(-1, keepdims=True)
    rows = logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))
    places = [i for i in range(1, len(row.labels)) if row.labels[i] != -100]
    own = np.array([rows[i - 1, row.labels[i]] for i in places])
    return own, np.exp(np.array([rows[i - 1].max() for i in places]))


def test_rows_are_the_trainers_own(fresh, tokenizer):
    rows = fresh.rows["train"]
    assert [row.record for row in rows] == RECORDS, "one record is one row, whatever is packed"
    for row in rows:
        prompt = prompt_tokens(tokenizer, row.record)
        assert row.input_ids[: len(prompt)] == prompt and row.labels[: len(prompt)] == [-100] * len(prompt)
        assert row.labels[len(prompt) :] == row.input_ids[len(prompt) :]
        assert row.input_ids[-1] == tokenizer.eos_token_id


def test_prompts_go_through_the_trainers_template(tokenizer):
    template = "{% for turn in messages %}<{{ turn.content }}>{% endfor %}{% if add_generation_prompt %} so{% endif %}"
    assert tokenizer.decode(prompt_tokens(tokenizer, RECORDS[0], template)) == "<Question 0 about the?> so"


def test_no_text_ends_with_an_end_token_that_the_tokenizer_appends(tokenizer, tmp_path):
    """An answer would begin after the end, and a passage's loss would be that of ending it."""
    appending, end = copy.deepcopy(tokenizer), tokenizer.eos_token
    single = f"$A {end}"
    appending._tokenizer.post_processor = TemplateProcessing(
        single=single, special_tokens=[(end, tokenizer.eos_token_id)]
    )
    record = {"prompt": "The cell", "completion": " divides."}
    assert appending("The cell")["input_ids"][-1] == tokenizer.eos_token_id
    assert prompt_tokens(appending, record) == prompt_tokens(tokenizer, record)
    ended = {**record, "prompt": f"The cell{end}"}
    assert prompt_tokens(tokenizer, ended)[-1] == tokenizer.eos_token_id
    subject = prepare(build(appending), appending, arguments(tmp_path), {"train": [record]})
    assert unrelated_rows(subject, 1).general[0].input_ids[-1] != tokenizer.eos_token_id


def alike(question, answer):
    """Return one record in each way to write a conversation."""
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    parts = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]
    spoken = [{"from": who, "value": turn["content"]} for who, turn in zip(("human", "gpt"), turns, strict=True)]
    return {
        "messages": {"messages": turns},
        "a prompt beside": {"messages": turns, "prompt": question, "prompt_id": "a"},
        "conversations": {"conversations": spoken},
        "parts": {"messages": parts},
        "tools as text": {"messages": turns, "tools": "[]"},
    }


@pytest.mark.parametrize("kind", list(alike("", ""))[1:])
def test_a_conversation_is_measured_alike_however_it_is_written(tokenizer, tmp_path, kind):
    parts = ("losses", "memorization", "robustness", "prompts")
    options = Options(parts=parts, answers=2, max_new_tokens=4, min_new_tokens=2, rates=(0.2,), alphas=(5.0,))
    found = {}
    for each in ("messages", kind):
        records = [alike(f"Question {i} about the cell?", " ".join(WORDS[i:]))[each] for i in range(3)]
        args = arguments(tmp_path)
        found[each] = evaluate(
            build(tokenizer), args, tokenizer=tokenizer, train=records, test=records, options=options
        )
    assert found[kind] == found["messages"]
    assert found[kind].prompts.shuffled_words.change != 0


def test_scores_agree_with_numpy_and_the_trainer(fresh):
    rows = fresh.rows["train"]
    scores = score(fresh, rows)
    for row, found in zip(rows, scores, strict=True):
        own, confidence = naive(fresh.model, row)
        np.testing.assert_allclose(found.log_probs, own, atol=1e-5)
        np.testing.assert_allclose(found.confidence, confidence, atol=1e-6)
        np.testing.assert_array_equal(found.correct, np.isclose(own, np.log(confidence), atol=1e-9))
    total = summary(scores)
    inputs = fresh.trainer.data_collator([{"input_ids": row.input_ids, "labels": row.labels} for row in rows])
    with torch.no_grad():
        assert total.loss == pytest.approx(fresh.trainer.compute_loss(fresh.model, inputs).item(), abs=1e-5)
    assert total.perplexity == pytest.approx(math.exp(total.loss))
    assert total.tokens == sum(label != -100 for row in rows for label in row.labels)


@pytest.mark.parametrize("family", TEXT)
def test_graded_logits_are_those_of_the_models_own_forward(family):
    """Every family's cap, factor and way from its backbone to its head."""
    model = text(family).eval()
    ids = torch.randint(3, 24, (2, 9), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    inputs["labels"] = ids.masked_fill(torch.arange(9) % 3 == 0, -100)
    with torch.no_grad():
        whole = model(**{name: value for name, value in inputs.items() if name != "labels"}).logits[:, :-1]
        chunks = list(graded_logits(model, last_hidden(model, inputs), inputs["labels"]))
    logits, targets = (torch.cat(parts) for parts in zip(*chunks, strict=True))
    graded = inputs["labels"][:, 1:] != -100
    torch.testing.assert_close(logits, whole[graded].float(), atol=1e-5, rtol=1e-5)
    assert torch.equal(targets, inputs["labels"][:, 1:][graded])
    assert not any(module._forward_hooks for module in model.modules())


def test_a_head_that_is_not_all_there_is_to_the_logits_is_refused():
    """Losses would be those of other logits."""
    sizes = dict(hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    model = BertLMHeadModel(BertConfig(vocab_size=64, is_decoder=True, **sizes)).eval()
    ids = torch.arange(5, 15).view(2, 5)
    with torch.no_grad(), pytest.raises(NoiseError, match="by its LM head, got BertLMHeadModel, which does not"):
        last_hidden(model, {"input_ids": ids, "labels": ids})
    assert not any(module._forward_hooks for module in model.modules())


def test_a_model_that_has_diverged_is_refused(tokenizer):
    """Its losses would be nan, and its answers the first word of the vocabulary."""
    model = load().eval()
    model.get_input_embeddings().weight.data.fill_(math.nan)
    ids = torch.arange(5, 15).view(2, 5)
    message = "logits that are numbers, got nan from LlamaForCausalLM: it may have diverged"
    with torch.no_grad(), pytest.raises(NoiseError, match=message):
        last_hidden(model, {"input_ids": ids, "labels": ids})
    with pytest.raises(NoiseError, match=message):
        generate(model, tokenizer, [[5, 6]], max_new_tokens=4)
    assert not any(module._forward_hooks for module in model.modules())


def test_splits_are_refused_when_empty_or_ungraded(fresh, tokenizer, tmp_path):
    with pytest.raises(NoiseError, match="split 'test' must hold at least one record, got none"):
        prepare(fresh.model, tokenizer, arguments(tmp_path), {"train": RECORDS, "test": []})
    long = [{**RECORDS[0], "prompt": [{"role": "user", "content": " ".join(WORDS * 5)}]}]
    with pytest.raises(NoiseError, match="a graded token in a record, got 24: all 1 of split 'test' lose theirs"):
        prepare(fresh.model, tokenizer, arguments(tmp_path, max_length=24), {"train": RECORDS, "test": long})


def greedy(model, prompt, steps, end):
    """Return the likeliest token again and again, without a cache."""
    ids = list(prompt)
    for _ in range(steps):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        if ids[-1] == end:
            break
    return ids[len(prompt) :]


def prompts_of(subject):
    return [prompt_tokens(subject.tokenizer, row.record) for row in subject.rows["train"]]


def test_answers_in_batches_are_those_of_single_prompts(fitted):
    prompts = prompts_of(fitted)
    found = generate(fitted.model, fitted.tokenizer, prompts, max_new_tokens=12, batch_size=3)
    end = fitted.tokenizer.eos_token_id
    for prompt, answer in zip(prompts, found, strict=True):
        written = greedy(fitted.model, prompt, 12, end)
        assert [*answer.tokens, *([end] if answer.ended else [])] == written
        assert answer.text == fitted.tokenizer.decode(answer.tokens, skip_special_tokens=True)


def test_a_repetition_penalty_does_not_see_the_padding(fitted):
    tokenizer = copy.deepcopy(fitted.tokenizer)
    tokenizer.pad_token = tokenizer.eos_token
    settings = dict(max_new_tokens=10, repetition_penalty=3.0)
    prompts = prompts_of(fitted)
    together = generate(fitted.model, tokenizer, prompts, batch_size=8, **settings)
    assert together == generate(fitted.model, tokenizer, prompts, batch_size=1, **settings)
    assert together != generate(fitted.model, tokenizer, prompts, batch_size=8, max_new_tokens=10)
    ids, mask = pad_left([[5, 6, 7], [8, 9]])
    assert ids.tolist() == [[5, 6, 7], [8, 8, 9]] and mask.tolist() == [[1, 1, 1], [0, 1, 1]]


@pytest.mark.parametrize("settings", [{}, {"min_new_tokens": 14}, {"repetition_penalty": 1.3}])
def test_answers_that_have_ended_leave_their_batch(fitted, monkeypatch, settings):
    model, tokenizer, prompts = fitted.model, fitted.tokenizer, prompts_of(fitted)
    alone = [generate(model, tokenizer, [prompt], max_new_tokens=60, **settings)[0] for prompt in prompts]
    assert len({len(answer.tokens) for answer in alone}) > 3, "they end at different places"
    monkeypatch.setattr(generation, "STRETCH", 4)
    rows = []
    hook = model.register_forward_pre_hook(lambda m, a, given: rows.append(len(given["input_ids"])), with_kwargs=True)
    assert generate(model, tokenizer, prompts, max_new_tokens=60, batch_size=8, **settings) == alone
    hook.remove()
    assert rows[0] == 8 and rows[-1] < 8 and rows == sorted(rows, reverse=True)


def test_a_models_own_defaults_do_not_change_its_answers(fitted, monkeypatch):
    model, tokenizer, prompts = fitted.model, fitted.tokenizer, prompts_of(fitted)[:3]
    adapted = get_peft_model(twin(fitted), LoraConfig(r=2, target_modules=["q_proj"]))  # begins as no change
    plain = generate(model, tokenizer, prompts, max_new_tokens=64)
    assert all(answer.ended for answer in plain)
    own = GenerationConfig(no_repeat_ngram_size=1, min_length=99, do_sample=True, eos_token_id=tokenizer.eos_token_id)
    for each in (model, adapted.get_base_model()):
        monkeypatch.setattr(each, "generation_config", own)
    for each in (model, adapted):
        assert generate(each, tokenizer, prompts, max_new_tokens=64) == plain
        assert each.generation_config is own


def test_models_whose_cache_has_no_rows_to_drop_answer_to_the_end(fitted, tokenizer):
    prompt_tuning = PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
    tuned = get_peft_model(copy.deepcopy(fitted.model), prompt_tuning)
    state = MambaForCausalLM(MambaConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, state_size=4))
    assert generation.row_cache(fitted.model) is not None
    for model in (tuned, state):
        assert generation.row_cache(model) is None
        found = generate(model, tokenizer, [[5, 6, 7], [8, 9]], max_new_tokens=3, batch_size=2)
        assert all(len(answer.tokens) == 3 or answer.ended for answer in found)


def test_the_end_can_be_blocked(fitted):
    settings = dict(max_new_tokens=40, min_new_tokens=40)
    found = generate(fitted.model, fitted.tokenizer, prompts_of(fitted)[:2], **settings)
    assert [len(answer.tokens) for answer in found] == [40, 40] and not any(answer.ended for answer in found)
    with pytest.raises(NoiseError, match="at least one token, got none in prompt 1"):
        generate(fitted.model, fitted.tokenizer, [[1], []])


def test_what_a_table_of_positions_has_no_room_for_is_refused(tokenizer, tmp_path):
    sizes = dict(n_embd=16, n_layer=1, n_head=2, n_positions=24, eos_token_id=tokenizer.eos_token_id)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes))
    assert len(generate(model, tokenizer, [[5] * 20], max_new_tokens=4, min_new_tokens=4)[0].tokens) == 4
    message = r"a prompt of 20 tokens and an answer of max_new_tokens=5 must have at most 24 tokens, .*, got 25: "
    with pytest.raises(NoiseError, match=message):
        generate(model, tokenizer, [[5], [5] * 20], max_new_tokens=5)
    subject = prepare(model, tokenizer, arguments(tmp_path, max_length=None), {"train": RECORDS})
    with pytest.raises(
        NoiseError, match="a record must have at most 24 tokens, the positions of GPT2LMHeadModel, got"
    ):
        score(subject, subject.rows["train"])


def test_only_models_with_a_table_of_positions_have_a_longest_sequence(fresh):
    opt = OPTConfig(vocab_size=64, hidden_size=16, ffn_dim=16, num_hidden_layers=1, num_attention_heads=2)
    opt.word_embed_proj_dim, opt.max_position_embeddings = 16, 40
    assert longest_sequence(OPTForCausalLM(opt)) == 40
    assert longest_sequence(fresh.model) is None


def test_a_model_that_memorized_is_extracted_and_a_fresh_one_is_not(fresh, fitted):
    known = extraction(fitted, fitted.rows["train"])
    assert known == Extraction(exact=1.0, prefix=1.0, records=8, skipped=0)
    assert extraction(fresh, fresh.rows["train"]).exact == 0
    answers = generate(fitted.model, fitted.tokenizer, prompts_of(fitted), max_new_tokens=64)
    assert [answer.text for answer in answers] == [record["completion"][0]["content"] for record in RECORDS]
    assert all(answer.ended for answer in answers)
    assert summary(score(fitted, fitted.rows["train"])).loss < 0.1


def test_records_whose_prompt_is_empty_are_skipped(tokenizer, tmp_path):
    records = [{"prompt": prompt, "completion": " the cell rests"} for prompt in ("", "When?")]
    subject = prepare(build(tokenizer), tokenizer, arguments(tmp_path), {"train": records})
    answered = answering.answer(subject, subject.rows["train"], Options(max_new_tokens=2))
    assert [row.record for row in answered.rows] == records[1:] and len(answered.answers) == 1
    assert extraction(subject, subject.rows["train"]).skipped == 1


def test_what_follows_the_end_of_an_answer_is_not_extracted(fitted):
    rows = []
    for row in fitted.rows["train"]:
        ids, graded = [*row.input_ids, 7, 8], [*row.labels, 7, 8]  # such as a line break, or a later turn
        rows.append(replace(row, input_ids=ids, labels=graded))
        assert fitted.graded_reference(rows[-1]).labels == [*fitted.graded_reference(row).labels, -100, -100]
    assert extraction(fitted, rows) == extraction(fitted, fitted.rows["train"])


def test_lengths_are_compared_on_the_same_questions(fresh, tokenizer, tmp_path):
    def asking(i):
        return with_question(RECORDS[i], lambda text: f"{text} {' '.join(WORDS * (9 if i == 1 else 1))}")

    splits = {"train": RECORDS, "test": RECORDS, "longer": [asking(i) for i in range(8)]}
    subject = prepare(build(tokenizer), tokenizer, arguments(tmp_path, max_length=80), splits)
    options = Options(max_new_tokens=4, min_new_tokens=3)
    plain = answering.answer(subject, subject.rows["test"], options)
    assert [row.index for row in subject.rows["longer"]] == [0, *range(2, 8)] and len(plain.answers) == 8
    found = answering.length_controls(subject, plain, "longer", options)
    assert {name: text.answers for name, text in found.items()} == dict.fromkeys(found, 7) and len(found) == 3


def test_extraction_is_what_greedy_decoding_does(fitted):
    """Half a memory: the weights between fresh and trained know some records and not others."""
    model = twin(fitted)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.35 * weight.std() * torch.randn(weight.shape, generator=generator)
    subject, exact, prefix = fitted.with_model(model), [], []
    for row, prompt in zip(subject.rows["train"], prompts_of(subject), strict=True):
        reference = row.input_ids[len(prompt) :]
        exact.append(greedy(model, prompt, len(reference), None) == reference)
        given = min(50, len(reference) // 2)
        wanted = reference[given : given + 50]
        prefix.append(greedy(model, prompt + reference[:given], len(wanted), None) == wanted)
    found = extraction(subject, subject.rows["train"])
    assert (found.exact, found.prefix) == (np.mean(exact), np.mean(prefix))


def test_noise_curve_starts_at_the_clean_loss_and_leaves_no_hook(fresh):
    rows = fresh.rows["test"]
    clean = summary(score(fresh, rows)).loss
    curve = noise_curve(fresh, rows, "neft_uniform", [0.0, 300.0])
    assert curve[0] == NoisePoint(0.0, pytest.approx(clean, abs=1e-6), flipped=0.0, flipped_tokens=0.0)
    assert abs(curve[1].loss - clean) > 1e-4 and 0 < curve[1].flipped <= curve[1].flipped_tokens <= 1
    assert summary(score(fresh, rows)).loss == clean
    assert not fresh.model.get_input_embeddings()._forward_hooks
    for name, message in (("none", "an argument alpha"), ("hype", "an argument alpha")):
        with pytest.raises(NoiseError, match=message):
            noise_curve(fresh, rows, name, [1.0])


def test_flips_against_distances_in_float64(fresh):
    rows, noise = fresh.rows["test"], make({"name": "neft_uniform", "alpha": 1.5}).noise
    table = fresh.model.get_input_embeddings().weight.detach()
    moved, tokens = [], set()
    for _, inputs in fresh.batches(rows):
        batch = Batch.from_inputs(inputs, key=step_key(0, 0, 0))
        noisy = table[batch.input_ids] + noise(table[batch.input_ids], batch)
        for point, token, real in zip(
            noisy.flatten(0, 1), batch.input_ids.flatten(), batch.real.flatten(), strict=True
        ):
            if real:
                distances = (table.double() - point.double()).square().sum(1)
                moved.append((int(token), bool(distances.argmin() != token)))
                tokens.add(int(token))
    found = flips(fresh, rows, noise)
    assert found.flipped == pytest.approx(np.mean([flip for _, flip in moved]))
    assert 0 < found.flipped < 1
    assert found.flipped_tokens == pytest.approx(len({t for t, flip in moved if flip}) / len(tokens))


def test_rounding_flips_nothing():
    """Rows that are far from 0 and near each other, as those of tokens that pretraining never saw."""
    table = 100 + 1e-3 * torch.randn(50, 32, generator=torch.Generator().manual_seed(0))
    assert not _other_is_nearer(table, table, torch.arange(50)).any()
    assert _other_is_nearer(table, table[[3]], torch.tensor([4])).all()


def test_replacement_keeps_special_tokens_and_rate_0_is_the_clean_loss(fresh, tokenizer):
    ids = torch.tensor([fresh.rows["train"][0].input_ids])
    special = [tokenizer.eos_token_id, int(ids[0, 0])]
    batch = Batch.from_inputs({"input_ids": ids}, key=1, special_ids=special)
    edited = ReplaceTokens(1.0, (7, 9)).edit(batch)
    kept = torch.isin(ids, torch.tensor(special))
    assert torch.equal(edited[kept], ids[kept]) and set(edited[~kept].tolist()) <= {7, 9}
    assert torch.equal(ReplaceTokens(0.0, (7, 9)).edit(batch), ids)
    clean = summary(score(fresh, fresh.rows["test"])).loss
    curve = replacement_curve(fresh, fresh.rows["test"], [0.0, 0.5])
    assert curve[0].loss == clean and curve[1].loss != clean


def test_tokens_are_replaced_by_those_that_the_model_has(tokenizer, tmp_path):
    larger = copy.deepcopy(tokenizer)
    subject = prepare(build(larger), larger, arguments(tmp_path), {"train": RECORDS})
    larger.add_tokens([f"[{i}]" for i in range(9 * len(larger))])
    assert math.isfinite(replacement_curve(subject, subject.rows["train"], [1.0])[0].loss)


def test_splits_may_be_datasets(tokenizer, tmp_path):
    options = Options(parts=("losses", "prompts"), records=2)
    found = [
        evaluate(build(tokenizer), arguments(tmp_path), tokenizer=tokenizer, train=data, test=data, options=options)
        for data in (RECORDS, Dataset.from_list(RECORDS))
    ]
    assert found[0] == found[1] and found[0].losses.end.test.records == 2


def test_models_and_their_tokenizer_are_left_as_they_were(tokenizer, tmp_path):
    model, before, unpadded = build(tokenizer).train(), build(tokenizer).train(), copy.deepcopy(tokenizer)
    unpadded.pad_token = model.config.pad_token_id = model.generation_config.pad_token_id = None
    model.model.layers[0].eval()

    def state(each):
        settings = each.config.to_dict(), each.generation_config.to_dict()
        return settings, [module.training for module in each.modules()], "forward" in vars(each)

    found = state(model), state(before)
    options = Options(parts=("losses", "text", "forgetting"), answers=1, max_new_tokens=2, unrelated_records=1)
    data = dict(tokenizer=unpadded, train=RECORDS, test=RECORDS)
    evaluate(model, arguments(tmp_path), before=before, options=options, **data)
    assert (state(model), state(before)) == found and unpadded.pad_token is None
    with pytest.raises(NoiseError):
        evaluate(model, arguments(tmp_path), tokenizer=unpadded, train=RECORDS, test=[], options=options)
    assert state(model) == found[0], "also after an error"
    twin_of_it = copy.deepcopy(model)
    twin_of_it.lm_head.weight.data.zero_()
    with torch.no_grad():
        assert not twin_of_it(torch.tensor([[5, 6]])).logits.any(), "a copy calls itself"


def test_a_template_that_changes_no_record_has_no_loss(tokenizer, tmp_path):
    options = Options(parts=("robustness",), rates=(0.0,), alphas=(0.0,))
    data = [{"text": "the cell divides"}]
    args = arguments(tmp_path)
    found = evaluate(build(tokenizer), args, tokenizer=tokenizer, train=data, test=data, options=options)
    assert found.robustness.templates == {}


def test_the_best_checkpoint_has_the_lowest_logged_loss_of_those_kept(tmp_path):
    assert best_checkpoint(tmp_path) is None
    losses = ((2, 1.0), (3, math.nan), (4, 3.0), (9, 2.0), (10, 2.0))
    log = [{"step": step, "eval_loss": loss} for step, loss in losses]
    for step in (3, 4, 9, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
        state = {"log_history": [{"step": 1, "loss": 0.1}, *(line for line in log if line["step"] <= step)]}
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps(state))
    best = best_checkpoint(tmp_path)
    assert best is not None and (best.step, best.logged_loss, best.folder.name) == (9, 2.0, "checkpoint-9")
