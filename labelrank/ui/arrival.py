"""What the browser does on arrival at a page: a step in its history, focus on the heading, a way to the main action.

Streamlit has no words for these, so a script of a few lines does them; it loads nothing.
"""

import json

import streamlit as st

# Streamlit writes the choices into the address as a step of its own, so that the first Back would stay on the page: a
# step within a page replaces the one before. The heading has the focus where another page was shown before, so that a
# screen reader says where one is; a first visit begins at the top, as everywhere.
_BODY = """<a class="to-action" href="#stMain">Skip to the main action</a>
<script>
((page, cookie) => {
  // In a frame on a Space the cookie is that of another site; then it is kept for this site's frames alone.
  const where = location.protocol === "https:" ? "SameSite=None; Secure; Partitioned" : "SameSite=Lax";
  if (cookie) document.cookie = `${cookie}; ${where}`;
  const before = window.labelrankPage;
  window.labelrankPage = page;
  if (!before) {
    const push = history.pushState.bind(history);
    history.pushState = (state, title, url) =>
      new URL(url, location.href).pathname === location.pathname
        ? history.replaceState(state, title, url)
        : push(state, title, url);
  }
  const main = document.getElementById("stMain");
  main.querySelector(".to-action").onclick = event => {
    event.preventDefault();
    main.querySelector('[data-testid^="stBaseButton-primary"]').focus();
  };
  if (before && before !== page) {
    const heading = main.querySelector("h1");
    heading.tabIndex = -1;
    heading.focus();
  }
})(PAGE, COOKIE);
</script>"""
_SHOW = """<script>
document.querySelector('#stMain [data-testid^="stBaseButton-primary"]')?.scrollIntoView({block: "center"});
</script>"""
_SHOW_PART = """<script>
(part => {
  part.style.scrollMarginTop = "4rem";  // the bar on top of the page
  part.scrollIntoView();
})(document.querySelector(".st-key-" + KEY));
</script>"""
STYLE = """
[data-testid="stElementContainer"]:has(.to-action) { position: absolute; width: 0; }
a.to-action { position: fixed; top: 0.8rem; padding: 0.3rem 0.8rem; border-radius: 0.4rem; }
a.to-action, a.to-action:visited { color: Canvas; background: CanvasText; }
a.to-action:not(:focus) { clip-path: inset(50%); }
.stMain:not(:has([data-testid^="stBaseButton-primary"])) .to-action { display: none; }
"""


def arrive(page: str, cookie: str | None) -> None:
    """Put the script of a page behind its heading; a run of the same page leaves it alone.

    Args:
        page: Title of the page, one of ours.
        cookie: What the browser is to keep for this server: name, value, age and path.
    """
    body = _BODY.replace("PAGE", json.dumps(page)).replace("COOKIE", json.dumps(cookie))
    st.html(body, unsafe_allow_javascript=True)


def show_action() -> None:
    """Bring the main action of the page into sight; a page that grew above it stays where it was scrolled to."""
    st.html(_SHOW, unsafe_allow_javascript=True)


def show_part(key: str) -> None:
    """Bring a part of the page into sight: the start of the container of this key."""
    st.html(_SHOW_PART.replace("KEY", json.dumps(key)), unsafe_allow_javascript=True)
