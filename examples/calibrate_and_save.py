"""Find the layers that must keep the video, on a few clips and questions; save what was found. Needs accelerate.

python examples/calibrate_and_save.py a.mp4 b.mp4 --save mine.json
"""

from pathlib import Path

import typer
from transformers import AutoModelForImageTextToText, AutoProcessor

import sharpv

QUESTIONS = ("Describe the video in detail.", "What happens first?")  # use questions like yours, some with long answers


def main(clips: list[Path], model: str = "Qwen/Qwen2.5-VL-3B-Instruct", save: Path = Path("mine.json")) -> None:
    llm = AutoModelForImageTextToText.from_pretrained(model, dtype="auto", device_map="auto")
    processor = AutoProcessor.from_pretrained(model)

    def prompt(clip: Path, question: str):
        video = sharpv.read_video(clip, frames=16, max_pixels=448 * 448)
        turns = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}]
        text = processor.apply_chat_template(turns, add_generation_prompt=True)
        media = {"videos": [video.frames], "video_metadata": [video.metadata()], "do_sample_frames": False}
        return processor(text=[text], return_tensors="pt", **media).to(llm.device, llm.dtype)

    prompts = [prompt(clip, question) for clip in clips for question in QUESTIONS]
    found = sharpv.calibrate(llm, prompts, retention=0.25)
    found.config.save(save)
    print(f"{len(found.keep)} of {len(found.harm)} layers keep the video: {found.keep}; saved {save}")

    with sharpv.apply(llm, sharpv.Config.load(save)) as pruning:  # as a later run does
        llm.generate(**prompts[0], max_new_tokens=64)
    print(pruning.report)


if __name__ == "__main__":
    typer.run(main)
