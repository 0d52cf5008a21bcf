"""Features, or names, in; results out: what `labelrank finetune` and a fine-tune job share.

`finetune` is handed arrays, datasets and encoders; here they are looked up, a comparison is planned and estimated,
finished seeds are kept, and results are written as plain files and read back. Pages need `planning` and `results`
alone, so nothing is imported here.
"""
