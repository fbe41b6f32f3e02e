"""Many questions about one clip: it is encoded, pruned and read once, and each question goes on from there.

python examples/many_questions.py clip.mp4 "What happens?" "Where is it?"
"""

import copy
from pathlib import Path

import torch
import typer
from transformers import AutoModelForImageTextToText, AutoProcessor, DynamicCache

import sharpv


def main(clip: Path, questions: list[str], model: str = "Qwen/Qwen2.5-VL-3B-Instruct", retention: float = 0.25) -> None:
    llm = AutoModelForImageTextToText.from_pretrained(model, dtype="auto", device_map="auto")
    processor = AutoProcessor.from_pretrained(model)
    video = sharpv.read_video(clip, frames=16, max_pixels=448 * 448)
    turns = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "QUESTION"}]}]
    before, after = processor.apply_chat_template(turns, add_generation_prompt=True).split("QUESTION")
    media = {"videos": [video.frames], "video_metadata": [video.metadata()], "do_sample_frames": False}
    head = processor(text=[before], return_tensors="pt", **media).to(llm.device, llm.dtype)

    with sharpv.apply(llm, retention=retention) as pruning, torch.no_grad():
        read = DynamicCache(config=llm.config)
        llm(**head, past_key_values=read, logits_to_keep=1)
        for question in questions:
            rest = processor.tokenizer(question + after, add_special_tokens=False, return_tensors="pt").input_ids
            ids = torch.cat([head["input_ids"], rest.to(llm.device)], dim=1)
            cache = copy.deepcopy(read)  # so that no question sees another
            out = llm.generate(input_ids=ids, past_key_values=cache, max_new_tokens=64)
            print(question, processor.decode(out[0, ids.shape[1] :], skip_special_tokens=True))
    print(pruning.report)


if __name__ == "__main__":
    typer.run(main)
