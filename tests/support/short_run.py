"""The arguments of a short training on a CPU, whichever trainer it is of."""


def short_run(output, **settings):
    """Return arguments: two steps of four records, every step logged, nothing saved or reported."""
    defaults = dict(
        output_dir=str(output),
        max_steps=2,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
        gradient_checkpointing=False,
    )
    return {**defaults, **settings}
