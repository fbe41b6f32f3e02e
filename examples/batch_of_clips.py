"""The same question about several clips in one batch; each video is pruned by itself. Needs accelerate.

python examples/batch_of_clips.py a.mp4 b.mp4 --question "What happens?"
"""

from pathlib import Path

import typer
from transformers import AutoModelForImageTextToText, AutoProcessor

import sharpv


def main(clips: list[Path], question: str = "What happens?", model: str = "Qwen/Qwen2.5-VL-3B-Instruct") -> None:
    llm = AutoModelForImageTextToText.from_pretrained(model, dtype="auto", device_map="auto")
    processor = AutoProcessor.from_pretrained(model)
    processor.tokenizer.padding_side = "left"  # generation goes on from the right
    videos = [sharpv.read_video(clip, fps=2, max_pixels=448 * 448) for clip in clips]
    turns = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}]
    inputs = processor(
        text=[processor.apply_chat_template(turns, add_generation_prompt=True)] * len(videos),
        videos=[video.frames for video in videos],
        video_metadata=[video.metadata() for video in videos],
        do_sample_frames=False,
        padding=True,
        return_tensors="pt",
    ).to(llm.device, llm.dtype)

    with sharpv.apply(llm, "sharpv+", retention=0.25) as pruning:
        out = llm.generate(**inputs, max_new_tokens=64)
    answers = processor.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    for clip, answer, video in zip(clips, answers, pruning.report.videos, strict=True):
        print(f"{clip.name}, kept {video.kept_tokens} of {video.total} visual tokens: {answer}")


if __name__ == "__main__":
    typer.run(main)
