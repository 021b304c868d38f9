"""Pretrain the quickstart model from scratch: a small Llama and its byte-level BPE tokenizer.

    python recipes/quickstart/pretrain.py --output my-model --tokens 30e6

Two CPU cores do about 5,000 tokens a second. The learning rate is constant after the warm-up and falls over the
last quarter, so an interrupted run goes on where its checkpoint is, and `--tokens` may be changed in between.
"""

import argparse
import json
import lzma
import math
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

HERE = Path(__file__).parent
CORPUS = HERE / "openstax_text.jsonl.xz"
CONTEXT, BATCH = 256, 16
SPECIAL = {"eos": "<|endoftext|>", "pad": "<|pad|>", "user": "<|user|>", "assistant": "<|assistant|>"}
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ '<|assistant|>' }}{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ '<|user|>' + message['content'] }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def read_corpus(path: Path) -> tuple[list[str], list[str]]:
    """Return (training, held-out) documents; every 50th document is held out."""
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    return [text for i, text in enumerate(texts) if i % 50], texts[::50]


def train_tokenizer(texts: list[str], vocab_size: int = 4096) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE; every string round-trips, so nothing is ever out of vocabulary."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=list(SPECIAL.values()), initial_alphabet=alphabet),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=SPECIAL["eos"],
        pad_token=SPECIAL["pad"],
        extra_special_tokens={"user_token": SPECIAL["user"], "assistant_token": SPECIAL["assistant"]},
        model_max_length=CONTEXT,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> torch.Tensor:
    """Return one stream of token ids, documents separated by the end-of-text token."""
    stream: list[int] = []
    for encoding in tokenizer.backend_tokenizer.encode_batch(texts):
        stream += [*encoding.ids, tokenizer.eos_token_id]
    return torch.tensor(stream)


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def batch_at(stream: torch.Tensor, step: int, seed: int) -> torch.Tensor:
    """Return the batch of a step, a function of the step alone: each epoch is a fresh shuffle of shifted windows."""
    windows = len(stream) // CONTEXT - 1
    epoch, index = divmod(step, windows // BATCH)
    generator = torch.Generator().manual_seed(seed * 1000 + epoch)
    shift = int(torch.randint(CONTEXT, (), generator=generator))
    chosen = torch.randperm(windows, generator=generator)[index * BATCH : (index + 1) * BATCH]
    return torch.stack([stream[shift + CONTEXT * i : shift + CONTEXT * (i + 1)] for i in chosen.tolist()])


def learning_rate(step: int, total: int, peak: float, warmup: int = 100, fall: float = 0.25) -> float:
    remaining = (total - step) / (fall * total)
    return peak * min(1.0, (step + 1) / warmup, max(0.0, 1 - math.sqrt(max(0.0, 1 - remaining))))


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, stream: torch.Tensor) -> float:
    """Return nats per token over consecutive windows of the whole held-out stream."""
    windows = stream[: len(stream) // CONTEXT * CONTEXT].view(-1, CONTEXT)
    losses = [model(input_ids=rows, labels=rows).loss.item() * len(rows) for rows in windows.split(BATCH)]
    return sum(losses) / len(windows)


def optimizer_for(model: LlamaForCausalLM, peak: float) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.95), fused=True)


def save(path: Path, state: dict) -> None:
    torch.save(state, path.with_suffix(".partial"))
    path.with_suffix(".partial").replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="xz-compressed JSON lines with a `text` field")
    parser.add_argument("--output", type=Path, required=True, help="folder for the checkpoint and the final model")
    parser.add_argument("--tokens", type=float, default=30e6, help="training tokens in all")
    parser.add_argument("--lr", type=float, default=2.5e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    args.output.mkdir(parents=True, exist_ok=True)
    train_texts, test_texts = read_corpus(args.corpus)
    tokenizer = train_tokenizer(train_texts)
    tokenizer.save_pretrained(args.output)
    train, test = encode(tokenizer, train_texts), encode(tokenizer, test_texts)
    test_bytes = sum(len(text.encode()) for text in test_texts)
    print(f"{len(train):,} training and {len(test):,} held-out tokens", flush=True)

    torch.manual_seed(args.seed)
    model = build_model(tokenizer)
    optimizer = optimizer_for(model, args.lr)
    checkpoint, first, total = args.output / "checkpoint.pt", 0, int(args.tokens // (BATCH * CONTEXT))
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    model.train()
    started, steps = time.time(), tqdm(range(first, total), initial=first, total=total, mininterval=10)
    for step in steps:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, total, args.lr)
        rows = batch_at(train, step, args.seed)
        loss = model(input_ids=rows, labels=rows).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 100 == 0:
            steps.set_postfix(loss=f"{loss.item():.3f}")
        if (step + 1) % 250 == 0:
            save(checkpoint, {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1})

    model.eval()
    nats = held_out_loss(model, test)
    report = {
        "tokens": total * BATCH * CONTEXT,
        "parameters": sum(p.numel() for p in model.parameters()),
        "held_out_nats_per_token": round(nats, 4),
        "held_out_bits_per_byte": round(nats * len(test) / test_bytes / math.log(2), 4),
        "seed": args.seed,
        "minutes": round((time.time() - started) / 60, 1),
    }
    model.save_pretrained(args.output)
    (args.output / "pretraining.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
