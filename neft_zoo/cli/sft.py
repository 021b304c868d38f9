"""`neft-zoo sft`: TRL's fine-tuning command, with `noise`."""

from __future__ import annotations

from neft_zoo.config.options import read_command_line, read_options, trainer_arguments
from neft_zoo.training.trainers import SFTTrainer


def run(argv: list[str]) -> None:
    """Fine-tune as the command line says and save the model."""
    options = read_options(*read_command_line(argv))
    training = options.training
    trainer = SFTTrainer(**trainer_arguments(options))
    trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    trainer.save_model(training.output_dir)
    trainer.accelerator.print(f"Model and noise.json saved to {training.output_dir}")
    if training.push_to_hub:
        trainer.push_to_hub(dataset_name=options.script.dataset_name)
    trainer.accelerator.end_training()
