"""Every question has one true answer that the rendered frames show."""

from __future__ import annotations

import numpy as np
import pytest

from sharpv.evaluation.packing import tokenise
from sharpv.pocket.drawing import COLOUR_NAMES
from sharpv.pocket.questions import FAMILIES, LETTERS, Question, ask, describe, multiple_choice
from sharpv.pocket.tokens import UNKNOWN, build_tokenizer, vocabulary
from sharpv.pocket.world import DIRECTIONS, Episode, frame_times, sample


def asked(frames: int, count: int = 150) -> list[tuple[Episode, list[Question]]]:
    pairs = []
    for index in range(count):
        rng = np.random.default_rng([1, index])
        episode = sample(rng)
        pairs.append((episode, ask(episode, rng, frames)))
    return pairs


def test_all_families_are_asked() -> None:
    assert {question.family for _, questions in asked(8) for question in questions} == set(FAMILIES)


@pytest.mark.parametrize("frames", [4, 8, 12, 32])
def test_answers_are_among_the_options(frames: int) -> None:
    for _, questions in asked(frames, 40):
        assert all(question.options is None or question.answer in question.options for question in questions)


def test_four_frames_cannot_show_how_often_an_object_appears() -> None:
    few = [question for _, questions in asked(4) for question in questions if question.family == "appearance_count"]
    many = [question for _, questions in asked(8) for question in questions if question.family == "appearance_count"]
    assert len(few) < len(many) / 4


@pytest.mark.parametrize("frames", [4, 8, 32])
def test_appearances_are_counted_in_the_frames(frames: int) -> None:
    for episode, questions in asked(frames):
        blinking = [item for item in episode.items if item.blinks]
        for question in questions:
            if question.family == "appearance_count" and question.form == "short":
                seen = blinking[0].visible(frame_times(frames))
                runs = "".join("x" if shown else " " for shown in seen).split()
                assert question.answer == str(len(runs))


def test_the_colour_before_and_after_a_change_is_seen() -> None:
    for episode, questions in asked(4):
        for question in questions:
            if question.family == "colour_change" and question.form == "short":
                (item,) = (item for item in episode.items if item.new_colour == question.answer)
                assert set(item.colours(frame_times(4))) == {item.colour, item.new_colour}


def test_direction_answers_follow_the_path() -> None:
    checked = 0
    for episode, questions in asked(8):
        for question in questions:
            if question.family == "direction" and question.form == "short":
                items = [
                    item
                    for item in episode.items
                    if item.role == "mover" and (item.colour in question.prompt or item.shape in question.prompt)
                ]
                first, last = items[0].position(np.array([0.0, 1.0]))
                assert np.allclose(np.sign(np.round(last - first, 6)), DIRECTIONS[question.answer])
                checked += 1
    assert checked > 50


def test_existence_questions_tell_the_truth() -> None:
    for episode, questions in asked(8):
        for question in questions:
            if question.family == "existence" and question.form == "short":
                there = any(f" {item.colour} {item.shape}?" in question.prompt for item in episode.items)
                assert question.answer == ("yes" if there else "no")


def test_multiple_choice_has_the_form_of_mvbench() -> None:
    question = Question("direction", "Which way?", "left", ("left", "right"))
    choice = multiple_choice(question, np.random.default_rng(0))
    first, second = choice.prompt.splitlines()[2:4]
    assert choice.prompt == f"Question:Which way?\nOption:\n{first}\n{second}\nOnly give the best option.\n"
    assert {first[:4], second[:4]} == {"(A) ", "(B) "}
    assert f"{choice.answer} left" in choice.prompt
    assert choice.form == "choice"


def test_the_true_option_is_anywhere() -> None:
    question = Question("attribute", "What colour?", "red", COLOUR_NAMES)
    rng = np.random.default_rng(0)
    assert {multiple_choice(question, rng).answer for _ in range(60)} == set(LETTERS[:4])


def test_open_questions_have_no_multiple_choice() -> None:
    with pytest.raises(ValueError, match="transition"):
        multiple_choice(Question("transition", "?", "from plain to striped"), np.random.default_rng(0))


def test_captions_are_long_and_name_everything() -> None:
    for episode, _ in asked(8, 60):
        caption = describe(episode)
        (tokens,) = tokenise([caption])
        assert len(tokens.answer) - 1 >= 20
        shapes = [item for item in episode.items if item.role != "dot"]
        assert all(f"the {item.colour} {item.shape}" in caption.answer for item in shapes)
        assert caption.answer.endswith(f"{len(shapes)} shapes in all.")


@pytest.mark.parametrize("frames", [4, 8])
def test_every_word_is_known_and_decodes_to_itself(frames: int) -> None:
    tokenizer, unknown = build_tokenizer(), vocabulary().index(UNKNOWN)
    for _, questions in asked(frames, 60):
        for question, tokens in zip(questions, tokenise(questions), strict=True):
            assert unknown not in tokens.prompt + tokens.answer
            assert tokenizer.decode(tokens.answer[:-1]) == question.answer


def test_hints_judge_each_option() -> None:
    words = vocabulary()
    for _, questions in asked(8, 40):
        for question, tokens in zip(questions, tokenise(questions, verdicts=True), strict=True):
            options = [line[4:] for line in question.prompt.splitlines() if line[:4].strip() in LETTERS]
            verdicts = [(words[tokens.prompt[end]], words[said]) for end, said in tokens.verdicts]
            if question.form != "choice":
                assert not verdicts
                continue
            assert [word for word, _ in verdicts] == [option.split()[-1] for option in options]
            assert [said for _, said in verdicts].count("yes") == 1
            assert verdicts[LETTERS.index(question.answer)][1] == "yes"
