"""The small vision-language-action policy: its parts, its training, its reinforcement learning."""

import errno
import warnings

import pytest
import torch
from helpers import one_line

from tutorial_utils import _disk
from tutorial_utils.evidence import evaluate, weights
from tutorial_utils.learning import vla_rl
from tutorial_utils.learning.vla_rl import RLConfig
from tutorial_utils.models import vla_training as vt
from tutorial_utils.models.vla import BACKBONE, PAD, UNKNOWN, VLA, Vocabulary
from tutorial_utils.tabletop import TASKS, Expert, Shift, TabletopVectorEnv, robot_keys
from tutorial_utils.tabletop.demonstrations import chunks, write_dataset

WORDS = Vocabulary([*vt.captions(), *TASKS["Reach"].instructions])


def policy(seeds=(0, 1), **settings):
    return VLA(WORDS, list(seeds), hidden=32, queries=4, **settings)


def seen(p, b=5, size=32, seed=0):
    """Images [P, B, S, S, 3] and words [P, B, L]."""
    g = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (p, b, size, size, 3), generator=g, dtype=torch.uint8)
    told = WORDS.encode(["put the red disc in the blue zone"] * b).expand(p, -1, -1)
    return images, told


def drawn(net, context, seed=0, temperature=1.0):
    g = torch.Generator().manual_seed(seed)
    uniform = torch.rand(*context.shape[:2], net.decoder.tokens, generator=g)
    return net.decoder.draw(context, uniform, temperature)


# ---------------------------------------------------------------- words


def test_unknown_words_and_padding():
    row = WORDS.encode(["put the purple disc"])[0]
    assert row[2] == UNKNOWN
    assert row[4] == PAD
    assert (row[:2] > UNKNOWN).all()
    assert len(WORDS.encode(["x"] * 3)) == 3


@pytest.mark.parametrize("sentence", ["", "  ", "a " * 17])
def test_an_instruction_of_no_or_too_many_words_is_refused(sentence):
    with pytest.raises(ValueError, match="1 to 16 words") as error:
        WORDS.encode([sentence])
    one_line(error)


def test_padding_changes_nothing():
    net = policy()
    images, told = seen(2)
    context = net.context(images, told)
    for length in (8, 9, 16):  # eight words
        torch.testing.assert_close(net.context(images, told[..., :length]), context)
    tokens = drawn(net, context)
    short = net.log_prob(net.context(images, told[..., :8]), tokens)
    torch.testing.assert_close(short, net.log_prob(context, tokens))


def test_the_order_of_the_words_counts():
    net = policy()
    images, _ = seen(2, 1)
    a, b = (
        WORDS.encode([f"put the {x} disc in the {y} zone"]).expand(2, -1, -1)
        for x, y in (("red", "blue"), ("blue", "red"))
    )
    assert (net.context(images, a) - net.context(images, b)).abs().max() > 1e-3


# ---------------------------------------------------------------- the network


def test_members_alone_equal_members_in_company():
    net, images_words = policy((3, 7)), seen(2)
    together = net.context(*images_words)
    for m, seed in enumerate((3, 7)):
        own = [x[m : m + 1] for x in images_words]
        torch.testing.assert_close(policy([seed]).context(*own)[0], together[m])
        torch.testing.assert_close(net.select(m).context(*own)[0], together[m])


def test_the_place_of_a_patch_is_in_table_units():
    place = policy([0]).image.place.view(16, 16, 2)
    torch.testing.assert_close(place[0, 0], torch.tensor([-15 / 16, 15 / 16]))  # top left
    torch.testing.assert_close(place[15, 3], torch.tensor([-9 / 16, -15 / 16]))


def test_the_encoder_follows_a_motion_below_one_pixel():
    env = TabletopVectorEnv("Reach", 2, obs="image")
    env.reset(seed=1)
    net = policy([0])
    before = net.image(env.observe()[None])
    env.world.gripper[0] += 0.01  # a sixth of a pixel
    assert (net.image(env.observe()[None]) - before).abs().max() > 1e-3


def test_decoding_equals_teacher_forcing():
    net = policy()
    context = net.context(*seen(2))
    tokens = net.decoder.draw(context, None)
    logits = net.decoder(context, tokens)
    assert (logits.argmax(-1) == tokens).all()
    changed = tokens.clone()
    changed[..., 6] = (changed[..., 6] + 1) % net.bins
    later = net.decoder(context, changed)
    torch.testing.assert_close(later[:, :, :7], logits[:, :, :7])  # nobody sees the future
    assert (later[:, :, 7:] - logits[:, :, 7:]).abs().max() > 1e-3


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.6])
def test_tokens_are_drawn_from_what_log_prob_says(temperature):
    net = policy([0])
    images, told = seen(1, 1)
    context = net.context(images, told).expand(1, 20_000, -1)
    first = drawn(net, context, temperature=temperature)[0, :, 0]
    share = first.bincount(minlength=net.bins) / len(first)
    told_share = net.decoder(context[:, :1], torch.zeros(1, 1, 12, dtype=torch.long))
    expected = (told_share[0, 0, 0] / temperature).softmax(-1)
    torch.testing.assert_close(share, expected, atol=0.015, rtol=0)
    tokens = drawn(net, context[:, :3], temperature=temperature)
    by_hand = torch.distributions.Categorical(
        logits=net.decoder(context[:, :3], tokens) / temperature
    ).log_prob(tokens)
    torch.testing.assert_close(net.log_prob(context[:, :3], tokens, temperature), by_hand)


def test_tokens_and_actions():
    net = policy([0])
    chunk = torch.linspace(-1.2, 1.2, 24).view(2, 4, 3)
    back = net.actions(net.tokens(chunk))
    assert (back - chunk.clamp(-1, 1)).abs().max() <= 0.125 + 1e-6  # half a bin of nine
    assert (net.tokens(net.actions(net.tokens(chunk))) == net.tokens(chunk)).all()


# ---------------------------------------------------------------- supervised training


@pytest.fixture(scope="module")
def reach(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("minari")))
        expert = Expert(noise=0.1)
        yield write_dataset("tabletop/reach/words-v0", "Reach", expert, 6, 0, obs="all")


def test_examples_are_the_chunks_of_the_demonstrations(reach):
    net = policy([0])
    data, raw = vt.examples(net, [reach, reach]), chunks(reach, 4, part="image")
    n = len(raw["obs"])
    assert len(data.image) == 2 * n
    assert data.task.tolist() == [0] * n + [1] * n
    assert (data.image[:n] == raw["obs"]).all()
    assert (data.tokens[:n] == net.tokens(raw["chunk"])).all()
    last = list(reach)[-1].observations["instruction"][0]
    assert (data.words[-1] == WORDS.encode([last])[0]).all()


def test_no_demonstrations_is_refused():
    with pytest.raises(ValueError, match="at least one dataset"):
        vt.examples(policy([0]), [])


def test_training_lowers_the_loss_and_does_not_depend_on_the_company(reach):
    both, alone = policy((3, 7)), policy([7])
    data = vt.examples(alone, [reach])
    loss = vt.fit(both, data, 30, batch=32, progress=False)
    assert (loss[-5:].mean(0) < 0.9 * loss[0]).all()
    vt.fit(alone, data, 30, batch=32, progress=False)
    theirs = both.select(1).state_dict()
    for name, x in alone.state_dict().items():
        torch.testing.assert_close(x, theirs[name], atol=2e-4, rtol=1e-3)


def test_grounding_trains_the_backbone_alone_and_others_adopt_it():
    net = policy([5])
    decoder = {n: x.clone() for n, x in net.decoder.state_dict().items()}
    error = vt.ground(net, 300, 64, progress=False)
    assert error[-10:].mean() < 0.8 * error[:3].mean()
    assert all((x == decoder[n]).all() for n, x in net.decoder.state_dict().items())
    other = policy((1, 2))
    other.adopt(net)
    for n, x in other.image.state_dict().items():
        assert (x == net.image.state_dict()[n]).all()
    with pytest.raises(ValueError, match="adopt"):
        vt.ground(other, 1)


# ---------------------------------------------------------------- reinforcement learning


def test_rloo_is_the_mean_of_the_others_and_grpo_is_standardised():
    g = torch.Generator().manual_seed(0)
    r = torch.randint(2, (40,), generator=g).float()
    groups = r.view(5, 8)
    rloo = vla_rl.group_advantages(r, 8, "rloo").view(5, 8)
    for i in range(8):
        others = groups[:, [j for j in range(8) if j != i]].mean(1)
        torch.testing.assert_close(rloo[:, i], groups[:, i] - others)
    torch.testing.assert_close(rloo, 8 / 7 * (groups - groups.mean(1, keepdim=True)))
    grpo = vla_rl.group_advantages(r, 8).view(5, 8)
    torch.testing.assert_close(grpo.mean(1), torch.zeros(5), atol=1e-6, rtol=0)
    torch.testing.assert_close(grpo.std(1, correction=0), torch.ones(5), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["grpo", "rloo"])
@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_a_uniform_group_gives_zero(kind, outcome):
    r = torch.cat((torch.full((8,), outcome), torch.tensor([0.0, 1.0] * 4)))
    advantage = vla_rl.group_advantages(r, 8, kind)
    assert (advantage[:8] == 0).all()
    assert (advantage[8:] != 0).all()
    assert vla_rl.mixed_groups(r > 0, 8).tolist() == [False] * 8 + [True] * 8


def played(net, n=16, group=8, temperature=1.0, task="Reach"):
    env = TabletopVectorEnv(task, n, obs="all")
    env.reset(seed=robot_keys(3, n // group, env.device).repeat_interleave(group))
    noise = torch.Generator().manual_seed(1)
    return vla_rl.collect(env, net, noise, temperature)


def test_a_group_shares_its_start_and_nothing_else():
    data = played(policy([0]))
    first = data.image[:, 0].view(2, 8, 32, 32, 3)
    assert (first == first[:, :1]).all()
    assert (first[0, 0] != first[1, 0]).any()
    words = data.words.view(2, 8, -1)
    assert (words == words[:, :1]).all()
    assert (data.tokens[0] != data.tokens[1]).any()


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.6])
def test_the_ratio_is_one_before_the_first_update(temperature):
    net = policy([0])
    data = played(net, temperature=temperature)
    n, t = data.active.nonzero().unbind(1)
    context = net.context(data.image[n, t][None], data.words[n][None])
    new = net.log_prob(context, data.tokens[n, t][None], temperature)[0]
    torch.testing.assert_close(new, data.log_prob[n, t], atol=1e-5, rtol=0)


def test_episodes_end_once_and_steps_are_counted():
    data = played(policy([0]))
    active = data.active.int()
    assert (active[:, 1:] <= active[:, :-1]).all()
    assert (active[:, 0] == 1).all()
    assert active.sum() <= data.steps <= 4 * active.sum()
    assert data.steps <= 16 * TASKS["Reach"].horizon


def test_the_clipped_loss_by_hand():
    old = torch.log(torch.tensor([[0.5, 0.5]]))
    new = torch.log(torch.tensor([[0.75, 0.25]]))  # ratios 1.5 and 0.5
    config = RLConfig(clip=0.2, clip_high=0.28)
    gain = vla_rl.token_loss(new, old, torch.tensor([1.0]), config)
    torch.testing.assert_close(gain, torch.tensor([-(1.28 + 0.5) / 2]))
    pain = vla_rl.token_loss(new, old, torch.tensor([-1.0]), config)
    torch.testing.assert_close(pain, torch.tensor([(1.5 + 0.8) / 2]))


@pytest.mark.parametrize("kind", ["grpo", "rloo", "imitate"])
def test_without_a_success_nothing_moves(kind):
    net = policy([0])
    before = {n: x.clone() for n, x in net.state_dict().items()}
    run = vla_rl.fine_tune(net, "PickPlace", 2, RLConfig(kind=kind, robots=16), progress=False)
    assert run.success == [0.0, 0.0]
    assert run.updates == [0, 0]
    assert run.kept == [0.0, 0.0]
    assert all((x == before[n]).all() for n, x in net.state_dict().items())


@pytest.mark.parametrize("kind", vla_rl.KINDS)
def test_fine_tuning_learns_from_success(kind):
    net = policy([0])
    before = net.decoder.out.clone()

    def even_robots_win(i, data):
        data.success[:] = torch.arange(len(data.success)) % 2 == 0

    run = vla_rl.fine_tune(
        net, "Reach", 1, RLConfig(kind=kind, robots=16), False, on_episodes=even_robots_win
    )
    assert run.updates[0] > 0
    assert (net.decoder.out != before).any()
    assert run.steps[0] > 0
    assert run.kept == [1.0]


def test_dynamic_sampling_leaves_uniform_groups_out():
    def first_group_mixed(i, data):
        data.success[:] = False
        data.success[:4] = True

    counts = {}
    for dynamic in (True, False):
        config = RLConfig(robots=32, batch=16, dynamic=dynamic)
        run = vla_rl.fine_tune(
            policy([0]), "Reach", 1, config, False, on_episodes=first_group_mixed
        )
        counts[dynamic] = run.updates[0]
    assert counts[True] < 0.5 * counts[False]


def test_a_reward_of_one_token_makes_it_likelier():
    net, config = policy([0]), RLConfig(robots=64, learning_rate=5e-3)

    def like(i, data):
        data.success[:] = data.tokens[:, 0, 0] >= 5  # the first move goes to the right

    run = vla_rl.fine_tune(net, "Reach", 12, config, False, on_episodes=like)
    data = played(net, 64)
    assert (data.tokens[:, 0, 0] >= 5).float().mean() > 0.75
    assert len(run.seconds) == 12


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "gripo"}, "grpo"),
        ({"robots": 12}, "multiple of group"),
        ({"temperature": 0.0}, "temperature"),
        ({"group": 1, "robots": 8}, "group"),
    ],
)
def test_bad_settings_are_refused_in_one_line(settings, message):
    with pytest.raises(ValueError, match=message) as error:
        RLConfig(**settings)
    one_line(error)


def test_an_old_gradient_of_a_frozen_part_changes_nothing():
    def even_robots_win(i, data):
        data.success = torch.arange(len(data.success)) % 2 == 0

    ends = []
    for old in (0.0, 1e6):
        net = policy((0,))
        for name in BACKBONE:
            for weight in getattr(net, name).parameters():
                weight.requires_grad_(False).grad = torch.full_like(weight, old)
        vla_rl.fine_tune(net, "Reach", 2, RLConfig(robots=16), False, on_episodes=even_robots_win)
        ends.append([x.detach() for x in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_more_than_one_member_is_refused():
    with pytest.raises(ValueError, match="select"):
        vla_rl.fine_tune(policy(), "Reach", 1)


def test_a_policy_can_be_evaluated_and_sees_held_out_words():
    net = policy()
    result = evaluate(net.deployed(), "Reach", 5, obs="all", shift=Shift(paraphrase=True))
    assert result.success.shape == (2, 5)


# ---------------------------------------------------------------- weights on disk


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DUALITY_CACHE", str(tmp_path))
    return tmp_path / "weights"


def keep(value, *parts):
    """A network that `train` sets to `value`, and whether it was found."""
    net = torch.nn.Linear(2, 2)
    torch.nn.init.zeros_(net.weight)
    torch.nn.init.zeros_(net.bias)
    found = weights.trained(net, lambda: net.weight.data.fill_(value), *parts)
    return found, net.weight[0, 0].item()


def test_weights_are_found_again(cache):
    assert keep(1.0, "a", torch.ones(3)) == (False, 1.0)
    assert keep(2.0, "a", torch.ones(3)) == (True, 1.0)


def test_other_settings_data_or_code_train_anew(cache, tmp_path, monkeypatch):
    keep(1.0, "a", torch.ones(3))
    assert keep(2.0, "b", torch.ones(3)) == (False, 2.0)
    assert keep(3.0, "a", torch.zeros(3)) == (False, 3.0)
    monkeypatch.setattr(weights, "_PACKAGE", tmp_path / "code")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text("x = 1\n")
    assert keep(4.0, "a") == (False, 4.0)
    (tmp_path / "code" / "a.py").write_text("x = 2\n")
    assert keep(5.0, "a") == (False, 5.0)


@pytest.mark.parametrize("damage", [b"", b"not a file of torch", None])
def test_a_damaged_file_is_noticed_and_replaced(cache, damage):
    keep(1.0)
    (file,) = cache.iterdir()
    if damage is None:  # whole, but other numbers than were saved
        saved = torch.load(file)
        saved["state"]["weight"][0, 0] = 9.0
        torch.save(saved, file)
    else:
        file.write_bytes(damage)
    with pytest.warns(UserWarning, match="damaged"):
        assert keep(2.0) == (False, 2.0)
    with warnings.catch_warnings(action="error"):
        assert keep(3.0) == (True, 2.0)


def test_the_cache_can_be_turned_off(cache, monkeypatch):
    monkeypatch.setenv("DUALITY_CACHE", "off")
    assert keep(1.0) == (False, 1.0)
    assert keep(2.0) == (False, 2.0)
    assert not cache.exists()


def test_a_cache_that_is_a_file_ends_no_run(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("DUALITY_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="cannot keep weights.*DUALITY_CACHE") as caught:
        found = [keep(value) for value in (1.0, 2.0)]
    assert found == [(False, 1.0), (False, 2.0)]
    assert len(caught) == 1
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("broken", ["tempfile.mkstemp", "os.replace"])
def test_a_full_disk_ends_no_run_and_holds_no_draft(cache, monkeypatch, broken):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(broken, full)
    with pytest.warns(UserWarning, match="No space left"):
        assert keep(1.0) == (False, 1.0)
    assert not list(cache.iterdir())


def test_a_user_without_a_home_trains(monkeypatch):
    def homeless(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("DUALITY_CACHE", raising=False)
    monkeypatch.setattr("pathlib.Path.expanduser", homeless)
    monkeypatch.setattr(_disk, "_warn", _disk._warn.__wrapped__)  # whatever ran before
    with pytest.warns(UserWarning, match="home folder"):
        assert keep(1.0) == (False, 1.0)
