"""Fine-tune with the ranked order and with others, and see whether the order matters."""

import streamlit as st

from labelrank.errors import LabelRankError
from labelrank.finetune.design import fitting_orders
from labelrank.finetune.recipe import HEADS, MEANINGS, TUNE_HEADS, UNITS, recipes
from labelrank.jobs.store import Job
from labelrank.models.config import EncoderConfig
from labelrank.steps.finetune.estimate import parts_of, spec_of
from labelrank.steps.finetune.request import ALL_BLOCKS, DEFAULT_RECIPE, HEADS_ALONE, Design
from labelrank.ui import choices, datasets, feature_files, findings, fine_tune, frame, messages, session
from labelrank.ui.findings import Mistake, Results
from labelrank.views import (
    comparison_tables,
    comparison_words,
    confusion_charts,
    curves_chart,
    effect_charts,
    measures,
    orders_chart,
    thumbnails,
    words,
)
from labelrank.views.words import rough_duration

LEAD = (
    "Does the order of the labels matter here? The same training with the ranked order, with others, and with other "
    "seeds tells."
)
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
RECIPE_HELP = "Named settings of an end-to-end fine-tune, from papers and ours."
# Up to so many orders, their table is shown whole.
TABLE_ROWS = 25
VERDICTS = {
    "ranked_better": (st.success, ":material/trending_up:"),
    "order_matters": (st.info, ":material/swap_vert:"),
    "no_effect": (st.info, ":material/balance:"),
    "too_few": (st.warning, ":material/help:"),
    "unsound": (st.error, ":material/error:"),
}


# What is compared


def choose_design(found: feature_files.ChosenFeatures) -> None:
    chosen = session.choices()
    design = chosen.design
    n_classes = len(feature_files.features(found.path).class_names)
    if (fitting := fitting_orders(design.orders, n_classes)) != design.orders:
        session.choose_design(orders=fitting)
        st.rerun()
    with st.expander(comparison_words.orders_text(design), icon=":material/compare_arrows:", key="orders"):
        changes = choose_orders(design, n_classes)
        session.choose(test_split=choose_test(chosen))
    changes |= choose_training(design, fine_tune.encoder_of(found))
    if session.choose_design(**changes) != chosen:
        st.rerun()


def choose_orders(chosen: Design, n_classes: int) -> dict[str, object]:
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
        help="Original is the order that the labels have in the source. The reverse holds the same neighbours as "
        "the ranked order.",
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
            help="What chance alone does. With 19 or more, a ranked order that beats them all has p = 0.05 or "
            "less; with fewer, no result can be called better than chance.",
        )
    seeds = st.select_slider(
        "Seeds of each order",
        choices.stops(fine_tune.SEEDS, chosen.seeds),
        value=chosen.seeds,
        key=f"seeds_{kind}",
        help="A seed decides the first weights, the order of the batches and dropout. All orders train with the "
        "same ones, so their differences are not those of the seeds.",
    )
    return {"orders": spec_of(picked, n_random), "seeds": seeds}


def choose_test(chosen: choices.Choices) -> str | None:
    data = datasets.dataset(chosen.source, wait=False) if chosen.source else None
    if data is None:
        return chosen.test_split
    if len(data.splits) < 2:
        return None
    own = data.split

    def title(name: str) -> str:
        if not name:
            return "Automatic"
        return "Rows held out of those trained on" if name == own else f"The split {name}"

    splits = ["", *(split for split in data.splits if split != own)]
    splits += [own] if own else []
    picked = st.selectbox(
        "Tested on",
        splits,
        index=splits.index(chosen.test_split) if chosen.test_split in splits else 0,
        format_func=title,
        key="test_split",
        help="Looked at once, at the end. Automatic takes the test split where there is one, else the validation "
        "split. Rows that are held out are kept from the ranking, too.",
    )
    return picked or None


# How it trains


def choose_training(chosen: Design, encoder: EncoderConfig | None) -> dict[str, object]:
    with st.expander(comparison_words.training_text(chosen), icon=":material/tune:", key="training"):
        changes = choose_depth(chosen, encoder)
        changes |= {**choose_recipe(chosen), "flip": choose_flip()} if chosen.depth != HEADS_ALONE else {}
        changes["head"] = choose_head(chosen)
        meaning = st.segmented_control(
            "What a position means to the loss",
            MEANINGS,
            default=chosen.meaning,
            required=True,
            format_func=MEANING_TEXT.__getitem__,
            key="meaning",
            help="With plain softmax positions are mere names. With the others, which classes are neighbours "
            "matters by construction.",
        )
        st.caption(MEANING_HELP[meaning])
        changes["meaning"] = meaning
        if meaning == "gaussian":
            changes |= choose_bandwidth(chosen)
        changes |= choose_numbers(chosen)
    return changes


def choose_head(chosen: Design) -> str | None:
    """Show the heads there are; return None for the one that the recipe, or nothing else, says."""
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


def choose_depth(chosen: Design, encoder: EncoderConfig | None) -> dict[str, object]:
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
        "hours for every run, and is for a GPU where the encoder is not tiny.",
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
    start = after if as_before else chosen
    return {"depth": depth, "orders": start.orders, "seeds": start.seeds}


def choose_recipe(chosen: Design) -> dict[str, object]:
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
    st.caption(messages.escape(f"{recipe.source} {comparison_words.recipe_text(recipe)}"))
    return {"recipe": None if name == DEFAULT_RECIPE else name}


def choose_flip() -> bool | None:
    """Show whether pictures are mirrored; return None for what recipe and dataset say by themselves."""
    chosen = session.choices()
    usual = fine_tune.mirrors(chosen)
    picked = st.toggle(
        "Mirror half of the pictures",
        value=usual if chosen.design.flip is None else chosen.design.flip,
        key=f"flip_{chosen.design.recipe}_{chosen.extraction.dataset}",
        help="Left and right change places in training. Off where a mirror image is of another class or of none, as "
        "with digits, letters, and actions to the left or right.",
    )
    return None if picked == usual else picked


def choose_bandwidth(chosen: Design) -> dict[str, object]:
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
            help="Standard deviation of the targets: how far a class's share reaches.",
        )
    return {"unit": unit, "bandwidth": float(bandwidth)}


def choose_numbers(chosen: Design) -> dict[str, object]:
    st.caption("Empty fields take what suits the size of the data, or what the recipe says.")

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


# Jobs


def actions(found: feature_files.ChosenFeatures) -> None:
    base = fine_tune.choices_for(found)
    params = base.finetune_params()
    if twin := fine_tune.active_twin(params):
        session.choose(finetune=twin.id)
        fine_tune.watch(twin)
        return
    job = fine_tune.shown_job()
    current = job is not None and session.same_comparison(job.params, params)
    results = found_by(job) if job else None
    if not (job and current and (job.resumable or results)):
        start(found, base, params)
    if job is not None:
        if not current:
            design = messages.escape(comparison_words.design_text(Design.from_params(job.params)))
            st.caption(f"What follows was started with earlier choices. {design}.")
        show(job, results, base if current else None)


def start(found: feature_files.ChosenFeatures, base: choices.Choices, params: dict[str, object]) -> None:
    """Say in words what would be compared, on what, and how long it takes, and offer to do it."""
    try:
        planned = fine_tune.comparison(found)
    except LabelRankError as error:
        messages.error_box(error, retry="comparison")
        return
    st.markdown(f"**{messages.escape(planned.words)}**")
    parts = [f"Tested once, on {planned.test}."]
    if planned.seconds is None:
        parts.append("How long this takes is not known before it runs.")
    else:
        parts.append(f"About {rough_duration(planned.seconds)} on this device.")
    if planned.control is None:
        parts.append("The control has to come out as the original order does; that shows that the comparison is sound.")
    st.markdown(messages.escape(" ".join(parts)))
    if planned.limits:
        st.info(messages.escape(planned.limits), icon=":material/info:")
    if st.button("Compare the orders", type="primary"):
        fine_tune.start(params, base)
    if before := session.queue_length():
        st.caption(f"Starts after {words.plural(before, 'job')} of this server")


def recompute(base: choices.Choices) -> None:
    """Offer to train anew what is finished."""
    if st.button(
        "Recompute", help="Trains all runs again and replaces these results. The features are used as they are."
    ):
        fine_tune.start(base.finetune_params(recompute=True), base)


def found_by(job: Job) -> Results | None:
    """Return what a job has found by now; where that cannot be read, say so."""
    try:
        return None if job.active else findings.results_of(job)
    except LabelRankError as error:
        messages.error_box(error)
        return None


def show(job: Job, results: Results | None, base: choices.Choices | None = None) -> None:
    """Show a fine-tune: live while it is active, else what it has found, or why it ended.

    Args:
        base: The choices that are compared, where these are the job's and their features are here.
    """
    if job.active:
        fine_tune.watch(job)
        return
    if job.state != "succeeded":
        fine_tune.stopped(job, results, current=base is not None)
    if results is not None:
        show_results(job, results, base if job.state == "succeeded" else None)


# Results


def show_results(job: Job, results: Results, base: choices.Choices | None) -> None:
    report = results.report
    found = report.verdict
    box, icon = VERDICTS[found.finding]
    box(findings.sentence(found.text), icon=icon)
    if found.expected:
        st.caption(findings.sentence(found.expected))
    figures(results)
    finding = orders_chart.orders_finding(report)
    st.subheader(messages.escape(finding), anchor=False)
    st.altair_chart(orders_chart.orders_chart(report), alt=f"Accuracy of every run. {finding}.")
    random = " The dashed line is the mean of the random orders." if "random" in results.arms.values() else ""
    st.caption(f"A point is one seed, the bar is their mean.{random}")
    for notice in report.notices:
        st.caption(f":material/info: {findings.sentence(notice.text)}")
    findings.downloads(results)
    if base is not None:
        recompute(base)
    details(job, results)


def figures(results: Results) -> None:
    """Show the numbers behind the verdict."""
    with st.container(horizontal=True):
        for title, value, help_text in comparison_tables.figures(results.report):
            st.metric(title, value, width="content", help=help_text)


def details(job: Job, results: Results) -> None:
    tabs = {
        "Orders": orders_tab,
        "Variance": variance_tab,
        "Confusions": confusions_tab,
        "Recall": recall_tab,
        "Curves": curves_tab,
        "Control": control_tab,
        "Details": details_tab,
    }
    shown = dict(zip(tabs, st.tabs(list(tabs), key="finetune_tabs", on_change="rerun"), strict=True))
    for name, tab in shown.items():
        if tab.open:
            with tab, messages.guarded(f"tab_{name}"):
                tabs[name](job, results)


def orders_tab(_: Job, results: Results) -> None:
    report = results.report
    metric = st.segmented_control(
        "Metric",
        [name for name in measures.MEASURES if not orders_chart.runs_frame(report, name).empty],
        default="accuracy",
        required=True,
        format_func=lambda name: measures.MEASURES[name].title,
        key="metric",
        help="The verdict is about accuracy. The others are for exploring: of many metrics, one differs by chance.",
    )
    if metric != "accuracy":
        finding = orders_chart.orders_finding(report, metric)
        st.markdown(f"**{messages.escape(finding)}**")
        st.altair_chart(orders_chart.orders_chart(report, metric), alt=f"{finding}.")
    if metric in measures.DISTANCES:
        st.caption("Less is better. Measured along the ranked order, whatever order was trained, which favours it.")
    analysis = report.statistics.get(metric)
    if analysis and analysis.paired:
        finding = effect_charts.paired_finding(analysis, metric)
        st.markdown(f"**{messages.escape(finding)}**")
        st.altair_chart(
            effect_charts.paired_chart(analysis, results.arms, metric),
            alt=f"Differences to the ranked order. {finding}.",
        )
        st.caption(
            "Each order beside the ranked one, with the same seeds. Bars are 95\u00a0% intervals; of twenty of them, "
            "one misses the truth by chance."
        )
    table, columns = comparison_tables.arms_table(report)
    st.dataframe(
        table,
        hide_index=True,
        height="content" if len(table) <= TABLE_ROWS else 35 * (TABLE_ROWS + 1) + 3,
        column_config={
            name: st.column_config.NumberColumn(one.title, format=one.format, help=one.help)
            for name, one in columns.items()
        },
        alt="Mean of every metric for every order.",
    )


def variance_tab(_: Job, results: Results) -> None:
    analysis = results.report.accuracy
    finding = effect_charts.variance_finding(analysis)
    st.markdown(f"**{messages.escape(finding)}**")
    if analysis.variance:
        st.altair_chart(effect_charts.variance_chart(analysis.variance), alt=f"Parts of the variance. {finding}.")
        over = "random orders" if analysis.variance.over == "random" else "all orders"
        st.caption(
            f"Of one run's accuracy over {over}: what changes with the order, with the seed, and with neither alone. "
            "Lines are 95\u00a0% intervals."
        )
    for sentence in comparison_words.power_text(analysis.power):
        st.markdown(messages.escape(sentence))


def confusions_tab(job: Job, results: Results) -> None:
    report = results.report
    arm = choose_arm(results, "confusions")
    counts = findings.confusion(results, arm)
    names, ranked = report.data.class_names, report.label_map.order
    finding = confusion_charts.confusion_finding(counts, ranked)
    st.markdown(f"**{messages.escape(finding)}**")
    for column, title, order in zip(
        st.columns(2), ("In ranked order", "In the original order"), (ranked, range(len(names))), strict=True
    ):
        with column:
            st.markdown(title)
            st.altair_chart(
                confusion_charts.confusion_chart(counts, names, order), alt=f"Confusion matrix. {title}. {finding}."
            )
    st.caption(confusion_charts.confusion_text(counts))
    mistakes = findings.worst(results, arm, job)
    if mistakes:
        st.subheader("Most frequent mistakes", anchor=False)
    moving = any(mistake.moving for mistake in mistakes) and st.toggle(
        "Play", value=True, key="play_mistakes", help="Off shows one frame of each video."
    )
    # Row by row, so that the most frequent come first where a narrow page stacks them.
    for start in range(0, len(mistakes), 2):
        for column, mistake in zip(st.columns(2), mistakes[start : start + 2], strict=False):
            with column, st.container(border=True):
                show_mistake(mistake, results, moving=moving)


def show_mistake(mistake: Mistake, results: Results, *, moving: bool) -> None:
    true, predicted = (messages.name_text(name) for name in (mistake.true, mistake.predicted))
    st.markdown(f"**{true}** taken for **{predicted}**")
    st.caption(
        f"{mistake.count:,} times over {words.plural(results.n_seeds, 'seed')}, "
        f"{words.share_text(mistake.share)} of the class · "
        f"{words.plural(mistake.apart, 'position')} apart in the ranked order"
    )
    alt = f"{words.plural(mistake.shown, 'sample')} of {mistake.true} taken for {mistake.predicted}"
    if moving and mistake.moving:
        st.image(thumbnails.data_uri(mistake.moving, "webp"), alt=f"{alt}, playing")
    elif mistake.strip:
        st.image(mistake.strip, alt=alt)


def recall_tab(_: Job, results: Results) -> None:
    arm = choose_arm(results, "recall")
    frame = confusion_charts.recall_frame(results.report, arm)
    finding = confusion_charts.recall_finding(frame, arm)
    st.markdown(f"**{messages.escape(finding)}**")
    if not frame.empty:
        st.altair_chart(confusion_charts.recall_chart(frame, results.arms[arm]), alt=f"Recall by class. {finding}.")
        rings = " Rings are the mean of the random orders." if frame["random"].notna().any() else ""
        st.caption(f"Classes in ranked order; points are means over the seeds.{rings}")


def curves_tab(_: Job, results: Results) -> None:
    found = findings.curves(results)
    finding = curves_chart.curves_finding(found)
    st.markdown(f"**{messages.escape(finding)}**")
    if found:
        st.altair_chart(curves_chart.curves_chart(found), alt=f"Curves. {finding}.")
        st.caption(curves_chart.CURVES_TEXT)


def control_tab(_: Job, results: Results) -> None:
    control = results.report.control
    text = messages.escape(comparison_words.control_text(control))
    st.markdown(f"{findings.control_icon(control)} {text}")
    st.caption(
        "The control trains a random order whose first weights are permuted along with the classes. Then every class "
        "starts where the original order starts it, and if the machinery is sound, the two end alike."
    )
    table = comparison_tables.control_table(results.report)
    if not table.empty:
        percent = st.column_config.NumberColumn(format="%.2f")
        st.dataframe(
            table,
            hide_index=True,
            column_config=dict.fromkeys(table.columns[1:], percent),
            alt="Accuracy of the original order and of the control, by seed.",
        )


def details_tab(_: Job, results: Results) -> None:
    report = results.report
    for sentence in report.verdict.other_details:
        st.markdown(f"- {findings.sentence(sentence)}")
    messages.titled_table(
        "How it ran", comparison_tables.facts_table(report), "Settings and circumstances of the fine-tune."
    )


def choose_arm(results: Results, name: str) -> str:
    arms = list(results.arms)
    return st.selectbox(
        "Order",
        arms,
        index=arms.index("ranked") if "ranked" in arms else 0,
        format_func=measures.arm_title,
        key=f"arm_{name}",
        width=240,
        help="Whose predictions are shown, over all its seeds.",
    )


frame.header("Fine-tune", LEAD)
try:
    features = feature_files.chosen_features()
except LabelRankError as problem:
    messages.error_box(problem)
    session.choose(features=None)
    features = None
if features is None:
    # A finished comparison is worth looking at though its features are gone.
    shown = fine_tune.shown_job()
    if shown is None:
        messages.empty_state("A fine-tune needs features first.", "Go to Features", "pages/features.py")
    else:
        show(shown, found_by(shown))
else:
    choose_design(features)
    actions(features)
