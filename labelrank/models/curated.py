"""Recommended checkpoints, described without a request to the Hub."""

from __future__ import annotations

from dataclasses import dataclass

from labelrank.models.families import FAMILIES


@dataclass(frozen=True)
class Curated:
    """A recommended checkpoint, as it is shown without a request to the Hub."""

    name: str
    title: str
    good_for: str
    model_type: str
    media: str
    """image or clip."""
    num_parameters: int
    hidden_dim: int
    size_bytes: int
    licence: str
    pretrained_on: str
    masked: str
    """Whether it was pre-trained on masked images or clips: yes, in part or no."""


def _on_hub(
    name: str,
    title: str,
    good_for: str,
    family: str,
    parameters: int,
    hidden_dim: int,
    data: str,
    *,
    licence: str = "apache-2.0",
    masked: str | None = None,
) -> Curated:
    is_video = family in ("videomae", "vjepa2")
    masked = masked or FAMILIES[family].masked
    assert masked is not None
    return Curated(
        name=name,
        title=title,
        good_for=good_for,
        model_type=family,
        media="clip" if is_video else "image",
        num_parameters=parameters,
        hidden_dim=hidden_dim,
        size_bytes=4 * parameters,
        licence="cc-by-nc-4.0" if family == "videomae" else licence,
        pretrained_on=data,
        masked=masked,
    )


CURATED = (
    Curated(
        "mae-tiny-digits",
        "Tiny MAE of digits",
        "Trying the whole path in seconds, on the digits it was trained on. Not for other images.",
        model_type="vit_mae",
        media="image",
        num_parameters=522_256,
        hidden_dim=96,
        size_bytes=2_099_288,
        licence="apache-2.0",
        pretrained_on="digits",
        masked="yes",
    ),
    Curated(
        "videomae-tiny-moving-digits",
        "Tiny VideoMAE of moving digits",
        "Trying the whole path with videos in a minute, on the moving digits it was trained on. Not for other videos.",
        model_type="videomae",
        media="clip",
        num_parameters=565_344,
        hidden_dim=96,
        size_bytes=2_270_960,
        licence="apache-2.0",
        pretrained_on="moving-digits",
        masked="yes",
    ),
    _on_hub(
        "facebook/vit-mae-base",
        "ViT-MAE base",
        "Images of any kind: the masked autoencoder to start with.",
        "vit_mae",
        111_907_840,
        768,
        "ImageNet-1k, without labels",
    ),
    _on_hub(
        "facebook/vit-mae-large",
        "ViT-MAE large",
        "Images of any kind, finer features at about three times the time.",
        "vit_mae",
        329_541_888,
        1024,
        "ImageNet-1k, without labels",
    ),
    _on_hub(
        "google/vit-base-patch16-224-in21k",
        "Supervised ViT base",
        "The control: the same architecture trained with labels, to see what the masked autoencoder adds.",
        "vit",
        86_389_248,
        768,
        "ImageNet-21k, with labels",
        masked="no",
    ),
    _on_hub(
        "facebook/dinov2-small",
        "DINOv2 small",
        "Images of any kind, fast: features that separate classes well without fine-tuning.",
        "dinov2",
        22_056_576,
        384,
        "LVD-142M, without labels",
    ),
    _on_hub(
        "facebook/dinov2-base",
        "DINOv2 base",
        "Images of any kind: features that separate classes well without fine-tuning.",
        "dinov2",
        86_580_480,
        768,
        "LVD-142M, without labels",
    ),
    _on_hub(
        "facebook/dinov2-with-registers-small",
        "DINOv2 small with registers",
        "As DINOv2 small; its patch tokens hold no artefacts, so their mean is cleaner.",
        "dinov2_with_registers",
        22_058_112,
        384,
        "LVD-142M, without labels",
    ),
    _on_hub(
        "facebook/dinov3-vits16-pretrain-lvd1689m",
        "DINOv3 small",
        "Images of any kind, fast; its terms have to be accepted on the Hub.",
        "dinov3_vit",
        21_596_544,
        384,
        "LVD-1689M, without labels",
        licence="dinov3-license",
    ),
    _on_hub(
        "facebook/ijepa_vith14_1k",
        "I-JEPA huge",
        "Images of any kind, by a model that predicts features of masked regions, not pixels; best with a GPU.",
        "ijepa",
        630_762_240,
        1280,
        "ImageNet-1k, without labels",
        licence="cc-by-nc-4.0",
    ),
    _on_hub(
        "microsoft/beit-base-patch16-224-pt22k",
        "BEiT base",
        "Beside ViT-MAE base: the same size and masking, but visual tokens instead of pixels.",
        "beit",
        91_965_776,
        768,
        "ImageNet-22k, without labels",
    ),
    _on_hub(
        "facebook/data2vec-vision-base",
        "data2vec-vision base",
        "Beside ViT-MAE base: the same size and masking, but features instead of pixels.",
        "data2vec-vision",
        85_663_824,
        768,
        "ImageNet-1k, without labels",
    ),
    _on_hub(
        "facebook/vit-msn-small",
        "ViT-MSN small",
        "Images of any kind, fast; made for few samples per class.",
        "vit_msn",
        21_665_664,
        384,
        "ImageNet-1k, without labels",
    ),
    _on_hub(
        "facebook/deit-base-distilled-patch16-224",
        "DeiT base, distilled",
        "A second control: trained with labels and a teacher on the images that ViT-MAE saw.",
        "deit",
        87_338_192,
        768,
        "ImageNet-1k, with labels",
    ),
    _on_hub(
        "openai/clip-vit-base-patch32",
        "CLIP base",
        "A control that learnt from texts instead of masks; fast, since its patches are large.",
        "clip_vision_model",
        151_277_313,
        768,
        "400 million images with texts of the web",
        licence="mit",
    ),
    _on_hub(
        "google/siglip-base-patch16-224",
        "SigLIP base",
        "A control that learnt from texts instead of masks.",
        "siglip_vision_model",
        203_155_970,
        768,
        "WebLI, images with texts",
        masked="no",
    ),
    _on_hub(
        "MCG-NJU/videomae-small-finetuned-kinetics",
        "VideoMAE small, Kinetics-400",
        "Videos of actions on a computer without a GPU: the fastest here.",
        "videomae",
        22_033_936,
        384,
        "Kinetics-400, fine-tuned with labels",
    ),
    _on_hub(
        "MCG-NJU/videomae-base",
        "VideoMAE base",
        "Videos of any kind: pre-trained without labels, the one to start with.",
        "videomae",
        94_210_944,
        768,
        "Kinetics-400, without labels",
    ),
    _on_hub(
        "MCG-NJU/videomae-base-finetuned-kinetics",
        "VideoMAE base, Kinetics-400",
        "Videos of people, sports and everyday actions.",
        "videomae",
        86_534_800,
        768,
        "Kinetics-400, fine-tuned with labels",
    ),
    _on_hub(
        "MCG-NJU/videomae-base-finetuned-ssv2",
        "VideoMAE base, Something-Something v2",
        "Videos where the motion decides, not the scene: hands that push, lift, cover.",
        "videomae",
        86_361_006,
        768,
        "Something-Something v2, fine-tuned with labels",
    ),
    _on_hub(
        "MCG-NJU/videomae-large",
        "VideoMAE large",
        "Videos of any kind, finer features at about three times the time; best with a GPU.",
        "videomae",
        342_996_992,
        1024,
        "Kinetics-400, without labels",
    ),
    _on_hub(
        "MCG-NJU/videomae-large-finetuned-kinetics",
        "VideoMAE large, Kinetics-400",
        "Videos of people, sports and everyday actions, when there is a GPU.",
        "videomae",
        304_270_736,
        1024,
        "Kinetics-400, fine-tuned with labels",
    ),
    _on_hub(
        "facebook/vjepa2-vitl-fpc64-256",
        "V-JEPA 2 large",
        "Videos of any kind, by a model that predicts features of masked regions; clips of 64 frames need a GPU.",
        "vjepa2",
        325_971_328,
        1024,
        "VideoMix22M, without labels",
        licence="mit",
    ),
)
"""Sizes are those of float32 weights, from the architecture; the licences and data, from the model cards."""

EMBEDDED = {one.name: one.good_for for one in CURATED if "/" not in one.name}
"""Embedded checkpoint -> what it is good for."""

_MANY_IMAGES = 20_000
"""ViT-MAE base takes a quarter of an hour for them on two cores, DINOv2 small four minutes."""


def suggested(media: str, samples: int, *, gpu: bool) -> Curated:
    """Return the checkpoint to begin with for a dataset that no embedded one was trained on.

    Args:
        media: image or clip.
        samples: How many there are.
        gpu: Whether a GPU encodes them.
    """
    if media == "clip":
        name = "MCG-NJU/videomae-base" if gpu else "MCG-NJU/videomae-small-finetuned-kinetics"
    else:
        name = "facebook/vit-mae-base" if gpu or samples <= _MANY_IMAGES else "facebook/dinov2-small"
    return next(one for one in CURATED if one.name == name)
