"""Ask a server about a clip. Start one first, with sharpv and vLLM installed: the plugin needs no import.

vllm serve Qwen/Qwen2.5-VL-3B-Instruct --video-pruning-method sharpv --video-pruning-rate 0.75
python examples/serve_and_ask.py clip.mp4 "What happens?"   # pip install openai
"""

import base64
from pathlib import Path

import openai
import typer


def main(clip: Path, question: str, address: str = "http://localhost:8000/v1") -> None:
    client = openai.OpenAI(base_url=address, api_key="none")
    model = client.models.list().data[0].id
    url = "data:video/mp4;base64," + base64.b64encode(clip.read_bytes()).decode()
    answer = client.chat.completions.create(
        model=model,
        messages=[
            {
                "role": "user",
                "content": [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": question}],
            }
        ],
        max_tokens=64,
    )
    print(answer.choices[0].message.content)
    print(f"a prompt of {answer.usage.prompt_tokens} tokens, after pruning")


if __name__ == "__main__":
    typer.run(main)
