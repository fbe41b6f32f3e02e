"""Questions about an episode and their true answers, in three surface forms.

* ``"short"``: a plain question with an answer of one or a few words.
* ``"choice"``: the same question as multiple choice, word for word in MVBench's form; the answer is ``(A)``.
* ``"caption"``: a description of the whole video of at least 20 tokens, deterministic given the episode.

Every question can be answered from the frames that are rendered: what no frame shows is never asked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .drawing import BACKGROUNDS, COLOUR_NAMES, SHAPES
from .scene import LOCATIONS, Scene, deed, location_of, shapes
from .world import DIRECTION_NAMES, Episode

FAMILIES = (
    "appearance_count",
    "attribute",
    "camera",
    "colour_change",
    "direction",
    "existence",
    "location",
    "motion_caption",
    "moving_attribute",
    "moving_count",
    "order",
    "scene",
    "small_dot",
    "speed",
    "transition",
    "video_caption",
)
LETTERS = ("(A)", "(B)", "(C)", "(D)", "(E)")
SPEEDS = ("faster", "slower", "constant")
MAX_OPTIONS = 4
CHOICE_FORM = "Question:{question}\nOption:\n{options}\nOnly give the best option.\n"


@dataclass(frozen=True)
class Question:
    """A prompt and its true answer; ``options`` are the possible answers of a short question, if few."""

    family: str
    prompt: str
    answer: str
    options: tuple[str, ...] | None = None
    form: str = "short"


def ask(episode: Episode, rng: np.random.Generator, frames: int, choices: int = 2) -> list[Question]:
    """All questions that ``frames`` frames of the episode can answer, ``choices`` of them also as multiple choice.

    ``rng`` picks what is open: which object is asked about and how it is named.
    """
    scene = Scene(episode, rng, frames)
    short = [question for family in _ASKERS for question in family(scene)]
    closed = [question for question in short if question.options is not None]
    picked = rng.permutation(len(closed))[:choices]
    return [*short, describe(episode), *(multiple_choice(closed[i], rng) for i in picked)]


def multiple_choice(question: Question, rng: np.random.Generator) -> Question:
    """The question in MVBench's form, with at most four shuffled options of which one is true."""
    if question.options is None:
        raise ValueError(f"a question of the family {question.family!r} has no options")
    wrong = [option for option in question.options if option != question.answer]
    options = [question.answer, *(wrong[i] for i in rng.permutation(len(wrong))[: MAX_OPTIONS - 1])]
    options = [options[i] for i in rng.permutation(len(options))]
    lines = "\n".join(f"{letter} {option}" for letter, option in zip(LETTERS, options, strict=False))
    answer = LETTERS[options.index(question.answer)]
    prompt = CHOICE_FORM.format(question=question.prompt, options=lines)
    return replace(question, prompt=prompt, answer=answer, options=LETTERS[: len(options)], form="choice")


def describe(episode: Episode) -> Question:
    """The long caption: scene, camera, then each object (dot left out) in the fixed order of the colours, and count."""
    first, last = episode.backgrounds
    scene = f"is {first}" if first == last else f"changes from {first} to {last}"
    camera = "is still" if episode.pan is None else f"moves {episode.pan}"
    things = sorted(shapes(episode), key=lambda item: COLOUR_NAMES.index(item.colour))
    clauses = [f"the background {scene}.", f"the camera {camera}."]
    clauses += [f"the {item.colour} {item.shape} {deed(item)}." for item in things]
    clauses.append(f"{len(things)} shapes in all.")
    return Question("video_caption", "Describe the video in detail.", " ".join(clauses), form="caption")


def _appearance_count(scene: Scene) -> list[Question]:
    questions = []
    for item in scene.shapes:
        seen = item.visible(scene.times).astype(int)
        runs = int(np.count_nonzero(np.diff(seen, prepend=0) == 1))
        if item.blinks and runs == len(item.shown):
            prompt = f"How many times does {scene.name(item)} appear?"
            questions.append(Question("appearance_count", prompt, str(runs), ("1", "2", "3")))
    return questions


def _attribute(scene: Scene) -> list[Question]:
    if not scene.unchanging:
        return []
    item = scene.pick(scene.unchanging)
    if scene.chance(0.5):
        return [Question("attribute", f"What colour is the {item.shape}?", item.colour, COLOUR_NAMES)]
    return [Question("attribute", f"What shape is the {item.colour} object?", item.shape, SHAPES)]


def _camera(scene: Scene) -> list[Question]:
    if scene.episode.kind == "cut" or (scene.episode.pan is None and not scene.chance(0.12)):
        return []
    answer = scene.episode.pan or "still"
    return [Question("camera", "How does the camera move?", answer, (*DIRECTION_NAMES, "still"))]


def _colour_change(scene: Scene) -> list[Question]:
    changing = [item for item in scene.shapes if item.new_colour is not None]
    return [
        Question("colour_change", f"What colour does the {item.shape} become?", str(item.new_colour), COLOUR_NAMES)
        for item in changing
        if {item.colour, item.new_colour} == set(item.colours(scene.times))
    ]


def _direction(scene: Scene) -> list[Question]:
    return [
        Question("direction", f"Which direction does {scene.name(item)} move?", str(item.direction), DIRECTION_NAMES)
        for item in scene.movers
    ]


def _existence(scene: Scene) -> list[Question]:
    return [question for _ in range(2) for question in _existence_once(scene)]


def _existence_once(scene: Scene) -> list[Question]:
    if not scene.unchanging:
        return []
    item, other = scene.pick(scene.unchanging), scene.pick(scene.unchanging)
    colour, shape, answer = item.colour, item.shape, "yes"
    if scene.chance(0.5):
        answer = "no"
        everything = scene.episode.items
        used = {thing.colour for thing in everything} | {thing.new_colour for thing in everything}
        absent_colours = [name for name in COLOUR_NAMES if name not in used]
        absent_shapes = [name for name in SHAPES if name not in {thing.shape for thing in everything}]
        kind = scene.rng.random()
        if kind < 0.5 and other is not item:
            shape = other.shape
        elif (kind < 0.75 or not absent_shapes) and absent_colours:
            colour = str(scene.rng.choice(absent_colours))
        elif absent_shapes:
            shape = str(scene.rng.choice(absent_shapes))
        else:
            return []
    article = "an" if colour == "orange" else "a"
    return [Question("existence", f"Is there {article} {colour} {shape}?", answer, ("yes", "no"))]


def _location(scene: Scene) -> list[Question]:
    clear = [item for item in scene.unchanging if location_of(scene, item)]
    if not clear:
        return []
    item = scene.pick(clear)
    answer = location_of(scene, item)
    assert answer is not None
    return [Question("location", f"Where is {scene.name(item)}?", answer, LOCATIONS)]


def _motion_caption(scene: Scene) -> list[Question]:
    if len(scene.movers) != 1:
        return []
    item = scene.movers[0]
    answer = f"the {item.colour} {item.shape} moves {item.direction}"
    return [Question("motion_caption", "Describe the motion.", answer)]


def _moving_attribute(scene: Scene) -> list[Question]:
    if len(scene.movers) != 1:
        return []
    item = scene.movers[0]
    if scene.chance(0.5):
        return [Question("moving_attribute", "What colour is the moving object?", item.colour, COLOUR_NAMES)]
    return [Question("moving_attribute", "What shape is the moving object?", item.shape, SHAPES)]


def _moving_count(scene: Scene) -> list[Question]:
    if scene.episode.kind != "normal":
        return []
    return [Question("moving_count", "How many objects move?", str(len(scene.movers)), ("0", "1", "2", "3"))]


def _order(scene: Scene) -> list[Question]:
    early = [item for item in scene.movers if item.profile == "early"]
    late = [item for item in scene.movers if item.profile == "late"]
    verb = "moves"
    if scene.episode.kind == "cut":
        early = [item for item in scene.shapes if item.role == "leaves"]
        late = [item for item in scene.shapes if item.role == "arrives"]
        verb = "appears"
    if not early or not late:
        return []
    first = scene.pick(early)
    one, two = scene.shuffled(first, scene.pick(late))
    prompt = f"Which object {verb} first, the {one.colour} or the {two.colour} one?"
    return [Question("order", prompt, first.colour, (one.colour, two.colour))]


def _scene(scene: Scene) -> list[Question]:
    first, last = scene.episode.backgrounds
    if scene.episode.kind != "cut":
        return [Question("scene", "What is the background?", first, BACKGROUNDS)]
    when, answer = ("first", first) if scene.chance(0.5) else ("last", last)
    return [Question("scene", f"What is the background at {when}?", answer, BACKGROUNDS)]


def _small_dot(scene: Scene) -> list[Question]:
    return [
        Question("small_dot", "What colour is the small dot?", item.colour, COLOUR_NAMES)
        for item in scene.episode.items
        if item.role == "dot"
    ]


def _speed(scene: Scene) -> list[Question]:
    return [
        Question("speed", f"How does the speed of {scene.name(item)} change?", item.profile, SPEEDS)
        for item in scene.movers
        if item.profile in SPEEDS
    ]


def _transition(scene: Scene) -> list[Question]:
    if scene.episode.kind != "cut":
        return []
    first, last = scene.episode.backgrounds
    return [Question("transition", "How does the scene change?", f"from {first} to {last}")]


_ASKERS = (
    _appearance_count,
    _attribute,
    _camera,
    _colour_change,
    _direction,
    _existence,
    _location,
    _motion_caption,
    _moving_attribute,
    _moving_count,
    _order,
    _scene,
    _small_dot,
    _speed,
    _transition,
)
