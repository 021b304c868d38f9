"""What a trainer counts and logs in its loss counts once for a step of several passes, whatever it is called."""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
import trl
from small_models import same, weights

from neft_zoo import enable
from neft_zoo.training.pass_counters import PassCounters


def counting_trainer():
    metrics = {"train": defaultdict(list, entropy=[1.0]), "eval": defaultdict(list)}
    state = SimpleNamespace(global_step=3, tokens={"seen": torch.tensor(5)})
    return SimpleNamespace(state=state, _total=7, seconds=0.5, _metrics=metrics, buffered=[1], name="x", ready=True)


def test_numbers_and_metrics_are_as_before_the_first_pass():
    trainer = counting_trainer()
    counters = PassCounters(trainer)
    for _ in range(2):
        trainer._total, trainer.seconds, trainer.last, trainer.name, trainer.ready = 9, 2.0, 4, "y", False
        trainer._metrics["train"]["entropy"].append(2.0)
        trainer._metrics["train"]["new"].append((3.0, 4.0))
        trainer.buffered.append(2)
        trainer.state.tokens["seen"] += 1
        trainer.state.tokens["graded"] = 2
        trainer.state.first = {"seen": torch.tensor(1)}
        counters.rewind()
        assert (trainer._total, trainer.seconds, trainer.state.global_step) == (7, 0.5, 3)
        assert trainer._metrics == {"train": {"entropy": [1.0], "new": []}, "eval": {}}
        assert trainer.state.tokens == {"seen": torch.tensor(5)}
        assert not hasattr(trainer, "last") and not hasattr(trainer.state, "first")
    assert (trainer.buffered, trainer.name, trainer.ready) == ([1, 2, 2], "y", False), "what counts nothing stays"


class Mean:
    """A metric that sums up, as ms-swift's do."""

    def __init__(self):
        self.state, self.count = 0.0, 0

    def update(self, value):
        self.state, self.count = self.state + value, self.count + 1

    def compute(self):
        return self.state / self.count

    def reset(self):
        self.__init__()


def test_metrics_that_sum_up_and_counts_of_one_element_are_as_before_the_first_pass():
    metrics = defaultdict(Mean)
    metrics["loss"].update(1.0)
    state = SimpleNamespace(tokens={"graded": torch.zeros(1)})  # Axolotl's
    trainer = SimpleNamespace(state=state, custom_metrics={"train": metrics})
    counters = PassCounters(trainer)
    for _ in range(2):
        metrics["loss"].update(3.0)
        metrics["accuracy"].update(0.5)
        state.tokens["graded"] = state.tokens["graded"] + 4
        counters.rewind()
        assert metrics["loss"].compute() == 1.0 and "accuracy" not in metrics
        assert state.tokens["graded"].tolist() == [0.0]


class Counting(trl.SFTTrainer):
    """Counts tokens as Axolotl does: on the state, from the first loss on."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if not hasattr(self.state, "counted"):
            self.state.counted = {"graded": torch.zeros(())}
        self.state.counted["graded"] += (inputs["labels"] != -100).sum()
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)


@pytest.mark.parametrize("noise", ["symnoise", "freelb"])
def test_a_trainer_that_counts_in_its_loss_counts_a_batch_once(llama, config, records, tokenizer, noise):
    def make():
        return Counting(llama(), args=config(max_steps=3), train_dataset=records, processing_class=tokenizer)

    plain, noisy = make(), enable(make(), noise)
    for trainer in (plain, noisy):
        trainer.train()
    assert plain.state.counted == noisy.state.counted and plain.state.counted["graded"] > 0
    lines = [[line["num_tokens"] for line in each.state.log_history if "loss" in line] for each in (plain, noisy)]
    assert lines[0] == lines[1] and not same(weights(plain.model), weights(noisy.model))
