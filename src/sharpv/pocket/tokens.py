"""The pocket model's word-level tokenizer, its processor and its chat template."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .drawing import BACKGROUNDS, COLOUR_NAMES, DOT, SHAPES, SIZE
from .questions import LETTERS
from .world import DIRECTION_NAMES

if TYPE_CHECKING:
    from transformers import LlavaOnevisionProcessor, PreTrainedTokenizerFast

PAD, BOS, EOS, UNKNOWN = "<pad>", "<bos>", "<eos>", "<unk>"
VIDEO, IMAGE, ANSWER = "<video>", "<image>", "<ans>"
SPECIAL = (PAD, BOS, EOS, UNKNOWN, VIDEO, IMAGE, ANSWER)
PATCH = 8
_WORDS = (
    "what which how where is are there a an the of in at and or does do describe detail video motion one object"
    " objects shape shapes colour small move moves moving camera background scene change changes become becomes"
    " appear appears times many first last direction speed faster slower constant from to still all blinks on off"
    " goes away comes top bottom yes no question option only give best ( ) ? . , : 0 1 2 3 4 5 6"
)

# Each user turn is its videos and images, then its text, then <ans>; each assistant turn ends in <eos>.
CHAT_TEMPLATE = (
    "{{ '<bos> ' }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{{ part.get('text', '') }}{% endfor %}{% endif %}"
    "{{ ' <eos> ' }}"
    "{% else %}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'video' %}{{ '<video> ' }}"
    "{% elif part['type'] == 'image' %}{{ '<image> ' }}{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] + ' ' }}"
    "{% endif %}{% endfor %}{% endif %}"
    "{% if message['role'] == 'user' and (add_generation_prompt or not loop.last) %}{{ ' <ans> ' }}{% endif %}"
    "{% endif %}"
    "{% endfor %}"
)


def vocabulary() -> list[str]:
    """All tokens; their index is their id."""
    words = [*_WORDS.split(), *COLOUR_NAMES, *SHAPES, DOT, *DIRECTION_NAMES, *BACKGROUNDS]
    return list(dict.fromkeys([*SPECIAL, *LETTERS, *words]))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Word level, case-insensitive, punctuation split off; ``(A)`` to ``(E)`` are single tokens."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary())}, unk_token=UNKNOWN))
    core.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(Regex(r"\bcolor"), "colour")])
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("isolated")]
    )
    core.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    core.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    core.add_tokens([AddedToken(letter, normalized=False) for letter in LETTERS])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNKNOWN,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        extra_special_tokens={"image_token": IMAGE, "video_token": VIDEO},
    )


def build_processor() -> LlavaOnevisionProcessor:
    """The processor: frames are resized to 112 x 112 and scaled to -1..1; all frames given are used."""
    from transformers import LlavaOnevisionProcessor
    from transformers.models.llava_onevision.image_processing_llava_onevision import LlavaOnevisionImageProcessor
    from transformers.models.llava_onevision.video_processing_llava_onevision import LlavaOnevisionVideoProcessor

    pixels = {"size": {"height": SIZE, "width": SIZE}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    return LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(image_grid_pinpoints=[[SIZE, SIZE]], **pixels),
        video_processor=LlavaOnevisionVideoProcessor(do_sample_frames=False, **pixels),
        tokenizer=build_tokenizer(),
        num_image_tokens=(SIZE // PATCH) ** 2,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
        image_token=IMAGE,
        video_token=VIDEO,
    )
