"""Extract: the names of a dataset and a checkpoint in, a features file out.

`features` is handed its dataset and encoder; here they are looked up, results are found again by the digest of all
that determines them, and an extraction ends early where its ranking asks for no more samples. Pages need `request` and
`plan` alone, so nothing is imported here.
"""
