"""`neft-zoo generate`: batched answers in AlpacaEval's format; an interrupted run can be continued."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from neft_zoo.config.options import RunOptions
from neft_zoo.console import say
from neft_zoo.errors import NoiseError
from neft_zoo.evaluation.generation import by_length, generate
from neft_zoo.evaluation.loading import load_model, load_splits, read_recipe
from neft_zoo.evaluation.progress import progress_bar
from neft_zoo.evaluation.records import prompt_tokens
from neft_zoo.evaluation.subject import Subject, prepare
from neft_zoo.files import append_line, check_folder, make_folder, write_json, write_text
from neft_zoo.judging.prompts import Prompt, from_file, from_split
from neft_zoo.noise.schedules import check_count, check_number

EXAMPLES = 8  # training records that determine the format
FILES = ("*.safetensors", "*.bin", "config.json", "adapter_config.json", "generation_config.json", "tokenizer*")


@dataclass(frozen=True)
class Settings:
    """Settings of greedy generation.

    Args:
        batch_size: prompts per batch.
        max_new_tokens: maximum length of an answer, in tokens.
        repetition_penalty: if above 1, makes tokens that have occurred less likely; the NEFTune paper uses 1.2.
        limit: number of prompts, from the start; None for all.

    Raises:
        NoiseError: if a value is invalid.
    """

    batch_size: int = 16
    max_new_tokens: int = 1024
    repetition_penalty: float = 1.2
    limit: int | None = None

    def __post_init__(self) -> None:
        check_count("batch_size", self.batch_size, 1)
        check_count("max_new_tokens", self.max_new_tokens, 1)
        check_number("repetition_penalty", self.repetition_penalty, 1e-6)
        if self.limit is not None:
            check_count("limit", self.limit, 1)


def write_outputs(
    model: str,
    config: str,
    output: Path,
    prompts: Path | None = None,
    generator: str = "",
    settings: Settings | None = None,
) -> Path:
    """Write the answers to prompts as AlpacaEval's `model_outputs.json`, and return its path.

    Args:
        model: folder of a model, a run or an adapter, or a name on the hub.
        config: the recipe it was trained with.
        output: file to write.
        prompts: an AlpacaEval file or JSON lines; None for the recipe's test split.
        generator: the model's name in the file; by default its folder's name.
        settings: of the generation.

    Raises:
        NoiseError: if the output exists, or a path, a prompt or a setting is invalid.
    """
    settings = settings or Settings()
    if output.exists():
        raise NoiseError(f"output must not exist yet, got {output}.")
    check_folder("output", output.parent)
    arguments = read_recipe(model, config)
    splits = load_splits(
        arguments, None if prompts is None else EXAMPLES, ("train", "test")[: 2 if prompts is None else 1]
    )
    if prompts is None:
        questions = from_split(splits["test"], Path(config).stem)
    else:
        questions = from_file(prompts, splits["train"][0])
    questions = questions[: settings.limit]
    name = str(Path(model).expanduser())
    loaded, tokenizer = load_model(name, arguments)
    subject = prepare(loaded, tokenizer, arguments.training, {"train": splits["train"][:EXAMPLES]})
    tokens = [prompt_tokens(tokenizer, question.record, subject.template) for question in questions]
    mark = fingerprint(name, arguments, questions, tokens, settings)
    texts = _answer(subject, tokens, settings, output, mark)
    generator = generator or Path(name).resolve().name
    records = [
        {"instruction": question.instruction, "output": text, "generator": generator, **question.about}
        for question, text in zip(questions, texts, strict=True)
    ]
    write_json(output, records, indent=1, is_data=True)
    partial(output).unlink(missing_ok=True)
    return output


def _answer(subject: Subject, tokens: Sequence[list[int]], settings: Settings, output: Path, mark: str) -> list[str]:
    """Return the answers to tokenized prompts, in the same batches in every run, and write each to disk at once."""
    make_folder(output.parent)
    texts = _resume(partial(output), mark)
    counted = progress_bar(None, "answers", total=len(tokens), initial=len(texts), shown=subject.progress)
    with counted as bar, subject.autocast():
        for indices in by_length(tokens, settings.batch_size):
            if indices[0] in texts:
                continue
            answers = generate(
                subject.model,
                subject.tokenizer,
                [tokens[i] for i in indices],
                max_new_tokens=settings.max_new_tokens,
                repetition_penalty=settings.repetition_penalty,
                batch_size=len(indices),
            )
            batch_texts = {i: answer.text for i, answer in zip(indices, answers, strict=True)}
            append_line(partial(output), json.dumps(list(batch_texts.items())))
            texts |= batch_texts
            bar.update(len(indices))
    return [texts[i] for i in range(len(tokens))]


def _resume(path: Path, mark: str) -> dict[int, str]:
    """Return the answers of an earlier run with the same fingerprint, and truncate its file to complete lines."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True) if path.exists() else []
    same = lines[:1] == [mark + "\n"]
    if lines and not same:
        say(f"{path} holds unfinished answers of another model, recipe, prompts or settings, and is written over")
    kept = [line for line in lines[1:] if line.endswith("]\n")] if same else []
    write_text(path, "".join([mark + "\n", *kept]))
    return {i: text for line in kept for i, text in json.loads(line)}


def partial(output: Path) -> Path:
    """Return the path for the answers of an unfinished run."""
    return output.with_name(f".{output.name}.partial")


def fingerprint(
    model: str, arguments: RunOptions, prompts: Sequence[Prompt], tokens: Sequence[list[int]], settings: Settings
) -> str:
    """Return a hash of everything that answers depend on: model, recipe, prompts and settings.

    Of the recipe, these are the options for loading the model, the precision, and how prompts are tokenized.
    """
    files = sorted({path for pattern in FILES for path in Path(model).glob(pattern)})
    weights = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    asked = [(prompt.instruction, dict(prompt.record)) for prompt in prompts]
    training = arguments.training
    recipe = [vars(arguments.model), training.bf16, training.fp16, training.model_init_kwargs]
    content = [model, weights, recipe, asked, tokens, asdict(settings)]
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()
