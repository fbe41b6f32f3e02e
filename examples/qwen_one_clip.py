"""One question about one clip, with all visual tokens and with a quarter of them. Needs accelerate.

python examples/qwen_one_clip.py clip.mp4 "What happens?" --model Qwen/Qwen2.5-VL-3B-Instruct
"""

from pathlib import Path

import typer
from transformers import AutoModelForImageTextToText, AutoProcessor

import sharpv


def main(
    clip: Path, question: str, model: str = "Qwen/Qwen2.5-VL-3B-Instruct", frames: int = 16, retention: float = 0.25
) -> None:
    """RETENTION is the share of visual tokens that is kept."""
    llm = AutoModelForImageTextToText.from_pretrained(model, dtype="auto", device_map="auto")
    processor = AutoProcessor.from_pretrained(model)
    video = sharpv.read_video(clip, frames=frames, max_pixels=448 * 448)
    turns = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}]
    inputs = processor(
        text=[processor.apply_chat_template(turns, add_generation_prompt=True)],
        videos=[video.frames],
        video_metadata=[video.metadata()],
        do_sample_frames=False,  # read_video has done it
        return_tensors="pt",
    ).to(llm.device, llm.dtype)
    start = inputs["input_ids"].shape[1]

    dense = llm.generate(**inputs, max_new_tokens=64)
    print("dense: ", processor.decode(dense[0, start:], skip_special_tokens=True))
    with sharpv.apply(llm, retention=retention) as pruning:
        pruned = llm.generate(**inputs, max_new_tokens=64)
    print("pruned:", processor.decode(pruned[0, start:], skip_special_tokens=True))
    print(pruning.report.text())


if __name__ == "__main__":
    typer.run(main)
