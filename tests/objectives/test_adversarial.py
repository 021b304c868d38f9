"""Entries with an inner loop against loops written in plain torch, and what an ascent must hold."""

import math

import pytest
import torch
from naive import DOCUMENTS, INPUTS, Quadratic, Spy, apart, own, packed, padded
from test_objectives import compare

from neft_zoo import NoiseError, attach, make
from neft_zoo.noise.batch import Batch, step_key
from neft_zoo.registry.strategy import Strategy


@pytest.fixture
def model(llama):
    return llama(num_hidden_layers=3, attn_implementation="eager").double().train()


def slope(value, deltas):
    return dict(zip(deltas, torch.autograd.grad(value, list(deltas.values())), strict=True))


def leaves(deltas):
    return {site: delta.detach().clone().requires_grad_() for site, delta in deltas.items()}


def still(naive):
    return torch.zeros(*naive.real.shape, naive.table.shape[1], dtype=torch.float64)


def climb(naive, deltas, value, size, radius, per="document", up=None):
    """Return the perturbations after one step uphill and a projection, and the value before it."""
    deltas = leaves(deltas)
    before = value(deltas)
    found = slope(before, deltas)
    up = up or (lambda g: naive.unit(g, per))
    return {site: naive.clip(d.detach() + size * up(found[site]), radius, per) for site, d in deltas.items()}


@pytest.mark.parametrize("eps", [0.5, 3.0])
def test_fgm_trains_clean_and_one_step_uphill(model, eps):
    def reference(naive, d):
        moved = climb(naive, {-1: still(naive)}, naive.loss, eps, eps)
        norms = [moved[-1][row, : len(doc)].norm().item() for row, doc in enumerate(DOCUMENTS)]
        assert norms == pytest.approx([eps] * 3)
        return naive.loss() + naive.loss(moved)

    compare(model, "fgm", reference, eps=eps)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_pgd_trains_on_the_last_pass_only(model, steps):
    def reference(naive, d):
        for _ in range(steps):
            d = climb(naive, d, naive.loss, 0.6, 1.0)
        return naive.loss(d)

    compare(model, "pgd", reference, steps=steps, size=0.6, radius=1.0, alpha=0.5)


@pytest.mark.parametrize("alpha", [0.5, 5.0])
def test_freelb_trains_on_every_pass(model, alpha):
    def reference(naive, d):
        d, total = {-1: naive.clip(d[-1], 1.0, "document")}, 0
        for _ in range(3):
            total = total + naive.loss(d) / 3
            d = climb(naive, d, naive.loss, 0.6, 1.0)
        return total

    compare(model, "freelb", reference, steps=3, size=0.6, radius=1.0, alpha=alpha)


def lengths(rows):
    return rows.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("alpha", [0.5, 5.0])
def test_token_vat_weighs_every_tokens_perturbation_by_its_share(model, alpha):
    """The published loop, one document at a time: delta and u, of which u is reweighted, then both are projected."""
    document_start = make("token_vat", alpha=alpha).objective.start

    def reference(naive, d):
        batch = Batch.from_inputs(INPUTS, key=step_key(0, 0, 0))
        delta = document_start(naive.table[INPUTS["input_ids"]].detach(), batch).double()
        parts, total = [(delta[row], d[-1][row]) for row in range(3)], 0
        for _ in range(3):
            inside = []
            for one, u in parts:
                factor = min(1.0, 1.0 / (one + u).norm().item())
                inside.append((one * factor, u * factor))
            whole = leaves({-1: torch.stack([one + u for one, u in inside])})
            total = total + naive.loss(whole) / 3
            g = slope(naive.loss(whole), whole)[-1]
            parts = []
            for row, (one, u) in enumerate(inside):
                n = len(DOCUMENTS[row])
                one, u = one.clone(), u.clone()
                one[:n] += 0.6 * g[row, :n] / g[row, :n].norm()
                u[:n] += 0.6 * g[row, :n] / lengths(g[row, :n]).clamp(min=1e-99)  # the last token moves nothing
                u[:n] *= lengths(u[:n]) / lengths(u[:n]).max()
                parts.append((one, u))
        return total

    compare(model, "token_vat", reference, steps=3, size=0.6, radius=1.0, alpha=alpha)


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("steps", [1, 2])
def test_smart_climbs_the_divergence_in_a_box_from_a_fixed_clean_side(model, relative, steps):
    """Algorithm 1 of the paper: d <- clip(d + eta * g / largest |g|, -eps, eps), a document at a time."""

    def reference(naive, d):
        clean, p, _ = naive.run()
        table = naive.table[INPUTS["input_ids"]].detach()
        for _ in range(steps):
            d = leaves(d)
            up = slope(apart("symmetric_kl", p.detach(), naive.run(d)[1]), d)[-1]
            moved = torch.zeros_like(up)
            for row, document in enumerate(DOCUMENTS):
                n = len(document)
                unit = table[row, :n].norm(dim=-1).mean() / math.sqrt(32) if relative else 1.0
                higher = d[-1][row, :n].detach() + 1.1 * unit * up[row, :n] / up[row, :n].abs().max()
                moved[row, :n] = (
                    torch.minimum(torch.maximum(higher, -0.4 * unit), 0.4 * unit)
                    if relative
                    else (higher.clamp(-0.4, 0.4))
                )
            d = {-1: moved}
        return clean + 2 * apart("symmetric_kl", p, naive.run(d)[1])

    compare(model, "smart", reference, radius=0.4, start=0.05, size=1.1, weight=2, steps=steps, relative=relative)


def powers(naive, d, steps, radius, length):
    """Return VAT's perturbation: `steps` times the gradient's direction at this length, then at the radius."""
    p = naive.run()[1].detach()
    for number in range(steps):
        found = slope(apart("kl", p, naive.run(leaves_ := leaves(d))[1]), leaves_)[-1]
        d = {-1: naive.unit(found, "document") * (radius if number + 1 == steps else length)}
    return d


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_vat_discards_its_start_and_keeps_the_direction(model, steps):
    def reference(naive, d):
        assert naive.norms(d[-1], "document").allclose(torch.tensor(0.05).double(), rtol=1e-5), "a length per document"
        clean, p, _ = naive.run()
        return clean + 2 * apart("kl", p.detach(), naive.run(powers(naive, d, steps, 1.5, 0.05))[1])

    compare(model, "vat", reference, radius=1.5, start=0.05, weight=2, steps=steps)


@pytest.mark.parametrize("name", ["vat", "smart"])
def test_a_direction_is_not_sought_where_there_is_no_slope(name):
    with pytest.raises(NoiseError, match=r"start must be a finite number >= 1e-06, got 0\.0"):
        make(name, start=0.0)


@pytest.mark.parametrize("length", [8, 200])
def test_the_direction_of_vat_is_the_gradients_in_long_documents_too(llama, length):
    """A start that is a deviation per coordinate, and is kept, grows with the document until it is the direction."""
    model = llama(max_position_embeddings=256).double().train()
    ids = torch.randint(5, 60, (1, length), generator=torch.Generator().manual_seed(0))
    strategy = make("vat", radius=1.0, start=0.01)
    spy = Spy(strategy.objective)
    inputs = {"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)}
    attach(model, Strategy(strategy.noise, spy), total_steps=1).loss(inputs)
    _, sought, worst = spy.step.passes
    begin, end = (done.deltas[-1].flatten() for done in (sought, worst))
    assert begin.norm().item() == pytest.approx(0.01, rel=1e-5) and end.norm().item() == pytest.approx(1.0, rel=1e-5)
    small = leaves(sought.deltas)
    embeds = model.get_input_embeddings().weight[ids]
    clean, noisy = (model(inputs_embeds=e).logits[0, :-1] for e in (embeds, embeds + small[-1]))
    found = slope(apart("kl", clean.detach(), noisy), small)[-1]
    assert torch.cosine_similarity(found.flatten(), end, dim=0) > 1 - 1e-6


@pytest.mark.parametrize("layers", [[1], [0, -1], "all"])
def test_lat_climbs_at_its_layers_per_token(model, layers):
    def reference(naive, d):
        for _ in range(2):
            d = climb(naive, d, naive.loss, 0.6, 1.0, "token")
        return naive.loss(d)

    compare(model, "lat", reference, eps=1.0, steps=2, size=0.6, layers=layers)


@pytest.mark.parametrize("where", ["prompt", "completion", "real"])
def test_cat_climbs_by_sign_in_a_ball_relative_to_the_documents_norm(model, where):
    chosen = torch.zeros(3, 8, 1)
    for row, document in enumerate(DOCUMENTS):
        begin, end = {"prompt": (0, 2), "completion": (2, len(document)), "real": (0, len(document))}[where]
        chosen[row, begin:end] = 1

    def reference(naive, d):
        norms = naive.table[INPUTS["input_ids"]].detach().norm(dim=-1)
        means = [norms[row, : len(document)].mean() for row, document in enumerate(DOCUMENTS)]
        unit = torch.stack(means)[:, None, None]
        d = {-1: still(naive)}
        for _ in range(3):
            d = climb(naive, d, naive.loss, 0.4, unit, "token", lambda g: unit * g.sign() * chosen / math.sqrt(32))
        assert not (d[-1] * (1 - chosen)).any()
        return naive.loss(d)

    compare(model, "cat", reference, eps=1.0, steps=3, size=0.4, where=where)


def test_cat_moves_the_instruction_unless_told_otherwise():
    assert make("cat").objective.ball.where.role == "prompt"


@pytest.mark.parametrize("layers", [[1], "all"])
def test_vaccine_moves_all_layers_by_one_length(model, layers):
    """d_l = rho * g_l / |(g_1 ... g_L)|, one document at a time; only the second pass trains."""

    def reference(naive, d):
        d = leaves(d)
        g = slope(naive.loss(d), d)
        moved = {site: torch.zeros_like(delta) for site, delta in d.items()}
        for row, document in enumerate(DOCUMENTS):
            n = len(document)
            whole = math.sqrt(sum(g[site][row, :n].square().sum().item() for site in d))
            for site in d:
                moved[site][row, :n] = 0.8 * g[site][row, :n] / whole
        assert len(d) == (3 if layers == "all" else 1)
        return naive.loss(moved)

    compare(model, "vaccine", reference, rho=0.8, layers=layers)


SIZES = {
    "document": lambda row: row.norm(),
    "token": lambda row: row.norm(dim=-1).max(),
    "coordinate": lambda row: row.abs().max(),
}
BALLS = {
    "fgm": (dict(eps=0.3), "document"),
    "pgd": (dict(radius=0.3, size=0.5, alpha=4), "document"),
    "freelb": (dict(radius=0.3, size=0.5, alpha=4, steps=3), "document"),
    "token_vat": (dict(radius=0.3, size=0.5, alpha=4, steps=3), "document"),
    "smart": (dict(radius=0.3, size=0.5, start=0.1), "coordinate"),
    "vat": (dict(radius=0.3, start=0.1), "document"),
    "lat": (dict(eps=0.3, size=0.2, steps=3, layers="all"), "token"),
    "cat": (dict(eps=0.3, size=0.2, steps=3), "token"),
}


@pytest.mark.parametrize("layout", ["right", "left", "packed"])
@pytest.mark.parametrize("name", BALLS)
def test_a_radius_is_a_radius(llama, name, layout):
    arguments, per = BALLS[name]
    strategy = make(name, **arguments)
    spy = Spy(strategy.objective)
    inputs = packed(DOCUMENTS) if layout == "packed" else padded(DOCUMENTS, side=layout)
    model = llama().train()
    attach(model, Strategy(strategy.noise, spy), total_steps=1).loss(inputs).backward()
    batch = spy.step.batch
    trained = spy.step.passes if name in ("freelb", "token_vat") else spy.step.passes[-1:]
    assert len(spy.step.passes) == strategy.objective.passes
    for done in trained:
        for site, delta in done.deltas.items():
            assert not delta[~batch.real].any()
            rows = [delta[batch.real & (batch.document == n)] for n in range(3)]
            embeds = [done.embeds[site][batch.real & (batch.document == n)] for n in range(3)]
            width = math.sqrt(delta.shape[-1]) if name == "smart" else 1
            units = [e.norm(dim=-1).mean() / width if name in ("cat", "smart") else 1.0 for e in embeds]
            norms = [SIZES[per](row) for row in rows]
            shares = torch.stack([norm / (0.3 * unit) for norm, unit in zip(norms, units, strict=True)])
            assert shares.max() <= 1 + 1e-6 and shares.max() > 0.9, "inside, and room is used"


@pytest.mark.parametrize("name", ["fgm", "pgd", "freelb", "cat"])
def test_no_ascent_lowers_a_convex_loss(name):
    model, ids = Quadratic().train(), {"input_ids": torch.arange(5, 17).view(2, 6)}
    more = {"fgm": {}, "cat": {"steps": 4, "where": "real"}}
    strategy = make(name, **more.get(name, {"steps": 4, "alpha": 0.2}))
    spy = Spy(strategy.objective)
    losses = []

    def watched(model, inputs):
        losses.append(own(model, inputs))
        return losses[-1]

    attach(model, Strategy(strategy.noise, spy), total_steps=1).loss(ids, compute=watched)
    values = [loss.item() for loss in losses]
    assert len(values) == strategy.objective.passes and values == sorted(values) and values[-1] > values[0]


def test_fgm_on_a_linear_loss_gains_eps_times_the_slope():
    """Each of a document's 6 tokens has the same gradient, so the mean loss gains eps * |slope| * sqrt(6)."""
    model, ids = Quadratic().train(), torch.arange(5, 17).view(2, 6)
    model.curve.zero_()
    loss = attach(model, {"name": "fgm", "eps": 0.5}, total_steps=1).loss({"input_ids": ids}, compute=own)
    gain = 0.5 * model.slope.norm() * math.sqrt(6)
    assert loss.item() == pytest.approx((2 * model(ids) + gain).item(), rel=1e-6)


def test_a_flat_loss_moves_nothing():
    ball = make("pgd").objective.ball
    batch = Batch.from_inputs(INPUTS)
    assert not ball.up(torch.zeros(3, 8, 4), batch).any()
    tiny = torch.full((3, 8, 4), 1e-25)
    tiny[0] = 1.0
    assert ball.length(ball.up(tiny, batch), batch)[batch.real].allclose(torch.ones(())), "size does not matter"
