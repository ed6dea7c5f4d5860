"""SAM: the numbers of transformers and of the original code, files, paths, copies."""

import copy
import re

import contracts
import keras
import models
import numpy as np
import pytest
import references
import torch
from keras import ops
from parity import assert_parity, assert_rounds_alike

import kft
from kft import params
from kft.backbones.sam import PUBLISHED, Sam, SamImages, original_name
from kft.backbones.sam import layers as sam_layers
from kft.backbones.sam import weights as sam_weights
from kft.backbones.sam.family import SHIPPED
from kft.backbones.sam.layers import GridAttention
from kft.backbones.sam.prompts import ABSENT, NOT_A_POINT
from kft.data.segmentation.cells import simulate_cells
from kft.segmentation import Predictor, mask_iou, to_masks
from kft.segmentation.prompts import draw_points

SIZE, SIDE, OBJECTS = 64, 32, 3
MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])

# Parity -------------------------------------------------------------------------------------------


def drawn(seed=0):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, SIZE, (2, OBJECTS, 2, 2))
    return {
        "images": rng.uniform(0, 255, (2, SIZE, SIZE, 3)).astype("float32"),
        "points": rng.uniform(0, SIZE, (2, OBJECTS, 2, 2)).astype("float32"),
        "labels": rng.integers(0, 2, (2, OBJECTS, 2)).astype("int32"),
        "boxes": np.sort(corners, axis=2).reshape(2, OBJECTS, 4).astype("float32"),
        "masks": (10 * rng.standard_normal((2, 1, SIDE, SIDE))).astype("float32"),
    }


# What each case gives, and the number of objects: transformers takes one mask for each image.
CASES = {
    "points": (("points",), OBJECTS),
    "boxes": (("boxes",), OBJECTS),
    "points and boxes": (("points", "boxes"), OBJECTS),
    "points and masks": (("points", "masks"), 1),
    "all": (("points", "boxes", "masks"), 1),
}


def ours(sam, x):
    """{case: (masks, IoU)}, all computed at once: prompts that a case lacks are absent."""
    rows = []
    for given, objects in CASES.values():
        boxes = x["boxes"][:, :objects].reshape(2, objects, 2, 2)
        labels = np.concatenate(
            [
                x["labels"][:, :objects] if "points" in given else np.full((2, objects, 2), ABSENT),
                np.tile([2, 3] if "boxes" in given else [NOT_A_POINT, ABSENT], (2, objects, 1)),
            ],
            axis=2,
        )
        masks = x["masks"] if "masks" in given else np.zeros((2, objects, SIDE, SIDE), "float32")
        rows.append(
            {
                "points": np.concatenate([x["points"][:, :objects], boxes], 2),
                "labels": labels.astype("int32"),
                "masks": masks,
                "has_mask": np.full((2, objects), "masks" in given, "float32"),
            }
        )
    together = {name: np.concatenate([row[name] for row in rows], 1) for name in rows[0]}
    outputs = sam({"images": x["images"], **together})
    ends = np.cumsum([objects for _, objects in CASES.values()])[:-1]
    found = [np.split(ops.convert_to_numpy(outputs[n]), ends, 1) for n in ("masks", "iou")]
    return dict(zip(CASES, zip(*found, strict=True), strict=True))


def of_transformers(model, x, dtype):
    """The embedding, and {case: (masks, IoU)} with all four masks."""
    mean, std = MEAN.astype(dtype), STD.astype(dtype)
    pixels = torch.tensor(((x["images"].astype(dtype) - mean) / std).transpose(0, 3, 1, 2))
    found = {}
    with torch.no_grad():
        embedding = model.get_image_embeddings(pixels)
        for name, (given, objects) in CASES.items():
            prompts = {
                f"input_{one}": torch.tensor(x[one][:, :objects].astype(dtype)) for one in given
            }
            if "points" in given:
                prompts["input_labels"] = torch.tensor(x["labels"][:, :objects])
            one, three = (
                model(image_embeddings=embedding, multimask_output=several, **prompts)
                for several in (False, True)
            )
            found[name] = [
                torch.cat([getattr(y, key) for y in (one, three)], 2).numpy()
                for key in ("pred_masks", "iou_scores")
            ]
    return embedding.numpy().transpose(0, 2, 3, 1), found


def of_original(model, x):
    """The embedding, and {case: (masks, IoU)}, image by image, in float32 as the code runs."""
    pixels = model.pixel_mean, model.pixel_std
    pixels = (torch.tensor(x["images"].transpose(0, 3, 1, 2)) - pixels[0]) / pixels[1]
    found = {}
    with torch.no_grad():
        embedding = model.image_encoder(pixels)
        for name, (given, objects) in CASES.items():
            rows = []
            for i in range(2):
                chosen = {one: torch.tensor(x[one][i, :objects]) for one in given}
                points = None
                if "points" in given:
                    points = chosen["points"], torch.tensor(x["labels"][i, :objects])
                masks = chosen["masks"][:, None] if "masks" in given else None
                sparse, dense = model.prompt_encoder(points, chosen.get("boxes"), masks)
                rows.append(
                    model.mask_decoder.predict_masks(
                        embedding[i : i + 1], model.prompt_encoder.get_dense_pe(), sparse, dense
                    )
                )
            found[name] = [torch.stack([row[k] for row in rows]).numpy() for k in (0, 1)]
    return embedding.numpy().transpose(0, 2, 3, 1), found


def check_parity(sam, x, expected, truth):
    found = ops.convert_to_numpy(sam.image_encoder({"images": x["images"]}))
    assert_parity(found, expected[0], truth[0], "embedding")
    cases = ours(sam, x)
    for name, case in cases.items():
        assert_parity(case[0], expected[1][name][0], truth[1][name][0], f"masks of {name}")
    joined = [np.concatenate([y[n][1] for n in CASES], 1) for y in (cases, expected[1], truth[1])]
    assert_parity(*joined, "IoU")


def test_agrees_with_transformers(tmp_path):
    reference = references.hugging_face_sam()
    reference.save_pretrained(tmp_path)
    sam = kft.load(tmp_path)
    assert not sam.load_report.missing
    assert not sam.load_report.skipped
    x, precise = drawn(), copy.deepcopy(reference).double()
    runs = [(reference, x, np.float32), (precise, x, np.float64)]
    check_parity(sam, x, *(of_transformers(*run) for run in runs))


@pytest.mark.once
def test_agrees_with_the_original_code(tmp_path):
    reference = references.original_sam()
    torch.save(reference.state_dict(), tmp_path / "sam.pth")
    sam = kft.load(tmp_path / "sam.pth")
    assert not sam.load_report.skipped
    named = {original_name(w.path): w.variable.shape for w in params.weights(sam)}
    assert named.keys() - {"pixel_mean", "pixel_std"} == reference.state_dict().keys()
    # The original code cannot run in float64: the truth is transformers' with these weights.
    precise = references.hugging_face_sam(epsilon=1e-5)
    renamed = {sam_weights.hugging_face_name(k): v for k, v in reference.state_dict().items()}
    positions = renamed["shared_image_embedding.positional_embedding"]
    renamed["prompt_encoder.shared_embedding.positional_embedding"] = positions
    precise.load_state_dict(renamed)
    x = drawn()
    truth = of_transformers(precise.double(), x, np.float64)
    check_parity(sam, x, of_original(reference, x), truth)


@pytest.mark.parametrize("parts", [".*norm.*", ".*attn.*", ".*mlp.*"])
def test_parts_of_another_dtype(parts):
    """The layers of a block have a dtype that the block does not have."""
    parts = {parts: keras.dtype_policies.get("bfloat16")}
    mixed = models.sam(dtype=keras.dtype_policies.DTypePolicyMap("float32", parts))
    sam = models.sam()
    mixed.set_weights(sam.get_weights())
    assert {weight.dtype for weight in mixed.weights} == {"float32", "bfloat16"}
    masks = [
        Predictor(model)
        .set_image(drawn()["images"][0].astype("uint8"))
        .predict(points=[[8, 9]])
        .logits
        for model in (sam, mixed)
    ]
    assert np.abs(masks[1] - masks[0]).max() < 0.05 * np.abs(masks[0]).max()


@pytest.mark.once
def test_objects_do_not_see_each_other():
    sam, rng = models.sam(), np.random.default_rng(0)
    images = rng.uniform(0, 255, (1, 32, 32, 3)).astype("float32")
    points = rng.uniform(0, 32, (1, 4, 3, 2)).astype("float32")
    labels = np.array([[[1, -1, -2], [1, 0, -1], [2, 3, -2], [2, 3, 0]]], "int32")
    masks = rng.standard_normal((1, 4, 16, 16)).astype("float32")
    has_mask = np.array([[0, 1, 0, 1]], "float32")
    x = dict(zip(("points", "labels", "masks", "has_mask"), (points, labels, masks, has_mask),
                 strict=True))  # fmt: skip
    together = sam({"images": images, **x})
    for i in range(4):
        kept = labels[0, i] != ABSENT
        one = {name: value[:, i : i + 1] for name, value in x.items()}
        one |= {name: one[name][:, :, kept] for name in ("points", "labels")}
        alone = sam({"images": images, **one})
        for name in ("masks", "iou"):
            both = [ops.convert_to_numpy(y[name]) for y in (together, alone)]
            assert_rounds_alike(both[0][:, i : i + 1], both[1], what=f"{name} of object {i}")


# Paths and sizes ----------------------------------------------------------------------------------


@pytest.mark.once
def test_the_original_lists_596_parameters():
    """Blocks are counted, and not built: 14 tensors in each of 32."""
    small = {**models.SMALL_SAM, **PUBLISHED["sam-vit-huge"], "width": 16, "iou_width": 256,
             "prompt_width": 256, "mask_channels": 16, "decoder_heads": 8}  # fmt: skip
    sam = Sam(**{**small, "num_heads": 2})
    table = kft.parameters(sam)
    assert len(table.rows) == 596
    assert sum(row.trainable for row in table.rows) == 593
    kft.train_only(sam, "mask_decoder.iou_prediction_head")
    table = kft.parameters(sam)
    assert sum(row.trainable for row in table.rows) == 6
    assert table.trainable == 132_612


@pytest.mark.once
def test_groups_of_layers_are_found_by_their_names():
    sam = models.sam()
    kft.train_only(sam, "image_encoder.blocks")
    assert {w.path.rpartition("/blocks/")[0] for w in params.weights(sam) if w.trainable} == {
        "image_encoder"
    }
    kft.unfreeze(sam)
    kft.freeze(sam, "image_encoder")
    assert {w.path.split("/")[0] for w in params.weights(sam) if w.trainable} == {
        "prompt_encoder", "mask_decoder",
    }  # fmt: skip
    assert kft.train_only(sam, "mask_decoder.transformer.layers.0.self_attn")


# Copies and files ---------------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize("way", [contracts.saved, contracts.deepcopy, contracts.clone])
def test_copies_keep_adapters_and_marks(way, tmp_path):
    sam = models.sam()
    kft.add_lora(sam, rank=2)
    kft.freeze(sam, "image_encoder")
    models.perturb_adapters(sam)
    contracts.check_copy(sam, way, tmp_path)


@pytest.mark.once
def test_adapters_are_stored_under_the_original_names(tmp_path):
    sam = models.sam()
    kft.add_lora(sam, rank=2)
    models.perturb_adapters(sam)
    kft.save_adapter(sam, tmp_path / "adapter")
    other = models.sam()
    kft.load_adapter(other, tmp_path / "adapter")
    assert models.same(models.values(sam), models.values(other))


@pytest.mark.once
def test_wrong_files_are_named(tmp_path):
    reference = references.original_sam()
    tensors = reference.state_dict()
    for change, message in (
        (lambda x: x.pop("mask_decoder.iou_token.weight"), "is not a"),
        (lambda x: x.pop("prompt_encoder.no_mask_embed.weight"), "missing prompt_encoder.no_mask"),
        (lambda x: x.pop("image_encoder.pos_embed"), "sizes cannot be read"),
        (lambda x: x.update(extra=torch.zeros(2)), "unknown extra"),
    ):
        changed = dict(tensors)
        change(changed)
        torch.save(changed, tmp_path / "sam.pth")
        with pytest.raises(ValueError, match=message):
            kft.load(tmp_path / "sam.pth")
    config = references.hugging_face_sam().config.to_dict()
    for part, key, value in (
        ("vision_config", "use_rel_pos", False),
        ("mask_decoder_config", "hidden_size", 64),
        ("prompt_encoder_config", "num_point_embeddings", 5),
        ("vision_config", "image_size", 33),
        ("vision_config", "global_attn_indexes", [99]),
        ("vision_config", "global_attn_indexes", 1),
        ("vision_config", "num_hidden_layers", None),
        ("vision_config", "num_pos_feats", 3),
        ("prompt_encoder_config", "image_size", 128),
        ("prompt_encoder_config", "patch_size", None),
        ("prompt_encoder_config", "image_embedding_size", 1),
        ("mask_decoder_config", "iou_head_depth", None),
    ):
        with pytest.raises(ValueError, match=f"(?=.*{key})folder"):
            sam_weights.from_hugging_face(
                {**config, part: {**config[part], key: value}}, None, "folder"
            )
    with pytest.raises(ValueError, match="prompt_width must be a multiple of 8"):
        Sam(**{**models.SMALL_SAM, "prompt_width": 12})


@pytest.mark.once
def test_names_of_transformers():
    reference, original = references.hugging_face_sam(), references.original_sam()
    found = {sam_weights.hugging_face_name(name) for name in original.state_dict()}
    theirs = set(reference.state_dict())
    assert found == {name for name in theirs if "prompt_encoder.shared_embedding" not in name}


@pytest.mark.once
def test_all_layers_are_frozen_and_unfrozen_though_their_paths_have_several_parts():
    sam = models.sam()
    everything = params.parameters(sam).trainable
    kft.freeze(sam)
    assert params.parameters(sam).trainable == 0
    kft.train_only(sam, "mask_decoder")
    assert 0 < params.parameters(sam).trainable < everything
    kft.unfreeze(sam)
    assert params.parameters(sam).trainable == everything


@pytest.mark.once
def test_transformers_reads_what_is_written(tmp_path):
    """All tensors and sizes are those of the model that was read; kft reads them, too."""
    from transformers import SamModel

    reference = references.hugging_face_sam()
    reference.save_pretrained(tmp_path / "theirs")
    sam = kft.load(tmp_path / "theirs")
    kft.backbones.save(sam, tmp_path / "ours")
    again, found = SamModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(found.values())
    for name, tensor in reference.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert kft.load(tmp_path / "ours").get_config() == sam.get_config()
    kft.backbones.save(sam, tmp_path / "half", "float16")
    halves = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("half", "ours")]
    assert 2 * halves[0] == pytest.approx(halves[1], rel=0.1)  # names take some bytes, too


# Images -------------------------------------------------------------------------------------------


@pytest.mark.once
def test_images_are_resized_by_their_longer_side_and_filled_up():
    found = SamImages(8)([np.full((10, 5), 200, "uint8")])["images"][0]
    assert (found[:, :4] == 200).all()
    np.testing.assert_array_equal(found[:, 4:], np.broadcast_to(MEAN.astype("float32"), (8, 4, 3)))
    sam = models.sam()
    pixels = ops.convert_to_numpy(sam.stages[0](found[None]))
    assert not pixels[:, :, 4:].any()
    with pytest.raises(ValueError, match=re.escape("images[0]")):
        sam.encode([np.full((10, 5), 300, "uint16")])
    sam.value_range = (0, 600)
    assert sam.encode([np.full((10, 5), 300, "uint16")])["images"][0, 0, 0, 0] == 127.5
    assert type(sam).from_config(sam.get_config()).value_range == (0, 600)


@pytest.mark.once
def test_what_has_no_prompts_refuses_it():
    sam, image = models.sam(), np.zeros((8, 8), "uint8")
    for call in (
        lambda: kft.Model(sam, kft.heads.Classification(2)),
        lambda: kft.predict(sam, [image]),
        lambda: kft.embed(sam, [image]),
        lambda: kft.replace_head(sam, kft.heads.Classification(2)),
        lambda: kft.fit_frontier(sam, ([image], [image])),
    ):
        with pytest.raises(ValueError, match="must not be a model that takes prompts"):
            call()


@pytest.mark.once
def test_random_weights_are_drawn_for_names():
    assert set(PUBLISHED) <= set(kft.backbones.names())
    assert keras.saving.get_registered_object("kft>Sam") is Sam


@pytest.mark.parametrize("rows", [1, 2])
def test_attention_of_some_rows_at_a_time_is_that_of_the_whole_grid(rows, monkeypatch):
    """The output, and all weights after a step of training; a grid of 4 x 3."""
    results = []
    for in_cache in (rows * 2 * 2 * 3 * 12 * 4, 2**30):  # bytes: images, heads, columns, keys
        monkeypatch.setattr(sam_layers, "_IN_CACHE", in_cache)
        assert sam_layers._rows_together(4, 3, 2 * 2) == (rows if in_cache < 2**30 else 4)
        rng = np.random.default_rng(0)
        inputs = keras.Input((4, 3, 8), batch_size=2)
        model = keras.Model(inputs, GridAttention(8, 2, (4, 3))(inputs))
        for variable in model.weights:
            variable.assign(rng.standard_normal(variable.shape, dtype="float32"))
        x, y = rng.standard_normal((2, 2, 4, 3, 8), dtype="float32")
        model.compile(keras.optimizers.SGD(0.1), "mse")
        found = model.predict_on_batch(x)
        model.train_on_batch(x, y)
        results.append([found, *model.get_weights()])
    for one, other in zip(*results, strict=True):
        assert_rounds_alike(one, other)


@pytest.mark.once
def test_a_part_of_an_image_uses_the_middle_of_relative_positions():
    """Attention over a smaller grid is that of a layer of its size with the rows of its steps."""
    large, small = (GridAttention(8, 2, (side, side)) for side in (5, 3))
    x = np.random.default_rng(0).standard_normal((2, 3, 3, 8), dtype="float32")
    for layer in (large, small):
        layer.build(x.shape)
    rng = np.random.default_rng(1)
    for variable in large.weights:
        variable.assign(rng.standard_normal(variable.shape, dtype="float32"))
    for a, b in zip(large.weights, small.weights, strict=True):
        b.assign(a[2:-2] if "rel_pos" in a.name else a)
    found, expected = (ops.convert_to_numpy(layer(x)) for layer in (large, small))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.once
def test_one_ships_with_kft(monkeypatch):
    """It is loaded without the network, and its masks lie on the cells of their points."""
    monkeypatch.setattr("kft.backbones.sam.family.hub_folder", None)
    sam = kft.load("kft_sam_tiny")
    assert "kft_sam_tiny" in kft.backbones.names()
    folder = SHIPPED / "kft_sam_tiny"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 8e6
    for style in ("fluorescence", "stained"):
        image, labels = simulate_cells(256, style, seed=[9, 9])
        masks = to_masks(labels)[:8]
        points, _ = draw_points(masks, np.random.default_rng(0))
        found = Predictor(sam).set_image(image).predict(points).best
        of_cells = [(labels > 0)[mask].mean() for mask in found]
        assert np.mean(of_cells) > (labels > 0).mean() + 0.1
        assert mask_iou(masks, found).mean() > 0.2
