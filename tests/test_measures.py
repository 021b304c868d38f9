"""What a comparison measures at every evaluation."""

import math

import torch
from torch.nn import functional

from neft_zoo import SFTTrainer
from neft_zoo.compare.measures import measure


def test_a_measured_loss_is_the_exact_mean_over_tokens(llama, config, records, tokenizer):
    sets = {"train": records, "test": records.select(range(7))}
    args = config(per_device_eval_batch_size=3)
    trainer = SFTTrainer(llama(), args=args, train_dataset=records, eval_dataset=sets, processing_class=tokenizer)
    found, model = measure(trainer), trainer.model.eval()
    for name in sets:
        tokens = []
        for batch in trainer.get_eval_dataloader(name):
            labels = batch["labels"][:, 1:]
            with torch.no_grad():
                logits = model(**{k: v for k, v in batch.items() if k != "labels"}, use_cache=False).logits[:, :-1]
            graded = labels != -100
            tokens += functional.cross_entropy(logits[graded], labels[graded], reduction="none").tolist()
        # math.fsum loses nothing, so it has no order; a sum in float32 is off by 1e-8 or more.
        assert math.isclose(found[f"{name}_loss"], math.fsum(tokens) / len(tokens), rel_tol=1e-13)
