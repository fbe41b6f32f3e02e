"""Encode only the patches that the kept tokens can need, after a look at what that does. Needs accelerate.

python examples/encode_what_changed.py clip.mp4 "What happens?"
"""

from pathlib import Path

import typer
from transformers import AutoModelForImageTextToText, AutoProcessor

import sharpv
from sharpv.encoding_check import check_encoding

CONFIG = sharpv.Config("sharpv+", retention=0.25, encode="kept")


def main(clip: Path, question: str, model: str = "Qwen/Qwen2.5-VL-3B-Instruct", frames: int = 16) -> None:
    llm = AutoModelForImageTextToText.from_pretrained(model, dtype="auto", device_map="auto")
    processor = AutoProcessor.from_pretrained(model)
    video = sharpv.read_video(clip, frames=frames, max_pixels=448 * 448)
    turns = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}]
    inputs = processor(
        text=[processor.apply_chat_template(turns, add_generation_prompt=True)],
        videos=[video.frames],
        video_metadata=[video.metadata()],
        do_sample_frames=False,
        return_tensors="pt",
    ).to(llm.device, llm.dtype)

    print(check_encoding(llm, inputs, CONFIG))  # the tower runs both ways: do this once, on a few clips of yours
    with sharpv.apply(llm, CONFIG) as pruning:
        out = llm.generate(**inputs, max_new_tokens=64)
    print(processor.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    print(pruning.report)


if __name__ == "__main__":
    typer.run(main)
