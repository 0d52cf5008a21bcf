"""The tab Classes of the Ranking page: each view is drawn when it is chosen, and an error stays inside."""

from concurrent.futures import ThreadPoolExecutor

import streamlit

from labelrank.errors import RankingError
from labelrank.ranking.geometry import ClassGeometry
from tests.ui.conftest import run, texts, title


def view(app, name):
    app.segmented_control(key="classes_view").set_value(name).run()
    assert not app.exception
    return app


def subheaders(app):
    return [element.value.replace("\\", "") for element in app.subheader]


def test_the_map_tells_the_nearest_pair_and_how_far_to_believe_it(app, pixel_features, finished_job):
    run(app, job=finished_job(pixel_features()).id)
    assert any("are most alike; the map keeps" in text for text in subheaders(app))
    assert "by chance 1.8 would be" in texts(app).replace("\\", "")


def test_a_class_is_pointed_out_with_its_nearest(app, pixel_features, finished_job):
    run(app, job=finished_job(pixel_features()).id)
    app.selectbox(key="class_on_map").select(3).run()
    assert any("Nearest to **three**" in element.value for element in app.markdown)


def test_the_heat_map_shows_distances_or_confusions_in_any_order(app, pixel_features, finished_job):
    run(app, job=finished_job(pixel_features()).id)
    view(app, "Heat map")
    assert any(text.startswith("Neighbours in order optimal-leaf are") for text in subheaders(app))
    app.selectbox(key="heatmap_order").select("original").run()
    assert any(text.startswith("Neighbours in order original are") for text in subheaders(app))
    app.segmented_control(key="heatmap_cells").set_value("Expected confusions").run()
    assert any("is most often taken for another class" in text for text in subheaders(app))


def test_an_error_of_the_label_space_stays_in_the_tab(app, pixel_features, finished_job, monkeypatch):
    def refuse(*_):
        raise RankingError("The class means lie no farther apart than by chance. Take more rows.")

    monkeypatch.setattr(ClassGeometry, "of", refuse)
    run(app, job=finished_job(pixel_features()).id)
    assert title(app) == "Ranking"
    assert app.dataframe
    assert [error.value for error in app.error] == [
        "The class means lie no farther apart than by chance\\. Take more rows\\."
    ]


def test_groups_are_cut_where_the_slider_stands_and_compared_with_given_ones(app, pixel_features, finished_job):
    run(app, job=finished_job(pixel_features()).id)
    view(app, "Groups")
    app.slider(key="n_groups").set_value(3).run()
    assert not app.exception
    table = next(table.value for table in app.dataframe if "Mean distance" in table.value)
    assert table["Classes"].sum() == 10
    assert len(table) == 3
    given = "name,group\n" + "".join(
        f"{name},{number}\n" for number, names in enumerate(table["Names"]) for name in names.split(", ")
    )
    app.file_uploader(key="groups_to_compare").upload("mine.csv", given.encode(), "text/csv").run()
    assert "agreement with the 3 given groups: adjusted Rand index 1.00" in texts(app).replace("\\", "")
    view(app, "Heat map")
    assert "are the 3 groups that are chosen in Groups" in texts(app).replace("\\", "")


def test_pairs_are_two_lists_with_what_tells_them_apart(app, pixel_features, finished_job):
    run(app, job=finished_job(pixel_features()).id)
    view(app, "Pairs")
    shown = texts(app).replace("\\", "")
    assert "nearest pairs are among the" in shown
    assert "A linear classifier is expected to be right for" in shown
    assert shown.count(" by distance") <= 2


def test_the_report_is_of_the_chosen_order_and_shrinkage(app, pixel_features, finished_job, monkeypatch):
    made = {}
    button = streamlit.download_button

    def noted(label, data, *rest, **more):
        made[label] = data
        return button(label, "", *rest, **more)

    monkeypatch.setattr(streamlit, "download_button", noted)
    run(app, job=finished_job(pixel_features()).id)
    app.selectbox(key="method").set_value("optimal-leaf").run()
    app.selectbox(key="shrinkage").set_value("number").run()
    app.number_input(key="shrinkage_number").set_value(0.4).run()
    assert not app.exception
    # Where it is asked for, there is no session.
    with ThreadPoolExecutor(1) as outside:
        text = outside.submit(made["Report"]).result().decode()
    assert "labelrank report features.parquet --order optimal-leaf --out report.html --shrinkage 0.4" in text
    assert "<td>order: shrinkage</td><td>0.4</td>" in text
