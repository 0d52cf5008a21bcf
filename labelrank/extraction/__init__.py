"""Names in, features file out: what `labelrank extract` and an extraction job share.

`features` is handed its dataset and encoder; here they are looked up, results are found again by the digest of all
that determines them, and an extraction ends early where its ranking asks for no more samples.
"""

from labelrank.extraction.planning import PREPROCESSINGS, Plan, Request, plan
from labelrank.extraction.work import Outcome, extract, obtain, run

__all__ = ["PREPROCESSINGS", "Outcome", "Plan", "Request", "extract", "obtain", "plan", "run"]
