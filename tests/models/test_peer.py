"""What we write, the peer library reads. Runs where transformers and torch are installed; our suite needs neither."""

from pathlib import Path

import numpy as np
import pytest

CHECKPOINTS = sorted((Path(__file__).parents[2] / "assets" / "checkpoints").iterdir())


@pytest.mark.parametrize("folder", CHECKPOINTS, ids=lambda p: p.name)
def test_embedded_checkpoint_loads_in_transformers_without_a_missing_or_unexpected_tensor(folder):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    model, report = transformers.ViTMAEForPreTraining.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]

    # With nothing masked, its loss-free output is finite and depends on the weights just read.
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    pixels = processor(images=np.full((32, 32, 3), 128, np.uint8), return_tensors="pt")
    with torch.no_grad():
        assert torch.isfinite(model(**pixels).logits).all()
