"""Checks of a trainer's arguments and data before it loads a model."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

from neft_zoo.training.data_conversion import as_messages, as_prompts
from neft_zoo.training.data_formats import SFT, Format, check_records, plain
from neft_zoo.training.lost_records import check_trainer
from neft_zoo.training.mixin import NoiseMixin
from neft_zoo.training.ranges import check_ranges
from neft_zoo.training.token_losses import token_loss

DATA = ("train_dataset", "eval_dataset")


class ChecksData(NoiseMixin):
    """The mixin for TRL's trainers, which also checks their arguments and converts their data to TRL's formats."""

    formats: ClassVar[tuple[Format, ...]] = SFT

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = dict(zip(_names(type(self)), args, strict=False)) | kwargs
        config = given.get("args")
        check_ranges({} if config is None else vars(config))
        for name in DATA:
            if given.get(name) is not None and not given.get("formatting_func"):
                given[name] = self._checked(given[name], name, config)
        with token_loss(given):
            super().__init__(**given)
        check_trainer(given, self)

    def _checked(self, data: Any, name: str, config: Any) -> Any:
        """Return data in one of TRL's formats; several splits are checked one by one.

        Raises:
            NoiseError: if a record is not in a format of this trainer.
        """
        if isinstance(data, Mapping):
            return {key: self._checked(split, f"{name}[{key!r}]", config) for key, split in data.items()}
        options = getattr(config, "dataset_kwargs", None)
        prepared = isinstance(options, dict) and options.get("skip_prepare_dataset")
        if prepared or not hasattr(data, "select_columns"):
            return data
        data = plain(data)
        text = getattr(config, "dataset_text_field", "text")
        check_records(data, name, text, self.formats, note=name == DATA[0])
        return as_prompts(as_messages(data)) if self.formats is SFT else data


def _names(trainer: type) -> list[str]:
    """Return the argument names of the first class after ours in the MRO that names its arguments."""
    classes = trainer.__mro__
    for each in classes[classes.index(ChecksData) + 1 :]:
        parameters = inspect.signature(each.__init__).parameters
        if "__init__" in vars(each) and not any(p.kind is p.VAR_POSITIONAL for p in parameters.values()):
            return list(parameters)[1:]
    return []
