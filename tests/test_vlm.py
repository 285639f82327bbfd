"""Statements about the table, the dual encoder's losses, and the model that answers questions."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from tutorial_utils.language.vision import Encoder, HuggingFaceChat, HuggingFaceEncoder, Judge
from tutorial_utils.models import dual_encoder, pictures, vlm, vlm_training
from tutorial_utils.tabletop import COLORS, render
from tutorial_utils.tabletop.scenes import (
    NAMES,
    Statements,
    ask,
    holds,
    is_held_out,
    left_out,
    present,
    scenes,
)


def statements(relation: str, disc: torch.Tensor, zone: torch.Tensor) -> Statements:
    same = torch.full_like(disc, NAMES.index(relation))
    return Statements(same, disc, zone, torch.zeros_like(disc))


def every() -> dict[str, tuple[int, int, int, int]]:
    """All statements of training, and what they mean."""
    numbers = itertools.product(range(len(NAMES)), range(6), range(6), range(2))
    meant = [Statements(*torch.tensor(x)[:, None]) for x in numbers]
    return {said.words()[0]: tuple(int(x) for x in vars(said).values()) for said in meant}


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_statements_are_true_of_where_things_are() -> None:
    world = scenes(400, 3, seed=1)
    disc, zone = world.object_color[1], world.zone_color[2]
    gap = world.objects[:, 1] - world.zones[:, 2]
    for relation, sign in (("left", -1), ("right", 1)):
        said = holds(world, statements(relation, disc, zone))
        assert (said == (sign * gap[0] > 0.12)).all()
    held = holds(world, statements("held", disc, zone))
    assert (held == (world.held[1] > 0.5)).all()
    assert 0 < held.sum() < 400


def test_what_is_not_on_the_table_is_not_anywhere() -> None:
    world = scenes(200, 1, seed=2)
    absent = (world.object_color[0] + 1) % len(COLORS)
    for relation in set(NAMES) - {"reached"}:
        assert not holds(world, statements(relation, absent, world.zone_color[0])).any()


def test_opposite_and_exchange_say_something_else() -> None:
    said = Statements(*(torch.tensor(x) for x in ([2, 0, 1], [0, 1, 2], [3, 4, 5], [0, 0, 1])))
    assert said.words() == [
        "the blue disc is left of the red zone",
        "the gripper holds the orange disc",
        "the cyan zone contains the green disc",
    ]
    assert said.opposed().words()[0] == "the blue disc is right of the red zone"
    assert said.opposed().words()[1:] == said.words()[1:]
    assert said.swapped().words()[2] == "the green zone contains the cyan disc"


@pytest.mark.parametrize("things", [1, 2, 3])
def test_questions_leave_out_the_pairs_that_are_held_out(things: int) -> None:
    world, generator = scenes(500, things, seed=3), torch.Generator().manual_seed(0)
    said, truth = ask(world, generator)
    assert not is_held_out(said).any()
    assert 0.1 < truth.float().mean() < 0.7
    assert (truth == holds(world, said)).all()
    assert set(said.relation.tolist()) == set(range(len(NAMES)))
    assert things < 3 or is_held_out(ask(world, generator, held_out=True)[0]).float().mean() > 0.5


def test_what_is_named_is_on_the_table_or_not() -> None:
    world = scenes(300, 2, seed=4)
    said, truth = ask(world, torch.Generator().manual_seed(0))
    there = present(world, said, torch.arange(300))
    assert there[truth].all()
    held = statements("held", world.object_color[0], (world.zone_color.sum(0) + 1) % 6)
    assert present(world, held, torch.arange(300)).all()  # its zone is not named
    absent = statements("in", (world.object_color[0] + 3) % 6, world.zone_color[0])
    has = (world.object_color == absent.disc).any(0)
    assert (present(world, absent, torch.arange(300)) == has).all()


def test_info_nce_by_hand_on_a_batch_of_three() -> None:
    image, text = unit(1, 3, 4), unit(1, 5, 4, seed=1)  # two sentences belong to no image
    total = 0.0
    for i in range(3):
        row = [7.0 * float(image[0, i] @ text[0, j]) for j in range(5)]
        column = [7.0 * float(image[0, j] @ text[0, i]) for j in range(3)]
        total += math.log(sum(map(math.exp, row))) - row[i]
        total += math.log(sum(map(math.exp, column))) - column[i]
    loss = dual_encoder.info_nce(image, text, torch.full((1, 1, 1), 7.0))
    assert loss.item() == pytest.approx(total / 6, abs=1e-5)


def test_sigmoid_loss_by_hand() -> None:
    image, text = unit(1, 2, 4), unit(1, 2, 4, seed=1)
    total = 0.0
    for i in range(2):
        for j in range(2):
            logit = 5.0 * float(image[0, i] @ text[0, j]) - 1.0
            total += math.log(1 + math.exp(-logit if i == j else logit))
    scale, bias = torch.full((1, 1, 1), 5.0), torch.full((1, 1, 1), -1.0)
    loss = dual_encoder.sigmoid_loss(image, text, scale, bias)
    assert loss.item() == pytest.approx(total / 2, abs=1e-5)


def test_only_the_ordered_encoder_can_tell_an_exchange() -> None:
    known = pictures.vocabulary()
    pair = ("the red disc is left of the blue zone", "the blue disc is left of the red zone")
    words = known.encode(pair)[None]
    for ordered in (True, False):
        first, second = dual_encoder.DualEncoder(known, [0], ordered=ordered).text(words)[0]
        assert torch.allclose(first, second, atol=1e-5) != ordered


@pytest.fixture(scope="module")
def model() -> vlm.VisionLanguage:
    return vlm.VisionLanguage(pictures.vocabulary())


@pytest.fixture
def pool(model: vlm.VisionLanguage) -> pictures.Pictures:
    return pictures.Pictures(model.vocabulary, 60, 2, seed=5)


def test_a_hard_negative_is_false_and_says_nearly_the_same(pool: pictures.Pictures) -> None:
    rows = pool.draw(40, true=True)
    assert pool.truth[rows].all()
    words = dual_encoder._hard(pool, rows)
    meaning = {tuple(pool.known.encode([text])[0].tolist()): said for text, said in every().items()}
    meant = [meaning[tuple(row)] for row in words.tolist()]
    said = Statements(*torch.tensor(meant).T)
    assert not holds(pool.world, said, rows // pictures.EACH).any()
    near = [*pool.said.of(rows).swapped().words(), *pool.said.of(rows).opposed().words()]
    known = {tuple(row) for row in pool.known.encode(near).tolist()}
    assert sum(tuple(row) in known for row in words.tolist()) > 20
    assert (words != pool.words[rows]).any(1).float().mean() > 0.9


def test_a_tower_learns_and_a_member_does_not_depend_on_its_company(
    pool: pictures.Pictures,
) -> None:
    both = dual_encoder.DualEncoder(pool.known, [3, 4])
    losses = dual_encoder.fit(both, [pool], 30, 16, progress=False)
    assert losses[-5:].mean() < losses[:5].mean()
    alone = dual_encoder.DualEncoder(pool.known, [4])
    dual_encoder.fit(alone, [pool], 30, 16, progress=False)
    words = pool.known.encode(pool.said.words()[:8])
    together = both.text(words.expand(2, -1, -1))[1]
    torch.testing.assert_close(alone.text(words[None])[0], together, atol=1e-4, rtol=1e-4)


def test_batches_hold_as_many_true_as_false_statements_of_each_relation() -> None:
    pool = pictures.Pictures(pictures.vocabulary(), 600, 2, seed=6)
    rows = pool.draw(6000)
    for relation in range(len(NAMES)):
        chosen = rows[pool.said.relation[rows] == relation]
        assert len(chosen) == pytest.approx(1000, abs=150)
        assert pool.truth[chosen].float().mean() == pytest.approx(0.5, abs=0.1)


def test_things_are_where_the_table_has_them(pool: pictures.Pictures) -> None:
    rows = torch.arange(len(pool.said))
    place, there = pool.things(rows)
    world, picture = pool.world, rows // pictures.EACH
    torch.testing.assert_close(place[:, 2], world.gripper[:, picture].T)
    has = (world.object_color[:, picture] == pool.said.disc).any(0)
    assert (there[:, 0] == has).all()
    disc = (world.object_color[:, picture] == pool.said.disc).int().argmax(0)
    torch.testing.assert_close(place[has, 0], world.objects[:, disc, picture].T[has])


def test_answers_are_probabilities_of_two_words(model: vlm.VisionLanguage) -> None:
    images = render(scenes(6, 2, seed=4), 32)
    with torch.no_grad():
        words = model.encode(["the gripper holds the red disc"] * 6)
        logits = model(model.prefix(model.see(images), words), model.nothing(6))[:, 0]
        number = model.vocabulary.number
        two = logits[:, [number["no"], number["yes"]]].softmax(-1)
        asked = model.p_yes(images, "the gripper holds the red disc")
    torch.testing.assert_close(asked, two[:, 1])


def test_attention_is_a_share_and_questions_can_share_a_picture(
    model: vlm.VisionLanguage,
) -> None:
    images = render(scenes(3, 2, seed=4), 32)
    words = model.encode(["the gripper holds the red disc", "the blue disc is near the button"] * 3)
    with torch.no_grad():
        look, read = model.attend(model.see(images), words)
        _, each = model.attend(model.see(images.repeat_interleave(2, 0)), words)
    torch.testing.assert_close(look.sum(-1), torch.ones(6, model.queries))
    torch.testing.assert_close(read, each)


def test_the_answer_is_scored_up_to_its_first_end() -> None:
    logits = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
    answer = torch.tensor([[3, 0, 0], [2, 4, 5]])  # one word, and three
    share = logits.log_softmax(-1)
    first = share[0, 0, 3] + share[0, 1, 0]
    second = share[1, 0, 2] + share[1, 1, 4] + share[1, 2, 5] + share[1, 3, 0]
    hand = -(first + second) / 6
    torch.testing.assert_close(vlm.answer_loss(logits, answer), hand)


def test_lessons_are_right_about_the_pictures(
    model: vlm.VisionLanguage, pool: pictures.Pictures
) -> None:
    rows, number = torch.arange(60), model.vocabulary.number
    with torch.no_grad():
        seen = model.see(pool.image)
        prefix, answer = vlm_training._is_true(model, pool, seen, rows)
        true = holds(pool.world, pool.said.of(rows), rows // pictures.EACH)
        assert ((answer[:, 0] == number["yes"]) == true).all()
        assert prefix.shape == (60, model.slots, 64)
        prefix, answer = vlm_training._in_which(model, pool, seen, rows)
        assert len(prefix) == len(answer)
        assert prefix.shape[1] == 2 * model.slots
        prefix, answer = vlm_training._side(model, pool, seen, rows)
        assert set(answer[:, 0].tolist()) == {number["left"], number["right"]}
        assert len(answer) <= (~left_out(pool.said.of(rows))).sum()


def test_both_stages_lower_their_losses(model: vlm.VisionLanguage, pool: pictures.Pictures) -> None:
    distance = vlm_training.find(model, [pool], 40, progress=False)
    assert (distance[-10:].mean(0) < distance[:10].mean(0)).all()
    before = model.image.patch.weight.clone()
    losses = vlm_training.answer(model, [pool], 40, progress=False)
    assert losses[-8:].mean() < losses[:8].mean()
    assert torch.equal(model.image.patch.weight, before)  # the eyes stay as they are


def test_pictures_and_texts_must_match(model: vlm.VisionLanguage) -> None:
    with pytest.raises(ValueError, match="2 pictures need as many texts, not 1"):
        model.p_yes(torch.zeros(2, 32, 32, 3, dtype=torch.uint8), ["the red disc"])


# Published models, by tiny ones with random weights that are saved first

WORDS = ["<image>", "<pad>", "<unk>", "yes", "no", "1", "2", "red", "blue", "the", "disc", "USER:"]
CHAT = (
    "{% for m in messages %}USER: {% for c in m['content'] %}{% if c['type'] == 'image' %}<image> "
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}"
)


def save_tokenizer(folder, **options):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "<pad>"}
    words.add_special_tokens(["<image>"])
    return PreTrainedTokenizerFast(tokenizer_object=words, **names, **options)


VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
VISION |= {"num_attention_heads": 2, "image_size": 32, "patch_size": 16}
SIZE = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("clip")
    text = {"vocab_size": len(WORDS), "hidden_size": 16, "intermediate_size": 16}
    text |= {"num_hidden_layers": 1, "num_attention_heads": 2, "eos_token_id": 1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=8)
        transformers.CLIPModel(config).save_pretrained(folder)
    pictures = transformers.CLIPImageProcessor(**SIZE)
    transformers.CLIPProcessor(pictures, save_tokenizer(folder)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("chat")
    text = {"vocab_size": len(WORDS), "hidden_size": 16, "intermediate_size": 16}
    text |= {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.LlavaConfig(
            text_config=transformers.LlamaConfig(**text),
            vision_config=transformers.CLIPVisionConfig(**VISION),
            image_token_index=0,
            vision_feature_layer=-1,
        )
        transformers.LlavaForConditionalGeneration(config).save_pretrained(folder)
    transformers.LlavaProcessor(
        transformers.CLIPImageProcessor(**SIZE),
        save_tokenizer(folder),
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
    ).save_pretrained(folder)
    return folder


def test_a_published_encoder_scores_pictures(clip) -> None:
    images = render(scenes(3, 1, seed=6), 32)
    encoder = HuggingFaceEncoder(clip)
    assert isinstance(encoder, Encoder)
    score = encoder.score(images, ["the red disc", "the blue disc", "the red disc"])
    assert score.shape == (3,)
    assert (score.abs() <= 1).all()
    alone = encoder.score(images[1:2], "the blue disc")
    torch.testing.assert_close(score[1:2], alone, atol=1e-5, rtol=1e-4)


def test_a_published_chat_model_judges_pictures(chat, model: vlm.VisionLanguage) -> None:
    images = render(scenes(2, 1, seed=7), 32)
    judge = HuggingFaceChat(chat)
    assert isinstance(judge, Judge)
    assert isinstance(model, Judge)
    for chance in (judge.p_yes(images, "the red disc"), judge.compare(images, images, "the disc")):
        assert chance.shape == (2,)
        assert ((chance > 0) & (chance < 1)).all()
    assert judge.p_yes(images, "the red disc")[0] != judge.p_yes(images.flip(0), "the red disc")[0]
