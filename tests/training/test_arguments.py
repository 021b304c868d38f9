"""What a Python trainer is given is checked before a model is loaded, as on the command line."""

import pytest
import transformers
import trl
from datasets import Dataset, load_dataset
from trl import SFTConfig

import neft_zoo
from neft_zoo import NoiseError, SFTTrainer
from neft_zoo.training.ranges import RANGES

TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello there"}]
TEXTS = [{"text": "a b c"}] * 4
PAIRS = [{"prompt": "Hi", "chosen": "a", "rejected": "b"}] * 4
KINDS = {
    "SFT": (SFTConfig, TEXTS, "text, or messages"),
    "DPO": (trl.DPOConfig, PAIRS, "chosen and rejected"),
    "KTO": (
        trl.KTOConfig,
        [{"prompt": "Hi", "completion": "a", "label": i % 2 == 0} for i in range(4)],
        "prompt and completion and label, or chosen and rejected",
    ),
    "Reward": (trl.RewardConfig, PAIRS, "chosen and rejected"),
    "GRPO": (trl.GRPOConfig, [{"prompt": "Hi"}] * 4, "prompt"),
    "RLOO": (trl.RLOOConfig, [{"prompt": "Hi"}] * 4, "prompt"),
}


def arguments(kind, folder, **options):
    config, _, _ = KINDS[kind]
    return config(str(folder), use_cpu=True, bf16=False, report_to="none", **options)


def build(kind, model, records, args, **others):
    """Return a trainer; the data is given by position where it stands, and no model is there to be loaded."""
    trainer = getattr(neft_zoo, f"{kind}Trainer")
    data = records if records is None or isinstance(records, dict) else Dataset.from_list(records)
    extra = {"reward_funcs": lambda completions, **_: [0.0] * len(completions)} if kind in ("GRPO", "RLOO") else {}
    return trainer(model, args=args, train_dataset=data, **extra, **others)


@pytest.mark.parametrize("kind", KINDS)
def test_columns_of_no_format_are_refused_before_a_model_is_loaded(kind, tmp_path):
    with pytest.raises(NoiseError, match=f"^train_dataset must have the columns {KINDS[kind][2]}.*, got question"):
        build(kind, "no/such-model", [{"question": "Hi", "answer": "a"}], arguments(kind, tmp_path))


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_that_is_no_text_is_refused_with_its_place(kind, tmp_path):
    records = [dict(record) for record in KINDS[kind][1]]
    column = next(iter(records[2]))
    records[2][column] = None
    with pytest.raises(NoiseError, match=f"^train_dataset, record 3: {column} must be text, got None"):
        build(kind, "no/such-model", records, arguments(kind, tmp_path))
    if kind != "GRPO" and kind != "RLOO":
        evaluated = {"one": Dataset.from_list(records)}
        with pytest.raises(NoiseError, match=rf"^eval_dataset\['one'\], record 3: {column} must be text"):
            build(kind, "no/such-model", KINDS[kind][1], arguments(kind, tmp_path), eval_dataset=evaluated)


def test_pairs_are_no_data_for_sft(tmp_path):
    with pytest.raises(NoiseError, match="DPOTrainer takes them"):
        build("SFT", "no/such-model", PAIRS, arguments("SFT", tmp_path))


@pytest.mark.parametrize("name", sorted(set(RANGES) & set(vars(SFTConfig("out", use_cpu=True, bf16=False)))))
def test_a_number_that_cannot_be_meant_is_refused(name, tmp_path):
    try:
        args = arguments("SFT", tmp_path, **{name: -1})
    except (ValueError, ZeroDivisionError):
        return  # transformers does so itself
    with pytest.raises(NoiseError, match=f"{name} must be"):
        build("SFT", "no/such-model", TEXTS, args)


def test_transformers_own_trainer_refuses_them_too(llama, tmp_path):
    args = transformers.TrainingArguments(str(tmp_path), use_cpu=True, learning_rate=float("nan"))
    with pytest.raises(NoiseError, match="learning_rate must be"):
        neft_zoo.Trainer(llama(), args=args)


@pytest.mark.parametrize("given", ["position", "keyword"])
def test_instructions_and_conversations_train_as_on_the_command_line(given, llama, tokenizer, tmp_path):
    args = arguments("SFT", tmp_path)
    for records in [
        [{"instruction": "Say.", "input": "", "output": "yes"}],
        [{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "a"}]}],
        [{"messages": [{**turn, "content": [{"type": "text", "text": "Hi"}]} for turn in TURNS]}],
    ]:
        data = Dataset.from_list(records * 2)
        if given == "position":
            trainer = SFTTrainer(llama(), args, None, data, processing_class=tokenizer)
        else:
            trainer = SFTTrainer(llama(), args=args, train_dataset=data, processing_class=tokenizer)
        assert len(trainer.train_dataset) == 2 and trainer.train_dataset[0]["input_ids"]


def test_a_stream_tokens_and_a_function_that_formats_are_left_alone(llama, tokenizer, tmp_path):
    args = arguments("SFT", tmp_path, max_steps=1)
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a b"}\n' * 3)
    stream = load_dataset("json", data_files=str(path), split="train", streaming=True)
    SFTTrainer(llama(), args=args, train_dataset=stream, processing_class=tokenizer)
    tokens = Dataset.from_list([{"input_ids": [5, 6, 7]}])
    SFTTrainer(llama(), args=args, train_dataset=tokens, processing_class=tokenizer)
    odd = Dataset.from_list([{"question": "Hi", "answer": "a"}])
    formatted = SFTTrainer(
        llama(), args=args, train_dataset=odd, processing_class=tokenizer, formatting_func=lambda row: row["question"]
    )
    assert tokenizer.decode(formatted.train_dataset[0]["input_ids"]).startswith("Hi")


def test_records_lost_to_max_length_are_counted(llama, tokenizer, tmp_path):
    args = arguments("SFT", tmp_path, max_length=8)
    short, long = {"prompt": "a", "completion": " b"}, {"prompt": "a b c d " * 20, "completion": " g"}
    data = Dataset.from_list([short, long, long])
    with pytest.warns(UserWarning, match="2 of 3 records have no graded token within max_length 8: they are dropped"):
        SFTTrainer(llama(), args=args, train_dataset=data, processing_class=tokenizer)
    others = dict(train_dataset=Dataset.from_list([short]), processing_class=tokenizer)
    with pytest.warns(UserWarning, match="2 of 3 records of eval_dataset have no graded token within max_length 8"):
        SFTTrainer(llama(), args=args, eval_dataset=data, **others)
    with pytest.warns(UserWarning, match="2 of 3 records of eval_dataset 'a' have no graded token"):
        SFTTrainer(llama(), args=args, eval_dataset={"a": data}, **others)
    with pytest.raises(NoiseError, match="got 8: all 2 of eval_dataset lose theirs"):
        SFTTrainer(llama(), args=args, eval_dataset=data.select([1, 2]), **others)


def test_records_whose_answer_is_cut_off_in_a_packed_row_are_counted(llama, tokenizer, tmp_path):
    """TRL cuts them and keeps the prompt, on which nothing is graded."""
    short, long = {"prompt": "a", "completion": " b"}, {"prompt": "a b c d " * 20, "completion": " g"}
    data = Dataset.from_list([short, long, long])
    args = arguments("SFT", tmp_path, max_length=8, packing=True)
    with pytest.warns(
        UserWarning, match="2 of 3 records have no graded token within max_length 8: they train nothing"
    ):
        SFTTrainer(llama(), args=args, train_dataset=data, processing_class=tokenizer)
    with pytest.raises(NoiseError, match="got 8: all 2 lose theirs"):
        SFTTrainer(llama(), args=args, train_dataset=data.select([1, 2]), processing_class=tokenizer)


@pytest.mark.parametrize("kind", ["DPO", "KTO", "Reward"])
def test_pairs_and_labelled_answers_that_are_lost_are_counted(kind, llama, tokenizer, tmp_path):
    model, records = classifier(llama) if kind == "Reward" else llama(), [dict(each) for each in KINDS[kind][1]]
    for record in records[:3]:
        record["prompt"] = "a b c d " * 20
    others = {} if kind == "Reward" else {"ref_model": llama()}
    args = arguments(kind, tmp_path, max_length=16)
    with pytest.warns(UserWarning, match="3 of 4 records have no graded token within max_length 16: they are dropped"):
        build(kind, model, records, args, processing_class=tokenizer, **others)


@pytest.mark.parametrize("kind", [*KINDS, "transformers"])
def test_stock_noise_is_run_as_a_strategy_and_said(kind, llama, tokenizer, tmp_path):
    """And another trainer with the same arguments gets the same."""
    if kind == "transformers":
        args = transformers.TrainingArguments(str(tmp_path), use_cpu=True, neftune_noise_alpha=5)
    else:
        args = arguments(kind, tmp_path, neftune_noise_alpha=5, **({"beta": 0.0} if kind == "RLOO" else {}))

    def make():
        if kind == "transformers":
            return neft_zoo.Trainer(llama(), args=args)
        if kind == "Reward":
            return build(kind, classifier(llama), KINDS[kind][1], args, processing_class=tokenizer)
        if kind in ("DPO", "KTO"):
            return build(kind, llama(), KINDS[kind][1], args, processing_class=tokenizer, ref_model=llama())
        return build(kind, llama(), KINDS[kind][1], args, processing_class=tokenizer)

    for _ in range(2):
        with pytest.warns(UserWarning, match="neftune_noise_alpha: 5 is run as noise: {name: neft_uniform, alpha: 5}"):
            trainer = make()
        assert trainer.strategy == neft_zoo.make("neft_uniform", alpha=5)
        assert trainer.neftune_noise_alpha is None and args.neftune_noise_alpha == 5


def classifier(llama):
    config = llama().config
    config.num_labels, config.pad_token_id = 1, 0
    return transformers.LlamaForSequenceClassification(config)


def test_stock_noise_trains_as_the_strategy_and_is_in_noise_json(llama, tokenizer, tmp_path):
    def weights(**noise):
        args = arguments("SFT", tmp_path / str(len(noise)), max_steps=2, save_strategy="no", neftune_noise_alpha=None)
        args.neftune_noise_alpha = noise.pop("alpha", None)
        data = Dataset.from_list([{"text": f"record {i} of eight"} for i in range(8)])
        trainer = SFTTrainer(llama(), args=args, train_dataset=data, processing_class=tokenizer, **noise)
        trainer.train()
        trainer.save_model()
        return trainer

    with pytest.warns(UserWarning, match="is run as noise"):
        stock = weights(alpha=10)
    ours = weights(noise={"name": "neft_uniform", "alpha": 10})
    for one, other in zip(stock.model.parameters(), ours.model.parameters(), strict=True):
        assert one.equal(other)
    assert '"neft_uniform"' in next(tmp_path.rglob("noise.json")).read_text()


def test_two_noises_are_refused(llama, tokenizer, tmp_path):
    args = arguments("SFT", tmp_path, neftune_noise_alpha=5)
    with pytest.raises(NoiseError, match="neftune_noise_alpha must be unset when noise is given"):
        build("SFT", llama(), TEXTS, args, processing_class=tokenizer, noise="symnoise")
