"""`neft-zoo generate` and `neft-zoo judge`: options; what they do is imported late."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neft_zoo.console import quiet
from neft_zoo.errors import NoiseError
from neft_zoo.files import check_folder, make_folder, write_json
from neft_zoo.noise.schedules import check_count, check_number

if TYPE_CHECKING:
    from neft_zoo.judging.length_control import Published
    from neft_zoo.judging.pairs import Judgement
    from neft_zoo.judging.winrate import JudgedBy

REPORT = "judged.json"
ANNOTATIONS = "annotations.json"


def add_to(commands: Any) -> None:
    """Add the commands to the command line's."""
    command = commands.add_parser("generate", help="answer prompts in batches, as AlpacaEval's model_outputs.json")
    command.add_argument("model", help="folder of a model, a run or an adapter, or a name on the hub")
    command.add_argument("--config", required=True, help="recipe it was trained with: how prompts are tokenized")
    command.add_argument("--prompts", type=Path, help="AlpacaEval file or JSON lines (the recipe's test split)")
    command.add_argument("--output", type=Path, help="file (MODEL/model_outputs.json)")
    command.add_argument("--generator", default="", help="name of the model in the file (its folder's)")
    command.add_argument("--batch_size", type=int, default=16, help="prompts a batch (%(default)s)")
    command.add_argument("--max_new_tokens", type=int, default=1024, help="longest answer in tokens (%(default)s)")
    command.add_argument("--repetition_penalty", type=float, default=1.2, help="1 is none (%(default)s)")
    command.add_argument("--limit", type=int, help="answer only so many, from the start")
    command.set_defaults(run=generate)

    command = commands.add_parser(
        "judge", help="win rates of one model's outputs over another's, also length-controlled"
    )
    command.add_argument("ours", type=Path, nargs="?", metavar="OURS", help="model_outputs.json, or its folder")
    command.add_argument("theirs", type=Path, nargs="?", metavar="THEIRS", help="the same of the other model")
    command.add_argument("--judge", default="endpoint", help="endpoint, MODULE:NAME, or a rating page's export.json")
    command.add_argument("--model", help="of the endpoint")
    command.add_argument("--base_url", help="of an endpoint such as http://localhost:8000/v1 (OpenAI's)")
    command.add_argument("--timeout", type=float, default=60.0, help="seconds a reply may take (%(default)s)")
    command.add_argument("--retries", type=int, default=4, help="further attempts where one failed (%(default)s)")
    command.add_argument("--workers", type=int, default=8, help="questions at a time (%(default)s)")
    command.add_argument("--temperature", type=_number, default=0.0, help="of the judge, or none (%(default)s)")
    command.add_argument("--max_tokens", type=_count, default=16, help="longest reply, or none (%(default)s)")
    command.add_argument("--human", type=Path, metavar="PAGE", help="write a page for blind ratings instead")
    command.add_argument("--annotations", type=Path, metavar="FILE", help="read AlpacaEval's annotations instead")
    command.add_argument("--gamed", type=Path, metavar="FILE", help="AlpacaEval's df_gamed.csv: difficulties")
    command.add_argument("--limit", type=int, help="judge only so many instructions, drawn by the seed")
    command.add_argument("--seed", type=int, default=0, help="of the page's order, and of the limit")
    command.add_argument("--output", type=Path, help=f"folder for {REPORT}, {ANNOTATIONS} and the cache (OURS/judged)")
    command.set_defaults(run=judge)


def _number(text: str) -> float | None:
    return None if text == "none" else float(text)


def _count(text: str) -> int | None:
    return None if text == "none" else int(text)


def generate(options: argparse.Namespace) -> None:
    """Write a model's outputs and print their path."""
    folder = Path(options.model).expanduser()
    if options.output is None and not folder.is_dir():
        raise NoiseError(f"model must be an existing folder, or --output be given, got {options.model!r}.")
    from neft_zoo.judging.generating import Settings, write_outputs

    settings = Settings(options.batch_size, options.max_new_tokens, options.repetition_penalty, options.limit)
    output = options.output or folder / "model_outputs.json"
    with quiet():
        print(write_outputs(options.model, options.config, output, options.prompts, options.generator, settings))


def judge(options: argparse.Namespace) -> None:
    """Judge, or read what was judged; write report and annotations and print the table."""
    _check(options)
    from neft_zoo.judging.length_control import read_published, require_optimizer
    from neft_zoo.judging.pairs import match, sample
    from neft_zoo.judging.winrate import JudgedBy

    if options.annotations is not None:
        return _summarize_file(options)
    from neft_zoo.judging.json_files import read_outputs

    ours, theirs = read_outputs(options.ours), read_outputs(options.theirs)
    pairs = sample(match(ours, theirs), options.limit, options.seed)
    if options.human is not None:
        from neft_zoo.judging.rating_page import write_page

        print(write_page(pairs, options.human, options.seed))
        return None
    require_optimizer()  # before anything is asked, or paid for
    published = None if options.gamed is None else read_published(options.gamed)
    near = options.ours if options.ours.is_dir() else options.ours.parent
    folder = options.output or near / "judged"
    check_folder("output", folder)
    judgements, name, reasons = _ask(options, pairs, folder)
    _finish(judgements, JudgedBy(ours.generator, theirs.generator, name, reasons), published, folder)


def _check(options: argparse.Namespace) -> None:
    if (options.annotations is None) == (options.theirs is None):
        raise NoiseError("either OURS and THEIRS or --annotations must be given.")
    check_count("retries", options.retries, 0)
    check_count("workers", options.workers, 1)
    check_number("timeout", options.timeout, 1e-3)
    if options.limit is not None:
        check_count("limit", options.limit, 1)


def _summarize_file(options: argparse.Namespace) -> None:
    from neft_zoo.judging.length_control import read_published
    from neft_zoo.judging.winrate import read_annotations

    if options.output is not None:
        check_folder("output", options.output)
    judgements, judged_by = read_annotations(options.annotations)
    published = None if options.gamed is None else read_published(options.gamed)
    _finish(judgements, judged_by, published, options.output)


def _ask(options: argparse.Namespace, pairs: Any, folder: Path) -> tuple[Any, str, dict[str, int]]:
    """Return judgements, the judge's name and why verdicts are missing."""
    from neft_zoo.judging.cache import Cache
    from neft_zoo.judging.judges import judge_pairs, load_judge

    if options.judge.endswith(".json"):
        from neft_zoo.judging.rating_page import read_ratings

        return read_ratings(Path(options.judge), pairs), "human", {}
    if options.judge == "endpoint":
        from neft_zoo.judging.endpoint import Endpoint

        if not options.model:
            raise NoiseError("model must be given for an endpoint as the judge.")
        chosen = {key: getattr(options, key) for key in ("timeout", "retries", "workers", "temperature", "max_tokens")}
        found: Any = Endpoint(options.model, options.base_url, **chosen)
        name = options.model
    elif ":" in options.judge:
        found, name = load_judge(options.judge, options.retries), options.judge
    else:
        raise NoiseError(f"judge must be endpoint, MODULE:NAME or a file that ends in .json, got {options.judge!r}.")
    judgements, reasons = judge_pairs(found, pairs, Cache(folder / "verdicts.jsonl"))
    return judgements, name, reasons


def _finish(
    judgements: Sequence[Judgement], judged_by: JudgedBy, published: Published | None, folder: Path | None
) -> None:
    """Print the report, and write it and the annotations if there is a folder."""
    from neft_zoo.judging.pairs import annotation
    from neft_zoo.judging.winrate import JudgeReport, summarize, table

    report = JudgeReport(**vars(summarize(judgements, published)), **vars(judged_by))
    width = max(len(label) for label, _ in table(report))
    for label, text in table(report):
        print(f"{label:<{width}}  {text}")
    if folder is not None:
        names = (judged_by.ours, judged_by.theirs, judged_by.judge)
        make_folder(folder)
        write_json(folder / ANNOTATIONS, [annotation(each, *names).to_dict() for each in judgements], indent=1)
        write_json(folder / REPORT, report.to_dict(), indent=1)
        print(folder / REPORT)
