"""The untrained model: what is saved loads through the Auto classes, and packing changes no logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pocket_size import TINY
from sharpv.evaluation.packing import forward, pack, prefix_of, tokenise
from sharpv.evaluation.scoring import evaluation_set, extract_features, score, summarise
from sharpv.pocket.model import build_model, export, pixel_values
from sharpv.pocket.tokens import LETTERS, build_tokenizer, vocabulary
from sharpv.pocket.world import render, sample


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("pocket") / "model"
    export(build_model(TINY), directory)
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(directory, dtype=torch.float32).eval()
    return model, AutoProcessor.from_pretrained(directory), directory


def prompt_inputs(processor, video: np.ndarray, text: str):  # type: ignore[no-untyped-def]
    content = [{"type": "video"}, {"type": "text", "text": text}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return processor(text=prompt, videos=[list(video)], return_tensors="pt")


def test_the_auto_classes_load_it(saved) -> None:  # type: ignore[no-untyped-def]
    model, processor, directory = saved
    assert type(model).__name__ == "LlavaOnevisionForConditionalGeneration"
    assert type(processor).__name__ == "LlavaOnevisionProcessor"
    names = {path.name for path in Path(directory).iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= names
    assert {"processor_config.json", "generation_config.json"} <= names


def test_export_replaces_an_older_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "stale").touch()
    export(build_model(TINY), tmp_path / "model")
    assert not (tmp_path / "model" / "stale").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("frames", [4, 8])
def test_the_processor_makes_the_promised_prompt(saved, frames: int) -> None:  # type: ignore[no-untyped-def]
    _, processor, _ = saved
    video = render(sample(np.random.default_rng(0)), frames)
    inputs = prompt_inputs(processor, video, "What colour is the moving object?")
    words = vocabulary()
    question = ["what", "colour", "is", "the", "moving", "object", "?", "<ans>"]
    expected = ["<bos>", *["<video>"] * (49 * frames + 1), *question]
    assert inputs["input_ids"][0].tolist() == [words.index(word) for word in expected]
    assert torch.allclose(inputs["pixel_values_videos"][0], pixel_values(video), atol=1e-5)


def test_several_turns_alternate(saved) -> None:  # type: ignore[no-untyped-def]
    _, processor, _ = saved
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "Is it red?"}, {"type": "video"}]},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "Is it blue?"},
    ]
    text = processor.apply_chat_template(turns, add_generation_prompt=True)
    assert " ".join(text.split()) == "<bos> <video> Is it red? <ans> yes <eos> Is it blue? <ans>"


def test_placeholders_are_never_generated(saved) -> None:  # type: ignore[no-untyped-def]
    model, processor, _ = saved
    words = vocabulary()
    with torch.no_grad():
        kept = model.lm_head.weight.clone()
        video, image = words.index("<video>"), words.index("<image>")
        model.lm_head.weight[video] *= 1e4  # now one of the two has the highest logit, whatever the input
        model.lm_head.weight[image] = -model.lm_head.weight[video]
        inputs = prompt_inputs(processor, render(sample(np.random.default_rng(0)), 4), "What?")
        assert int(model(**inputs).logits[0, -1].argmax()) in (video, image)
        output = model.generate(**inputs, max_new_tokens=3)[0, inputs["input_ids"].shape[1] :]
        model.lm_head.weight.copy_(kept)
    assert set(model.generation_config.suppress_tokens) == {video, image}
    assert not set(output.tolist()) & set(model.generation_config.suppress_tokens)


def test_letters_are_single_tokens_and_case_does_not_matter() -> None:
    tokenizer = build_tokenizer()
    assert tokenizer.tokenize("(A) Red\n(B) top left") == ["(A)", "red", "(B)", "top", "left"]
    assert tokenizer("What COLOR is it?")["input_ids"] == tokenizer("what colour is it ?")["input_ids"]
    assert tokenizer.tokenize("xylophone") == ["<unk>"]
    assert len(set(tokenizer.convert_tokens_to_ids(list(LETTERS)))) == len(LETTERS)


def test_packed_questions_get_the_logits_of_single_prompts(saved) -> None:  # type: ignore[no-untyped-def]
    model, processor, _ = saved
    evaluation = evaluation_set(videos=1, frames=4)
    questions = evaluation.questions[0]
    features = extract_features(model, evaluation).flatten(1, 2)
    packed = pack([tokenise(questions)])
    with torch.no_grad():
        hidden, _ = forward(model, prefix_of(features, torch.ones(features.shape[:2], dtype=torch.bool)), packed)
        logits = model.lm_head(hidden)[0]
        for index, (question, tokens) in enumerate(zip(questions, tokenise(questions), strict=True)):
            inputs = prompt_inputs(processor, evaluation.video(0), question.prompt)
            alone = model(**inputs).logits[0, -len(tokens.prompt) :]
            together = logits[packed.block[0] == index][: len(tokens.prompt)]
            assert torch.allclose(alone, together, atol=1e-4)


def test_a_batch_scores_as_one_by_one(saved) -> None:  # type: ignore[no-untyped-def]
    model, _, _ = saved
    evaluation = evaluation_set(videos=3, frames=4)
    features = extract_features(model, evaluation).flatten(1, 2)
    keep = torch.rand(features.shape[:2], generator=torch.Generator().manual_seed(0)) < torch.tensor(
        [[0.1], [0.5], [0.9]]
    )
    questions = [tokenise(of_video) for of_video in evaluation.questions]
    for positions in ("original", "packed"):
        with torch.no_grad():
            batch, _ = forward(model, prefix_of(features, keep, positions), pack(questions))
            for row in range(3):
                prefix = prefix_of(features[row : row + 1], keep[row : row + 1], positions)
                assert int(prefix.valid.sum()) == int(keep[row].sum())
                alone, _ = forward(model, prefix, pack(questions[row : row + 1]))
                assert torch.allclose(batch[row, : alone.shape[1]], alone[0], atol=1e-4)


def test_positions_are_those_of_the_full_prompt_or_consecutive() -> None:
    keep = torch.tensor([[True, False, False, True], [False, True, False, False]])
    original = prefix_of(torch.zeros(2, 4, 1), keep)
    assert original.positions[0].tolist() == [1, 4]
    assert original.positions[1, 0] == 2
    assert original.end.tolist() == [5, 5]
    packed = prefix_of(torch.zeros(2, 4, 1), keep, "packed")
    assert packed.positions[0].tolist() == [1, 2]
    assert packed.end.tolist() == [3, 2]
    with pytest.raises(ValueError, match="sideways"):
        prefix_of(torch.zeros(2, 4, 1), keep, "sideways")


def test_score_covers_all_questions_and_rejects_wrong_masks(saved) -> None:  # type: ignore[no-untyped-def]
    model, _, _ = saved
    evaluation = evaluation_set(videos=3, frames=4)
    features = extract_features(model, evaluation)
    records = score(model, evaluation, features, torch.rand(features.shape[:3]) < 0.3, batch=2)
    assert len(records) == sum(map(len, evaluation.questions))
    assert sum(result.questions for result in summarise(records).families.values()) == len(records)
    with pytest.raises(ValueError, match="keep must be bool"):
        score(model, evaluation, features, torch.ones(3, 4))


def test_the_evaluation_is_fixed() -> None:
    small, large = evaluation_set(videos=2), evaluation_set(videos=4)
    assert large.episodes[:2] == small.episodes
    assert large.questions[:2] == small.questions
