"""The plan: every entry once and in the model's order, whatever the layout and the budget."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_check.copies import open_copy
from inference_check.plan import Plan, leaf_size, memory_of
from inference_check.run import KEPT_SHARE, Questions, make_plan
from verifier.digests import LEAF_BYTES, leaf_count
from verifier.layouts import LogicalTensor, Part
from verifier.readers import TensorEntry

MIB = 1 << 20


def tensor(name, path, start, rows, columns=256, dtype="F16"):
    item = {"F16": 2, "F32": 4}[dtype]
    entry = TensorEntry(name, dtype, (rows, columns), path, start, start + rows * columns * item)
    return LogicalTensor(name, "", dtype, entry.shape, (Part(entry),))


def laid_out(order, rows, groups, gap=64, budget=0, hash_all=True):
    """A file in which tensors lie in ``order``, each of so many rows, ``gap`` bytes between."""
    place, tensors = gap, {}
    for name in order:
        tensors[name] = tensor(name, "file", place, rows[name])
        place = tensors[name].parts[0].entry.end + gap
    return Plan({"file": place}, tensors, groups, budget, hash_all)


@st.composite
def plans(draw):
    names = [f"m{n}" for n in range(draw(st.integers(1, 12)))]
    rows = {name: draw(st.integers(1, 30_000)) for name in names}
    order = draw(st.permutations(names))
    groups, rest = [], list(names)
    while rest:
        count = draw(st.integers(1, len(rest)))
        groups.append(tuple(rest[:count]))
        rest = rest[count:]
    gap, budget = draw(st.integers(0, 5000)), draw(st.integers(0, 24 * MIB))
    return laid_out(order, rows, groups, gap, budget, draw(st.booleans()))


@settings(max_examples=60, deadline=None)
@given(plans())
def test_each_entry_is_multiplied_once_in_the_models_order_and_within_the_budget(plan):
    kept, reads, used = {}, Counter(), []
    group = 0
    for item in plan.items():
        if item.ends_group:
            group += 1
            continue
        if item.leaf is not None:
            reads[item.leaf] += 1
            assert item.again == (reads[item.leaf] > 1)
        for edge in item.drops:
            del kept[edge]
        for piece in item.uses:
            assert piece.group == group
            assert item.leaf is not None or kept.pop(piece.edge) == piece
            used.append((piece.start, piece.stop))
        for piece in item.keeps:
            kept[piece.edge] = piece
        assert sum(memory_of(piece.size) for piece in kept.values()) <= plan.keep_bytes
    assert not kept
    covered = sum(stop - start for start, stop in used)
    parts = [tensor.parts[0].entry for tensor in plan.tensors.values()]
    assert covered == sum(entry.end - entry.start for entry in parts) and len(set(used)) == len(
        used
    )
    leaves = range(leaf_count(plan.sizes["file"]))
    assert set(reads) <= set(leaves) and (not plan.hash_all or set(reads) == set(leaves))
    totals = plan.totals()
    assert totals.bytes_read == sum(leaf_size(plan.sizes["file"], n) * c for n, c in reads.items())
    assert totals.most_kept <= plan.keep_bytes


REVERSED = ["c", "b", "a"], {"a": 9000, "b": 9000, "c": 9000}, [("a",), ("b",), ("c",)]


def test_with_room_nothing_is_read_twice():
    totals = laid_out(*REVERSED, budget=64 * MIB).totals()
    assert (totals.bytes_read_again, totals.bytes_read) == (0, 3 * 9000 * 512 + 4 * 64)
    assert 0 < totals.most_kept <= 4 * MIB


def test_without_room_the_leaves_with_an_edge_are_read_again_and_counted():
    totals = laid_out(*REVERSED, budget=0).totals()
    assert (totals.bytes_read_again, totals.most_kept) == (2 * LEAF_BYTES, 0)


def test_what_is_due_soonest_is_kept_where_not_everything_fits():
    """Two leaves end in an edge: that of ``soon`` is due before that of ``late``."""
    order = ["x", "late", "y", "soon"]
    rows = {"x": 7000, "late": 9000, "y": 8000, "soon": 9000}
    groups = [("x", "y"), ("soon",), ("late",)]
    plan = laid_out(order, rows, groups, budget=1 * MIB)
    keeps = [piece.name for item in plan.items() for piece in item.keeps]
    everything = laid_out(order, rows, groups, budget=64 * MIB)
    assert {p.name for i in everything.items() for p in i.keeps} == {"late", "soon"}
    assert "soon" in keeps


@pytest.mark.parametrize("offset", [1, 3])
def test_an_entry_that_two_leaves_share_belongs_to_the_first(offset):
    plan = Plan(
        {"file": 12 * MIB + offset},
        {"a": tensor("a", "file", offset, 24 * 1024)},
        [("a",)],
        0,
        True,
    )
    pieces = [(item.leaf, piece) for item in plan.items() for piece in item.uses]
    assert all((piece.start - offset) % 2 == 0 for _, piece in pieces)
    assert all(piece.start // LEAF_BYTES == leaf for leaf, piece in pieces)
    assert all(one.stop == two.start for (_, one), (_, two) in pairwise(pieces))
    assert pieces[0][1].stop == LEAF_BYTES + 1


@pytest.mark.parametrize("layout", ["hf", "meta"])
@pytest.mark.parametrize("share", [0.02])
def test_of_65_billion_parameters_few_bytes_are_read_twice(layout, share):
    """LLaMA 65B's shapes in headers alone, with the edges that the default memory may hold."""
    plan = llama_65b(layout, 350 * MIB // KEPT_SHARE)
    totals = plan.totals()
    assert totals.bytes_read_again <= share * totals.bytes_read
    assert totals.bytes_read > 128e9


def llama_65b(layout, budget):
    """Eight files as Meta cuts them, or as shards of sorted names with as many parameters."""
    d, f, v, layers, parts = 8192, 22016, 32000, 80, 8
    matrices = {"wq": (d, d), "wk": (d, d), "wv": (d, d), "wo": (d, d)}
    matrices |= {"w1": (f, d), "w2": (d, f), "w3": (f, d)}
    names = [f"{n:02d}.{m}" for n in range(layers) for m in matrices]
    shape = {name: matrices[name[3:]] for name in names} | {"head": (v, d), "embed": (v, d)}
    groups = [
        tuple(f"{n:02d}.{m}" for m in group)
        for n in range(layers)
        for group in (("wq", "wk", "wv"), ("wo",), ("w1", "w3"), ("w2",))
    ]
    groups += [("head",), ("embed",)]
    order = ["embed", "head", *names]
    places, found = Counter(), {name: [] for name in order}
    if layout == "hf":
        order = ["head", "embed", *sorted(names, key=lambda n: (n[:2].lstrip("0"), n))]
    for position, name in enumerate(order):
        rows, columns = shape[name]
        where = range(parts) if layout == "meta" else [position * parts // len(order)]
        for part in where:
            size = (rows, columns)
            if layout == "meta":
                cut = name[3:] in ("wo", "w2") or name == "embed"
                size = (rows, columns // parts) if cut else (rows // parts, columns)
            path, start = f"{part:02d}", places[f"{part:02d}"] + 900
            places[path] = start + 2 * size[0] * size[1]
            entry = TensorEntry(name, "F16", size, path, start, places[path])
            found[name].append(Part(entry))
    tensors = {
        name: LogicalTensor(name, "", "F16", shape[name], tuple(pieces))
        for name, pieces in found.items()
    }
    return Plan(dict(places), tensors, groups, budget, True)


def test_a_copy_is_planned_from_its_headers_alone(official, monkeypatch):
    copy = open_copy(official / "hf")
    monkeypatch.setattr("os.preadv", None)
    plan = make_plan(copy, Questions("s", (1, 2, 3, 4)), 0, hash_all=True)
    assert plan.totals().bytes_read >= sum(copy.files.values())
