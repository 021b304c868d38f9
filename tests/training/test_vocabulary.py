"""Token ids without a row in the embedding: one sentence before training, or in its first step."""

import copy

import pytest
import torch
import transformers
from datasets import Dataset, IterableDataset
from transformers import LlamaForCausalLM, PaliGemmaConfig, PaliGemmaForConditionalGeneration
from trl import DPOConfig

import neft_zoo
from neft_zoo import NoiseCallback, NoiseError, SFTTrainer, Trainer, attach
from neft_zoo.errors import DataWarning
from neft_zoo.training.vocabulary import check_vocabulary, named_token_ids

ROWS = [{"input_ids": [5, 6, 7, 8], "labels": [5, 6, 7, 8]} for _ in range(8)]


def with_id(number, at=5):
    rows = [{name: list(ids) for name, ids in row.items()} for row in ROWS]
    rows[at]["input_ids"][2] = number
    return rows


@pytest.fixture
def larger(tokenizer):
    """Return the tokenizer with a token that the model has no row for."""
    larger = copy.deepcopy(tokenizer)
    larger.add_tokens(["<extra>"])
    return larger


@pytest.mark.parametrize("noise", ["none", "neft_uniform", "token_frequency", "masked_thought"])
def test_a_tokenizer_larger_than_the_embedding_is_named(llama, config, larger, noise):
    size = len(larger) - 1
    texts = [{"text": "one two three"}, {"text": "one <extra> three"}] * 4
    with pytest.raises(NoiseError) as caught:
        SFTTrainer(
            llama(),
            args=config(),
            train_dataset=Dataset.from_list(texts),
            processing_class=larger,
            noise=noise,
        )
    assert str(caught.value) == (
        f"train_dataset, record 2 as tokenized: input_ids must be token ids from 0 to {size - 1}, which the embedding "
        f"of LlamaForCausalLM has rows for, got {size}: the tokenizer has {size + 1} tokens, '<extra>' among them: "
        f"model.resize_token_embeddings({size + 1})."
    )
    harmless = Dataset.from_list(texts[:1] * 8)  # a larger tokenizer does no harm by itself
    SFTTrainer(llama(), args=config(), train_dataset=harmless, processing_class=larger, noise=noise).train()
    model = llama()
    model.resize_token_embeddings(len(larger))
    data = Dataset.from_list(texts)
    SFTTrainer(model, args=config(), train_dataset=data, processing_class=larger, noise=noise).train()


@pytest.mark.parametrize("number", [-1, -100, 10**6])
@pytest.mark.parametrize("split", ["train_dataset", "eval_dataset", "eval_dataset['b']"])
def test_ids_of_tokenized_data_are_looked_at(llama, config, tokenizer, number, split):
    wrong, right = Dataset.from_list(with_id(number)), Dataset.from_list(ROWS)
    data = {"train_dataset": wrong} if split == "train_dataset" else {"train_dataset": right, "eval_dataset": wrong}
    if split.endswith("]"):
        data["eval_dataset"] = {"a": right, "b": wrong}
    with pytest.raises(NoiseError) as caught:
        Trainer(llama(), config(), processing_class=tokenizer, noise="neft_uniform", **data)
    assert f"{split}, record 6 as tokenized: input_ids must be" in str(caught.value)
    assert f"got {number}: make them with the tokenizer of the model." in str(caught.value)


def test_preference_pairs_are_looked_at(llama, larger, tmp_path):
    pairs = [{"prompt": "Hi", "chosen": "a b", "rejected": "a <extra>"}] * 4
    args = DPOConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none")
    data = Dataset.from_list(pairs)
    with pytest.raises(NoiseError, match=r"record 1 as tokenized: rejected_\w*ids must be token ids .* '<extra>'"):
        neft_zoo.DPOTrainer(llama(), llama(), args, train_dataset=data, processing_class=larger, noise="symnoise")


def test_a_selection_without_the_record_is_accepted(llama, tokenizer):
    data = Dataset.from_list(with_id(10**6))
    check_vocabulary(llama(), tokenizer, {"train_dataset": data.select([0, 1, 7])})
    with pytest.raises(NoiseError, match="train_dataset, record 2 as tokenized"):
        check_vocabulary(llama(), tokenizer, {"train_dataset": data.select([0, 5, 7])})


def test_a_stream_is_looked_at_and_not_consumed(llama, tokenizer):
    made = []

    def rows(number):
        for row in with_id(number):
            made.append(row)
            yield row

    stream = IterableDataset.from_generator(rows, gen_kwargs={"number": 7})
    check_vocabulary(llama(), tokenizer, {"train_dataset": stream})
    assert len(list(stream)) == 8
    with pytest.raises(NoiseError, match="record 6 as tokenized"):
        wrong = IterableDataset.from_generator(rows, gen_kwargs={"number": 10**6})
        check_vocabulary(llama(), tokenizer, {"train_dataset": wrong})


def test_a_stream_that_can_be_read_once_keeps_nearly_all_and_says_so(llama, tokenizer):
    rows = iter([{"input_ids": [number, 10**6]} for number in range(400)])
    stream = IterableDataset.from_generator(lambda: rows)
    with pytest.warns(DataWarning, match="^train_dataset begins with another record each time it is read"):
        check_vocabulary(llama(), tokenizer, {"train_dataset": stream})
    assert len(list(stream)) == 398


@pytest.mark.parametrize("how", ["none", "neft_uniform", "freelb"])
def test_what_cannot_be_read_before_is_said_in_the_first_step(llama, config, tokenizer, how):
    rows = [{**row, "attention_mask": [1] * 4} for row in with_id(10**6)]
    with pytest.raises(NoiseError, match="^input_ids must be token ids from 0 to .*, got 1000000: make them with"):
        Trainer(llama(), config(), train_dataset=rows, noise=how).train()
    batch = {name: torch.tensor([rows[5][name]]) for name in rows[5]}
    with pytest.raises(NoiseError, match="^input_ids must be token ids from 0 to"):
        attach(llama().train(), how, total_steps=1).loss(batch)


@pytest.mark.parametrize("how", ["none", "neft_uniform"])
def test_labels_without_a_word_are_said_in_the_first_step(llama, config, how):
    rows = [{**row, "labels": [-100, 5, 10**6, 5]} for row in ROWS]
    with pytest.raises(NoiseError, match="^labels must be token ids from 0 to .*, got 1000000"):
        Trainer(llama(), config(), train_dataset=rows, noise=how).train()


def test_a_callback_looks_at_the_data_before_training(llama, config):
    data, noise = Dataset.from_list(with_id(10**6)), NoiseCallback("neft_uniform")
    with pytest.raises(NoiseError, match="^train_dataset, record 6 as tokenized"):
        transformers.Trainer(llama(), config(), train_dataset=data, callbacks=[noise]).train()


def test_other_errors_stay_what_they_are(llama):
    with pytest.raises(IndexError, match="mine"), named_token_ids(llama(), {"input_ids": torch.ones(1, 2).long()}):
        raise IndexError("mine")


def test_placeholders_may_lie_outside_of_the_table():
    text = dict(model_type="gemma", vocab_size=64, hidden_size=8, intermediate_size=8, num_hidden_layers=1)
    text |= dict(num_attention_heads=1, num_key_value_heads=1, head_dim=8)
    vision = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=4)
    config = PaliGemmaConfig(text_config=text, vision_config={**vision, "patch_size": 2}, image_token_index=64)
    model = PaliGemmaForConditionalGeneration(config)
    placeholder = model.config.image_token_id
    assert placeholder >= model.get_input_embeddings().weight.shape[0]
    check_vocabulary(model, None, {"train_dataset": Dataset.from_list(with_id(placeholder))})
    with pytest.raises(NoiseError, match=f"got {placeholder + 1}"):
        check_vocabulary(model, None, {"train_dataset": Dataset.from_list(with_id(placeholder + 1))})


def test_remote_code_may_have_placeholders_of_its_own(llama, tokenizer):
    class Llava(LlamaForCausalLM):
        """A class of remote code."""

    model = Llava(llama().config)
    check_vocabulary(model, tokenizer, {"train_dataset": Dataset.from_list(with_id(-200))})


def test_a_mask_token_without_an_embedding_row_is_refused_before_training(llama, tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_special_tokens({"mask_token": "<hidden>"})
    message = (
        rf"needs a mask token below the embedding's \d+ rows, got {tokenizer.mask_token_id}: resize the embedding"
    )
    with pytest.raises(NoiseError, match=message):
        attach(llama(), "masked_thought", total_steps=10, tokenizer=tokenizer)
    attach(llama(), {"name": "masked_thought", "by": "random"}, total_steps=10, tokenizer=tokenizer).detach()
    model = llama()
    model.resize_token_embeddings(len(tokenizer))
    attach(model, "masked_thought", total_steps=10, tokenizer=tokenizer).detach()


def test_a_tokenizer_that_only_the_collator_has_is_used(llama, tokenizer, tmp_path):
    args = transformers.TrainingArguments(tmp_path, report_to=[], use_cpu=True)
    trainer = Trainer(
        llama(), args, data_collator=transformers.DataCollatorForSeq2Seq(tokenizer), noise="token_dropout"
    )
    tokens = trainer.session.batch.tokens
    assert tokens["pad_id"] == tokenizer.pad_token_id and set(tokenizer.all_special_ids) <= {*tokens["special_ids"]}
