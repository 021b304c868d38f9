"""What a trainer is given, looked at before it loads a model: numbers and data."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from neft_zoo.training.data_conversion import as_messages, as_prompts, check_kept
from neft_zoo.training.data_formats import SFT, Format, check_records
from neft_zoo.training.ranges import check_ranges

if TYPE_CHECKING:
    from transformers import Trainer as Host
else:
    Host = object

DATA = ("train_dataset", "eval_dataset")


class ChecksData(Host):
    """Checks the arguments of one of TRL's trainers, and makes its data into what TRL reads.

    Put it before `NoiseMixin`, whose trainer's arguments are read.
    """

    formats: ClassVar[tuple[Format, ...]] = SFT

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = dict(zip(_names(type(self)), args, strict=False)) | kwargs
        config = given.get("args")
        check_ranges({} if config is None else vars(config))
        for name in DATA:
            if given.get(name) is not None and not given.get("formatting_func"):
                given[name] = self._checked(given[name], name, config)
        super().__init__(**given)
        if self.formats is SFT and given.get("train_dataset") is not None:
            check_kept(given["train_dataset"], self)  # type: ignore[arg-type]

    def _checked(self, data: Any, name: str, config: Any) -> Any:
        """Return data in a format of TRL's; several splits are checked one by one.

        Raises:
            NoiseError: if a record is in no format of this trainer's.
        """
        if isinstance(data, Mapping):
            return {key: self._checked(split, f"{name}[{key!r}]", config) for key, split in data.items()}
        options = getattr(config, "dataset_kwargs", None)
        prepared = isinstance(options, dict) and options.get("skip_prepare_dataset")
        if prepared or not hasattr(data, "select_columns"):
            return data
        text = getattr(config, "dataset_text_field", "text")
        check_records(data, name, text, self.formats, note=name == DATA[0])
        return as_prompts(as_messages(data)) if self.formats is SFT else data


def _names(trainer: type) -> list[str]:
    """Return the names of the arguments of the first class behind ours that names them."""
    classes = trainer.__mro__
    for each in classes[classes.index(ChecksData) + 1 :]:
        parameters = inspect.signature(each.__init__).parameters
        if "__init__" in vars(each) and not any(p.kind is p.VAR_POSITIONAL for p in parameters.values()):
            return list(parameters)[1:]
    return []
