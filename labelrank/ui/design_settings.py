"""What a fine-tune compares and how it trains: a widget for each choice."""

from __future__ import annotations

import streamlit as st

from labelrank.finetune.design import fitting_orders
from labelrank.finetune.recipe import HEADS, MEANINGS, TUNE_HEADS, UNITS, recipes
from labelrank.models.config import EncoderConfig
from labelrank.steps.finetune.estimate import parts_of, spec_of
from labelrank.steps.finetune.request import ALL_BLOCKS, DEFAULT_RECIPE, HEADS_ALONE, Design
from labelrank.ui import choices, datasets, feature_files, fine_tune, session
from labelrank.ui.messages import escape
from labelrank.views import comparison_words

OTHERS = {"original": "The original order", "reversed": "The reverse"}
DEPTHS = {"heads": "A head on frozen features", "blocks": "The last blocks too", "all": "The whole encoder"}
HEAD_TEXT = {name: text[:1].upper() + text[1:] for name, text in comparison_words.HEAD_WORDS.items()}
MEANING_TEXT = {name: text[:1].upper() + text[1:] for name, text in comparison_words.MEANING_WORDS.items()}
MEANING_HELP = {
    "softmax": "Every position is a class of its own and none is near another. In theory the order then does not "
    "matter; the published procedure trains this way.",
    "gaussian": "A class's target is spread over the positions beside its own, so classes that are neighbours in the "
    "order are trained alike.",
    "ordinal": "One score runs along all positions and thresholds cut it into classes. A bad order hurts it badly.",
    "cumulative": "A question for each pair of neighbouring positions: is the class beyond this place?",
    "tree": "Questions that halve the order again and again; classes near each other share most of their answers.",
}
RECIPE_HELP = "Named settings of an end-to-end fine-tune, from papers or from us."


def choose_design(found: feature_files.ChosenFeatures) -> None:
    """Show the settings of the comparison and its training, folded under a summary, and apply changes."""
    chosen = session.choices()
    design = chosen.design
    n_classes = len(feature_files.features(found.path).class_names)
    if (fitting := fitting_orders(design.orders, n_classes)) != design.orders:
        session.change_design(orders=fitting)
        st.rerun()
    with st.expander(comparison_words.orders_text(design), icon=":material/compare_arrows:", key="orders"):
        changes = _choose_orders(design, n_classes)
        session.choose(test_split=_choose_test(chosen))
    changes |= _choose_training(design, fine_tune.encoder_of(found))
    if session.change_design(**changes) != chosen:
        st.rerun()


def _choose_orders(chosen: Design, n_classes: int) -> dict[str, object]:
    fixed, random = parts_of(chosen.orders)
    most = parts_of(fitting_orders(spec_of(fixed, 10_000), n_classes))[1]
    kind = "heads" if chosen.depth == HEADS_ALONE else "encoder"
    picked = st.pills(
        "Compare the ranked order with",
        list(OTHERS),
        selection_mode="multi",
        default=fixed,
        format_func=OTHERS.__getitem__,
        key=f"fixed_{kind}",
        help="Original is the order that the labels have in the source. The reverse has the same neighbours as the "
        "ranked order.",
    )
    stops = [n for n in choices.stops(fine_tune.RANDOM_ORDERS, min(random, most)) if n <= most]
    n_random = random
    if len(stops) > 1:
        n_random = st.select_slider(
            "Random orders",
            stops,
            value=min(random, most),
            format_func=lambda n: f"{n:,}",
            key=f"random_{kind}_{most}",
            help="They show what chance alone does. With 19 or more, a ranked order that beats them all has p = 0.05 "
            "or less; with fewer, no result can be called better than chance.",
        )
    seeds = st.select_slider(
        "Seeds of each order",
        choices.stops(fine_tune.SEEDS, chosen.seeds),
        value=chosen.seeds,
        key=f"seeds_{kind}",
        help="A seed decides the first weights, the order of the batches and dropout. All orders train with the same "
        "seeds, so seeds do not cause the differences between orders.",
    )
    return {"orders": spec_of(picked, n_random), "seeds": seeds}


def _choose_test(chosen: choices.Choices) -> str | None:
    data = datasets.dataset(chosen.source, wait=False) if chosen.source else None
    if data is None:
        return chosen.test_split
    if len(data.splits) < 2:
        return None
    own = data.split

    def title(name: str) -> str:
        if not name:
            return "Automatic"
        return "Rows held out of the training rows" if name == own else f"The split {name}"

    splits = ["", *(split for split in data.splits if split != own)]
    splits += [own] if own else []
    picked = st.selectbox(
        "Tested on",
        splits,
        index=splits.index(chosen.test_split) if chosen.test_split in splits else 0,
        format_func=title,
        key="test_split",
        help="Used once, at the end. Automatic takes the test split if there is one, else the validation split. The "
        "ranking does not use held-out rows either.",
    )
    return picked or None


def _choose_training(chosen: Design, encoder: EncoderConfig | None) -> dict[str, object]:
    with st.expander(comparison_words.training_text(chosen), icon=":material/tune:", key="training"):
        changes = _choose_depth(chosen, encoder)
        changes |= {**_choose_recipe(chosen), "flip": _choose_flip()} if chosen.depth != HEADS_ALONE else {}
        changes["head"] = _choose_head(chosen)
        meaning = st.segmented_control(
            "What a position means to the loss",
            MEANINGS,
            default=chosen.meaning,
            required=True,
            format_func=MEANING_TEXT.__getitem__,
            key="meaning",
            help="With plain softmax, positions are only names. With the others, it matters by construction which "
            "classes are neighbours.",
        )
        st.caption(MEANING_HELP[meaning])
        changes["meaning"] = meaning
        if meaning == "gaussian":
            changes |= _choose_bandwidth(chosen)
        changes |= _choose_numbers(chosen)
    return changes


def _choose_head(chosen: Design) -> str | None:
    """Show the heads; return None for the usual one, which is the recipe's or the first."""
    alone = chosen.depth == HEADS_ALONE
    heads = HEADS if alone else TUNE_HEADS
    usual = heads[0] if alone else recipes()[chosen.recipe or DEFAULT_RECIPE].head
    picked = st.segmented_control(
        "Head",
        heads,
        default=chosen.head if chosen.head in heads else usual,
        required=True,
        format_func=HEAD_TEXT.__getitem__,
        key=f"head_{alone}_{None if alone else chosen.recipe}",
        help="Linear is one dense layer. As published is norm, dense, dropout, dense. Batch norm, linear is the linear "
        "probe of the MAE paper.",
    )
    return None if picked == usual else picked


def _choose_depth(chosen: Design, encoder: EncoderConfig | None) -> dict[str, object]:
    now = chosen.depth if chosen.depth in (HEADS_ALONE, ALL_BLOCKS) else "blocks"
    depths = [name for name in DEPTHS if name != "blocks" or encoder is None or encoder.transformer.num_layers > 1]
    picked = st.segmented_control(
        "What learns",
        depths,
        default=now if now in depths else ALL_BLOCKS,
        required=True,
        format_func=DEPTHS.__getitem__,
        key="depth",
        help="A head on frozen features trains in seconds, many runs at once. Training the encoder takes minutes to "
        "hours for every run, and needs a GPU unless the encoder is tiny.",
    )
    if picked != "blocks":
        depth = picked
    else:
        most = (encoder.transformer.num_layers if encoder else 12) - 1
        count = min(int(chosen.depth) if now == "blocks" else 2, most)
        if most > 1:
            count = st.slider(
                "Last blocks that learn",
                1,
                most,
                count,
                key="blocks",
                help="Counted from the head. Fewer are faster and need less memory.",
            )
        depth = str(count)
    # A comparison that takes seconds with heads would take days with an encoder, and the other way round.
    before, after = Design.starting(chosen.depth), Design.starting(depth)
    as_before = (chosen.orders, chosen.seeds) == (before.orders, before.seeds)
    # If nothing of them changes here, orders and seeds are what their own widgets say.
    if as_before and (before.orders, before.seeds) != (after.orders, after.seeds):
        return {"depth": depth, "orders": after.orders, "seeds": after.seeds}
    return {"depth": depth}


def _choose_recipe(chosen: Design) -> dict[str, object]:
    known = recipes()
    now = chosen.recipe or DEFAULT_RECIPE
    name = st.selectbox(
        "Recipe",
        list(known),
        index=list(known).index(now),
        format_func=lambda key: known[key].title,
        key="recipe",
        help=RECIPE_HELP,
    )
    recipe = known[name]
    st.caption(escape(f"{recipe.source} {comparison_words.recipe_text(recipe)}"))
    return {"recipe": None if name == DEFAULT_RECIPE else name}


def _choose_flip() -> bool | None:
    """Show whether images are mirrored; return None for what recipe and dataset decide."""
    chosen = session.choices()
    usual = fine_tune.mirrors(chosen)
    picked = st.toggle(
        "Mirror half of the images",
        value=usual if chosen.design.flip is None else chosen.design.flip,
        key=f"flip_{chosen.design.recipe}_{chosen.extraction.dataset}",
        help="Swaps left and right in training. Turn it off if a mirror image shows another class or none, as with "
        "digits, letters, and actions to the left or right.",
    )
    return None if picked == usual else picked


def _choose_bandwidth(chosen: Design) -> dict[str, object]:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        unit = st.segmented_control(
            "Distance measured in",
            UNITS,
            default=chosen.unit,
            required=True,
            format_func={"positions": "Positions", "centroids": "Centroid distance"}.__getitem__,
            key="unit",
            help="Positions are evenly spaced. Centroid distance lets classes that lie close together on the axis "
            "share more.",
        )
        bandwidth = st.number_input(
            "Bandwidth (positions)" if unit == "positions" else "Bandwidth (within-class standard deviations)",
            min_value=0.05,
            max_value=1000.0,
            value=min(max(float(chosen.bandwidth), 0.05), 1000.0),
            step=0.5,
            key="bandwidth",
            width=300,
            help="Standard deviation of the targets: how far they spread over neighbours.",
        )
    return {"unit": unit, "bandwidth": float(bandwidth)}


def _choose_numbers(chosen: Design) -> dict[str, object]:
    st.caption("An empty field takes the recipe's value, or one that suits the size of the data.")

    def number(name: str, title: str, low: float, high: float, help_text: str) -> float | None:
        whole, value = isinstance(low, int), getattr(chosen, name)
        return st.number_input(
            title,
            min_value=low,
            max_value=high,
            value=None if value is None else min(max(value, low), high),
            step=1 if whole else None,
            format=None if whole else "%g",
            placeholder="automatic",
            key=name,
            width=200,
            help=help_text,
        )

    with st.container(horizontal=True):
        return {
            "epochs": number("epochs", "Epochs", 1, 10_000, "Passes over the training rows."),
            "batch_size": number("batch_size", "Batch size (samples)", 1, 65_536, "Samples of one update."),
            "learning_rate": number("learning_rate", "Learning rate", 1e-7, 10.0, "At its peak, after warm-up."),
            "weight_decay": number("weight_decay", "Weight decay", 0.0, 10.0, "Decoupled, as AdamW has it."),
            "dropout": number("dropout", "Dropout (fraction)", 0.0, 0.95, "Of the values before the last layer."),
            "label_smoothing": number(
                "label_smoothing", "Label smoothing (fraction)", 0.0, 0.95, "Share of a target spread over all classes."
            ),
        }
