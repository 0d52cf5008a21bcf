"""What a fine-tune compares and how it trains: a widget for each choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import streamlit as st

from labelrank.class_groups import check_telling
from labelrank.errors import GroupsError
from labelrank.finetune.batches import buffer_size
from labelrank.finetune.decision import GEOMETRY, GROUPS
from labelrank.finetune.design import fitting_orders, fitting_targets
from labelrank.finetune.recipe import HEADS, MEANINGS, TUNE_HEADS, UNITS, recipes
from labelrank.models.config import EncoderConfig
from labelrank.steps.finetune.estimate import parts_of, spec_of, target_parts, target_spec_of
from labelrank.steps.finetune.request import ALL_BLOCKS, DEFAULT_RECIPE, HEADS_ALONE, Design
from labelrank.ui import choices, datasets, feature_files, fine_tune, session
from labelrank.ui.groups_upload import uploaded_groups
from labelrank.ui.messages import error_box, escape
from labelrank.views import comparison_words, measures, questions
from labelrank.words import plural

OTHERS = {"original": "The original order", "reversed": "The reverse"}
OTHER_TARGETS = ("onehot", "smoothing", "tuned-smoothing", "groups")
NO_COST = "likeliest"
COST_TEXT = {NO_COST: "Likeliest class", GEOMETRY: "Cost by class geometry", GROUPS: "Cost by groups"}
MODEL_ORDERS = {"original": "As in the dataset", "ranked": "Ranked"}
BATCHES = {"shuffled": "Shuffled", "sorted": "Sorted by class", "buffer": "Mixed in a buffer"}
BUFFER = 500
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


def choose_question(found: feature_files.ChosenFeatures, *, compact: bool) -> None:
    """Ask what the visitor wants to know, and apply the answer.

    Args:
        compact: On one line, without what each question takes: something else is what the visitor came for.
    """
    chosen = session.choices()
    now = questions.question_of(chosen.design)
    picked = st.radio(
        "What do you want to know?",
        list(questions.QUESTIONS),
        index=list(questions.QUESTIONS).index(now),
        format_func=lambda name: questions.QUESTIONS[name].title,
        captions=None if compact else [fine_tune.question_text(found, name) for name in questions.QUESTIONS],
        horizontal=compact,
        key=f"question_{'compact' if compact else 'whole'}_{now}",
    )
    if picked != now:
        fine_tune.ask(picked)


def choose_design(found: feature_files.ChosenFeatures, *, running: bool) -> None:
    """Show the settings of a fine-tune, folded under a summary, and apply changes.

    Args:
        running: Whether a fine-tune runs: settings that were open are then folded, to leave its progress in sight.
    """
    chosen = session.choices()
    design, names = chosen.design, feature_files.features(found.path).class_names
    question, n_classes = questions.question_of(design), len(names)
    fitting = {
        "orders": fitting_orders(design.orders, n_classes),
        "targets": fitting_targets(design.targets, n_classes),
    }
    if fitting != {name: getattr(design, name) for name in fitting}:
        session.change_design(**fitting)
        st.rerun()
    summary = f"Settings: {comparison_words.design_text(design)}"
    with st.expander(summary, icon=":material/tune:", key=f"settings_{'running' if running else 'idle'}"):
        changes = _COMPARED[question](design, names)
        changes["cost"] = _choose_cost(design)
        _choose_groups(names)
        session.choose(test_split=_choose_test(chosen))
        changes |= _choose_training(design, fine_tune.encoder_of(found), question)
    if session.change_design(**changes) != chosen:
        st.rerun()


def _choose_orders(chosen: Design, names: Sequence[str]) -> dict[str, object]:
    n_classes = len(names)
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
    return {"orders": spec_of(picked, n_random), "seeds": _choose_seeds(chosen, "order"), **_choose_batches(chosen)}


def _choose_targets(chosen: Design, names: Sequence[str]) -> dict[str, object]:
    """Show what targets by class geometry are compared with, and how soft they are."""
    fixed, permuted = target_parts(chosen.targets)
    most = target_parts(fitting_targets("geometry,permuted:1000", len(names)))[1]
    offered = [name for name in OTHER_TARGETS if name != "groups" or session.choices().groups]
    picked = st.pills(
        "Compare class geometry with",
        offered,
        selection_mode="multi",
        default=[name for name in fixed if name in offered],
        format_func=measures.KIND_NAMES.__getitem__,
        key=f"targets_{len(offered)}",
        help="One-hot is plain training. Equal smoothing is label smoothing as soft as the geometry, tuned smoothing "
        "the best on the validation samples; both know nothing of the classes, so a gain over them is the geometry's. "
        "Without one-hot nothing is said of a gain.",
    )
    stops = [n for n in choices.stops(fine_tune.RANDOM_ORDERS, min(permuted, most)) if n <= most]
    n_permuted = permuted
    if len(stops) > 1:
        n_permuted = st.select_slider(
            "Permutations of the classes",
            stops,
            value=min(permuted, most),
            format_func=lambda n: f"{n:,}",
            key=f"permuted_{most}",
            help="The same shares, given to the wrong classes. If these do as well, it is not the geometry that helps. "
            "A claim takes 19 or more.",
        )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        seeds = _choose_seeds(chosen, "target")
        sharpness = st.number_input(
            "Sharpness",
            min_value=0.1,
            max_value=1000.0,
            value=None if chosen.sharpness is None else min(max(chosen.sharpness, 0.1), 1000.0),
            format="%g",
            placeholder="chosen on validation",
            key="sharpness",
            width=260,
            help="How much of a target the true class keeps: near 0 all classes share evenly, 10 is nearly one-hot. "
            "Empty: of 1, 2, 3, 4, 6 and 8 the best on the validation samples.",
        )
    return {"targets": target_spec_of(picked, n_permuted), "seeds": seeds, "sharpness": sharpness}


def _choose_groups(names: Sequence[str]) -> None:
    """Let the visitor upload groups of classes, and forget them."""
    chosen = session.choices().groups
    if chosen is not None and not set(names) <= chosen.keys():
        chosen = session.choose(groups=None).groups  # of another dataset
    given = uploaded_groups(
        names,
        key="groups_of_targets",
        use="They can then be targets and say what a mistake costs, and mistakes within a group are counted.",
    )
    try:
        if given is not None:
            check_telling(given.groups)
    except GroupsError as error:
        error_box(error)
        given = None
    if given is not None:
        of_class = {name: given.names[number] for name, number in zip(names, given.groups, strict=True)}
        if of_class != chosen:
            session.choose(groups=of_class)
            design = session.choices().design
            if design.compares_targets:
                fixed, permuted = target_parts(design.targets)
                session.change_design(targets=target_spec_of([*fixed, GROUPS], permuted))
            st.rerun()
    if chosen:
        n_groups = plural(len(set(chosen.values())), "group")
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(f"{n_groups} of {plural(len(chosen), 'class', 'classes')} are known.", width="content")
            if given is None and st.button("Forget the groups", type="tertiary"):
                session.choose(groups=None)
                st.rerun()


def _choose_cost(chosen: Design) -> str | None:
    """Show what mistakes cost, for decisions beside the likeliest class."""
    offered = [name for name in COST_TEXT if name != GROUPS or session.choices().groups]
    picked = st.segmented_control(
        "Decide by",
        offered,
        default=chosen.cost if chosen.cost in offered else NO_COST,
        required=True,
        format_func=COST_TEXT.__getitem__,
        key=f"cost_{len(offered)}",
        help="The class of a prediction: the likeliest one, or beside it that of the least expected cost, where a "
        "mistake costs less the nearer the classes are. Nothing is trained for it, and both are reported.",
    )
    return None if picked == NO_COST else picked


def _choose_model(chosen: Design, names: Sequence[str]) -> dict[str, object]:
    """Show what the one model that is trained is like."""
    order = st.segmented_control(
        "Order of its outputs",
        list(MODEL_ORDERS),
        default=chosen.orders if chosen.orders in MODEL_ORDERS else "original",
        required=True,
        format_func=MODEL_ORDERS.__getitem__,
        key="model_order",
        help="Which class output 0, 1, .. stands for; the model names them. With a plain softmax it makes no "
        "difference to accuracy.",
    )
    seeds = st.select_slider(
        "Tries",
        choices.stops(fine_tune.SEEDS, chosen.seeds),
        value=chosen.seeds,
        key="seeds_model",
        help="Trained from so many seeds; the one that is best on the validation samples becomes the model.",
    )
    return {"orders": order, "seeds": seeds}


_COMPARED: dict[str, Callable[[Design, Sequence[str]], dict[str, object]]] = {
    questions.ORDER: _choose_orders,
    questions.GEOMETRY: _choose_targets,
    questions.MODEL: _choose_model,
}
"""Question -> what shows the settings of its own."""


def _choose_seeds(chosen: Design, what: str) -> int:
    kind = "heads" if chosen.depth == HEADS_ALONE else "encoder"
    return st.select_slider(
        f"Seeds of each {what}",
        choices.stops(fine_tune.SEEDS, chosen.seeds),
        value=chosen.seeds,
        key=f"seeds_{what}_{kind}",
        width=320,
        help=f"A seed decides the first weights, the order of the batches and dropout. All {what}s train with the same "
        f"seeds, so seeds do not cause the differences between {what}s.",
    )


def _choose_batches(chosen: Design) -> dict[str, object]:
    """Show how the training rows are shuffled; all but a full shuffle is for seeing an order matter."""
    size = buffer_size(chosen.batches)
    kind = "buffer" if chosen.batches.startswith("buffer") else chosen.batches
    with st.container(horizontal=True, vertical_alignment="bottom"):
        picked = st.segmented_control(
            "Batches",
            list(BATCHES),
            default=kind,
            required=True,
            format_func=BATCHES.__getitem__,
            key="batches",
            help="How samples are mixed before training. Shuffled is usual, and there the order cannot matter. Sorted "
            "shows class after class, by position; a buffer mixes only so many samples of that stream at a time, as a "
            "streamed dataset does. With these two the order does matter: they show that this comparison finds it.",
        )
        if picked != "buffer":
            return {"batches": picked}
        n_rows = st.number_input(
            "Buffer (samples)",
            min_value=2,
            max_value=1_000_000,
            value=size if kind == "buffer" and size else BUFFER,
            key="buffer",
            width=200,
            help="So many samples are mixed at a time.",
        )
    return {"batches": f"buffer:{n_rows}"}


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
        return "Samples held out of the training samples" if name == own else f"The split {name}"

    splits = ["", *(split for split in data.splits if split != own)]
    splits += [own] if own else []
    picked = st.selectbox(
        "Tested on",
        splits,
        index=splits.index(chosen.test_split) if chosen.test_split in splits else 0,
        format_func=title,
        key="test_split",
        help="Used once, at the end. Automatic takes the test split if there is one, else the validation split. The "
        "ranking does not use held-out samples either.",
    )
    return picked or None


def _choose_training(chosen: Design, encoder: EncoderConfig | None, question: str) -> dict[str, object]:
    changes = _choose_depth(chosen, encoder, question)
    changes |= {**_choose_recipe(chosen), "flip": _choose_flip()} if chosen.depth != HEADS_ALONE else {}
    changes["head"] = _choose_head(chosen)
    if question != questions.GEOMETRY:
        meaning = st.segmented_control(
            "Training target",
            MEANINGS,
            default=chosen.meaning,
            required=True,
            format_func=MEANING_TEXT.__getitem__,
            key="meaning",
            help="Plain classification is usual. With the others, it matters by construction which classes are "
            "neighbours in the order.",
        )
        st.caption(MEANING_HELP[meaning])
        changes["meaning"] = meaning
        if meaning == "gaussian":
            changes |= _choose_bandwidth(chosen)
    return changes | _choose_numbers(chosen, question)


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


def _choose_depth(chosen: Design, encoder: EncoderConfig | None, question: str) -> dict[str, object]:
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
    if question == questions.MODEL:
        return {"depth": depth}
    # A comparison that takes seconds with heads would take days with an encoder, and the other way round.
    before, after = (Design.starting(one, chosen.target) for one in (chosen.depth, depth))
    counts = ("targets" if question == questions.GEOMETRY else "orders", "seeds")
    as_before = all(getattr(chosen, name) == getattr(before, name) for name in counts)
    # If nothing of them changes here, arms and seeds are what their own widgets say.
    if as_before and any(getattr(before, name) != getattr(after, name) for name in counts):
        return {"depth": depth, **{name: getattr(after, name) for name in counts}}
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


def _choose_numbers(chosen: Design, question: str) -> dict[str, object]:
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
        found: dict[str, object] = {
            "epochs": number("epochs", "Epochs", 1, 10_000, "Passes over the training samples."),
            "batch_size": number("batch_size", "Batch size (samples)", 1, 65_536, "Samples of one update."),
            "learning_rate": number("learning_rate", "Learning rate", 1e-7, 10.0, "At its peak, after warm-up."),
            "weight_decay": number("weight_decay", "Weight decay", 0.0, 10.0, "Decoupled, as AdamW has it."),
            "dropout": number("dropout", "Dropout (fraction)", 0.0, 0.95, "Of the values before the last layer."),
            "head_init_std": number(
                "head_init_std",
                "First weights of the head",
                0.0,
                1.0,
                "Their standard deviation. With 0 all classes start alike, and every order is the same run.",
            ),
        }
        if question != questions.GEOMETRY:
            found["label_smoothing"] = number(
                "label_smoothing", "Label smoothing (fraction)", 0.0, 0.95, "Share of a target spread over all classes."
            )
    return found
