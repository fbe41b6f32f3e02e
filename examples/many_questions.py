"""Many questions about one clip: it is encoded, pruned and read once, and each question goes on. Needs accelerate.

python examples/many_questions.py clip.mp4 "What happens?" "Where is it?"
"""

from pathlib import Path

import typer
from transformers import AutoModelForImageTextToText, AutoProcessor

import sharpv


def main(clip: Path, questions: list[str], model: str = "Qwen/Qwen2.5-VL-3B-Instruct", retention: float = 0.25) -> None:
    llm = AutoModelForImageTextToText.from_pretrained(model, dtype="auto", device_map="auto")
    processor = AutoProcessor.from_pretrained(model)
    video = sharpv.read_video(clip, frames=16, max_pixels=448 * 448)

    session = sharpv.Session(llm, processor, video, retention=retention)
    print(f"prompt of {session.tokens[0]} tokens, stored {session.tokens[1]}")
    for question in questions:
        answer = session.ask(question, max_new_tokens=64)
        print(f"{question} {answer.text} (first token after {answer.first_token:.2f} s)")
    print(session.report)


if __name__ == "__main__":
    typer.run(main)
