"""A tiny Llava with its processor and data, all built here."""

import torch
import transformers as t
from datasets import Dataset

from neft_zoo.config import recipe

IMAGE = "<image>"
PIXELS, PATCH = 8, 4
PLACES = (PIXELS // PATCH) ** 2  # placeholders per image
TEMPLATE = """{% for message in messages %}{{ '<|user|>' if message['role'] == 'user' else '<|assistant|>' }}\
{% for part in message['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}\
{% if message['role'] == 'assistant' %}{{ '<|endoftext|>' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"""
WORDS = "the cell divides when its energy is enough to copy what it holds".split()


def processor():
    """Return a processor: the shipped tokenizer with a placeholder, and images of 8 x 8 pixels."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil  # the oldest version has none

    tokenizer = t.AutoTokenizer.from_pretrained(recipe.folder() / "quickstart" / "model")
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    images = CLIPImageProcessorPil(
        size={"height": PIXELS, "width": PIXELS}, crop_size={"height": PIXELS, "width": PIXELS}
    )
    # The tower's first feature is that of the image as a whole; Llava drops it, and so it has no placeholder.
    told = dict(patch_size=PATCH, num_additional_image_tokens=1, vision_feature_select_strategy="default")
    return t.LlavaProcessor(images, tokenizer, chat_template=TEMPLATE, image_token=IMAGE, **told)


def llava(tokenizer):
    """Return a Llava of 2 + 1 layers for this tokenizer."""
    torch.manual_seed(0)
    text = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
    tower = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    config = t.LlavaConfig(
        vision_config=t.CLIPVisionConfig(**tower, image_size=PIXELS, patch_size=PATCH),
        text_config=t.LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, **text),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        vision_feature_layer=-1,
        image_seq_length=PLACES,
    )
    return t.LlavaForConditionalGeneration(config)


def records(kind="prompt"):
    """Return 8 questions about one image each, as `prompt` and completion or as `messages`."""
    from PIL import Image

    rows = []
    for i in range(8):
        image = Image.new("RGB", (PIXELS, PIXELS), (30 * i, 90, 200 - 20 * i))
        asked = [{"role": "user", "content": " ".join(WORDS[: i + 1])}]
        told = [{"role": "assistant", "content": " ".join(WORDS[: i % 5 + 2])}]
        texts = {"messages": asked + told} if kind == "messages" else {"prompt": asked, "completion": told}
        rows.append({"images": [image], **texts})
    return Dataset.from_list(rows)
