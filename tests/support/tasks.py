"""Tiny models that do not predict the next token, and a batch of each."""

import torch
import transformers as t

SIZES = dict(vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
BERT = dict(SIZES, attention_probs_dropout_prob=0.1, max_position_embeddings=16)
IDS = torch.randint(5, 60, (4, 10), generator=torch.Generator().manual_seed(0))
MASK = torch.ones_like(IDS).index_fill(1, torch.tensor([9]), 0)
HIDDEN = IDS.where((torch.arange(10) % 3 == 0) & (MASK == 1), -100)
CLASSES = torch.tensor([0, 2, 1, 2])
SPAN = {"start_positions": torch.tensor([1, 0, 2, 3]), "end_positions": torch.tensor([4, 5, 2, 6])}
TASKS = {
    "sequence": (t.BertForSequenceClassification, {"labels": CLASSES}),
    "sequence, a decoder": (t.LlamaForSequenceClassification, {"labels": CLASSES}),
    "tokens": (t.BertForTokenClassification, {"labels": (IDS % 3).where(HIDDEN != -100, -100)}),
    "span": (t.BertForQuestionAnswering, SPAN),
    "masked": (t.BertForMaskedLM, {"labels": HIDDEN}),
    "pretraining": (t.BertForPreTraining, {"labels": HIDDEN, "next_sentence_label": CLASSES % 2}),
    "choices": (
        t.BertForMultipleChoice,
        {"input_ids": IDS.view(2, 2, 10), "attention_mask": MASK.view(2, 2, 10), "labels": torch.tensor([0, 1])},
    ),
    "regression": (t.BertForSequenceClassification, {"labels": CLASSES.float()}),
}


def model_of(task):
    torch.manual_seed(0)
    kind = TASKS[task][0]
    extra = {"num_labels": {"regression": 1, "span": 2}.get(task, 3), "pad_token_id": 0}
    config = (
        t.LlamaConfig(**SIZES, attention_dropout=0.1, **extra) if "decoder" in task else t.BertConfig(**BERT, **extra)
    )
    return kind(config).train()
